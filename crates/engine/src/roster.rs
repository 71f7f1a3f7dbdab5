//! Who may work in a session's threads: the members that its agent has pinned, as they are when the session is created.

use std::sync::Arc;

use oma_domain::{Agent, Member, WorkspaceId};

use crate::Engine;
use crate::error::{Error, Result};

impl Engine {
    /// The other agents that may work in the threads of a session of this one.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when one of them has been deleted.
    pub(crate) async fn roster_of(&self, workspace: &WorkspaceId, agent: &Agent) -> Result<Vec<Arc<Agent>>> {
        let mut roster = Vec::new();
        for member in agent.members() {
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
