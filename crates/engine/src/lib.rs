//! The engine: it owns every session's truth.
//!
//! A session with work to do has one *actor* ([`actor`]): it holds the state, applies every input through the
//! domain's state machine, commits the result and only then tells anybody. An idle session has none and costs
//! no memory. The actor calls the runtime to do the turn's work, within a bound on concurrent turns
//! ([`Config::max_turns`], first come first served).
//!
//! Invariants kept here:
//! - an accepted post is durable before the call returns, and takes effect once (I1);
//! - what a stream delivers is what the list contains, in the same order (I3);
//! - a cancel ends within a second and keeps the partial output (I7);
//! - after a restart every turn that was under way goes on by itself (I6).
//!
//! Where it sits: below `api`, which only ever talks to [`Engine`]; above the runtimes, the sandbox and the store.

mod actor;
mod agents;
pub mod audit;
mod calls;
pub mod checkpoints;
mod clock;
mod deadlines;
mod delegation;
mod deployments;
mod environments;
pub mod error;
pub mod files;
mod follow;
mod hub;
mod keyed;
pub mod keys;
mod ledger;
mod measure;
mod memories;
mod once;
pub mod parent_token;
mod parents;
mod quotas;
mod recovery;
mod registry;
mod roster;
mod sessions;
mod skills;
mod submission;
mod threads;
mod turns;
mod usage;
mod users;
mod vaults;
mod warm;
mod webhooks;
mod work;
pub mod work_token;
mod workspaces;

pub use clock::Clock;
pub use deployments::{Given, timezone};
pub use error::{Error, Result};
pub use follow::Follow;
pub use keys::{Credential, IssuedKey, NewKey};
pub use memories::{AttachMemory, MemoryEdit, MemoryError, MemoryFilter, VersionFilter};
pub use oma_checkpoint::Archives;
pub use parents::{IssuedParentToken, OpenChild};
pub use skills::{NewSkill, SkillError};
pub use submission::{AgentUpdate, SessionUpdate, Submission, Submitted};
pub use users::{SignedUp, Terms};
pub use webhooks::{EndpointChange, NewEndpoint};
pub use work::{HandedOut, Queue};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oma_domain::thinking::ThinkingLevel;
use oma_domain::usage::NanoUsd;
use oma_domain::{
    AgentId, ContentBlock, DeploymentId, EnvironmentId, Event, EventId, KeyId, SessionId, Timestamp, VaultId,
};
use oma_egress::Guard;
use oma_runtime::Runtime;
pub use oma_runtime::{Build, BuildStage, Delta};
use oma_sandbox::pool::Counts;
use oma_store::Store;
pub use oma_store::{
    DeploymentFilter, FileFilter, ListFilter, RunFilter, SessionFilter, Span, Standing, UsageFilter, UsageRow,
};
use oma_vault::Vaults;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// An idempotency key of a client, with a digest of the request that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// What the client chose.
    pub key: String,
    /// A digest of method, path and body.
    pub fingerprint: String,
}

/// A session to create.
#[derive(Debug, Clone)]
pub struct CreateSession {
    /// The agent.
    pub agent: AgentId,
    /// The version of it that is pinned; the current one otherwise.
    pub version: Option<u32>,
    /// What the session runs in the place of that version's definition.
    pub spec: Option<oma_domain::agent::Spec>,
    /// What it may consume, beside its agent's budgets.
    pub budget: Option<NanoUsd>,
    /// A title for people.
    pub title: Option<String>,
    /// Whatever the client wants to remember with it.
    pub metadata: BTreeMap<String, String>,
    /// The environment.
    pub environment: Option<EnvironmentId>,
    /// The vaults whose credentials its MCP servers are called with, in the order in which they are asked.
    pub vaults: Vec<VaultId>,
    /// The memory stores that it is to have.
    pub memories: Vec<AttachMemory>,
    /// What its sandbox is given.
    pub resources: Vec<files::NewResource>,
    /// An id that the client chose; a fresh one otherwise.
    pub id: Option<SessionId>,
    /// Whether it goes away by itself some time after it became idle.
    pub ephemeral: bool,
    /// The key of whoever opens it.
    pub created_by: Option<KeyId>,
    /// The deployment that opens it.
    pub deployment: Option<DeploymentId>,
}

impl CreateSession {
    /// A session of an agent's current version, with nothing else to it.
    #[must_use]
    pub fn of(agent: AgentId) -> Self {
        Self {
            agent,
            version: None,
            spec: None,
            budget: None,
            title: None,
            metadata: BTreeMap::new(),
            environment: None,
            vaults: Vec::new(),
            memories: Vec::new(),
            resources: Vec::new(),
            id: None,
            ephemeral: false,
            created_by: None,
            deployment: None,
        }
    }
}

/// A message to post.
#[derive(Debug, Clone)]
pub struct Post {
    /// What it says; not empty.
    pub content: Vec<ContentBlock>,
    /// A model for this and later turns.
    pub model: Option<String>,
    /// A thinking level for this and later turns.
    pub thinking_level: Option<ThinkingLevel>,
    /// Refuse with `Busy` instead of queueing when the session is busy.
    pub only_if_idle: bool,
    /// The key of whoever posts it, which is charged.
    pub charged: Option<KeyId>,
    /// What the audit trail is to say of it, if it is accepted: written in the same transaction.
    pub audit: Option<Box<oma_domain::audit::Entry>>,
}

/// An accepted message.
#[derive(Debug, Clone, PartialEq)]
pub struct Posted {
    /// The id that its event has or will have.
    pub event: EventId,
    /// Whether it waits behind other work.
    pub queued: bool,
    /// Whether this call had been carried out before, under the same idempotency key.
    pub replayed: bool,
}

/// What a follower gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// A committed event.
    Event(Event),
    /// A piece of an answer on its way (only when asked for).
    Delta(Delta),
    /// The session was deleted; nothing follows.
    Deleted,
}

/// A model that agents may name.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// `provider/model`.
    pub id: String,
    /// The provider.
    pub provider: String,
    /// A name for people.
    pub name: Option<String>,
    /// The context window in tokens, when it is known.
    pub context_window: Option<u64>,
    /// For example `text`, `image`.
    pub input_modalities: Vec<String>,
}

/// How much is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Turns at work.
    pub active_turns: usize,
    /// Turns that wait for a free place.
    pub waiting_turns: usize,
    /// The most turns at once.
    pub max_turns: usize,
    /// Sessions with an actor.
    pub live_sessions: usize,
    /// The sandboxes.
    pub sandboxes: Counts,
    /// The most sandboxes that there are in advance, for no session in particular.
    pub max_warm: usize,
}

/// Bounds of the engine.
#[derive(Debug, Clone)]
pub struct Config {
    /// The most turns at once; others wait, first come first served.
    pub max_turns: usize,
    /// The most model requests in one turn.
    pub max_requests_per_turn: u32,
    /// How long a stop waits for turns to end before it leaves them to the next start.
    pub drain_timeout: Duration,
    /// How long an ephemeral session stays after its last event.
    pub ephemeral_age: Duration,
    /// How long an idempotency key is remembered.
    pub idempotency_age: Duration,
    /// How long the audit trail keeps an entry; for ever without it.
    pub audit_age: Option<Duration>,
    /// How long a compaction that a client asked for may take before the client is answered.
    pub compact_timeout: Duration,
    /// How far the runs of schedules may be put off, so that not all begin at the same moment.
    pub schedule_jitter: Duration,
    /// The most skills of a workspace.
    pub max_skills: u32,
    /// The most versions that the skills of a workspace have in all.
    pub max_skill_versions: u32,
    /// The most memory stores of a workspace, archived ones included.
    pub max_memory_stores: u32,
    /// The clock that schedules go by.
    pub clock: Clock,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_turns: 64,
            max_requests_per_turn: 250,
            drain_timeout: Duration::from_secs(10),
            ephemeral_age: Duration::from_secs(600),
            idempotency_age: Duration::from_secs(24 * 3600),
            audit_age: None,
            compact_timeout: Duration::from_secs(180),
            schedule_jitter: Duration::from_secs(5),
            max_skills: 1_000,
            max_skill_versions: 10_000,
            max_memory_stores: 1_000,
            clock: Clock::System,
        }
    }
}

/// What the engine works with.
pub struct Deps {
    /// The durable record.
    pub store: Arc<dyn Store>,
    /// What runs the turns.
    pub runtime: Arc<dyn Runtime>,
    /// The models that agents may name.
    pub models: Vec<ModelInfo>,
    /// The vaults.
    pub vaults: Vaults,
    /// The files.
    pub files: oma_files::Files,
    /// The archives of checkpoints.
    pub archives: Archives,
    /// Through which webhooks are sent.
    pub guard: Arc<Guard>,
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) models: Vec<ModelInfo>,
    pub(crate) vaults: Vaults,
    pub(crate) files: oma_files::Files,
    pub(crate) archives: Archives,
    pub(crate) guard: Arc<Guard>,
    pub(crate) config: Config,
    pub(crate) registry: registry::Registry,
    pub(crate) hub: Arc<hub::Hub>,
    pub(crate) turns: turns::Turns,
    pub(crate) keys: keys::Keys,
    pub(crate) ledger: ledger::Ledger,
    pub(crate) quotas: quotas::Quotas,
    /// Children whose parents have set something aside for them, and which are not stored yet.
    pub(crate) opening: Arc<parents::Opening>,
    pub(crate) parent_secret: std::sync::OnceLock<parent_token::Secret>,
    /// Cancelled when a stop begins: no new work is taken. Reading, cancelling and confirming go on.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when the drain is over: turns still at work are left to the next start.
    pub(crate) closed: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// Told when a session waits until another time than before.
    pub(crate) deadline_set: tokio::sync::Notify,
    /// Told when a deployment runs at another time than before.
    pub(crate) schedule_changed: tokio::sync::Notify,
    /// What the clock showed when schedules were looked at last; beyond all times before that.
    pub(crate) schedules_seen: std::sync::atomic::AtomicI64,
    /// Who polls for work.
    pub(crate) polls: work::Polls,
    pub(crate) kept_archive: checkpoints::KeptArchive,
}

impl Engine {
    /// Builds an engine. Call [`Engine::recover`] once, before or while it serves.
    #[must_use]
    pub fn new(deps: Deps, config: Config) -> Self {
        let Deps {
            store,
            runtime,
            models,
            vaults,
            files,
            archives,
            guard,
        } = deps;
        let turns = turns::Turns::new(config.max_turns);
        Self {
            inner: Arc::new(Inner {
                store,
                runtime,
                models,
                vaults,
                files,
                archives,
                guard,
                config,
                registry: registry::Registry::default(),
                hub: Arc::new(hub::Hub::default()),
                turns,
                keys: keys::Keys::default(),
                ledger: ledger::Ledger::default(),
                quotas: quotas::Quotas::default(),
                opening: Arc::default(),
                parent_secret: std::sync::OnceLock::new(),
                stopping: CancellationToken::new(),
                closed: CancellationToken::new(),
                tasks: TaskTracker::new(),
                deadline_set: tokio::sync::Notify::new(),
                schedule_changed: tokio::sync::Notify::new(),
                schedules_seen: std::sync::atomic::AtomicI64::new(i64::MAX),
                polls: work::Polls::default(),
                kept_archive: checkpoints::KeptArchive::default(),
            }),
        }
    }

    /// The models that agents may name.
    #[must_use]
    pub fn models(&self) -> Vec<ModelInfo> {
        self.inner.models.clone()
    }

    /// How much is going on.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let inner = &self.inner;
        Stats {
            active_turns: inner.turns.active(),
            waiting_turns: inner.turns.waiting(),
            max_turns: inner.config.max_turns,
            live_sessions: inner.registry.len(),
            sandboxes: inner.runtime.sandboxes(),
            max_warm: inner.runtime.max_warm(),
        }
    }

    /// Whether it takes new work, or is stopping.
    ///
    /// # Errors
    /// [`Error::Unavailable`] from the beginning of a stop on.
    pub fn accepting(&self) -> Result<()> {
        if self.inner.stopping.is_cancelled() {
            return Err(Error::Unavailable("the server is stopping".into()));
        }
        Ok(())
    }

    /// Whether it can take work: asks the store, which writes to find out.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn ready(&self) -> Result<()> {
        self.accepting()?;
        self.inner.store.ready().await.map_err(Error::from)
    }
}

/// Now.
#[must_use]
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
