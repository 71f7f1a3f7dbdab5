//! What can go wrong in the engine. The API maps each to a status and a code of its dialect.

use oma_domain::event::Failure;
use oma_domain::session::Rejection;

use crate::checkpoints::CheckpointError;
use crate::memories::MemoryError;
use crate::skills::SkillError;

/// What can go wrong in the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such agent in this workspace.
    #[error("no agent has this id")]
    AgentNotFound,
    /// The agent is archived and serves no new work.
    #[error("the agent is archived")]
    AgentArchived,
    /// The agent was updated meanwhile.
    #[error("expected version {expected}, got {actual}")]
    VersionConflict {
        /// The version that the client built on.
        expected: u32,
        /// The current version.
        actual: u32,
    },
    /// No such environment in this workspace.
    #[error("no environment has this id")]
    EnvironmentNotFound,
    /// Another environment has this name.
    #[error("an environment with this name exists already")]
    EnvironmentExists,
    /// The environment is archived and takes no new sessions.
    #[error("the environment is archived")]
    EnvironmentArchived,
    /// Sessions refer to the environment.
    #[error("{0} sessions use this environment")]
    EnvironmentInUse(u64),
    /// No such deployment in this workspace.
    #[error("no deployment has this id")]
    DeploymentNotFound,
    /// The deployment is archived, for good.
    #[error("the deployment is archived")]
    DeploymentArchived,
    /// The workspace has as many deployments as it may have.
    #[error("the workspace has {0} deployments that are not archived; more are not possible")]
    TooManyDeployments(u32),
    /// No such run in this workspace.
    #[error("no run has this id")]
    RunNotFound,
    /// No such webhook endpoint in this workspace.
    #[error("no webhook endpoint has this id")]
    WebhookNotFound,
    /// The workspace has as many webhook endpoints as it may have.
    #[error("the workspace has {0} webhook endpoints; more are not possible")]
    TooManyWebhooks(u32),
    /// A vault or credential.
    #[error(transparent)]
    Vault(oma_vault::Error),
    /// A memory store or something in it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A skill or a version of one.
    #[error(transparent)]
    Skill(#[from] SkillError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// No such session in this workspace.
    #[error("no session has this id")]
    SessionNotFound,
    /// The chosen session id is taken (by another agent, or by another workspace).
    #[error("a session with this id exists already")]
    SessionExists,
    /// No such workspace, or none that the caller may see.
    #[error("no workspace has this id")]
    WorkspaceNotFound,
    /// No such entry of the audit trail in this workspace.
    #[error("no entry of the audit trail has this id")]
    AuditNotFound,
    /// No such API key in this workspace.
    #[error("no API key has this id")]
    ApiKeyNotFound,
    /// The API key is revoked, for good.
    #[error("the API key is revoked")]
    ApiKeyRevoked,
    /// The workspace has as many API keys as it may have.
    #[error("the workspace has {0} API keys that are not revoked; more are not possible")]
    TooManyKeys(u32),
    /// The workspace has as many sessions as it may have.
    #[error("the workspace has {0} sessions, the most that it may have; delete some")]
    TooManySessions(u32),
    /// As many people as possible have signed up.
    #[error("{0} users have signed up; more are not possible now")]
    TooManyUsers(u32),
    /// Somebody with that GitHub account has signed up.
    #[error("somebody with that account has signed up")]
    UserExists,
    /// The key is nobody's who signed up.
    #[error("no user has this key")]
    UserNotFound,
    /// The call was carried out before, and its secret was told then.
    #[error(
        "this call was carried out before, and its secret was shown then; rotate the key for another one"
    )]
    SecretShown,
    /// The parent token is not one of this server's, has expired, or its session is gone.
    #[error("the parent token is not valid")]
    InvalidParentToken,
    /// The work token is not one of this server's, has expired, or its item is somebody else's.
    #[error("the work token is not valid")]
    InvalidWorkToken,
    /// No such work item in this environment.
    #[error("no work item has this id")]
    WorkNotFound,
    /// Only environments whose tools run with their developers have work.
    #[error("the environment is not self-hosted")]
    NotSelfHosted,
    /// The work item does not stand so.
    #[error(transparent)]
    Work(#[from] oma_domain::work::Refusal),
    /// The work item's last heartbeat is not the one that its worker knows of: the item, as it stands.
    #[error("the last heartbeat is not the expected one: the lease is lost")]
    LeaseLost(Box<oma_domain::work::Work>),
    /// The agent is not one of those that the parent may call.
    #[error("the parent may not call this agent")]
    AgentNotAllowed,
    /// Tasks may not be passed on any further.
    #[error("tasks may not be passed on any further from this session")]
    MaxDepth,
    /// A child runs where its parent does.
    #[error("a session that another one opens runs in that one's environment")]
    NotParentsEnvironment,
    /// This server can't run what the agent or environment asks for.
    #[error("{field}: {message}")]
    Unsupported {
        /// The request field that asks for it.
        field: &'static str,
        /// Why it can't be.
        message: String,
    },
    /// A budget in money was asked for, and nobody knows what the model costs.
    #[error("the price of {0} is not known, so its cost can't be limited")]
    NotBudgetable(String),
    /// No provider of this server could have the model.
    #[error("{0}")]
    InvalidModel(String),
    /// The session's state does not allow it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The idempotency key was used for another request.
    #[error("this idempotency key was used for a different request")]
    KeyReused,
    /// A file of the session's workspace.
    #[error(transparent)]
    File(#[from] oma_sandbox::files::Error),
    /// A file of the files API, or what a session is given.
    #[error(transparent)]
    Files(oma_files::Error),
    /// The summary that a client asked for could not be made.
    #[error("the compaction failed: {}", .0.message)]
    CompactionFailed(Failure),
    /// Too much work is under way, or the server is stopping; trying again later helps.
    #[error("the server can't take this now: {0}")]
    Unavailable(String),
    /// The disk is full; nothing was done.
    #[error("the server's disk is full")]
    DiskFull,
    /// The data folder can't be written; nothing was done.
    #[error("the server's data folder is read-only")]
    ReadOnly,
    /// A fault of ours; the text is for the log, not for clients.
    #[error("internal: {0}")]
    Internal(String),
}

/// The result of an engine call.
pub type Result<T> = std::result::Result<T, Error>;

impl From<oma_store::Error> for Error {
    /// For calls whose rows were checked before: what is missing or changed all the same is a fault of ours.
    fn from(error: oma_store::Error) -> Self {
        use oma_store::Error as Store;
        match error {
            Store::Full => Self::DiskFull,
            Store::AgentGone => Self::AgentNotFound,
            Store::VaultArchived => Self::Vault(oma_vault::Error::VaultArchived),
            Store::VaultGone => Self::Vault(oma_vault::Error::VaultNotFound),
            Store::MemoryStoreGone => MemoryError::StoreNotFound.into(),
            Store::ReadOnly(_) => Self::ReadOnly,
            Store::Unavailable(reason) => Self::Unavailable(reason),
            Store::TooManySessions(most) => Self::TooManySessions(most),
            Store::Limit(most) => Self::TooManyKeys(most),
            Store::InUse(count) => Self::EnvironmentInUse(count),
            Store::NoRoom(most) => Self::Files(oma_files::Error::NoRoom(most)),
            Store::NameTaken => Self::EnvironmentExists,
            Store::NotFound
            | Store::Conflict
            | Store::TooMany(_)
            | Store::Archived
            | Store::PathTaken { .. }
            | Store::Unexpected
            | Store::AlreadyDone(_)
            | Store::Internal(_) => Self::Internal(error.to_string()),
        }
    }
}

impl From<oma_files::Error> for Error {
    fn from(error: oma_files::Error) -> Self {
        match error {
            oma_files::Error::Store(error) => error.into(),
            oma_files::Error::DiskFull => Self::DiskFull,
            oma_files::Error::SessionNotFound => Self::SessionNotFound,
            oma_files::Error::Internal(cause) => Self::Internal(cause),
            error => Self::Files(error),
        }
    }
}

impl From<oma_vault::Error> for Error {
    fn from(error: oma_vault::Error) -> Self {
        match error {
            oma_vault::Error::Store(error) => error.into(),
            error => Self::Vault(error),
        }
    }
}
