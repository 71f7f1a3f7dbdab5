//! Sandboxes in advance: who is likely to need one, and like which.
//!
//! What is asked for here is a wish, and nobody waits for it. Sessions of an agent are likely to be like its newest one.

use std::collections::HashSet;

use oma_domain::page::Order;
use oma_domain::{AgentId, Session, SessionId, Timestamp, WorkspaceId};
use oma_store::SessionFilter;

use crate::{Engine, Result};

/// How many workspaces are looked at when the server starts, and how many of the newest sessions of each.
const WORKSPACES: u32 = 200;
const SESSIONS: u32 = 20;

impl Engine {
    /// Has sandboxes started in advance for sessions of this agent; does nothing where none are.
    ///
    /// # Errors
    /// [`Error::AgentNotFound`](crate::Error::AgentNotFound), also where none are.
    pub async fn warm_agent(&self, workspace: &WorkspaceId, agent: &AgentId) -> Result<()> {
        self.agent(workspace, agent).await?;
        if self.inner.runtime.max_warm() == 0 {
            return Ok(());
        }
        self.warm_like_newest(workspace, agent).await
    }

    async fn warm_like_newest(&self, workspace: &WorkspaceId, agent: &AgentId) -> Result<()> {
        let filter = SessionFilter {
            agent: Some(agent.clone()),
            ..SessionFilter::default()
        };
        let store = &self.inner.store;
        let newest = store
            .sessions(workspace, &filter, Order::Descending, None, 1)
            .await?;
        match newest.rows.first() {
            Some(session) => self.warm_like(session),
            None => self.inner.runtime.warm(workspace, None),
        }
        Ok(())
    }

    /// The same when nobody is told what comes of it.
    pub(crate) fn warm_behind(&self, workspace: &WorkspaceId, agent: &AgentId) {
        if self.inner.runtime.max_warm() == 0 {
            return;
        }
        let (engine, workspace, agent) = (self.clone(), workspace.clone(), agent.clone());
        self.inner.tasks.spawn(async move {
            if let Err(error) = engine.warm_like_newest(&workspace, &agent).await {
                tracing::debug!(agent_id = %agent, %error, "no sandboxes in advance");
            }
        });
    }

    /// Has sandboxes started in advance like that of this session, unless somebody else has its sandbox.
    pub(crate) fn warm_like(&self, session: &Session) {
        let environment = session.environment.as_deref();
        if environment.is_none_or(|environment| environment.spec.hosting.is_cloud()) {
            self.inner.runtime.warm(&session.workspace, Some(&session.id));
        }
    }

    /// Has sandboxes started in advance for those agents that were used last.
    ///
    /// # Errors
    /// A store failure.
    pub async fn warm_up(&self) -> Result<()> {
        let most = self.inner.runtime.max_warm();
        if most == 0 {
            return Ok(());
        }
        let store = &self.inner.store;
        let mut found: Vec<Session> = Vec::new();
        for workspace in store.workspaces(None, WORKSPACES).await?.rows {
            let all = SessionFilter::default();
            let newest = store
                .sessions(&workspace.id, &all, Order::Descending, None, SESSIONS)
                .await?;
            found.extend(newest.rows);
            found.sort_by(|one, other| used(other).cmp(&used(one)));
            let mut agents = HashSet::new();
            found.retain(|session| agents.insert(session.agent.id.clone()));
            found.truncate(most);
        }
        // The last one that is asked for is the first one that is seen to.
        for session in found.iter().rev() {
            self.warm_like(session);
        }
        Ok(())
    }
}

fn used(session: &Session) -> (Timestamp, &SessionId) {
    (session.last_event_at.unwrap_or(session.created_at), &session.id)
}
