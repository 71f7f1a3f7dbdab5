//! Who may work in a session's threads: the members that its agent has pinned, as they are when the session is created,
//! and its advisor, which is a model and nobody's agent, but works in threads as if it were one.

use std::collections::BTreeMap;
use std::sync::Arc;

use oma_domain::agent::{RuntimeKind, Spec};
use oma_domain::multiagent::ADVISOR;
use oma_domain::policy::PermissionPolicy;
use oma_domain::thinking::ThinkingLevel;
use oma_domain::toolset::Toolsets;
use oma_domain::{Agent, AgentId, Member, WorkspaceId};

use crate::Engine;
use crate::error::{Error, Result};

/// An advisor's system prompt.
const INSTRUCTIONS: &str = "You are an advisor. An agent that works on a task asks you for advice. You are shown its \
instructions and what was said and done so far; you see nothing else, and you can't do anything yourself. Say what you \
think of the course that it takes: what it overlooks, what is likely to go wrong, and what it should do next, the most \
important first. Be concrete and brief. Your whole answer is given to the agent as it is.";

impl Engine {
    /// The other agents that a session of this one may have work for it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when one of them has been deleted.
    pub(crate) async fn roster_of(&self, workspace: &WorkspaceId, agent: &Agent) -> Result<Vec<Arc<Agent>>> {
        let mut roster = Vec::new();
        for member in agent.named() {
            let Member::Agent { id, version } = member else {
                continue;
            };
            match self.agent_at(workspace, id, *version).await {
                Ok(found) => roster.push(Arc::new(found)),
                Err(Error::AgentNotFound) => {
                    return Err(Error::Unsupported {
                        field: "agent",
                        message: format!("the agent {id}, which may work in its threads, has been deleted"),
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(roster)
    }
}

/// What works in the threads of an agent's consultations of this model: it has no tools, no skills and no budgets of its own.
pub(crate) fn advisor(of: &Agent, model: &str) -> Agent {
    Agent {
        id: AgentId::of_advisors(),
        workspace: of.workspace.clone(),
        version: 1,
        spec: Spec {
            model: model.to_owned(),
            instructions: INSTRUCTIONS.to_owned(),
            tools: Vec::new(),
            name: Some(ADVISOR.to_owned()),
            description: None,
            metadata: BTreeMap::new(),
            skills: Vec::new(),
            custom_tools: Vec::new(),
            // No set of tools is enabled.
            permission_policy: PermissionPolicy::Toolsets(Toolsets::default()),
            callable_agents: Vec::new(),
            multiagent: None,
            max_subagent_depth: 0,
            mcp_servers: serde_json::Map::new(),
            quota: None,
            thinking_level: ThinkingLevel::Off,
            channels: serde_json::Value::Null,
            runtime: RuntimeKind::Native,
        },
        created_at: of.created_at,
        updated_at: of.created_at,
        archived_at: None,
    }
}
