//! What went wrong with a request, before any dialect words it; and the one place that maps the engine's
//! errors to statuses and codes.
//!
//! Handlers return a [`Fault`]; [`render`] turns it into the body that the caller's dialect prescribes.

use axum::body::Body;
use axum::extract::{Extension, Request};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use oma_domain::session::Rejection;
use oma_engine::checkpoints::CheckpointError;
use oma_engine::{Error, MemoryError, SkillError};
use oma_sandbox::files;
use serde_json::{Value, json};

use crate::dialect::Dialect;
use crate::request_id::RequestId;
use crate::validate::Tree;

/// A request that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Option<Value>,
    retry_after: Option<u32>,
    challenge: Option<&'static str>,
    cause: Option<String>,
}

/// The result of a handler.
pub type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    /// A fault with a stable code and a text for people.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            status,
            code,
            message: message.into(),
            details: None,
            retry_after: None,
            challenge: None,
            cause: None,
        }))
    }

    /// A request that fails validation: every field that is wrong, with what is wrong about it.
    #[must_use]
    pub fn invalid(issues: &Tree) -> Self {
        let message = format!("The request is not valid: {}", issues.first());
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message).with_details(issues.to_json())
    }

    /// A request with one bad field (a path such as `["messages", "0"]`).
    #[must_use]
    pub fn invalid_field(path: &[&str], problem: impl Into<String>) -> Self {
        let mut issues = Tree::default();
        let mut node = &mut issues;
        for name in path {
            node = node.at(name);
        }
        node.push(problem);
        Self::invalid(&issues)
    }

    /// Something that this server can't do, named by the request field that asks for it.
    #[must_use]
    pub fn unsupported(field: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let mut issues = Tree::default();
        issues.at(field).push(message.clone());
        let text = format!("{field}: {message}");
        Self::new(StatusCode::BAD_REQUEST, "unsupported", text).with_details(issues.to_json())
    }

    /// A fault of ours. `cause` goes to the log only.
    #[must_use]
    pub fn internal(cause: impl Into<String>) -> Self {
        let message = "Something went wrong on the server; its log has more under this request's id.";
        let mut fault = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message);
        fault.0.cause = Some(cause.into());
        fault
    }

    /// Adds the tree of bad fields.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.0.details = Some(details);
        self
    }

    /// Adds after how many seconds to try again.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after = Some(seconds);
        self
    }

    /// Adds the `WWW-Authenticate` challenge.
    #[must_use]
    pub fn with_challenge(mut self, challenge: &'static str) -> Self {
        self.0.challenge = Some(challenge);
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable code, in the openclaw dialect's spelling.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The text for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The tree of bad fields.
    #[must_use]
    pub fn details(&self) -> Option<&Value> {
        self.0.details.as_ref()
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        let fault = |status, code| Self::new(status, code, text.clone());
        match error {
            Error::AgentNotFound => fault(StatusCode::NOT_FOUND, "agent_not_found"),
            Error::EnvironmentNotFound => fault(StatusCode::NOT_FOUND, "environment_not_found"),
            Error::DeploymentNotFound => fault(StatusCode::NOT_FOUND, "deployment_not_found"),
            Error::DeploymentArchived => fault(StatusCode::CONFLICT, "deployment_archived"),
            Error::TooManyDeployments(_) => fault(StatusCode::CONFLICT, "too_many_deployments"),
            Error::RunNotFound => fault(StatusCode::NOT_FOUND, "deployment_run_not_found"),
            Error::WebhookNotFound => fault(StatusCode::NOT_FOUND, "webhook_not_found"),
            Error::TooManyWebhooks(_) => fault(StatusCode::CONFLICT, "too_many_webhooks"),
            Error::Vault(error) => vault(error, text),
            Error::Memory(error) => memory(&error, text),
            Error::Skill(error) => skill(error, text),
            Error::Checkpoint(error) => checkpoint(&error, text),
            Error::SessionNotFound => fault(StatusCode::NOT_FOUND, "session_not_found"),
            Error::WorkspaceNotFound => fault(StatusCode::NOT_FOUND, "workspace_not_found"),
            Error::AuditNotFound => fault(StatusCode::NOT_FOUND, "audit_not_found"),
            Error::ApiKeyNotFound => fault(StatusCode::NOT_FOUND, "key_not_found"),
            Error::ApiKeyRevoked => fault(StatusCode::CONFLICT, "key_revoked"),
            Error::TooManyKeys(_) => fault(StatusCode::CONFLICT, "too_many_keys"),
            Error::TooManySessions(_) => fault(StatusCode::TOO_MANY_REQUESTS, "quota_exceeded"),
            Error::TooManyUsers(_) => {
                fault(StatusCode::TOO_MANY_REQUESTS, "signup_full").with_retry_after(3600)
            }
            Error::UserExists => fault(StatusCode::CONFLICT, "user_exists"),
            Error::UserNotFound => fault(StatusCode::NOT_FOUND, "user_not_found"),
            Error::SecretShown => fault(StatusCode::CONFLICT, "secret_shown"),
            Error::AgentArchived => fault(StatusCode::CONFLICT, "agent_archived"),
            Error::VersionConflict { .. } => fault(StatusCode::CONFLICT, "version_conflict"),
            Error::EnvironmentExists => fault(StatusCode::CONFLICT, "environment_exists"),
            Error::EnvironmentArchived => fault(StatusCode::CONFLICT, "environment_archived"),
            Error::EnvironmentInUse(_) => fault(StatusCode::CONFLICT, "environment_in_use"),
            Error::SessionExists => fault(StatusCode::CONFLICT, "session_exists"),
            Error::InvalidParentToken => fault(StatusCode::FORBIDDEN, "invalid_parent_token"),
            Error::InvalidWorkToken => fault(StatusCode::UNAUTHORIZED, "invalid_work_token")
                .with_challenge("Bearer error=\"invalid_token\""),
            Error::WorkNotFound => fault(StatusCode::NOT_FOUND, "work_not_found"),
            Error::NotSelfHosted => fault(StatusCode::BAD_REQUEST, "environment_not_self_hosted"),
            Error::Work(_) => fault(StatusCode::CONFLICT, "work_state"),
            Error::LeaseLost(_) => fault(StatusCode::PRECONDITION_FAILED, "heartbeat_precondition_failed"),
            Error::AgentNotAllowed => fault(StatusCode::FORBIDDEN, "agent_not_in_allowlist"),
            Error::MaxDepth => fault(StatusCode::FORBIDDEN, "max_subagent_depth_reached"),
            Error::NotParentsEnvironment => fault(StatusCode::FORBIDDEN, "forbidden"),
            Error::Unsupported { field, message } => Self::unsupported(field, message),
            Error::NotBudgetable(_) => fault(StatusCode::BAD_REQUEST, "model_not_budgetable"),
            Error::InvalidModel(problem) => {
                let mut issues = Tree::default();
                issues.at("model").push(problem);
                fault(StatusCode::BAD_REQUEST, "invalid_model").with_details(issues.to_json())
            }
            Error::Rejected(rejection) => rejected(&rejection, text),
            Error::KeyReused => fault(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
            Error::File(error) => file(error),
            Error::Files(error) => kept_file(error, text),
            Error::CompactionFailed(_) => fault(StatusCode::BAD_GATEWAY, "compact_failed"),
            Error::Unavailable(_) => {
                fault(StatusCode::SERVICE_UNAVAILABLE, "unavailable").with_retry_after(1)
            }
            Error::DiskFull => fault(StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
            Error::ReadOnly => fault(StatusCode::SERVICE_UNAVAILABLE, "read_only"),
            Error::Internal(cause) => Self::internal(cause),
        }
    }
}

fn checkpoint(error: &CheckpointError, text: String) -> Fault {
    match error {
        CheckpointError::NotFound => Fault::new(StatusCode::NOT_FOUND, "checkpoint_not_found", text),
        CheckpointError::TooMany(_) => Fault::new(StatusCode::CONFLICT, "too_many_checkpoints", text),
        CheckpointError::TooLarge(_) => {
            Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "workspace_too_large", text)
        }
        CheckpointError::Damaged(_) => {
            Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "checkpoint_damaged", text)
        }
        CheckpointError::Store(_) => Fault::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "checkpoint_store_unavailable",
            text,
        )
        .with_retry_after(30),
    }
}

fn rejected(rejection: &Rejection, text: String) -> Fault {
    match rejection {
        Rejection::NotRunning => Fault::new(StatusCode::CONFLICT, "session_not_running", text),
        Rejection::Busy => Fault::new(StatusCode::CONFLICT, "session_busy", text),
        Rejection::QuotaExceeded(_) => Fault::new(StatusCode::TOO_MANY_REQUESTS, "quota_exceeded", text),
        Rejection::QueueFull => {
            Fault::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", text).with_retry_after(5)
        }
        Rejection::TooManyChildren => Fault::new(StatusCode::CONFLICT, "too_many_children", text),
        Rejection::TooManyThreads => Fault::new(StatusCode::CONFLICT, "too_many_threads", text),
        Rejection::TooManyRuns => Fault::new(StatusCode::CONFLICT, "too_many_workflow_runs", text),
        Rejection::RunOpen => Fault::new(StatusCode::CONFLICT, "workflow_run_open", text),
        Rejection::NoThread => Fault::new(StatusCode::NOT_FOUND, "thread_not_found", text),
        Rejection::OfThread => Fault::new(StatusCode::CONFLICT, "session_is_a_thread", text),
        Rejection::NotAsking => Fault::new(StatusCode::CONFLICT, "confirm_tool_failed", text),
        Rejection::NotAwaited => Fault::new(StatusCode::CONFLICT, "tool_result_not_awaited", text),
        Rejection::AwaitsAnswers(_) => Fault::new(StatusCode::CONFLICT, "awaits_answers", text),
        Rejection::Archived => Fault::new(StatusCode::CONFLICT, "session_archived", text),
        Rejection::OutcomeActive => Fault::new(StatusCode::CONFLICT, "outcome_active", text),
        Rejection::BudgetCreateOnly => Fault::new(StatusCode::BAD_REQUEST, "budget_create_only", text),
        Rejection::BudgetNotRaised => Fault::new(StatusCode::BAD_REQUEST, "budget_not_raised", text),
        Rejection::NothingToCompact => Fault::new(StatusCode::CONFLICT, "nothing_to_compact", text),
        Rejection::Stale => Fault::new(StatusCode::CONFLICT, "session_busy", text),
    }
}

fn vault(error: oma_vault::Error, text: String) -> Fault {
    use oma_vault::Error as Vault;
    match error {
        Vault::VaultNotFound => Fault::new(StatusCode::NOT_FOUND, "vault_not_found", text),
        Vault::CredentialNotFound => Fault::new(StatusCode::NOT_FOUND, "credential_not_found", text),
        Vault::Invalid { field, message } => Fault::invalid_field(&[field], message),
        Vault::VaultArchived => Fault::new(StatusCode::CONFLICT, "vault_archived", text),
        Vault::CredentialArchived => Fault::new(StatusCode::CONFLICT, "credential_archived", text),
        Vault::CredentialExists => Fault::new(StatusCode::CONFLICT, "credential_exists", text),
        Vault::TooManyCredentials(_) => Fault::new(StatusCode::CONFLICT, "too_many_credentials", text),
        Vault::Conflict => Fault::new(StatusCode::CONFLICT, "credential_conflict", text),
        Vault::Refresh { .. } => Fault::new(StatusCode::BAD_GATEWAY, "credential_expired", text),
        Vault::AlreadyDone(_) | Vault::Unreadable(_) => Fault::internal(text),
        Vault::Store(error) => Error::from(error).into(),
    }
}

fn memory(error: &MemoryError, text: String) -> Fault {
    let missing = |code| Fault::new(StatusCode::NOT_FOUND, code, text.clone());
    let refused = |code| Fault::new(StatusCode::CONFLICT, code, text.clone());
    match error {
        MemoryError::StoreNotFound => missing("memory_store_not_found"),
        MemoryError::NotFound => missing("memory_not_found"),
        MemoryError::VersionNotFound => missing("memory_version_not_found"),
        MemoryError::StoreArchived => refused("memory_store_archived"),
        MemoryError::PathConflict { memory, path } => refused("memory_path_conflict").with_details(json!({
            "conflicting_memory_id": memory.as_str(),
            "conflicting_path": path.as_str(),
        })),
        MemoryError::PreconditionFailed => refused("memory_precondition_failed"),
        MemoryError::TooMany(_) => refused("too_many_memories"),
        MemoryError::TooManyStores(_) => refused("too_many_memory_stores"),
        MemoryError::VersionInUse => refused("memory_version_in_use"),
    }
}

fn skill(error: SkillError, text: String) -> Fault {
    match error {
        SkillError::NotFound => Fault::new(StatusCode::NOT_FOUND, "skill_not_found", text),
        SkillError::VersionNotFound => Fault::new(StatusCode::NOT_FOUND, "skill_version_not_found", text),
        SkillError::HasVersions(_) => Fault::new(StatusCode::CONFLICT, "skill_has_versions", text),
        SkillError::TooMany(_) => Fault::new(StatusCode::CONFLICT, "too_many_skills", text),
        SkillError::TooManyVersions(_) => Fault::new(StatusCode::CONFLICT, "too_many_skill_versions", text),
    }
}

fn kept_file(error: oma_engine::files::Error, text: String) -> Fault {
    use oma_engine::files::Error as Kept;
    match error {
        Kept::NotFound => Fault::new(StatusCode::NOT_FOUND, "file_not_found", text),
        Kept::Expired => Fault::new(StatusCode::NOT_FOUND, "file_expired", text),
        Kept::NotDownloadable => Fault::new(StatusCode::BAD_REQUEST, "file_not_downloadable", text),
        Kept::TooLarge(_) => Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "file_too_large", text),
        Kept::NoRoom(_) => Fault::new(StatusCode::INSUFFICIENT_STORAGE, "storage_quota_exceeded", text),
        Kept::Invalid { .. } => Fault::new(StatusCode::BAD_REQUEST, "invalid_request", text),
        Kept::ResourceNotFound => Fault::new(StatusCode::NOT_FOUND, "resource_not_found", text),
        Kept::TooManyResources(_) => Fault::new(StatusCode::CONFLICT, "too_many_resources", text),
        Kept::SessionNotFound => Error::SessionNotFound.into(),
        Kept::DiskFull => Error::DiskFull.into(),
        Kept::Store(error) => Error::from(error).into(),
        Kept::Internal(cause) => Fault::internal(cause),
    }
}

fn file(error: files::Error) -> Fault {
    let text = error.to_string();
    match error {
        files::Error::NotFound => Fault::new(StatusCode::NOT_FOUND, "file_not_found", text),
        files::Error::InvalidPath(_) => Fault::new(StatusCode::BAD_REQUEST, "invalid_path", text),
        files::Error::TooLarge(_) => Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "file_too_large", text),
        files::Error::Full => Fault::new(StatusCode::INSUFFICIENT_STORAGE, "workspace_full", text),
        files::Error::Io(error) => Fault::internal(format!("workspace file: {error}")),
    }
}

impl From<files::Error> for Fault {
    fn from(error: files::Error) -> Self {
        file(error)
    }
}

impl IntoResponse for Fault {
    /// Only the status; [`render`] adds the body, because only it knows the dialect.
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives every fault the body of the caller's dialect, and logs what a client is not told.
pub(crate) async fn render(
    Extension(dialect): Extension<Dialect>,
    Extension(id): Extension<RequestId>,
    request: Request,
    next: Next,
) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let Some(fault) = response.extensions_mut().remove::<Fault>() else {
        return response;
    };
    if let Some(cause) = &fault.0.cause {
        tracing::error!(request_id = %id, %method, path, code = fault.code(), cause, "request failed");
    } else if fault.status().is_server_error() {
        tracing::warn!(request_id = %id, %method, path, code = fault.code(), "request refused");
    }
    *response.status_mut() = dialect.status(&fault);
    let body = dialect.render(&fault, id.as_str()).to_string();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.remove(header::CONTENT_LENGTH);
    if let Some(seconds) = fault.0.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if dialect.is_definite(&fault) {
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
    }
    if let Some(challenge) = fault.0.challenge {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    *response.body_mut() = Body::from(body);
    response
}

/// Answers for paths that no route has.
pub(crate) async fn unknown_path(uri: Uri) -> Fault {
    let path: String = uri.path().chars().take(200).collect();
    Fault::new(
        StatusCode::NOT_FOUND,
        "not_found",
        format!("No route has the path {path}"),
    )
}

/// Answers for methods that a path does not have; the router adds which ones it has.
pub(crate) async fn wrong_method(method: Method, uri: Uri) -> Fault {
    let path: String = uri.path().chars().take(200).collect();
    let method: String = method.as_str().chars().take(20).collect();
    Fault::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{path} does not take {method}"),
    )
}

#[cfg(test)]
mod tests;
