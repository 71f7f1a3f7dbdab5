//! Which other agents an agent may have work in threads of its sessions.
//!
//! The members are pinned when the agent is saved: later versions of them change nothing. A session keeps their
//! definitions as they were when it was created.

use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::id::AgentId;

/// The tool by which a coordinator learns whom it may send messages to, and which threads there are.
pub const LIST_AGENTS: &str = "list_agents";
/// The tool by which a coordinator has a member work in a thread.
pub const SEND_TO_AGENT: &str = "send_to_agent";
/// The most members.
pub const MAX_MEMBERS: usize = 20;

/// One of those who may work in threads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Member {
    /// A copy of the agent itself, in the version that its session runs.
    This,
    /// Another agent.
    Agent {
        /// It.
        id: AgentId,
        /// Its version.
        version: u32,
    },
}

/// How an agent has others work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Multiagent {
    /// It coordinates these.
    Coordinator {
        /// At least one.
        agents: Vec<Member>,
    },
    /// The newer form, with a part for each way of having others work; only subagents can be enabled here.
    Parts {
        /// Who may work in threads; `None` when nobody may.
        subagents: Option<Vec<Member>>,
    },
}

impl Multiagent {
    /// Those who may work in threads.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        match self {
            Self::Coordinator { agents }
            | Self::Parts {
                subagents: Some(agents),
            } => agents,
            Self::Parts { subagents: None } => &[],
        }
    }
}

impl Agent {
    /// Those who may work in threads of its sessions.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        self.spec.multiagent.as_ref().map_or(&[], Multiagent::members)
    }

    /// What goes by as its name: every agent has one.
    #[must_use]
    pub fn shown_name(&self) -> &str {
        self.spec.name.as_deref().unwrap_or(self.id.as_str())
    }
}
