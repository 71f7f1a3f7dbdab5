//! Deployments and their runs in the durable record.

use async_trait::async_trait;
use oma_domain::deployment::Run;
use oma_domain::page::{Order, Page};
use oma_domain::{AgentId, Deployment, DeploymentId, RunId, Timestamp, WorkspaceId};

use crate::{Commit, NewSession, Once, Result, Span};

/// Which deployments to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeploymentFilter {
    /// Only those of this agent.
    pub agent: Option<AgentId>,
    /// Only those that are (not) paused.
    pub paused: Option<bool>,
    /// Whether archived ones are left out.
    pub only_active: bool,
    /// Only those created then.
    pub created: Span,
}

/// Which runs to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Only those of this deployment.
    pub deployment: Option<DeploymentId>,
    /// Only those that failed, or did not.
    pub failed: Option<bool>,
    /// Only those that the schedule made, or did not.
    pub scheduled: Option<bool>,
    /// Only those made then.
    pub created: Span,
}

/// A run to record, with everything that comes of it.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// The run.
    pub run: Run,
    /// The deployment as it is afterwards.
    pub deployment: Deployment,
    /// The session that it opens, and what that one begins with.
    pub opened: Option<(NewSession, Commit)>,
}

/// A deployment that runs by itself, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// The deployment.
    pub deployment: DeploymentId,
    /// When its next run is made.
    pub fires_at: Timestamp,
}

/// Deployments in the durable record.
#[async_trait]
pub trait Deployments: Send + Sync + 'static {
    /// Adds a deployment, as long as its workspace has less than `most` that are not archived.
    ///
    /// # Errors
    /// [`Error::AlreadyDone`](crate::Error::AlreadyDone) when the key is taken;
    /// [`Error::Conflict`](crate::Error::Conflict) when the id is taken;
    /// [`Error::AgentGone`](crate::Error::AgentGone) when the agent is gone or archived;
    /// [`Error::TooMany`](crate::Error::TooMany).
    async fn create_deployment(&self, deployment: &Deployment, most: u32, once: Option<&Once>) -> Result<()>;
    /// A deployment.
    async fn deployment(&self, workspace: &WorkspaceId, id: &DeploymentId) -> Result<Option<Deployment>>;
    /// Deployments by creation; `after` is the last id of the page before.
    async fn deployments(
        &self,
        workspace: &WorkspaceId,
        filter: &DeploymentFilter,
        order: Order,
        after: Option<&DeploymentId>,
        limit: u32,
    ) -> Result<Page<Deployment, DeploymentId>>;
    /// Writes a deployment: `deployment.revision` must be one above the stored one.
    ///
    /// # Errors
    /// [`Error::Conflict`](crate::Error::Conflict) when it is not; [`Error::NotFound`](crate::Error::NotFound);
    /// [`Error::AgentGone`](crate::Error::AgentGone) when it is not archived and its agent is gone or archived.
    async fn update_deployment(&self, deployment: &Deployment) -> Result<()>;
    /// The deployments of all workspaces that run by themselves, the earliest first.
    async fn due_deployments(&self, limit: u32) -> Result<Vec<Due>>;
    /// The same ones by id, for whoever looks at all of them.
    async fn scheduled_deployments(
        &self,
        after: Option<&DeploymentId>,
        limit: u32,
    ) -> Result<Page<Due, DeploymentId>>;

    /// Records a run, writes the deployment, and adds the session with what it begins with, in one transaction.
    ///
    /// # Errors
    /// [`Error::Conflict`](crate::Error::Conflict) when the deployment has changed meanwhile, or there is such a run or
    /// session already; what adding a session is refused with; [`Error::AlreadyDone`](crate::Error::AlreadyDone) when
    /// the key is taken. Nothing has changed then.
    async fn record_run(&self, run: &NewRun, once: Option<&Once>) -> Result<()>;
    /// A run.
    async fn deployment_run(&self, workspace: &WorkspaceId, id: &RunId) -> Result<Option<Run>>;
    /// Runs in the order in which they were made.
    async fn deployment_runs(
        &self,
        workspace: &WorkspaceId,
        filter: &RunFilter,
        order: Order,
        after: Option<&RunId>,
        limit: u32,
    ) -> Result<Page<Run, RunId>>;
}
