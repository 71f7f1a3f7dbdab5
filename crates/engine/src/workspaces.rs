//! Workspaces: create, read. Who may is the API's part.

use oma_domain::page::Page;
use oma_domain::quota::Monthly;
use oma_domain::{Workspace, WorkspaceId};
use serde_json::{Value, json};

use crate::agents::not_found;
use crate::error::{Error, Result};
use crate::ledger::Account;
use crate::{Engine, IdempotencyKey, now, once};

const SCOPE: &str = "workspace.create";

impl Engine {
    /// Creates a workspace.
    ///
    /// # Errors
    /// [`Error::KeyReused`].
    pub async fn create_workspace(
        &self,
        name: String,
        budget: Monthly,
        key: Option<IdempotencyKey>,
    ) -> Result<Workspace> {
        let store = &*self.inner.store;
        let home = WorkspaceId::default_workspace();
        if let Some(receipt) = once::lookup(store, &home, SCOPE, key.as_ref()).await? {
            return self.replayed_workspace(&receipt).await;
        }
        let workspace = Workspace {
            id: WorkspaceId::generate(),
            name,
            budget,
            max_sessions: None,
            created_at: now(),
        };
        let record = once::record(SCOPE, key.as_ref(), json!(workspace.id));
        match (store.create_workspace(&workspace, record.as_ref()).await, key) {
            (Ok(()), _) => Ok(workspace),
            (Err(oma_store::Error::AlreadyDone(record)), Some(key)) => {
                self.replayed_workspace(&once::replay(record, &key)?).await
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    async fn replayed_workspace(&self, receipt: &Value) -> Result<Workspace> {
        let id = receipt.as_str().and_then(|id| WorkspaceId::parse(id).ok());
        self.find_workspace(&id.ok_or(Error::WorkspaceNotFound)?).await
    }

    /// A workspace.
    ///
    /// # Errors
    /// [`Error::WorkspaceNotFound`].
    pub async fn find_workspace(&self, id: &WorkspaceId) -> Result<Workspace> {
        self.inner
            .store
            .workspace(id)
            .await?
            .ok_or(Error::WorkspaceNotFound)
    }

    /// Changes what may be consumed in a workspace in a month. It holds for the next model request.
    ///
    /// # Errors
    /// [`Error::WorkspaceNotFound`].
    pub async fn set_workspace_budget(&self, id: &WorkspaceId, budget: Monthly) -> Result<Workspace> {
        // To its end, also when the caller goes away: what the store has, the ledger must have.
        let (engine, id) = (self.clone(), id.clone());
        let task = self.inner.tasks.spawn(async move {
            let account = Account::Workspace(id.clone());
            let change = engine.inner.store.set_workspace_budget(&id, &budget);
            engine.inner.ledger.change(&account, &budget, change).await
        });
        let changed = task
            .await
            .map_err(|error| Error::Internal(format!("the change of a budget did not end: {error}")))?;
        changed.map_err(|error| not_found(error, Error::WorkspaceNotFound))
    }

    /// Workspaces by creation, oldest first.
    ///
    /// # Errors
    /// [`Error::WorkspaceNotFound`] when the cursor is unknown.
    pub async fn workspaces(
        &self,
        after: Option<&WorkspaceId>,
        limit: u32,
    ) -> Result<Page<Workspace, WorkspaceId>> {
        let page = self.inner.store.workspaces(after, limit).await;
        page.map_err(|error| not_found(error, Error::WorkspaceNotFound))
    }
}
