//! What goes into a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use oma_domain::agent::Agent;
use oma_domain::audit::Entry as AuditEntry;
use oma_domain::environment::Environment;
use oma_domain::memory::Attachment;
use oma_domain::outcome::Evaluation;
use oma_domain::quota::Quota;
use oma_domain::session::{QueueChange, State};
use oma_domain::usage::{CostTotal, NanoUsd, Usage};
use oma_domain::vault::{DataKey, Secrets};
use oma_domain::{
    AgentId, Credential, DeploymentId, Event, File, KeyId, MemoryStoreId, Resource, Seq, SessionId,
    Timestamp, VaultId, WorkspaceId,
};

/// An idempotency key and what is remembered under it.
#[derive(Debug, Clone, PartialEq)]
pub struct Once {
    /// What kind of call and which object it is for, for example `session.post:ses_…`.
    pub scope: String,
    /// The key that the client chose.
    pub key: String,
    /// A digest of the request, to catch a key that is used for two different ones.
    pub fingerprint: String,
    /// What to answer when the call is repeated.
    pub receipt: serde_json::Value,
    /// Now.
    pub at: Timestamp,
}

/// What is remembered under an idempotency key.
#[derive(Debug, Clone, PartialEq)]
pub struct OnceRecord {
    /// The digest of the request that was carried out.
    pub fingerprint: String,
    /// What it answered.
    pub receipt: serde_json::Value,
}

/// A session to add.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// The agent version that it runs.
    pub agent: Arc<Agent>,
    /// The other agents that may work in its threads.
    pub roster: Vec<Arc<Agent>>,
    /// The environment that it runs in.
    pub environment: Option<Arc<Environment>>,
    /// The vaults whose credentials its MCP servers are called with.
    pub vaults: Vec<VaultId>,
    /// The memory stores that it has.
    pub memories: Vec<Attachment>,
    /// What its sandbox is given.
    pub resources: Vec<Resource>,
    /// Its own copies of files that are among that.
    pub files: Vec<File>,
    /// What all files of its workspace may have in all, in bytes.
    pub file_room: u64,
    /// The session that delegated to it.
    pub parent: Option<SessionId>,
    /// Whether it is a thread of its parent.
    pub is_thread: bool,
    /// How deep it may delegate itself.
    pub delegation_depth: u32,
    /// What its parent leaves it to consume.
    pub share: Option<Quota>,
    /// The most that it may cost, as its client says.
    pub budget: Option<NanoUsd>,
    /// Whether it goes away by itself once idle.
    pub ephemeral: bool,
    /// A title for people.
    pub title: Option<String>,
    /// Whatever the client wants to remember with it.
    pub metadata: BTreeMap<String, String>,
    /// The key that it is opened with.
    pub created_by: Option<KeyId>,
    /// The deployment that opens it.
    pub deployment: Option<DeploymentId>,
    /// Now.
    pub created_at: Timestamp,
}

/// Which sessions to list.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Only those of this agent.
    pub agent: Option<AgentId>,
    /// Only those that are (not) ephemeral.
    pub ephemeral: Option<bool>,
    /// Only those that work for this session, or, with `Some(None)`, for none.
    pub parent: Option<Option<SessionId>>,
    /// Only those that this deployment opened.
    pub deployment: Option<DeploymentId>,
    /// Only those of this version of the agent.
    pub agent_version: Option<u32>,
    /// Only those that have this memory store.
    pub memory_store: Option<MemoryStoreId>,
    /// Only those created then.
    pub created: Span,
    /// Only those that stand at one of these; all without any.
    pub standing: Vec<Standing>,
}

/// A span of time, its ends included. An end that is absent does not bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Its beginning.
    pub from: Option<Timestamp>,
    /// Its end.
    pub until: Option<Timestamp>,
}

/// Where a session stands, as lists tell sessions apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It works.
    Working,
    /// It rests, or waits for a client.
    Resting,
    /// It is archived.
    Archived,
}

/// Which agents or environments to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListFilter {
    /// Whether archived ones are left out.
    pub only_active: bool,
    /// Only those created then.
    pub created: Span,
}

/// Which vaults to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VaultFilter {
    /// Only those of this user.
    pub user: Option<String>,
    /// Whether archived ones are left out.
    pub only_active: bool,
}

/// Under which conditions a credential is added. Archived ones count in neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// The most that a vault may have.
    pub most: u32,
    /// Whether no other one of the vault may be for the same place.
    pub unique: bool,
}

/// A credential as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCredential {
    /// What may be shown of it.
    pub credential: Credential,
    /// Its sealed secrets.
    pub secrets: Secrets,
    /// Counts its changes, from 1.
    pub revision: u64,
}

/// The data key of a vault, for whoever puts it under another master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultKey {
    /// Whose the vault is.
    pub workspace: WorkspaceId,
    /// The vault.
    pub vault: VaultId,
    /// Its data key.
    pub key: DataKey,
}

/// One transaction on one session.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// The session.
    pub session: SessionId,
    /// The head that this commit builds on.
    pub expected_head: Seq,
    /// Events to append; the first has the position after `expected_head`, the rest follow without gaps.
    pub events: Vec<Event>,
    /// Changes to the queue, in order.
    pub queue: Vec<QueueChange>,
    /// The state afterwards, without its queue, output and evaluations.
    pub state: Arc<State>,
    /// The session's output, when it is another than before.
    pub output: Option<Arc<str>>,
    /// The session's evaluations, when they are others than before.
    pub evaluations: Option<Arc<Vec<Evaluation>>>,
    /// The agent that the session has from now on, when that is another one.
    pub agent: Option<Arc<Agent>>,
    /// An agent of the same workspace that must still be there.
    pub needs_agent: Option<AgentId>,
    /// Remember this key in the same transaction.
    pub once: Option<Once>,
    /// What it adds to the usage of the session's agent.
    pub used: Option<Used>,
    /// What the audit trail says of whoever asked for it.
    pub audit: Option<AuditEntry>,
}

/// What model requests consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// The day on which they ended: days since the epoch, UTC.
    pub day: i64,
    /// The model, `provider/model`.
    pub model: String,
    /// The key that is charged.
    pub key: Option<KeyId>,
    /// How many requests it were.
    pub requests: u64,
    /// Their tokens.
    pub usage: Usage,
    /// Their cost.
    pub cost: CostTotal,
}

/// What one agent consumed with one model for one key on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// The cursor after this row.
    pub row: i64,
    /// The agent.
    pub agent: AgentId,
    /// The sums.
    pub used: Used,
}

/// Which usage to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageFilter {
    /// The first day.
    pub from: i64,
    /// The last day.
    pub to: i64,
    /// Only that of this agent.
    pub agent: Option<AgentId>,
}
