//! Agents: create, list, read, update, versions, archive, and delete, which Anthropic's service does not have.

mod body;
mod multiagent;
mod view;

pub(crate) use body::{Overrides, overrides, tool_overrides};
pub(crate) use multiagent::{
    check_tools as check_multiagent_tools, of_session as multiagent_of_session, of_thread,
};
pub(crate) use view::{agent, definition};

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use oma_domain::page::Order;
use oma_domain::{Agent, AgentId, WorkspaceId};
use oma_engine::{Engine, Error, ListFilter};
use serde_json::{Value, json};

use super::body::Sent;
use super::page::{self, Cursor, Page};
use super::query::Query;
use super::skills;
use crate::AppState;
use crate::auth::Caller;
use crate::fault::{Fault, Result};
use crate::params::AgentPath;
use crate::validate::Change;

/// How often an update is laid over the newest version when others update the same agent.
const UPDATE_ATTEMPTS: usize = 10;

/// The routes of this module.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/agents", post(create).get(list))
        .route("/v1/agents/{agent_id}", get(retrieve).post(update).delete(delete))
        .route("/v1/agents/{agent_id}/versions", get(versions))
        .route("/v1/agents/{agent_id}/archive", post(archive))
}

async fn create(State(state): State<AppState>, caller: Caller, sent: Sent) -> Result<Json<Value>> {
    let (mut spec, members, chosen) = body::create(&sent.value)?;
    if let Some(members) = members {
        let members = members.resolve(&state.engine, caller.workspace(), None).await?;
        spec.multiagent = Some(members);
    }
    multiagent::check_tools(&spec, "tools")?;
    spec.skills = skills::resolve(&state.engine, caller.workspace(), &chosen, "skills").await?;
    skills::check_tools(&spec)?;
    caller.note("model", spec.model.clone());
    caller.note("name", spec.name.clone());
    let created = state
        .engine
        .create_agent(caller.workspace(), spec, sent.key)
        .await?;
    caller.note_target(&created.id);
    Ok(Json(agent(&created)))
}

async fn list(State(state): State<AppState>, caller: Caller, query: Query) -> Result<Json<Page>> {
    let order = Order::Descending;
    let limit = page::limit(&query, page::MOST)?;
    let filter = ListFilter {
        only_active: !query.flag("include_archived")?,
        created: query.created()?,
    };
    let after = Cursor::row(&query, order, AgentId::parse)?;
    let (engine, workspace, filter) = (&state.engine, caller.workspace(), &filter);
    let fetch = |after: Option<AgentId>, limit| async move {
        let page = engine
            .agents(workspace, filter, order, after.as_ref(), limit)
            .await;
        page.map_err(|error| match error {
            Error::AgentNotFound => page::invalid(),
            error => error.into(),
        })
    };
    page::list(order, limit, after, fetch, agent, |agent| agent.id.clone()).await
}

async fn retrieve(
    State(state): State<AppState>,
    caller: Caller,
    AgentPath(id): AgentPath,
    query: Query,
) -> Result<Json<Value>> {
    let (engine, workspace) = (&state.engine, caller.workspace());
    let found = match query.number("version", 1, u32::MAX)? {
        Some(version) => engine.agent_at(workspace, &id, version).await?,
        None => engine.agent(workspace, &id).await?,
    };
    Ok(Json(agent(&found)))
}

async fn update(
    State(state): State<AppState>,
    caller: Caller,
    AgentPath(id): AgentPath,
    sent: Sent,
) -> Result<Json<Value>> {
    let update = body::update(&sent.value)?;
    let (engine, workspace) = (&state.engine, caller.workspace());
    for _ in 0..UPDATE_ATTEMPTS {
        let current: Agent = engine.agent(workspace, &id).await?;
        if current.archived_at.is_some() {
            return Err(Error::AgentArchived.into());
        }
        no_open_run(engine, caller.workspace(), &id, "changed").await?;
        let expected = update.version.unwrap_or(current.version);
        if expected != current.version {
            return Err(Error::VersionConflict {
                expected,
                actual: current.version,
            }
            .into());
        }
        let members = match update.multiagent.clone() {
            Change::Keep => current.spec.multiagent.clone(),
            Change::Clear => None,
            Change::Set(choice) => Some(choice.resolve(engine, workspace, Some(&current)).await?),
        };
        let skills = match &update.skills {
            Change::Keep => current.spec.skills.clone(),
            Change::Clear => Vec::new(),
            Change::Set(chosen) => skills::resolve(engine, workspace, chosen, "skills").await?,
        };
        let mut spec = update.clone().apply(current.spec)?;
        spec.multiagent = members;
        multiagent::check_tools(&spec, "tools")?;
        spec.skills = skills;
        skills::check_tools(&spec)?;
        match engine.update_agent(workspace, &id, expected, spec).await {
            Ok(updated) => {
                caller.note("new_version", updated.version);
                return Ok(Json(agent(&updated)));
            }
            // Whoever names no version wants the last word.
            Err(Error::VersionConflict { .. }) if update.version.is_none() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Fault::from(Error::Unavailable(
        "the agent changes all the time".to_owned(),
    )))
}

/// What an agent's workflow runs go by stays as it is until they have ended.
async fn no_open_run(engine: &Engine, workspace: &WorkspaceId, id: &AgentId, what: &str) -> Result<()> {
    if !engine.has_open_run(workspace, id).await? {
        return Ok(());
    }
    Err(Fault::new(
        StatusCode::BAD_REQUEST,
        "workflow_run_open",
        format!("Agent {id} can't be {what} while a session of it has a workflow run that has not ended"),
    ))
}

async fn versions(
    State(state): State<AppState>,
    caller: Caller,
    AgentPath(id): AgentPath,
    query: Query,
) -> Result<Json<Page>> {
    let order = Order::Descending;
    let limit = page::limit(&query, page::MOST)?;
    let after = Cursor::row(&query, order, str::parse::<u32>)?;
    let archived_at = state.engine.agent(caller.workspace(), &id).await?.archived_at;
    let (engine, workspace, id) = (&state.engine, caller.workspace(), &id);
    let fetch = |after, limit| async move {
        let page = engine.agent_versions(workspace, id, order, after, limit).await;
        Ok(page?)
    };
    let view = |version: &Agent| {
        let mut view = agent(version);
        view["archived_at"] = super::time::optional(archived_at);
        view
    };
    page::list(order, limit, after, fetch, view, |agent| agent.version).await
}

async fn archive(
    State(state): State<AppState>,
    caller: Caller,
    AgentPath(id): AgentPath,
) -> Result<Json<Value>> {
    no_open_run(&state.engine, caller.workspace(), &id, "archived").await?;
    let archived = state.engine.archive_agent(caller.workspace(), &id).await?;
    Ok(Json(agent(&archived)))
}

async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    AgentPath(id): AgentPath,
) -> Result<Json<Value>> {
    state.engine.delete_agent(caller.workspace(), &id).await?;
    Ok(Json(json!({"id": id.as_str(), "type": "agent_deleted"})))
}
