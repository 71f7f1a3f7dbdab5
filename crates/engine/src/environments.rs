//! Environments: create, read, update, archive, delete.

use oma_domain::environment::Spec;
use oma_domain::page::{Order, Page};
use oma_domain::{Environment, EnvironmentId, WorkspaceId};
use oma_runtime::Build;
use oma_store::ListFilter;
use serde_json::{Value, json};

use crate::agents::{not_found, unsupported};
use crate::error::{Error, Result};
use crate::{Engine, IdempotencyKey, now, once};

const SCOPE: &str = "environment.create";
/// How often a change is tried again when others change the same environment.
const CHANGE_ATTEMPTS: usize = 10;

impl Engine {
    /// Creates an environment, and with `unique_name` only if no other one that is not archived has its name.
    ///
    /// # Errors
    /// [`Error::KeyReused`]; [`Error::EnvironmentExists`].
    pub async fn create_environment(
        &self,
        workspace: &WorkspaceId,
        spec: Spec,
        unique_name: bool,
        key: Option<IdempotencyKey>,
    ) -> Result<Environment> {
        let store = &*self.inner.store;
        if let Some(receipt) = once::lookup(store, workspace, SCOPE, key.as_ref()).await? {
            return self.replayed_environment(workspace, &receipt).await;
        }
        let id = EnvironmentId::generate();
        let at = now();
        self.check_environment(&spec)?;
        let environment = Environment {
            id,
            workspace: workspace.clone(),
            spec,
            created_at: at,
            updated_at: at,
            archived_at: None,
        };
        let record = once::record(SCOPE, key.as_ref(), json!(environment.id));
        let created = store.create_environment(&environment, unique_name, record.as_ref());
        match (created.await, key) {
            (Ok(()), _) => {
                self.inner.runtime.prepare_environment(&environment);
                Ok(environment)
            }
            (Err(oma_store::Error::AlreadyDone(record)), Some(key)) => {
                self.replayed_environment(workspace, &once::replay(record, &key)?)
                    .await
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    fn check_environment(&self, spec: &Spec) -> Result<()> {
        let checked = self.inner.runtime.check_environment(spec);
        checked.map_err(unsupported)
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

    /// What is known of an environment's build; none where there is nothing to build.
    ///
    /// # Errors
    /// [`Error::EnvironmentNotFound`]; [`Error::Unavailable`] when that can't be told now.
    pub async fn environment_build(
        &self,
        workspace: &WorkspaceId,
        id: &EnvironmentId,
    ) -> Result<Option<Build>> {
        let environment = self.environment(workspace, id).await?;
        let build = self.inner.runtime.environment_build(&environment).await;
        build.map_err(Error::Unavailable)
    }

    /// Environments by creation.
    ///
    /// # Errors
    /// [`Error::EnvironmentNotFound`] when the cursor is unknown.
    pub async fn environments(
        &self,
        workspace: &WorkspaceId,
        filter: &ListFilter,
        order: Order,
        after: Option<&EnvironmentId>,
        limit: u32,
    ) -> Result<Page<Environment, EnvironmentId>> {
        let page = self
            .inner
            .store
            .environments(workspace, filter, order, after, limit)
            .await;
        page.map_err(|error| not_found(error, Error::EnvironmentNotFound))
    }

    /// Changes an environment by what `change` makes of its present definition. An equal definition changes nothing.
    /// What sandboxes that run contain stays as it is; what they may reach is what it says now.
    ///
    /// # Errors
    /// [`Error::EnvironmentNotFound`]; [`Error::EnvironmentArchived`]; [`Error::EnvironmentExists`] when another one
    /// has the new name.
    pub async fn update_environment(
        &self,
        workspace: &WorkspaceId,
        id: &EnvironmentId,
        change: impl Fn(Spec) -> Spec,
    ) -> Result<Environment> {
        self.change_environment(workspace, id, |current| {
            if current.archived_at.is_some() {
                return Err(Error::EnvironmentArchived);
            }
            let spec = change(current.spec.clone());
            Ok((spec != current.spec).then(|| Environment {
                spec,
                updated_at: now(),
                ..current.clone()
            }))
        })
        .await
    }

    /// Archives an environment: it takes no new sessions. Archiving again keeps the first time.
    ///
    /// # Errors
    /// [`Error::EnvironmentNotFound`].
    pub async fn archive_environment(
        &self,
        workspace: &WorkspaceId,
        id: &EnvironmentId,
    ) -> Result<Environment> {
        self.change_environment(workspace, id, |current| {
            let at = now();
            Ok(current.archived_at.is_none().then(|| Environment {
                archived_at: Some(at),
                updated_at: at,
                ..current.clone()
            }))
        })
        .await
    }

    async fn change_environment(
        &self,
        workspace: &WorkspaceId,
        id: &EnvironmentId,
        change: impl Fn(&Environment) -> Result<Option<Environment>>,
    ) -> Result<Environment> {
        for _ in 0..CHANGE_ATTEMPTS {
            let current = self.environment(workspace, id).await?;
            let Some(next) = change(&current)? else {
                return Ok(current);
            };
            if next.spec != current.spec {
                self.check_environment(&next.spec)?;
            }
            let renamed = next.spec.name != current.spec.name;
            match self
                .inner
                .store
                .update_environment(&current, &next, renamed)
                .await
            {
                Ok(()) => {
                    self.inner.runtime.environment_changed(id);
                    if next.archived_at.is_none() {
                        self.inner.runtime.prepare_environment(&next);
                    }
                    return Ok(next);
                }
                // Somebody was faster: the change is made to what is there now.
                Err(oma_store::Error::Conflict) => {}
                Err(error) => return Err(not_found(error, Error::EnvironmentNotFound)),
            }
        }
        Err(Error::Unavailable(
            "the environment changes all the time".to_owned(),
        ))
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
