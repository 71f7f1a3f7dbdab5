//! Sessions under keys that clients choose: made with the first request, kept for the next ones.
//!
//! In the default workspace the key is the session's id, as in the reference. Ids are unique over all workspaces and
//! name folders, so everywhere else the id is derived from the workspace and the key: two workspaces with the same key
//! have two sessions, and neither learns of the other.

use oma_domain::{AgentId, KeyId, Session, SessionId, WorkspaceId};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::{CreateSession, Engine};

/// What ids begin with that the server makes. A key like that could be meant for a session to come.
const GENERATED: &str = "ses_";

impl Engine {
    /// The session of a client's key; a new one of this agent when there is none. A key that is the id of a session of
    /// this workspace names that session. The session may be another agent's.
    ///
    /// # Errors
    /// As [`Engine::create_session`].
    pub async fn keyed_session(
        &self,
        workspace: &WorkspaceId,
        agent: &AgentId,
        key: &SessionId,
        created_by: Option<KeyId>,
    ) -> Result<Session> {
        let derived = derived(workspace, key);
        for id in [key, &derived] {
            if let Some(session) = self.find(workspace, id).await? {
                return Ok(session);
            }
        }
        let is_own_id =
            *workspace == WorkspaceId::default_workspace() && !key.as_str().starts_with(GENERATED);
        let ids = is_own_id.then_some(key).into_iter().chain([&derived]);
        for id in ids {
            let create = CreateSession {
                id: Some(id.clone()),
                created_by: created_by.clone(),
                ..CreateSession::of(agent.clone())
            };
            match self.create_session(workspace, create, None).await {
                // Two first requests at once: the other one has made it. Or, for a key, another workspace has it since
                // before ids were derived.
                Err(Error::SessionExists) => {
                    if let Some(session) = self.find(workspace, id).await? {
                        return Ok(session);
                    }
                }
                made => return made,
            }
        }
        Err(Error::SessionExists)
    }

    async fn find(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Option<Session>> {
        match self.session(workspace, id).await {
            Ok(session) => Ok(Some(session)),
            Err(Error::SessionNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The id of a key's session where the key is not the id. Nobody can choose a key that leads to another workspace's.
fn derived(workspace: &WorkspaceId, key: &SessionId) -> SessionId {
    let mut digest = Sha256::new();
    // Neither part can contain what separates them.
    for part in ["session key", workspace.as_str(), key.as_str()] {
        digest.update(part.as_bytes());
        digest.update(b"\0");
    }
    let digest = digest.finalize();
    let text = format!("{GENERATED}{}", hex::encode(&digest[..16]));
    // A prefix and hex digits are always an id; the fallback keeps the promise without a panic path.
    SessionId::parse(&text).unwrap_or_else(|_| SessionId::generate())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_workspace_has_ids_of_its_own() {
        let workspace = |text: &str| WorkspaceId::parse(text).expect("an id");
        let key = |text: &str| SessionId::parse(text).expect("an id");
        let one = derived(&workspace("wrk_a"), &key("k"));
        assert_eq!(one, derived(&workspace("wrk_a"), &key("k")));
        assert_eq!(one.as_str().len(), GENERATED.len() + 32);
        for other in [
            derived(&workspace("wrk_b"), &key("k")),
            derived(&workspace("wrk_a"), &key("k2")),
            derived(&workspace("wrk_a"), &one),
        ] {
            assert_ne!(one, other);
        }
    }
}
