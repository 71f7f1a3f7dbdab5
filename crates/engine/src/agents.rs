//! Agents: create, read, update, archive, delete.

use std::sync::Arc;

use oma_domain::agent::Spec;
use oma_domain::multiagent::ADVISOR;
use oma_domain::page::{Order, Page};
use oma_domain::{Agent, AgentId, WorkspaceId};
use oma_store::ListFilter;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::{Engine, IdempotencyKey, now, once};

const SCOPE: &str = "agent.create";

impl Engine {
    /// Creates an agent at version 1.
    ///
    /// # Errors
    /// [`Error::InvalidModel`] when no provider could have its model; [`Error::Unsupported`] when this server could
    /// never run it; [`Error::KeyReused`].
    pub async fn create_agent(
        &self,
        workspace: &WorkspaceId,
        spec: Spec,
        key: Option<IdempotencyKey>,
    ) -> Result<Agent> {
        let store = &*self.inner.store;
        if let Some(receipt) = once::lookup(store, workspace, SCOPE, key.as_ref()).await? {
            return self.replayed_agent(workspace, &receipt).await;
        }
        let at = now();
        let agent = Agent {
            id: AgentId::generate(),
            workspace: workspace.clone(),
            version: 1,
            spec,
            created_at: at,
            updated_at: at,
            archived_at: None,
        };
        self.check_model(&agent.spec.model)?;
        check_name(&agent.spec)?;
        self.inner.runtime.check(&agent, None).map_err(unsupported)?;
        let record = once::record(SCOPE, key.as_ref(), json!(agent.id));
        match (store.create_agent(&agent, record.as_ref()).await, key) {
            (Ok(()), _) => {
                metrics::counter!("agents_created_total").increment(1);
                self.warm_behind(workspace, &agent.id);
                Ok(agent)
            }
            (Err(oma_store::Error::AlreadyDone(record)), Some(key)) => {
                self.replayed_agent(workspace, &once::replay(record, &key)?).await
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Refuses a model that no provider could have.
    ///
    /// # Errors
    /// [`Error::InvalidModel`].
    pub fn check_model(&self, model: &str) -> Result<()> {
        self.inner.runtime.check_model(model).map_err(Error::InvalidModel)
    }

    /// Refuses an agent for a budget when its model has no price, or its advisor's has none.
    pub(crate) fn check_prices(&self, agent: &Agent) -> Result<()> {
        let mut models = std::iter::once(agent.spec.model.as_str()).chain(agent.advisor());
        match models.find(|model| !self.inner.runtime.has_price(model)) {
            Some(model) => Err(Error::NotBudgetable(model.to_owned())),
            None => Ok(()),
        }
    }

    async fn replayed_agent(&self, workspace: &WorkspaceId, receipt: &Value) -> Result<Agent> {
        let id = receipt
            .as_str()
            .and_then(|id| AgentId::parse(id).ok())
            .ok_or(Error::AgentNotFound)?;
        self.agent(workspace, &id).await
    }

    /// The current version of an agent.
    ///
    /// # Errors
    /// [`Error::AgentNotFound`].
    pub async fn agent(&self, workspace: &WorkspaceId, id: &AgentId) -> Result<Agent> {
        self.inner
            .store
            .agent(workspace, id)
            .await?
            .ok_or(Error::AgentNotFound)
    }

    /// One version of an agent; like the current one it says when the agent was created and archived.
    ///
    /// # Errors
    /// [`Error::AgentNotFound`], also when there is no such version.
    pub async fn agent_at(&self, workspace: &WorkspaceId, id: &AgentId, version: u32) -> Result<Agent> {
        let current = self.agent(workspace, id).await?;
        if current.version == version {
            return Ok(current);
        }
        let before = version.checked_sub(1).ok_or(Error::AgentNotFound)?;
        let page = self
            .agent_versions(workspace, id, Order::Ascending, Some(before), 1)
            .await?;
        let found = page.rows.into_iter().find(|agent| agent.version == version);
        let found = found.ok_or(Error::AgentNotFound)?;
        Ok(Agent {
            archived_at: current.archived_at,
            ..found
        })
    }

    /// Agents by creation.
    ///
    /// # Errors
    /// [`Error::AgentNotFound`] when the cursor is unknown.
    pub async fn agents(
        &self,
        workspace: &WorkspaceId,
        filter: &ListFilter,
        order: Order,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Page<Agent, AgentId>> {
        let page = self
            .inner
            .store
            .agents(workspace, filter, order, after, limit)
            .await;
        page.map_err(|error| not_found(error, Error::AgentNotFound))
    }

    /// An agent's versions.
    ///
    /// # Errors
    /// [`Error::AgentNotFound`].
    pub async fn agent_versions(
        &self,
        workspace: &WorkspaceId,
        id: &AgentId,
        order: Order,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Page<Agent, u32>> {
        self.agent(workspace, id).await?;
        let page = self
            .inner
            .store
            .agent_versions(workspace, id, order, after, limit)
            .await;
        page.map_err(|error| not_found(error, Error::AgentNotFound))
    }

    /// Writes the next version with this definition. An equal definition changes nothing and returns the
    /// current version.
    ///
    /// # Errors
    /// [`Error::AgentNotFound`], [`Error::AgentArchived`], [`Error::VersionConflict`],
    /// [`Error::InvalidModel`], [`Error::Unsupported`].
    pub async fn update_agent(
        &self,
        workspace: &WorkspaceId,
        id: &AgentId,
        expected_version: u32,
        spec: Spec,
    ) -> Result<Agent> {
        let current = self.agent(workspace, id).await?;
        check_version(&current, expected_version)?;
        if current.spec == spec {
            return Ok(current);
        }
        // An agent whose provider is gone from the configuration can still be changed otherwise.
        if current.spec.model != spec.model {
            self.check_model(&spec.model)?;
        }
        if current.spec.name != spec.name {
            check_name(&spec)?;
        }
        let next = Agent {
            version: current.version + 1,
            spec,
            updated_at: now(),
            ..current
        };
        self.inner.runtime.check(&next, None).map_err(unsupported)?;
        match self.write_version(next.clone()).await? {
            Ok(()) => {
                self.warm_behind(workspace, id);
                Ok(next)
            }
            // Somebody was faster: say what is true now.
            Err(oma_store::Error::Conflict | oma_store::Error::NotFound) => {
                let current = self.agent(workspace, id).await?;
                check_version(&current, expected_version)?;
                Err(Error::VersionConflict {
                    expected: expected_version,
                    actual: current.version,
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the next version, and tells the sessions at work. To the end, also when the caller goes away in the
    /// middle of it: they would keep to budgets that have been changed.
    async fn write_version(&self, next: Agent) -> Result<oma_store::Result<()>> {
        let inner = Arc::clone(&self.inner);
        let task = self.inner.tasks.spawn(async move {
            let written = inner.store.update_agent(&next).await;
            inner.quotas.changed();
            written
        });
        task.await
            .map_err(|error| Error::Internal(format!("the change of an agent did not end: {error}")))
    }

    /// Archives an agent: it serves no new sessions, and its deployments are archived with it.
    ///
    /// # Errors
    /// [`Error::AgentNotFound`].
    pub async fn archive_agent(&self, workspace: &WorkspaceId, id: &AgentId) -> Result<Agent> {
        let agent = self.inner.store.archive_agent(workspace, id, now()).await;
        agent.map_err(|error| not_found(error, Error::AgentNotFound))
    }

    /// Whether a session of an agent has a workflow run that has not ended.
    ///
    /// # Errors
    /// A store failure.
    pub async fn has_open_run(&self, workspace: &WorkspaceId, id: &AgentId) -> Result<bool> {
        Ok(self.inner.store.has_open_run(workspace, id).await?)
    }

    /// Removes an agent with all its versions; its sessions stay readable, and its deployments are archived.
    ///
    /// # Errors
    /// [`Error::AgentNotFound`].
    pub async fn delete_agent(&self, workspace: &WorkspaceId, id: &AgentId) -> Result<()> {
        if self.inner.store.delete_agent(workspace, id, now()).await? {
            Ok(())
        } else {
            Err(Error::AgentNotFound)
        }
    }
}

/// Refuses the name that advisors have in threads.
fn check_name(spec: &Spec) -> Result<()> {
    if spec.name.as_deref() == Some(ADVISOR) {
        return Err(Error::Unsupported {
            field: "name",
            message: format!("the name {ADVISOR} is reserved"),
        });
    }
    Ok(())
}

fn check_version(current: &Agent, expected: u32) -> Result<()> {
    if current.archived_at.is_some() {
        return Err(Error::AgentArchived);
    }
    if current.version != expected {
        return Err(Error::VersionConflict {
            expected,
            actual: current.version,
        });
    }
    Ok(())
}

pub(crate) fn unsupported(refusal: oma_runtime::Unsupported) -> Error {
    Error::Unsupported {
        field: refusal.field,
        message: refusal.message,
    }
}

pub(crate) fn not_found(error: oma_store::Error, instead: Error) -> Error {
    match error {
        oma_store::Error::NotFound => instead,
        other => other.into(),
    }
}
