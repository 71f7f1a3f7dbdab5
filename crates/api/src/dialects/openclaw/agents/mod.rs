//! Agents: create, list, read, update, versions, archive, delete, warm, run.

pub mod body;
mod nearest;
pub mod view;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use oma_domain::page::Order;
use oma_domain::{AgentId, ContentBlock, Session, SessionId};
use oma_engine::{CreateSession, Engine, Error, ListFilter, Post};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Deleted;
use super::error::ErrorBody;
use super::sessions::view::Status;
use crate::AppState;
use crate::auth::Caller;
use crate::fault::{Fault, Result};
use crate::limits;
use crate::listing::{Slice, collect, unknown_cursor};
use crate::params::{AgentPath, Params};
use crate::payload::Payload;
use body::{CreateAgent, RunAgent, UpdateAgent};
use view::{AgentList, AgentVersions, AgentView};

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, update, delete))
        .routes(routes!(versions))
        .routes(routes!(archive))
        .routes(routes!(warm))
        .routes(routes!(run))
}

/// Create an agent.
///
/// The model is `provider/model`. A provider that this server does not know is refused as `invalid_model`. One that it
/// has no key for is accepted: keys can be configured later, and a turn that lacks one fails with an `agent.error` event
/// that says so.
#[utoipa::path(
    post, path = "/v1/agents", tag = "agents", request_body = CreateAgent,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request take effect once")),
    responses((status = 200, body = AgentView), (status = 400, body = ErrorBody), (status = 422, body = ErrorBody)),
)]
async fn create(State(state): State<AppState>, caller: Caller, payload: Payload) -> Result<Json<AgentView>> {
    let spec = payload.parse::<CreateAgent>()?.into_spec()?;
    caller.note("model", spec.model.clone());
    caller.note("name", spec.name.clone());
    let agent = state
        .engine
        .create_agent(caller.workspace(), spec, payload.key)
        .await?;
    caller.note_target(&agent.id);
    Ok(Json(AgentView::of(&agent)))
}

/// List agents.
///
/// By creation, oldest first, archived ones included.
#[utoipa::path(
    get, path = "/v1/agents", tag = "agents",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 1000; 1000 without it"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses((status = 200, body = AgentList), (status = 400, body = ErrorBody)),
)]
async fn list(State(state): State<AppState>, caller: Caller, params: Params) -> Result<Json<AgentList>> {
    let slice = Slice::read(&params, limits::PAGE)?;
    let after = slice.after(|text| AgentId::parse(text).ok())?;
    let (engine, workspace) = (&state.engine, caller.workspace());
    let fetch = |after: Option<AgentId>, limit| async move {
        let page = engine
            .agents(
                workspace,
                &ListFilter::default(),
                Order::Ascending,
                after.as_ref(),
                limit,
            )
            .await;
        page.map_err(|error| cursor_fault(error, Error::AgentNotFound))
    };
    let rows = collect(slice.limit, after, fetch, AgentView::of, |agent| agent.id.clone()).await?;
    Ok(Json(AgentList::of(rows)))
}

/// A list call finds its cursor missing, which is the request's fault and no missing resource.
pub(crate) fn cursor_fault(error: Error, missing: Error) -> Fault {
    if std::mem::discriminant(&error) == std::mem::discriminant(&missing) {
        return unknown_cursor();
    }
    error.into()
}

/// Read an agent.
#[utoipa::path(
    get, path = "/v1/agents/{agent_id}", tag = "agents",
    params(("agent_id" = String, Path)),
    responses((status = 200, body = AgentView), (status = 404, body = ErrorBody)),
)]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    AgentPath(id): AgentPath,
) -> Result<Json<AgentView>> {
    Ok(Json(AgentView::of(
        &state.engine.agent(caller.workspace(), &id).await?,
    )))
}

/// Update an agent.
///
/// Writes the next version: each field that is sent replaces the old one whole, `null` clears it where that is
/// allowed. An update that changes nothing returns the current version.
#[utoipa::path(
    patch, path = "/v1/agents/{agent_id}", tag = "agents", request_body = UpdateAgent,
    params(("agent_id" = String, Path)),
    responses(
        (status = 200, body = AgentView), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    ),
)]
async fn update(
    State(state): State<AppState>,
    caller: Caller,
    AgentPath(id): AgentPath,
    payload: Payload,
) -> Result<Json<AgentView>> {
    let update = payload.parse::<UpdateAgent>()?;
    let current = state.engine.agent(caller.workspace(), &id).await?;
    if current.archived_at.is_some() {
        return Err(Error::AgentArchived.into());
    }
    // The changes are laid over what was read here, so what was read must be what the client saw.
    if current.version != update.version {
        return Err(Error::VersionConflict {
            expected: update.version,
            actual: current.version,
        }
        .into());
    }
    let expected = update.version;
    let spec = update.apply(current.spec, &id)?;
    let agent = state
        .engine
        .update_agent(caller.workspace(), &id, expected, spec)
        .await?;
    caller.note("new_version", agent.version);
    Ok(Json(AgentView::of(&agent)))
}

/// List an agent's versions.
///
/// Oldest first; `created_at` and `updated_at` of each are when it was written.
#[utoipa::path(
    get, path = "/v1/agents/{agent_id}/versions", tag = "agents",
    params(
        ("agent_id" = String, Path),
        ("limit" = Option<u32>, Query, description = "1 to 1000; 1000 without it"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses((status = 200, body = AgentVersions), (status = 404, body = ErrorBody)),
)]
async fn versions(
    State(state): State<AppState>,
    caller: Caller,
    AgentPath(id): AgentPath,
    params: Params,
) -> Result<Json<AgentVersions>> {
    let slice = Slice::read(&params, limits::PAGE)?;
    let after = slice.after(|text| text.parse::<u32>().ok())?;
    let (engine, workspace, agent) = (&state.engine, caller.workspace(), &id);
    let fetch = |after, limit| async move {
        Ok(engine
            .agent_versions(workspace, agent, Order::Ascending, after, limit)
            .await?)
    };
    let rows = collect(slice.limit, after, fetch, AgentView::version, |agent| {
        agent.version
    })
    .await?;
    Ok(Json(AgentVersions::of(id, rows)))
}

/// Archive an agent.
///
/// It takes no new sessions and no updates any more; there is no way back. Existing sessions stay readable.
#[utoipa::path(
    post, path = "/v1/agents/{agent_id}/archive", tag = "agents",
    params(("agent_id" = String, Path)),
    responses((status = 200, body = AgentView), (status = 404, body = ErrorBody)),
)]
async fn archive(
    State(state): State<AppState>,
    caller: Caller,
    AgentPath(id): AgentPath,
) -> Result<Json<AgentView>> {
    Ok(Json(AgentView::of(
        &state.engine.archive_agent(caller.workspace(), &id).await?,
    )))
}

/// Delete an agent.
///
/// With all its versions. Its sessions stay readable but take no messages.
#[utoipa::path(
    delete, path = "/v1/agents/{agent_id}", tag = "agents",
    params(("agent_id" = String, Path)),
    responses((status = 200, body = Deleted), (status = 404, body = ErrorBody)),
)]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    AgentPath(id): AgentPath,
) -> Result<Json<Deleted>> {
    state.engine.delete_agent(caller.workspace(), &id).await?;
    Ok(Json(Deleted { deleted: true }))
}

/// What came of asking for a warm sandbox.
#[derive(Debug, Serialize, ToSchema)]
pub struct Warmed {
    /// The agent.
    agent_id: String,
    /// Always true.
    queued: bool,
}

/// Warm an agent.
///
/// Has a sandbox started for the next session of the agent, like that of its newest one, if it is not there already.
/// Nobody waits for it, and it is given away when others need its place. Without effect where no sandboxes are started in
/// advance (`sandbox.max_warm`, which is 0 unless set).
#[utoipa::path(
    post, path = "/v1/agents/{agent_id}/warm", tag = "agents",
    params(("agent_id" = String, Path)),
    responses((status = 202, body = Warmed), (status = 404, body = ErrorBody)),
)]
async fn warm(
    State(state): State<AppState>,
    caller: Caller,
    AgentPath(id): AgentPath,
) -> Result<(StatusCode, Json<Warmed>)> {
    state.engine.warm_agent(caller.workspace(), &id).await?;
    let warmed = Warmed {
        agent_id: id.to_string(),
        queued: true,
    };
    Ok((StatusCode::ACCEPTED, Json(warmed)))
}

/// A task that was handed to an agent.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunStarted {
    /// The session that works on it.
    session_id: String,
    /// The agent.
    agent_id: String,
    /// Where the session stands.
    status: Status,
    /// When the task was accepted, in milliseconds since the epoch.
    started_at: i64,
    /// Whether the task waits behind other work of the session.
    queued: bool,
}

/// Give an agent a task.
///
/// Opens a session for it unless one is named; a busy session takes the task into its queue.
#[utoipa::path(
    post, path = "/v1/agents/{agent_id}/run", tag = "agents", request_body = RunAgent,
    params(
        ("agent_id" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request take effect once"),
    ),
    responses(
        (status = 200, body = RunStarted), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 429, body = ErrorBody),
    ),
)]
async fn run(
    State(state): State<AppState>,
    caller: Caller,
    AgentPath(agent): AgentPath,
    payload: Payload,
) -> Result<Json<RunStarted>> {
    let RunAgent { task, session_id } = payload.parse::<RunAgent>()?;
    let (engine, workspace) = (&state.engine, caller.workspace());
    let session = match session_id {
        Some(id) => named_session(engine, &caller, &agent, &id).await?,
        None => {
            let create = CreateSession {
                created_by: caller.key(),
                ..CreateSession::of(agent.clone())
            };
            engine
                .create_session(workspace, create, payload.key.clone())
                .await?
        }
    };
    caller.note("session_id", session.id.as_str());
    let content = vec![ContentBlock::text(task)];
    let post = Post {
        content,
        model: None,
        thinking_level: None,
        only_if_idle: false,
        charged: caller.key(),
        audit: caller.success(),
    };
    let posted = engine.post(workspace, &session.id, post, payload.key).await?;
    caller.recorded();
    Ok(Json(RunStarted {
        session_id: session.id.to_string(),
        agent_id: agent.to_string(),
        status: Status::after_post(posted.queued),
        started_at: oma_engine::now().as_millis(),
        queued: posted.queued,
    }))
}

async fn named_session(engine: &Engine, caller: &Caller, agent: &AgentId, id: &str) -> Result<Session> {
    let id = SessionId::parse(id).map_err(|_| Fault::from(Error::SessionNotFound))?;
    let session = engine.session(caller.workspace(), &id).await?;
    if session.agent.id != *agent {
        let message = "The session belongs to another agent";
        return Err(Fault::new(
            StatusCode::BAD_REQUEST,
            "session_agent_mismatch",
            message,
        ));
    }
    Ok(session)
}
