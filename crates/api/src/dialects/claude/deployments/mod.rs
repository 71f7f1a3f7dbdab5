//! Deployments: create, list, read, update, pause, unpause, run, archive; and their runs.

mod body;
mod runs;
mod view;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use oma_domain::deployment::Spec;
use oma_domain::page::Order;
use oma_domain::{AgentId, DeploymentId, WorkspaceId};
use oma_engine::{DeploymentFilter, Engine, Error};
use serde_json::Value;

use super::body::{Sent, bad, bounded};
use super::events::attachments;
use super::page::{self, Cursor, Page};
use super::query::Query;
use crate::AppState;
use crate::auth::Caller;
use crate::fault::{Fault, Result};
use crate::params::DeploymentPath;
use body::Pinned;
use view::deployment;

/// The routes of this module.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/deployments", post(create).get(list))
        .route("/v1/deployments/{deployment_id}", get(retrieve).post(update))
        .route("/v1/deployments/{deployment_id}/archive", post(archive))
        .route("/v1/deployments/{deployment_id}/pause", post(pause))
        .route("/v1/deployments/{deployment_id}/unpause", post(unpause))
        .route("/v1/deployments/{deployment_id}/run", post(runs::create))
        .route("/v1/deployment_runs", get(runs::list))
        .route("/v1/deployment_runs/{deployment_run_id}", get(runs::retrieve))
}

/// The agent that a client names, pinned to a version.
async fn pinned(engine: &Engine, workspace: &WorkspaceId, named: &Pinned) -> Result<(AgentId, u32)> {
    let agent = AgentId::parse(&named.agent).map_err(|_| Fault::from(Error::AgentNotFound))?;
    let version = engine.pin_agent(workspace, &agent, named.version).await?;
    Ok((agent, version))
}

async fn create(State(state): State<AppState>, caller: Caller, mut sent: Sent) -> Result<Json<Value>> {
    attachments::resolve_rubrics(&state, &caller, &mut sent.value, "initial_events").await?;
    let new = body::create(&sent.value)?;
    let (engine, workspace) = (&state.engine, caller.workspace());
    caller.note("agent_id", new.agent.agent.as_str());
    caller.note("name", new.name.as_str());
    let (agent, agent_version) = pinned(engine, workspace, &new.agent).await?;
    let spec = Spec {
        name: new.name,
        description: new.description,
        agent,
        agent_version,
        environment: new.environment,
        initial_events: new.initial_events,
        schedule: new.schedule,
        vaults: new.vaults,
        resources: Vec::new(),
        budget: new.budget,
        metadata: new.metadata,
    };
    let created = engine
        .create_deployment(workspace, spec, new.resources, caller.key(), sent.key)
        .await?;
    caller.note_target(&created.id);
    Ok(Json(deployment(engine, &created)))
}

async fn list(State(state): State<AppState>, caller: Caller, query: Query) -> Result<Json<Page>> {
    let order = Order::Descending;
    let limit = page::limit(&query, page::MOST)?;
    let Some(filter) = filter(&query)? else {
        return Ok(Json(Page::default()));
    };
    let after = Cursor::row(&query, order, DeploymentId::parse)?;
    let (engine, workspace, filter) = (&state.engine, caller.workspace(), &filter);
    let fetch = |after: Option<DeploymentId>, limit| async move {
        let page = engine
            .deployments(workspace, filter, order, after.as_ref(), limit)
            .await;
        page.map_err(|error| match error {
            Error::DeploymentNotFound => page::invalid(),
            error => error.into(),
        })
    };
    let view = |row: &_| deployment(&state.engine, row);
    page::list(order, limit, after, fetch, view, |row| row.id.clone()).await
}

/// Which deployments are meant; `None` when there can't be any.
fn filter(query: &Query) -> Result<Option<DeploymentFilter>> {
    let include_archived = query.flag("include_archived")?;
    let paused = match query.get("status") {
        None => None,
        Some(_) if include_archived => return Err(bad("status: may not go with include_archived")),
        Some("active") => Some(false),
        Some("paused") => Some(true),
        Some(_) => return Err(bad("status: must be active or paused")),
    };
    let agent = match query.get("agent_id").map(AgentId::parse) {
        None => None,
        Some(Ok(id)) => Some(id),
        // What can't be an id is nobody's.
        Some(Err(_)) => return Ok(None),
    };
    Ok(Some(DeploymentFilter {
        agent,
        paused,
        only_active: !include_archived,
        created: query.created()?,
    }))
}

async fn retrieve(
    State(state): State<AppState>,
    caller: Caller,
    DeploymentPath(id): DeploymentPath,
) -> Result<Json<Value>> {
    let found = state.engine.deployment(caller.workspace(), &id).await?;
    Ok(Json(deployment(&state.engine, &found)))
}

async fn update(
    State(state): State<AppState>,
    caller: Caller,
    DeploymentPath(id): DeploymentPath,
    mut sent: Sent,
) -> Result<Json<Value>> {
    let (engine, workspace) = (&state.engine, caller.workspace());
    // What the change would lead to is looked at before it is made, and a missing deployment comes first.
    let current = engine.deployment(workspace, &id).await?;
    attachments::resolve_rubrics(&state, &caller, &mut sent.value, "initial_events").await?;
    let update = body::update(&sent.value)?;
    let agent = match &update.agent {
        Some(named) => Some(pinned(engine, workspace, named).await?),
        None => None,
    };
    bounded(&update.clone().apply(current.spec, agent.as_ref()).metadata)?;
    let updated = engine
        .update_deployment(workspace, &id, update.resources.clone(), |spec| {
            update.clone().apply(spec, agent.as_ref())
        })
        .await?;
    Ok(Json(deployment(engine, &updated)))
}

async fn pause(
    State(state): State<AppState>,
    caller: Caller,
    DeploymentPath(id): DeploymentPath,
) -> Result<Json<Value>> {
    let paused = state.engine.pause_deployment(caller.workspace(), &id).await?;
    Ok(Json(deployment(&state.engine, &paused)))
}

async fn unpause(
    State(state): State<AppState>,
    caller: Caller,
    DeploymentPath(id): DeploymentPath,
) -> Result<Json<Value>> {
    let unpaused = state.engine.unpause_deployment(caller.workspace(), &id).await?;
    Ok(Json(deployment(&state.engine, &unpaused)))
}

async fn archive(
    State(state): State<AppState>,
    caller: Caller,
    DeploymentPath(id): DeploymentPath,
) -> Result<Json<Value>> {
    let archived = state.engine.archive_deployment(caller.workspace(), &id).await?;
    Ok(Json(deployment(&state.engine, &archived)))
}
