//! Deployments: create, read, change, pause, archive. [`run`] makes their runs, [`schedule`] says and sees to it when.

mod resources;
mod run;
mod schedule;

pub use resources::Given;
pub use schedule::timezone;

use oma_domain::deployment::{MAX_DEPLOYMENTS, Pause, Run, Spec};
use oma_domain::page::{Order, Page};
use oma_domain::{AgentId, Deployment, DeploymentId, KeyId, RunId, WorkspaceId};
use oma_store::{DeploymentFilter, RunFilter};
use serde_json::{Value, json};

use crate::agents::{not_found, unsupported};
use crate::error::{Error, Result};
use crate::sessions::check_resources;
use crate::{Engine, IdempotencyKey, once};

const SCOPE: &str = "deployment.create";
/// How often a change is tried again when others change the same deployment.
const CHANGE_ATTEMPTS: usize = 10;

impl Engine {
    /// The version of an agent that is pinned: the named one, or the current one.
    ///
    /// # Errors
    /// [`Error::AgentNotFound`], [`Error::AgentArchived`].
    pub async fn pin_agent(
        &self,
        workspace: &WorkspaceId,
        id: &AgentId,
        version: Option<u32>,
    ) -> Result<u32> {
        let agent = match version {
            Some(version) => self.agent_at(workspace, id, version).await?,
            None => self.agent(workspace, id).await?,
        };
        match agent.archived_at {
            Some(_) => Err(Error::AgentArchived),
            None => Ok(agent.version),
        }
    }

    /// Creates a deployment whose sessions are given `given`, whatever its definition says. `created_by` is the key that
    /// its scheduled runs are charged to.
    ///
    /// # Errors
    /// What the agent, the environment, the vaults or the resources are refused with; [`Error::TooManyDeployments`];
    /// [`Error::KeyReused`].
    pub async fn create_deployment(
        &self,
        workspace: &WorkspaceId,
        mut spec: Spec,
        given: Vec<Given>,
        created_by: Option<KeyId>,
        key: Option<IdempotencyKey>,
    ) -> Result<Deployment> {
        let store = &*self.inner.store;
        if let Some(receipt) = once::lookup(store, workspace, SCOPE, key.as_ref()).await? {
            return self.replayed_deployment(workspace, &receipt).await;
        }
        let id = DeploymentId::generate();
        spec.resources = self.seal_given(workspace, &id, given, &[]).await?;
        self.check_deployment(workspace, &spec, None).await?;
        let at = self.inner.config.clock.now();
        let mut deployment = Deployment {
            id,
            workspace: workspace.clone(),
            spec,
            created_by,
            created_at: at,
            updated_at: at,
            archived_at: None,
            paused: None,
            next: None,
            last_run_at: None,
            revision: 1,
        };
        deployment.next = self.next_tick(&deployment, at);
        let record = once::record(SCOPE, key.as_ref(), json!(deployment.id));
        let created = store.create_deployment(&deployment, MAX_DEPLOYMENTS, record.as_ref());
        match (created.await, key) {
            (Ok(()), _) => {
                self.inner.schedule_changed.notify_one();
                Ok(deployment)
            }
            (Err(oma_store::Error::AlreadyDone(record)), Some(key)) => {
                self.replayed_deployment(workspace, &once::replay(record, &key)?)
                    .await
            }
            (Err(oma_store::Error::TooMany(most)), _) => Err(Error::TooManyDeployments(most)),
            // It was archived just now.
            (Err(oma_store::Error::AgentGone), _) => Err(Error::AgentArchived),
            (Err(error), _) => Err(error.into()),
        }
    }

    async fn replayed_deployment(&self, workspace: &WorkspaceId, receipt: &Value) -> Result<Deployment> {
        let id = receipt.as_str().and_then(|id| DeploymentId::parse(id).ok());
        self.deployment(workspace, &id.ok_or(Error::DeploymentNotFound)?)
            .await
    }

    /// Looks whether the parts of a definition are there that another one does not have already.
    async fn check_deployment(
        &self,
        workspace: &WorkspaceId,
        spec: &Spec,
        before: Option<&Spec>,
    ) -> Result<()> {
        let same_agent = before
            .is_some_and(|before| (&before.agent, before.agent_version) == (&spec.agent, spec.agent_version));
        let same_environment = before.is_some_and(|before| before.environment == spec.environment);
        if !same_environment || !same_agent {
            let environment = self.environment(workspace, &spec.environment).await?;
            if environment.archived_at.is_some() && !same_environment {
                return Err(Error::EnvironmentArchived);
            }
            let agent = self.agent_at(workspace, &spec.agent, spec.agent_version).await?;
            if agent.archived_at.is_some() && !same_agent {
                return Err(Error::AgentArchived);
            }
            let runnable = self.inner.runtime.check(&agent, Some(&environment));
            runnable.map_err(unsupported)?;
        }
        let same_resources = before.is_some_and(|before| before.resources == spec.resources);
        if resources::needs_sandbox(&spec.resources) && !(same_environment && same_resources) {
            let environment = self.environment(workspace, &spec.environment).await?;
            check_resources(&environment)?;
        }
        if !same_resources {
            let before = before.map_or(&[][..], |before| &before.resources);
            self.check_given(workspace, &spec.resources, before).await?;
        }
        let same_budget = before.is_some_and(|before| before.budget == spec.budget);
        if spec.budget.is_some() && !(same_agent && same_budget) {
            let agent = self.agent_at(workspace, &spec.agent, spec.agent_version).await?;
            self.check_prices(&agent)?;
        }
        for vault in &spec.vaults {
            if before.is_none_or(|before| !before.vaults.contains(vault)) {
                self.open_vault(workspace, vault).await?;
            }
        }
        Ok(())
    }

    /// A deployment.
    ///
    /// # Errors
    /// [`Error::DeploymentNotFound`].
    pub async fn deployment(&self, workspace: &WorkspaceId, id: &DeploymentId) -> Result<Deployment> {
        let found = self.inner.store.deployment(workspace, id).await?;
        found.ok_or(Error::DeploymentNotFound)
    }

    /// Deployments by creation.
    ///
    /// # Errors
    /// [`Error::DeploymentNotFound`] when the cursor is unknown.
    pub async fn deployments(
        &self,
        workspace: &WorkspaceId,
        filter: &DeploymentFilter,
        order: Order,
        after: Option<&DeploymentId>,
        limit: u32,
    ) -> Result<Page<Deployment, DeploymentId>> {
        let store = &self.inner.store;
        let page = store.deployments(workspace, filter, order, after, limit).await;
        page.map_err(|error| not_found(error, Error::DeploymentNotFound))
    }

    /// Changes a deployment by what `change` makes of its present definition, and gives its sessions `given` in the
    /// place of what they are given now. An equal one changes nothing.
    ///
    /// # Errors
    /// [`Error::DeploymentNotFound`], [`Error::DeploymentArchived`]; what the agent, the environment, the vaults or the
    /// resources are refused with.
    pub async fn update_deployment(
        &self,
        workspace: &WorkspaceId,
        id: &DeploymentId,
        given: Option<Vec<Given>>,
        change: impl Fn(Spec) -> Spec + Send,
    ) -> Result<Deployment> {
        for _ in 0..CHANGE_ATTEMPTS {
            let current = self.deployment(workspace, id).await?;
            if current.archived_at.is_some() {
                return Err(Error::DeploymentArchived);
            }
            let mut spec = change(current.spec.clone());
            if let Some(given) = given.clone() {
                let before = &current.spec.resources;
                spec.resources = self.seal_given(workspace, id, given, before).await?;
            }
            if spec == current.spec {
                return Ok(current);
            }
            self.check_deployment(workspace, &spec, Some(&current.spec))
                .await?;
            let at = self.inner.config.clock.now();
            let rescheduled = spec.schedule != current.spec.schedule;
            let mut next = Deployment {
                spec,
                updated_at: at,
                ..current.clone()
            };
            if rescheduled {
                next.next = self.next_tick(&next, at);
            }
            if let Some(next) = self.put_deployment(next).await? {
                return Ok(next);
            }
        }
        Err(busy())
    }

    /// Has a deployment run no more by itself. Pausing again changes nothing.
    ///
    /// # Errors
    /// [`Error::DeploymentNotFound`], [`Error::DeploymentArchived`].
    pub async fn pause_deployment(&self, workspace: &WorkspaceId, id: &DeploymentId) -> Result<Deployment> {
        self.set_deployment(workspace, id, |deployment| {
            if deployment.archived_at.is_some() {
                return Err(Error::DeploymentArchived);
            }
            let paused = deployment.paused.is_none();
            deployment.paused.get_or_insert(Pause::Manual);
            Ok(paused)
        })
        .await
    }

    /// Has a deployment run by itself again, from now on.
    ///
    /// # Errors
    /// [`Error::DeploymentNotFound`], [`Error::DeploymentArchived`].
    pub async fn unpause_deployment(&self, workspace: &WorkspaceId, id: &DeploymentId) -> Result<Deployment> {
        self.set_deployment(workspace, id, |deployment| {
            if deployment.archived_at.is_some() {
                return Err(Error::DeploymentArchived);
            }
            Ok(deployment.paused.take().is_some())
        })
        .await
    }

    /// Archives a deployment, for good. Archiving again keeps the first time.
    ///
    /// # Errors
    /// [`Error::DeploymentNotFound`].
    pub async fn archive_deployment(&self, workspace: &WorkspaceId, id: &DeploymentId) -> Result<Deployment> {
        let at = self.inner.config.clock.now();
        self.set_deployment(workspace, id, |deployment| {
            let archived = deployment.archived_at.is_none();
            deployment.archived_at.get_or_insert(at);
            deployment.paused = None;
            Ok(archived)
        })
        .await
    }

    /// Changes where a deployment stands, if `change` says that it has.
    async fn set_deployment(
        &self,
        workspace: &WorkspaceId,
        id: &DeploymentId,
        change: impl Fn(&mut Deployment) -> Result<bool> + Send,
    ) -> Result<Deployment> {
        for _ in 0..CHANGE_ATTEMPTS {
            let mut deployment = self.deployment(workspace, id).await?;
            if !change(&mut deployment)? {
                return Ok(deployment);
            }
            let at = self.inner.config.clock.now();
            deployment.updated_at = at;
            deployment.next = self.next_tick(&deployment, at);
            if let Some(deployment) = self.put_deployment(deployment).await? {
                return Ok(deployment);
            }
        }
        Err(busy())
    }

    /// Writes a deployment over the revision that it was made from; `None` when that is not there any more.
    async fn put_deployment(&self, mut deployment: Deployment) -> Result<Option<Deployment>> {
        deployment.revision += 1;
        match self.inner.store.update_deployment(&deployment).await {
            Ok(()) => {
                self.inner.schedule_changed.notify_one();
                Ok(Some(deployment))
            }
            Err(oma_store::Error::Conflict) => Ok(None),
            Err(oma_store::Error::AgentGone) => Err(Error::AgentArchived),
            Err(error) => Err(not_found(error, Error::DeploymentNotFound)),
        }
    }

    /// A run.
    ///
    /// # Errors
    /// [`Error::RunNotFound`].
    pub async fn deployment_run(&self, workspace: &WorkspaceId, id: &RunId) -> Result<Run> {
        let found = self.inner.store.deployment_run(workspace, id).await?;
        found.ok_or(Error::RunNotFound)
    }

    /// Runs in the order in which they were made.
    ///
    /// # Errors
    /// [`Error::RunNotFound`] when the cursor is unknown.
    pub async fn deployment_runs(
        &self,
        workspace: &WorkspaceId,
        filter: &RunFilter,
        order: Order,
        after: Option<&RunId>,
        limit: u32,
    ) -> Result<Page<Run, RunId>> {
        let store = &self.inner.store;
        let page = store
            .deployment_runs(workspace, filter, order, after, limit)
            .await;
        page.map_err(|error| not_found(error, Error::RunNotFound))
    }
}

fn busy() -> Error {
    Error::Unavailable("the deployment changes all the time".to_owned())
}
