//! Sessions and their state machine.
//!
//! [`State::apply`] is pure: from a state and an [`Input`] it makes the [`Transition`]: the next state, the
//! events to append, the changes to the queue and what the engine has to do once all of that is committed.
//! Each input has a file of its own here, to which [`transition`] leads; [`turn`] holds what they share: how a turn
//! begins and ends.

mod answer;
mod archive;
mod begin_request;
mod compact;
mod confirm;
mod define_outcome;
mod delegate;
mod evaluate;
mod fail;
mod finish_request;
mod finish_tool;
mod hold;
mod input;
mod interrupt;
mod lapse;
mod note_build;
mod post;
mod queue;
mod rejection;
mod sandbox;
mod state;
mod threads;
mod tool_use;
mod transition;
mod turn;
mod update;
mod wake;
mod workflows;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use delegate::{CALL_AGENT, Delegated, MAX_OPENED, Opened, Spending, Standing};
pub use input::{AgentChange, Input, Outcome, Partial, Reply, ReplyBlock, ReplyStop};
pub use queue::{MAX_QUEUE, MAX_QUEUE_BYTES, QueueChange, Queued, SystemNote};
pub use rejection::Rejection;
pub use sandbox::SandboxSource;
pub use state::{Phase, State};
pub use threads::{Awaited, Dispatch, MAX_THREADS, News, Order, Thread, Threads};
pub use tool_use::{Gate, OpenTool};
pub use transition::{Context, Effect, NewEvent, Transition};
pub use turn::{Step, Turn};
pub use workflows::{BeginCall, OpenPhase, Run, Runs};

use crate::agent::Agent;
use crate::environment::Environment;
use crate::event::Seq;
use crate::id::{DeploymentId, KeyId, SessionId, VaultId, WorkspaceId};
use crate::memory::Attachment;
use crate::multiagent::Member;
use crate::quota::Quota;
use crate::resource::Resource;
use crate::time::Timestamp;

/// A session: what it was created with and where it stands.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// The agent version that it was created with; later versions do not touch it.
    pub agent: Arc<Agent>,
    /// The other agents that may work in its threads, as they were then.
    pub roster: Vec<Arc<Agent>>,
    /// The environment, as it was then.
    pub environment: Option<Arc<Environment>>,
    /// The vaults whose credentials its MCP servers are called with, in the order in which they are asked.
    pub vaults: Vec<VaultId>,
    /// The memory stores that it has, in the order in which they were named.
    pub memories: Vec<Attachment>,
    /// What its sandbox is given, in the order in which it got it.
    pub resources: Vec<Resource>,
    /// The session that delegated to it.
    pub parent: Option<SessionId>,
    /// Whether it is a thread of its parent, whose sandbox and vaults it shares.
    pub is_thread: bool,
    /// How deep it may delegate itself.
    pub delegation_depth: u32,
    /// What its parent leaves it to consume, beside its own agent's budgets.
    pub share: Option<Quota>,
    /// Whether it goes away by itself once it is idle.
    pub ephemeral: bool,
    /// The key that it was opened with.
    pub created_by: Option<KeyId>,
    /// The deployment that opened it.
    pub deployment: Option<DeploymentId>,
    /// When it was created.
    pub created_at: Timestamp,
    /// The position of the last event.
    pub head: Seq,
    /// When the last event was committed.
    pub last_event_at: Option<Timestamp>,
    /// Where it stands. Shared with whoever looks at it; a commit brings another.
    pub state: Arc<State>,
}

impl Session {
    /// The model of the next request.
    #[must_use]
    pub fn model(&self) -> &str {
        self.state.model.as_deref().unwrap_or(&self.agent.spec.model)
    }

    /// The definition of one that may work in its threads.
    #[must_use]
    pub fn member(&self, member: &Member) -> Option<&Agent> {
        match member {
            Member::This => Some(&self.agent),
            Member::Agent { id, .. } => self.roster.iter().find(|agent| agent.id == *id).map(|it| &**it),
        }
    }

    /// The session whose sandbox it works in.
    #[must_use]
    pub fn sandbox(&self) -> &SessionId {
        self.parent
            .as_ref()
            .filter(|_| self.is_thread)
            .unwrap_or(&self.id)
    }

    /// The thinking level of the next request.
    #[must_use]
    pub fn thinking_level(&self) -> crate::thinking::ThinkingLevel {
        self.state
            .thinking_level
            .unwrap_or(self.agent.spec.thinking_level)
    }
}
