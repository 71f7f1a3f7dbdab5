//! The durable record: agents, environments, sessions, their event logs and queues, idempotency keys, and
//! (in [`access`]) workspaces and API keys, (in [`deployments`]) deployments and their runs, (in [`memories`]) memory
//! stores, (in [`skills`]) skills, (in [`files`]) what is known of files, (in [`webhooks`]) webhook endpoints and their
//! outbox, and (in [`trail`]) the audit trail.
//!
//! [`Store`] is the contract; [`sqlite`] implements it for one machine, and a PostgreSQL store can follow
//! behind the same trait. [`contract`] is the suite that every implementation must pass.
//!
//! Invariants kept here:
//! - a [`Commit`] is applied whole or not at all, and is durable when the call returns (I1);
//! - events of a session have gapless positions, and a commit that does not build on the current head is
//!   refused, so that two writers can never interleave;
//! - every row has a workspace and every query takes one (I10), except the few that serve a restart;
//! - every list is paged: at most [`MAX_LIMIT`](oma_domain::page::MAX_LIMIT) rows, fewer when they are large
//!   (`next` alone tells whether more follow), and a cursor that names no row is [`Error::NotFound`];
//! - "by creation" is the order in which the store took the rows in, so that no page misses a row because a
//!   clock went back or a slower writer came later.
//!
//! The `contract` feature has the suite that every implementation must pass.
//!
//! Where it sits: above `domain`, below the engine, which alone writes through it.

pub mod access;
pub mod checkpoints;
#[cfg(feature = "contract")]
pub mod contract;
pub mod deployments;
pub mod error;
pub mod files;
pub mod memories;
pub mod records;
pub mod skills;
pub mod sqlite;
pub mod trail;
pub mod webhooks;
pub mod work;

pub use access::{Access, KeyDigest, StoredKey};
pub use checkpoints::Checkpoints;
pub use deployments::{DeploymentFilter, Deployments, Due, NewRun, RunFilter};
pub use error::Error;
pub use files::{FileFilter, Files, Output};
pub use memories::Memories;
pub use records::{
    Admission, Commit, ListFilter, NewSession, Once, OnceRecord, SessionFilter, Span, Standing,
    StoredCredential, UsageFilter, UsageRow, Used, VaultFilter, VaultKey,
};
pub use skills::{SkillBounds, Skills};
pub use trail::{AuditFilter, Trail};
pub use webhooks::Webhooks;
pub use work::{WorkQueue, WorkStats};

use async_trait::async_trait;
use oma_domain::agent::Agent;
use oma_domain::environment::Environment;
use oma_domain::page::{Order, Page};
use oma_domain::session::Spending;
use oma_domain::vault::{DataKey, MasterKeyId, Vault};
use oma_domain::{
    AgentId, Credential, CredentialId, EnvironmentId, Event, EventId, KeyId, Seq, Session, SessionId,
    Timestamp, VaultId, WorkspaceId,
};

/// The result of a store call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The durable record. Every method that changes something is durable when it returns.
#[async_trait]
pub trait Store:
    Access
    + Checkpoints
    + Deployments
    + Files
    + Memories
    + Skills
    + Trail
    + Webhooks
    + WorkQueue
    + Send
    + Sync
    + 'static
{
    /// Adds an agent at version 1, and with `once` remembers its id under the key in the same transaction.
    ///
    /// # Errors
    /// [`Error::AlreadyDone`] when the key is taken; [`Error::Conflict`] when the id is taken.
    async fn create_agent(&self, agent: &Agent, once: Option<&Once>) -> Result<()>;
    /// The current version of an agent.
    async fn agent(&self, workspace: &WorkspaceId, id: &AgentId) -> Result<Option<Agent>>;
    /// Agents by creation; `after` is the last id of the page before.
    async fn agents(
        &self,
        workspace: &WorkspaceId,
        filter: &ListFilter,
        order: Order,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Page<Agent, AgentId>>;
    /// All versions of an agent, oldest first in ascending order, each as it was written: `updated_at` is the time of that, and
    /// `archived_at` is empty. `after` is a version. Empty when there is no such agent.
    async fn agent_versions(
        &self,
        workspace: &WorkspaceId,
        id: &AgentId,
        order: Order,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Page<Agent, u32>>;
    /// Writes the next version: `agent.version` must be one above the stored one.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is not, or when the agent has been archived meanwhile;
    /// [`Error::NotFound`] when there is no such agent.
    async fn update_agent(&self, agent: &Agent) -> Result<()>;
    /// Archives an agent, with its deployments, and returns it; archiving again keeps the first time.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn archive_agent(
        &self,
        workspace: &WorkspaceId,
        id: &AgentId,
        at: oma_domain::Timestamp,
    ) -> Result<Agent>;
    /// Removes an agent with all its versions, and archives its deployments. Its sessions stay. Returns whether it was
    /// there.
    async fn delete_agent(&self, workspace: &WorkspaceId, id: &AgentId, at: Timestamp) -> Result<bool>;

    /// Adds an environment, and with `unique_name` only if no other one that is not archived has its name.
    ///
    /// # Errors
    /// [`Error::AlreadyDone`] when the key is taken; [`Error::Conflict`] when the id is taken;
    /// [`Error::NameTaken`].
    async fn create_environment(
        &self,
        environment: &Environment,
        unique_name: bool,
        once: Option<&Once>,
    ) -> Result<()>;
    /// An environment.
    async fn environment(&self, workspace: &WorkspaceId, id: &EnvironmentId) -> Result<Option<Environment>>;
    /// Environments by creation.
    async fn environments(
        &self,
        workspace: &WorkspaceId,
        filter: &ListFilter,
        order: Order,
        after: Option<&EnvironmentId>,
        limit: u32,
    ) -> Result<Page<Environment, EnvironmentId>>;
    /// Puts an environment in the place of `before`, which must be what is stored; with `unique_name` as at
    /// creation.
    ///
    /// # Errors
    /// [`Error::Conflict`] when something else is stored by now; [`Error::NotFound`]; [`Error::NameTaken`].
    async fn update_environment(
        &self,
        before: &Environment,
        after: &Environment,
        unique_name: bool,
    ) -> Result<()>;
    /// Removes an environment. Returns whether it was there.
    ///
    /// # Errors
    /// [`Error::InUse`] while sessions refer to it.
    async fn delete_environment(&self, workspace: &WorkspaceId, id: &EnvironmentId) -> Result<bool>;

    /// Adds a vault with its data key.
    ///
    /// # Errors
    /// [`Error::AlreadyDone`] when the key is taken; [`Error::Conflict`] when the id is taken, or when the data
    /// key is not sealed under the master key in force.
    async fn create_vault(&self, vault: &Vault, key: &DataKey, once: Option<&Once>) -> Result<()>;
    /// A vault.
    async fn vault(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<Option<Vault>>;
    /// Vaults by creation.
    async fn vaults(
        &self,
        workspace: &WorkspaceId,
        filter: &VaultFilter,
        order: Order,
        after: Option<&VaultId>,
        limit: u32,
    ) -> Result<Page<Vault, VaultId>>;
    /// Gives a vault the name and the metadata of `after`, whose `updated_at` is when. Those of `before` must be
    /// what is stored.
    ///
    /// # Errors
    /// [`Error::Conflict`] when something else is stored by now; [`Error::NotFound`]; [`Error::VaultArchived`].
    async fn update_vault(&self, before: &Vault, after: &Vault) -> Result<()>;
    /// Archives a vault and its credentials, whose secrets are removed. Archived again it keeps its first time.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn archive_vault(&self, workspace: &WorkspaceId, id: &VaultId, at: Timestamp) -> Result<Vault>;
    /// Removes a vault with its credentials and its data key. Sessions that name it find it gone. Returns
    /// whether it was there.
    async fn delete_vault(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<bool>;
    /// The data key of a vault.
    async fn vault_key(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<Option<DataKey>>;

    /// Adds a credential at revision 1; the vault counts as changed. `place` is what it is for, spelled in one way
    /// only.
    ///
    /// # Errors
    /// [`Error::AlreadyDone`] when the key is taken; [`Error::Conflict`] when the id is taken;
    /// [`Error::NotFound`] when there is no such vault; [`Error::VaultArchived`]; [`Error::TooMany`] and
    /// [`Error::NameTaken`] by `admission`.
    async fn add_credential(
        &self,
        stored: &StoredCredential,
        place: &str,
        admission: Admission,
        once: Option<&Once>,
    ) -> Result<()>;
    /// A credential of a vault, with its secrets.
    async fn credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<Option<StoredCredential>>;
    /// Credentials of a vault by creation, with their secrets, if asked so without archived ones. Empty when there is
    /// no such vault.
    async fn credentials(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        only_active: bool,
        order: Order,
        after: Option<&CredentialId>,
        limit: u32,
    ) -> Result<Page<StoredCredential, CredentialId>>;
    /// What may be shown of all credentials of a vault that are not archived, oldest first. Their number is bounded
    /// when they are added.
    async fn credential_specs(&self, workspace: &WorkspaceId, vault: &VaultId) -> Result<Vec<Credential>>;
    /// Writes a credential: `stored.revision` must be one above the stored one. The vault counts as changed.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is not, and when the credential is archived, which a revision is, too;
    /// [`Error::NotFound`] when there is no such credential.
    async fn update_credential(&self, stored: &StoredCredential) -> Result<()>;
    /// Notes that the tokens of a credential could not be refreshed as it stands at this revision. Who wants to hear of
    /// it is told once, in the same transaction. Returns whether it was news.
    async fn refresh_failed(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
        revision: u64,
    ) -> Result<bool>;
    /// Archives a credential and removes its secrets; the vault counts as changed. Archived again it keeps its first
    /// time. `None` when there is no such credential.
    async fn archive_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
        at: Timestamp,
    ) -> Result<Option<Credential>>;
    /// Removes a credential; the vault counts as changed. Returns whether it was there.
    async fn delete_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
        at: Timestamp,
    ) -> Result<bool>;

    /// The master key in force, if one was ever claimed.
    async fn master_key(&self) -> Result<Option<MasterKeyId>>;
    /// Puts a master key in force unless another one is that vaults need. Returns the one in force.
    async fn claim_master_key(&self, id: &MasterKeyId) -> Result<MasterKeyId>;
    /// The data keys of all workspaces, by vault id, for a change of the master key.
    async fn vault_keys(&self, after: Option<&VaultId>, limit: u32) -> Result<Page<VaultKey, VaultId>>;
    /// Changes the master key in force and every data key with it, in one transaction.
    ///
    /// # Errors
    /// [`Error::Conflict`] when `from` is not in force, or when `keys` are not exactly those of all vaults.
    /// Nothing has changed then.
    async fn change_master_key(
        &self,
        from: &MasterKeyId,
        to: &MasterKeyId,
        keys: Vec<VaultKey>,
    ) -> Result<()>;

    /// Adds a session, idle and with an empty log.
    ///
    /// # Errors
    /// [`Error::AlreadyDone`] when the key is taken; [`Error::Conflict`] when the id is taken, in whichever
    /// workspace, because sandboxes go by it alone; [`Error::NotFound`] when the environment has been deleted,
    /// [`Error::VaultGone`] when a vault has, [`Error::VaultArchived`] when one was archived; [`Error::NoRoom`] for its
    /// copies of files.
    async fn create_session(&self, session: &NewSession, once: Option<&Once>) -> Result<()>;
    /// A session; its queue is left empty.
    async fn session(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Option<Session>>;
    /// A session with its queue, for whoever is going to commit to it.
    async fn load(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Option<Session>>;
    /// Sessions by creation; their queues are left empty. `after` is the last id of the page before.
    async fn sessions(
        &self,
        workspace: &WorkspaceId,
        filter: &SessionFilter,
        order: Order,
        after: Option<&SessionId>,
        limit: u32,
    ) -> Result<Page<Session, SessionId>>;
    /// Removes a session with its log, queue and idempotency records. Returns whether it was there.
    async fn delete_session(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<bool>;
    /// Sessions of all workspaces whose turn was under way when the server stopped, for recovery, by id.
    async fn unfinished(
        &self,
        after: Option<&SessionId>,
        limit: u32,
    ) -> Result<Page<(WorkspaceId, SessionId), SessionId>>;
    /// Ephemeral sessions of all workspaces that are idle and had their last event (or, without one, their
    /// creation) before `before`, the longest idle first. One with a message that is about to start a turn is
    /// not idle.
    async fn expired(
        &self,
        before: oma_domain::Timestamp,
        limit: u32,
    ) -> Result<Vec<(WorkspaceId, SessionId)>>;
    /// Sessions of all workspaces that wait for a confirmation until some time, and that time, the earliest first.
    async fn deadlines(&self, limit: u32) -> Result<Vec<(WorkspaceId, SessionId, oma_domain::Timestamp)>>;
    /// Whether a session of an agent has a workflow run that has not ended.
    async fn has_open_run(&self, workspace: &WorkspaceId, agent: &AgentId) -> Result<bool>;
    /// Which of these sessions exist, for recovery (a sandbox whose session is gone is an orphan).
    async fn existing(&self, ids: &[SessionId]) -> Result<Vec<SessionId>>;

    /// Appends events, changes the queue and stores the state, in one transaction.
    ///
    /// # Errors
    /// [`Error::Conflict`] when `commit.expected_head` is not the log's head, [`Error::NotFound`] when the
    /// session is gone, [`Error::AgentGone`] when the agent that it needs is, [`Error::AlreadyDone`] when the
    /// key is taken. Nothing has changed then.
    async fn commit(&self, commit: Commit) -> Result<()>;
    /// Events of a session beyond `from` (exclusive) in the given order; ascending from 0 means from the
    /// start, descending from `None` means from the end. Empty when there is no such session.
    async fn events(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        from: Option<Seq>,
        order: Order,
        limit: u32,
    ) -> Result<Page<Event, Seq>>;
    /// A session with its queue, and such a page of its events, as they were at one time.
    async fn session_and_events(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        from: Option<Seq>,
        order: Order,
        limit: u32,
    ) -> Result<Option<(Session, Page<Event, Seq>)>>;
    /// The position of an event.
    async fn locate(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        event: &EventId,
    ) -> Result<Option<Seq>>;

    /// What was consumed in a workspace, in the order in which each kind of it was first consumed; `after` is the
    /// row of the page before.
    async fn usage(
        &self,
        workspace: &WorkspaceId,
        filter: &UsageFilter,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<UsageRow, i64>>;

    /// What was consumed in a workspace, by all or for one key, from one day to another, both included.
    async fn consumed(
        &self,
        workspace: &WorkspaceId,
        key: Option<&KeyId>,
        from: i64,
        to: i64,
    ) -> Result<Spending>;

    /// What was done under an idempotency key.
    async fn done(&self, workspace: &WorkspaceId, scope: &str, key: &str) -> Result<Option<OnceRecord>>;
    /// Forgets idempotency keys from before `before`. Returns how many.
    async fn forget_done(&self, before: oma_domain::Timestamp) -> Result<u64>;

    /// A value that the server keeps for itself (a generated secret, a schema mark).
    async fn kept(&self, name: &str) -> Result<Option<Vec<u8>>>;
    /// Keeps a value unless there is one already, and returns the one that is kept.
    async fn keep(&self, name: &str, value: &[u8]) -> Result<Vec<u8>>;

    /// Whether the store answers and accepts writes.
    async fn ready(&self) -> Result<()>;
}
