//! Which other agents an agent may have work in threads of its sessions.
//!
//! The members are pinned when the agent is saved: later versions of them change nothing. A session keeps their
//! definitions as they were when it was created.
//!
//! Agents can also be defined on the fly: the coordinator's model writes the definition, with the tools that the agent is to
//! have of its own. Such an agent belongs to its thread, and is kept with it alone.
//!
//! An *advisor* is a model, and no member: the agent asks it what it thinks of the work so far. Each consultation is a
//! thread of its own, which ends for good with the advice.

use serde::{Deserialize, Deserializer, Serialize};

use crate::agent::Agent;
use crate::id::AgentId;

/// The tool by which a coordinator learns whom it may send messages to, and which threads there are.
pub const LIST_AGENTS: &str = "list_agents";
/// The tool by which a coordinator has a member work in a thread.
pub const SEND_TO_AGENT: &str = "send_to_agent";
/// The tool by which a coordinator defines an agent on the fly and has it work in a thread.
pub const CREATE_AGENT: &str = "create_agent";
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

/// Those who may work for an agent in one way of having others work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Team {
    /// The agents that it names.
    pub members: Vec<Member>,
    /// Whether it may also define agents on the fly.
    pub inline: bool,
}

impl<'de> Deserialize<'de> for Team {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Stored {
            Whole { members: Vec<Member>, inline: bool },
            // What was stored before agents could be defined on the fly.
            Members(Vec<Member>),
        }
        Ok(match Stored::deserialize(deserializer)? {
            Stored::Whole { members, inline } => Self { members, inline },
            Stored::Members(members) => Self {
                members,
                inline: false,
            },
        })
    }
}

impl Default for Team {
    /// What the Claude dialect means when a part is left out: nobody is named, and agents are defined on the fly.
    fn default() -> Self {
        Self {
            members: Vec::new(),
            inline: true,
        }
    }
}

impl Team {
    /// What is left when others take the members' place that are no members; `None` when that is nothing.
    fn without_members(self) -> Option<Self> {
        self.inline.then(Self::default)
    }
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
    /// The newer form, with a part for each way of having others work.
    Parts {
        /// The model that advises it, as `provider/model`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        advisor: Option<String>,
        /// Who may work in threads; `None` when nobody may.
        subagents: Option<Team>,
        /// Who may work in runs of programs that the agent writes; `None` when there are none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        workflows: Option<Team>,
    },
}

impl Multiagent {
    /// The named agents that may be sent messages in threads.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        match self {
            Self::Coordinator { agents, .. } => agents,
            Self::Parts { subagents, .. } => subagents.as_ref().map_or(&[], |team| &team.members),
        }
    }

    /// Whether agents that are defined on the fly may work in threads.
    #[must_use]
    pub fn may_define(&self) -> bool {
        match self {
            Self::Coordinator { .. } => false,
            Self::Parts { subagents, .. } => subagents.as_ref().is_some_and(|team| team.inline),
        }
    }

    /// Who may work in runs of programs.
    #[must_use]
    pub fn workflows(&self) -> Option<&Team> {
        match self {
            Self::Coordinator { .. } => None,
            Self::Parts { workflows, .. } => workflows.as_ref(),
        }
    }

    /// All that it names, whatever they are for, each once.
    #[must_use]
    pub fn named(&self) -> Vec<&Member> {
        let in_runs = self.workflows().map_or(&[][..], |team| &team.members);
        let mut named: Vec<&Member> = self.members().iter().collect();
        for member in in_runs {
            if !named.contains(&member) {
                named.push(member);
            }
        }
        named
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
            Self::Coordinator { advisor: None, .. } => None,
            Self::Coordinator { advisor, .. } => Some(Self::Coordinator {
                agents: Vec::new(),
                advisor,
            }),
            Self::Parts {
                advisor,
                subagents,
                workflows,
            } => {
                let subagents = subagents.and_then(Team::without_members);
                let workflows = workflows.and_then(Team::without_members);
                let any = advisor.is_some() || subagents.is_some() || workflows.is_some();
                any.then_some(Self::Parts {
                    advisor,
                    subagents,
                    workflows,
                })
            }
        }
    }
}

impl Agent {
    /// The named agents that may be sent messages in threads of its sessions.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        self.spec.multiagent.as_ref().map_or(&[], Multiagent::members)
    }

    /// Whether it may define agents on the fly that work in threads of its sessions.
    #[must_use]
    pub fn may_define(&self) -> bool {
        self.spec.multiagent.as_ref().is_some_and(Multiagent::may_define)
    }

    /// Whether anybody but its advisor may work in threads of its sessions.
    #[must_use]
    pub fn has_subagents(&self) -> bool {
        self.may_define() || !self.members().is_empty()
    }

    /// All agents that its sessions may have work in some way, each once.
    #[must_use]
    pub fn named(&self) -> Vec<&Member> {
        self.spec
            .multiagent
            .as_ref()
            .map_or_else(Vec::new, Multiagent::named)
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

    /// Whether a coordinator has defined it on the fly.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        self.id.is_inline()
    }

    /// What goes by as its name: every agent has one.
    #[must_use]
    pub fn shown_name(&self) -> &str {
        self.spec.name.as_deref().unwrap_or(self.id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn other(id: &str, version: u32) -> Member {
        Member::Agent {
            id: AgentId::parse(id).unwrap(),
            version,
        }
    }

    fn team(members: &[Member], inline: bool) -> Option<Team> {
        Some(Team {
            members: members.to_vec(),
            inline,
        })
    }

    fn parts(subagents: Option<Team>, workflows: Option<Team>) -> Multiagent {
        Multiagent::Parts {
            advisor: None,
            subagents,
            workflows,
        }
    }

    #[test]
    fn what_earlier_versions_stored_is_read() {
        for (stored, read) in [
            (json!({"type": "parts", "subagents": null}), parts(None, None)),
            (
                json!({"type": "parts", "subagents": [{"type": "this"}]}),
                parts(team(&[Member::This], false), None),
            ),
            (
                json!({"type": "parts", "subagents": [{"type": "agent", "id": "agt_1", "version": 2}]}),
                parts(team(&[other("agt_1", 2)], false), None),
            ),
        ] {
            assert_eq!(
                serde_json::from_value::<Multiagent>(stored.clone()).unwrap(),
                read,
                "{stored}"
            );
        }
        for multiagent in [
            parts(team(&[], true), team(&[other("agt_1", 1)], false)),
            parts(None, team(&[], true)),
        ] {
            let stored = serde_json::to_value(&multiagent).unwrap();
            assert_eq!(serde_json::from_value::<Multiagent>(stored).unwrap(), multiagent);
        }
    }

    #[test]
    fn each_way_has_its_own_members() {
        let both = parts(
            team(&[Member::This, other("agt_1", 1)], false),
            team(&[other("agt_1", 1), other("agt_2", 1)], true),
        );
        assert_eq!(both.members(), [Member::This, other("agt_1", 1)]);
        assert!(!both.may_define() && parts(team(&[], true), None).may_define());
        assert_eq!(
            both.named(),
            [&Member::This, &other("agt_1", 1), &other("agt_2", 1)]
        );
        // Only what is no member stays.
        assert_eq!(both.without_members(), Some(parts(None, Some(Team::default()))));
        assert_eq!(parts(team(&[Member::This], false), None).without_members(), None);
    }
}
