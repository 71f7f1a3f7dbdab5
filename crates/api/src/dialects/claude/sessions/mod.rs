//! Sessions: create, list in both directions, read, update, archive, delete.

mod attached;
mod body;
mod list;
mod repository;
mod resources;
mod view;

pub(crate) use body::{distinct, given, quota as read_budget, vault};
pub(crate) use view::{agent, limit, session, status, usage};

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use oma_domain::session::{Phase, Rejection};
use oma_domain::{AgentId, EnvironmentId};
use oma_engine::{AgentUpdate, CreateSession, Error, SessionUpdate};
use serde_json::{Value, json};

use super::agents;
use super::body::{Sent, bad, bounded, merged};
use super::events::attachments;
use super::skills;
use crate::AppState;
use crate::auth::Caller;
use crate::fault::{Fault, Result};
use crate::params::SessionPath;
use crate::validate::Change;

/// The routes of this module.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/sessions", post(create).get(list::list))
        .route(
            "/v1/sessions/{session_id}",
            get(retrieve).post(update).delete(delete),
        )
        .route("/v1/sessions/{session_id}/archive", post(archive))
        .merge(resources::routes())
}

async fn create(State(state): State<AppState>, caller: Caller, mut sent: Sent) -> Result<Json<Value>> {
    attachments::resolve(&state, &caller, &mut sent.value, "initial_events").await?;
    let new = body::create(&sent.value)?;
    let (engine, workspace) = (&state.engine, caller.workspace());
    caller.note("agent_id", new.agent.as_str());
    caller.note("environment_id", new.environment.as_str());
    let agent = AgentId::parse(&new.agent).map_err(|_| Fault::from(Error::AgentNotFound))?;
    let environment = EnvironmentId::parse(&new.environment);
    let environment = environment.map_err(|_| Fault::from(Error::EnvironmentNotFound))?;
    let mut create = CreateSession {
        version: new.version,
        title: new.title,
        metadata: new.metadata,
        environment: Some(environment),
        vaults: new.vaults,
        resources: new.resources,
        created_by: caller.key(),
        budget: new.budget,
        memories: new.memories,
        ..CreateSession::of(agent)
    };
    if let Some(overrides) = new.overrides {
        let base = match create.version {
            Some(version) => engine.agent_at(workspace, &create.agent, version).await?,
            None => engine.agent(workspace, &create.agent).await?,
        };
        // What is overridden is this version, whatever comes meanwhile.
        create.version = Some(base.version);
        let skills = match &overrides.skills {
            Change::Keep => base.spec.skills.clone(),
            Change::Clear => Vec::new(),
            Change::Set(chosen) => skills::resolve(engine, workspace, chosen, "agent.skills").await?,
        };
        let mut spec = overrides.apply(base.spec)?;
        spec.skills = skills;
        skills::check_tools(&spec)?;
        agents::check_multiagent_tools(&spec, "agent.tools")?;
        create.spec = Some(spec);
    }
    let created = engine.create_session(workspace, create, sent.key.clone()).await?;
    caller.note_target(&created.id);
    if !new.events.is_empty() {
        engine
            .submit(workspace, &created.id, new.events, caller.key(), sent.key, None)
            .await?;
    }
    let created = engine.session(workspace, &created.id).await?;
    Ok(Json(session(&created)))
}

async fn retrieve(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
) -> Result<Json<Value>> {
    let found = state.engine.session(caller.workspace(), &id).await?;
    Ok(Json(session(&found)))
}

async fn update(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
    sent: Sent,
) -> Result<Json<Value>> {
    let update = body::update(&sent.value)?;
    let (engine, workspace) = (&state.engine, caller.workspace());
    let current = engine.session(workspace, &id).await?;
    let changes = match update.metadata {
        Change::Keep => Vec::new(),
        Change::Clear => current
            .state
            .metadata
            .keys()
            .map(|name| (name.clone(), None))
            .collect(),
        Change::Set(changes) => changes,
    };
    bounded(&merged(current.state.metadata.clone(), changes.clone()))?;
    let agent = match update.agent {
        Some(overrides) => {
            let spec = overrides.apply(current.agent.spec.clone())?;
            agents::check_multiagent_tools(&spec, "agent.tools")?;
            Some(AgentUpdate {
                base: Arc::clone(&current.agent),
                spec,
            })
        }
        None => None,
    };
    let changes = SessionUpdate {
        title: update.title,
        metadata: changes,
        agent,
        budget: update.budget,
    };
    match engine.update_session(workspace, &id, changes).await {
        Ok(updated) => Ok(Json(session(&updated))),
        Err(Error::Rejected(Rejection::Busy)) => Err(bad(format!(
            "Session {id} must be idle for its agent to be changed"
        ))),
        Err(Error::Rejected(Rejection::BudgetNotRaised)) => Err(Fault::new(
            StatusCode::BAD_REQUEST,
            "budget_not_raised",
            "budget.max_list_cost must be greater than the session's consumed list cost",
        )),
        Err(error) => Err(error.into()),
    }
}

async fn archive(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
) -> Result<Json<Value>> {
    match state.engine.archive_session(caller.workspace(), &id).await {
        Ok(archived) => Ok(Json(session(&archived))),
        Err(Error::Rejected(Rejection::Busy)) => Err(running(id.as_str(), "archived")),
        Err(error) => Err(error.into()),
    }
}

async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
) -> Result<Json<Value>> {
    let (engine, workspace) = (&state.engine, caller.workspace());
    let current = engine.session(workspace, &id).await?;
    if !current.state.runs.is_empty() {
        return Err(Error::Rejected(Rejection::RunOpen).into());
    }
    if matches!(current.state.phase, Phase::Running { .. }) {
        return Err(running(id.as_str(), "deleted"));
    }
    engine.delete_session(workspace, &id).await?;
    Ok(Json(json!({"id": id.as_str(), "type": "session_deleted"})))
}

/// A session has to rest first.
fn running(id: &str, what: &str) -> Fault {
    bad(format!(
        "Session {id} cannot be {what} while its status is running; interrupt it and wait until it is idle"
    ))
}
