//! Which other agents an agent may have work in threads of its sessions.
//!
//! The members are pinned when the agent is saved: later versions of them change nothing. A session keeps their
//! definitions as they were when it was created.
//!
//! An *advisor* is a model, and no member: the agent asks it what it thinks of the work so far. Each consultation is a
//! thread of its own, which ends for good with the advice.

use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::id::AgentId;

/// The tool by which a coordinator learns whom it may send messages to, and which threads there are.
pub const LIST_AGENTS: &str = "list_agents";
/// The tool by which a coordinator has a member work in a thread.
pub const SEND_TO_AGENT: &str = "send_to_agent";
/// The tool by which an agent asks its advisor.
pub const CONSULT_ADVISOR: &str = "consult_advisor";
/// What an advisor's threads are called; no agent may have the name.
pub const ADVISOR: &str = "anthropic.advisor";
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
        /// At least one, if there is no advisor.
        agents: Vec<Member>,
        /// The model that advises it, as `provider/model`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        advisor: Option<String>,
    },
    /// The newer form, with a part for each way of having others work; only subagents and an advisor can be enabled here.
    Parts {
        /// The model that advises it, as `provider/model`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        advisor: Option<String>,
        /// Who may work in threads; `None` when nobody may.
        subagents: Option<Vec<Member>>,
    },
}

impl Multiagent {
    /// Those who may work in threads.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        match self {
            Self::Coordinator { agents, .. }
            | Self::Parts {
                subagents: Some(agents),
                ..
            } => agents,
            Self::Parts { subagents: None, .. } => &[],
        }
    }

    /// The model that advises, as `provider/model`.
    #[must_use]
    pub fn advisor(&self) -> Option<&str> {
        match self {
            Self::Coordinator { advisor, .. } | Self::Parts { advisor, .. } => advisor.as_deref(),
        }
    }

    /// The same without members: what is left when others take their place that are no members.
    #[must_use]
    pub fn without_members(self) -> Option<Self> {
        match self {
            Self::Coordinator { advisor: None, .. } | Self::Parts { advisor: None, .. } => None,
            Self::Coordinator { advisor, .. } => Some(Self::Coordinator {
                agents: Vec::new(),
                advisor,
            }),
            Self::Parts { advisor, .. } => Some(Self::Parts {
                advisor,
                subagents: None,
            }),
        }
    }
}

impl Agent {
    /// Those who may work in threads of its sessions.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        self.spec.multiagent.as_ref().map_or(&[], Multiagent::members)
    }

    /// The model that advises it, as `provider/model`.
    #[must_use]
    pub fn advisor(&self) -> Option<&str> {
        self.spec.multiagent.as_ref().and_then(Multiagent::advisor)
    }

    /// Whether it is what stands for an advisor in the threads of its consultations.
    #[must_use]
    pub fn is_advisor(&self) -> bool {
        self.id.is_advisor()
    }

    /// What goes by as its name: every agent has one.
    #[must_use]
    pub fn shown_name(&self) -> &str {
        self.spec.name.as_deref().unwrap_or(self.id.as_str())
    }
}
