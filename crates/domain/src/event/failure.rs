//! Failures: of model requests, of whole turns, and of what a turn can do without.

use serde::{Deserialize, Serialize};

/// Why a model request or a whole turn failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// The kind, for programs.
    pub kind: FailureKind,
    /// The provider's own message where there is one, for people.
    pub message: String,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The provider is overloaded or answered with a server error.
    ModelOverloaded,
    /// The provider limits our rate.
    ModelRateLimited,
    /// The provider refused the request.
    ModelRequestFailed,
    /// The provider refused a request with images or documents that it had not answered to before. They may be why,
    /// so the model is told that they were left out, and asked again.
    MediaRefused,
    /// No such provider, or no usable key for it.
    ModelUnavailable,
    /// The provider refused the key.
    ModelAuthentication,
    /// The account with the provider is out of credit.
    Billing,
    /// The context does not fit the model, even compacted.
    ContextOverflow,
    /// The turn made more model requests than a turn may.
    TurnLimit,
    /// The server stopped while the request was under way; it is made again.
    Restarted,
    /// An MCP server can't be reached or does not speak the protocol; the turn goes on without its tools.
    McpConnection,
    /// An MCP server refused the credentials, or wants some; the turn goes on without its tools.
    McpAuthentication,
    /// A repository wants to know who asks; the session goes on without it.
    RepositoryAuthentication,
    /// A repository is not for us; the session goes on without it.
    RepositoryForbidden,
    /// There is no such repository; the session goes on without it.
    RepositoryNotFound,
    /// A repository does not have what was to be checked out; the session goes on without it.
    RepositoryCheckout,
    /// A repository could not be cloned for another reason; the session goes on without it.
    RepositoryClone,
    /// Something in a repository should be a skill and is none; the session goes on without it.
    RepositorySkill,
    /// A process of the session wanted to reach a host that its environment does not let it reach.
    HostDenied,
    /// Secrets of the session's vaults are of no use in its sandbox.
    SecretsLeftOut,
    /// What the session's environment needs could not be installed.
    EnvironmentBuild,
    /// A fault of ours.
    Internal,
}

impl FailureKind {
    /// The kind's stable code.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ModelOverloaded => "model_overloaded_error",
            Self::ModelRateLimited => "model_rate_limited_error",
            Self::ModelRequestFailed => "model_request_failed_error",
            Self::MediaRefused => "media_refused_error",
            Self::ModelUnavailable => "model_unavailable_error",
            Self::ModelAuthentication => "model_authentication_error",
            Self::Billing => "billing_error",
            Self::ContextOverflow => "context_overflow_error",
            Self::TurnLimit => "tool_use_limit_reached_error",
            Self::Restarted => "restarted",
            Self::McpConnection => "mcp_connection_failed_error",
            Self::McpAuthentication => "mcp_authentication_failed_error",
            Self::RepositoryAuthentication => "repository_authentication_error",
            Self::RepositoryForbidden => "repository_forbidden_error",
            Self::RepositoryNotFound => "repository_not_found_error",
            Self::RepositoryCheckout => "repository_checkout_error",
            Self::RepositoryClone => "repository_clone_error",
            Self::RepositorySkill => "repository_skill_error",
            Self::HostDenied => "host_denied_error",
            Self::SecretsLeftOut => "secrets_left_out_error",
            Self::EnvironmentBuild => "environment_build_error",
            Self::Internal => "unknown_error",
        }
    }
}
