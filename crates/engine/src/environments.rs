//! Environments: create, read, delete. They are immutable.

use oma_domain::environment::Spec;
use oma_domain::page::Page;
use oma_domain::{Environment, EnvironmentId, WorkspaceId};
use serde_json::{Value, json};

use crate::agents::not_found;
use crate::error::{Error, Result};
use crate::{Engine, IdempotencyKey, now, once};

const SCOPE: &str = "environment.create";

impl Engine {
    /// Creates an environment.
    ///
    /// # Errors
    /// [`Error::KeyReused`].
    pub async fn create_environment(
        &self,
        workspace: &WorkspaceId,
        spec: Spec,
        key: Option<IdempotencyKey>,
    ) -> Result<Environment> {
        let store = &*self.inner.store;
        if let Some(receipt) = once::lookup(store, workspace, SCOPE, key.as_ref()).await? {
            return self.replayed_environment(workspace, &receipt).await;
        }
        let id = EnvironmentId::generate();
        let environment = Environment {
            id,
            workspace: workspace.clone(),
            spec,
            created_at: now(),
        };
        let record = once::record(SCOPE, key.as_ref(), json!(environment.id));
        match (store.create_environment(&environment, record.as_ref()).await, key) {
            (Ok(()), _) => Ok(environment),
            (Err(oma_store::Error::AlreadyDone(record)), Some(key)) => {
                self.replayed_environment(workspace, &once::replay(record, &key)?)
                    .await
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    async fn replayed_environment(&self, workspace: &WorkspaceId, receipt: &Value) -> Result<Environment> {
        let id = receipt.as_str().and_then(|id| EnvironmentId::parse(id).ok());
        self.environment(workspace, &id.ok_or(Error::EnvironmentNotFound)?)
            .await
    }

    /// An environment.
    ///
    /// # Errors
    /// [`Error::EnvironmentNotFound`].
    pub async fn environment(&self, workspace: &WorkspaceId, id: &EnvironmentId) -> Result<Environment> {
        self.inner
            .store
            .environment(workspace, id)
            .await?
            .ok_or(Error::EnvironmentNotFound)
    }

    /// Environments by creation, oldest first.
    ///
    /// # Errors
    /// [`Error::EnvironmentNotFound`] when the cursor is unknown.
    pub async fn environments(
        &self,
        workspace: &WorkspaceId,
        after: Option<&EnvironmentId>,
        limit: u32,
    ) -> Result<Page<Environment, EnvironmentId>> {
        let page = self.inner.store.environments(workspace, after, limit).await;
        page.map_err(|error| not_found(error, Error::EnvironmentNotFound))
    }

    /// Removes an environment.
    ///
    /// # Errors
    /// [`Error::EnvironmentNotFound`]; [`Error::EnvironmentInUse`] while sessions refer to it.
    pub async fn delete_environment(&self, workspace: &WorkspaceId, id: &EnvironmentId) -> Result<()> {
        let removed = self.inner.store.delete_environment(workspace, id).await?;
        if removed {
            Ok(())
        } else {
            Err(Error::EnvironmentNotFound)
        }
    }
}
