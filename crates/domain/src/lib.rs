//! The domain of OpenClaw Managed Agents: what an agent, an environment, a session and an event *are*.
//!
//! This is where a reader starts. Nothing here does IO, reads a clock or draws a random number except
//! [`id`], which makes ids. The heart is [`session::State::apply`]: the pure session state machine, one
//! transition per file, from which the engine gets the events to commit and the work to start.
//!
//! Invariants kept here:
//! - every `running` ends in exactly one status event (I2);
//! - every tool use gets exactly one result (I4);
//! - a queued message enters the log only when its turn starts, so log order is processing order (I5).
//!
//! Where it sits: at the bottom. Every other crate may depend on it; it depends on none of them.

pub mod agent;
pub mod audit;
pub mod checkpoint;
pub mod content;
pub mod cron;
pub mod deployment;
pub mod environment;
pub mod event;
pub mod file;
pub mod id;
pub mod key;
pub mod memory;
pub mod multiagent;
pub mod origin;
pub mod outcome;
pub mod page;
pub mod policy;
pub mod quota;
pub mod resource;
pub mod session;
pub mod skill;
pub mod thinking;
pub mod time;
pub mod tokens;
pub mod toolset;
pub mod trace;
pub mod usage;
pub mod user;
pub mod vault;
pub mod web;
pub mod webhook;
pub mod work;
pub mod workflow;
pub mod workspace;

pub use agent::Agent;
pub use checkpoint::Checkpoint;
pub use content::ContentBlock;
pub use deployment::Deployment;
pub use environment::Environment;
pub use event::{Event, Seq};
pub use file::File;
pub use id::{
    AgentId, AuditId, CheckpointId, CredentialId, DeliveryId, DeploymentId, EnvironmentId, EventId, FileId,
    KeyId, MemoryId, MemoryStoreId, MemoryVersionId, OutcomeId, ResourceId, RunId, SessionId, SkillId,
    SkillVersionId, UserId, VaultId, WebhookId, WorkId, WorkflowPhaseId, WorkflowRunId, WorkspaceId,
};
pub use key::{Actor, ApiKey, Scope};
pub use memory::{Memory, MemoryStore};
pub use multiagent::{Member, Multiagent, Team};
pub use resource::Resource;
pub use session::Session;
pub use skill::Skill;
pub use time::Timestamp;
pub use trace::TraceParent;
pub use vault::{Credential, Vault};
pub use workspace::Workspace;
