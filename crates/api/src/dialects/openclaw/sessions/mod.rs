//! Sessions: create, list, read, delete, cancel, compact, logs.

pub mod body;
pub mod view;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use oma_domain::page::Order;
use oma_domain::{AgentId, EnvironmentId, SessionId, VaultId};
use oma_engine::parent_token::Claims;
use oma_engine::{CreateSession, Error, IssuedParentToken, OpenChild, SessionFilter};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Deleted;
use super::agents::cursor_fault;
use super::error::ErrorBody;
use crate::AppState;
use crate::auth::{Caller, PARENT_TOKEN};
use crate::fault::{Fault, Result};
use crate::limits;
use crate::listing::{Slice, collect};
use crate::params::{Params, SessionPath};
use crate::payload::Payload;
use body::OpenSession;
use view::{SessionList, SessionView, Status};

/// How many log lines a client gets that does not say.
const LOG_LINES: usize = 200;

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, delete))
        .routes(routes!(parent_token))
        .routes(routes!(cancel))
        .routes(routes!(compact))
        .routes(routes!(logs))
}

/// Open a session.
///
/// It keeps the agent's current version for its whole life. An open session that waits for messages costs
/// nothing: its sandbox is made when a tool needs it.
///
/// With a parent token it is opened on that session's behalf: it names it as its parent, runs in its environment, is
/// cancelled with it, and consumes of its budgets. The token does in place of an API key.
#[utoipa::path(
    post, path = "/v1/sessions", tag = "sessions", request_body = OpenSession,
    security(("api_key" = []), ("parent_token" = [])),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request take effect once"),
        ("X-OpenClaw-Parent-Token" = Option<String>, Header, description = "A parent token of another session"),
    ),
    responses(
        (status = 200, body = SessionView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 429, body = ErrorBody),
    ),
)]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Json<SessionView>> {
    let OpenSession {
        agent_id,
        environment_id,
        vault_id,
        vault_ids,
    } = payload.parse::<OpenSession>()?;
    let claims = parent_claims(&state, &caller, &headers)?;
    // Checked in the order of the reference: what is named first is not found first.
    let environment = match environment_id.as_deref().map(EnvironmentId::parse) {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(_)) => return Err(Error::EnvironmentNotFound.into()),
    };
    caller.note("agent_id", agent_id.clone());
    caller.note("environment_id", environment_id.clone());
    let agent = AgentId::parse(&agent_id).map_err(|_| Fault::from(Error::AgentNotFound))?;
    if let Some(claims) = claims {
        caller.note("is_subagent", true);
        caller.note("parent_session_id", claims.parent_session_id.as_str());
        if vault_id.is_some() || !vault_ids.is_empty() {
            let message = "A session that another one opens gets no vaults";
            return Err(Fault::new(StatusCode::FORBIDDEN, "forbidden", message));
        }
        let open = OpenChild { agent, environment };
        let session = state.engine.open_child(&claims, open, payload.key).await?;
        caller.note_target(&session.id);
        return Ok(Json(SessionView::of(&session)));
    }
    let create = CreateSession {
        environment,
        vaults: vaults(vault_id, vault_ids)?,
        created_by: caller.key(),
        ..CreateSession::of(agent)
    };
    let session = state
        .engine
        .create_session(caller.workspace(), create, payload.key)
        .await?;
    caller.note_target(&session.id);
    Ok(Json(SessionView::of(&session)))
}

/// What the parent token of a request says, if it has one. Next to a key it counts as well, in the key's workspace.
fn parent_claims(state: &AppState, caller: &Caller, headers: &HeaderMap) -> Result<Option<Claims>> {
    if let Some(claims) = caller.parent() {
        return Ok(Some(claims.clone()));
    }
    let Some(token) = headers.get(PARENT_TOKEN) else {
        return Ok(None);
    };
    let claims = state.engine.verify_parent_token(token.as_bytes())?;
    if claims.workspace_id != *caller.workspace() {
        return Err(Error::InvalidParentToken.into());
    }
    Ok(Some(claims))
}

/// The vaults that a request names, each once.
fn vaults(first: Option<String>, more: Vec<String>) -> Result<Vec<VaultId>> {
    let mut vaults = Vec::new();
    for text in first.into_iter().chain(more) {
        let vault =
            VaultId::parse(&text).map_err(|_| Fault::from(Error::Vault(oma_vault::Error::VaultNotFound)))?;
        if !vaults.contains(&vault) {
            vaults.push(vault);
        }
    }
    Ok(vaults)
}

/// List sessions.
///
/// By creation, oldest first unless `order` says otherwise.
#[utoipa::path(
    get, path = "/v1/sessions", tag = "sessions",
    params(
        ("agent_id" = Option<String>, Query, description = "Only this agent's sessions"),
        ("limit" = Option<u32>, Query, description = "1 to 1000; 1000 without it"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("order" = Option<String>, Query, description = "`asc` (the default) or `desc`"),
    ),
    responses((status = 200, body = SessionList), (status = 400, body = ErrorBody)),
)]
async fn list(State(state): State<AppState>, caller: Caller, params: Params) -> Result<Json<SessionList>> {
    let slice = Slice::ordered(&params, limits::PAGE, Order::Ascending)?;
    let after = slice.after(|text| SessionId::parse(text).ok())?;
    let agent = match params.get("agent_id").map(AgentId::parse) {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(problem)) => return Err(Fault::invalid_field(&["agent_id"], problem.to_string())),
    };
    let filter = SessionFilter {
        agent,
        ..SessionFilter::default()
    };
    let (engine, workspace, filter) = (&state.engine, caller.workspace(), &filter);
    let fetch = |after: Option<SessionId>, limit| async move {
        let page = engine
            .sessions(workspace, filter, slice.order, after.as_ref(), limit)
            .await;
        page.map_err(|error| cursor_fault(error, Error::SessionNotFound))
    };
    let rows = collect(slice.limit, after, fetch, SessionView::of, |session| {
        session.id.clone()
    })
    .await?;
    Ok(Json(SessionList::of(rows)))
}

/// Read a session.
///
/// `output` is the newest thing that the agent said.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}", tag = "sessions",
    security(("api_key" = []), ("parent_token" = [])),
    params(("session_id" = String, Path)),
    responses((status = 200, body = SessionView), (status = 404, body = ErrorBody)),
)]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
) -> Result<Json<SessionView>> {
    let engine = &state.engine;
    let session = match caller.parent() {
        Some(claims) => engine.child(claims, &id).await?,
        None => engine.session(caller.workspace(), &id).await?,
    };
    Ok(Json(SessionView::of(&session)))
}

/// A parent token.
#[derive(Serialize, ToSchema)]
pub struct ParentTokenView {
    parent_session_id: String,
    /// What to send as `X-OpenClaw-Parent-Token`. Only this answer has it.
    parent_token: String,
    /// The agents that may be called with it.
    allowlist: Vec<String>,
    /// How deep tasks may be passed on.
    remaining_depth: u32,
    /// Milliseconds since the epoch.
    expires_at: i64,
}

/// Create a parent token.
///
/// Whoever holds it may, for a day, open sessions of the agents that this session's agent may call, on this session's
/// behalf, and post to and read those; nothing else. For tools that a client runs for the session.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/parent_token", tag = "sessions",
    params(("session_id" = String, Path)),
    responses(
        (status = 200, body = ParentTokenView), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
    ),
)]
async fn parent_token(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
) -> Result<Response> {
    let IssuedParentToken { token, claims } = state.engine.mint_parent_token(caller.workspace(), &id).await?;
    caller.note("expires_at", claims.expires_at.as_millis());
    let view = ParentTokenView {
        parent_session_id: claims.parent_session_id.to_string(),
        parent_token: token.expose_secret().to_owned(),
        allowlist: claims.allowlist.iter().map(ToString::to_string).collect(),
        remaining_depth: claims.remaining_depth,
        expires_at: claims.expires_at.as_millis(),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(view)).into_response())
}

/// Delete a session.
///
/// Stops whatever it does and removes it with its log, its sandbox and its workspace.
#[utoipa::path(
    delete, path = "/v1/sessions/{session_id}", tag = "sessions",
    params(("session_id" = String, Path)),
    responses((status = 200, body = Deleted), (status = 404, body = ErrorBody)),
)]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
) -> Result<Json<Deleted>> {
    state.engine.delete_session(caller.workspace(), &id).await?;
    Ok(Json(Deleted { deleted: true }))
}

/// A turn that was stopped.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cancelled {
    session_id: String,
    session_status: Status,
    /// Always true.
    cancelled: bool,
}

/// Stop what a session does.
///
/// Aborts the model request and running commands, drops waiting messages and keeps what was said so far. The
/// session is idle when this returns.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/cancel", tag = "sessions",
    params(("session_id" = String, Path)),
    responses((status = 200, body = Cancelled), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)),
)]
async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
) -> Result<Json<Cancelled>> {
    state
        .engine
        .interrupt(caller.workspace(), &id, true, None)
        .await?;
    Ok(Json(Cancelled {
        session_id: id.to_string(),
        session_status: Status::Idle,
        cancelled: true,
    }))
}

/// A history that was summarised.
#[derive(Debug, Serialize, ToSchema)]
pub struct Compacted {
    session_id: String,
    session_status: Status,
    /// Always true.
    compacted: bool,
}

/// Summarise a session's history.
///
/// Later model requests carry the summary instead of what it covers; the log keeps everything. The summary
/// is in the log as `session.compaction` when this returns.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/compact", tag = "sessions",
    params(("session_id" = String, Path)),
    responses(
        (status = 200, body = Compacted), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 502, body = ErrorBody),
    ),
)]
async fn compact(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
) -> Result<Json<Compacted>> {
    state
        .engine
        .compact(caller.workspace(), &id, caller.key())
        .await?;
    let session = state.engine.session(caller.workspace(), &id).await?;
    let session_status = Status::of(&session.state);
    Ok(Json(Compacted {
        session_id: id.to_string(),
        session_status,
        compacted: true,
    }))
}

/// Read the sandbox's output.
///
/// The newest lines that commands in the session's sandbox printed, as plain text. They go with the sandbox: the answer is
/// empty before the first command, and after the sandbox has been stopped for want of work.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/logs", tag = "sessions",
    params(
        ("session_id" = String, Path),
        ("tail" = Option<u32>, Query, description = "How many lines, 1 to 10000; 200 without it"),
    ),
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
    ),
)]
async fn logs(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
    params: Params,
) -> Result<Response> {
    let text = state
        .engine
        .logs(caller.workspace(), &id, tail(params.get("tail"))?)
        .await?;
    // Agents decide what is in there: a browser may not take it for a page.
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, text).into_response())
}

/// How many lines. Numbers out of range count as the nearest one, and 0 as not given, like in the reference.
fn tail(given: Option<&str>) -> Result<usize> {
    let Some(text) = given else {
        return Ok(LOG_LINES);
    };
    match text.parse::<i64>() {
        Ok(0) => Ok(LOG_LINES),
        Ok(number) => Ok(usize::try_from(number).unwrap_or(1).clamp(1, limits::LOG_LINES)),
        Err(_) => Err(Fault::invalid_field(&["tail"], "Expected an integer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails() {
        for (given, lines) in [
            (None, Some(200)),
            (Some("50"), Some(50)),
            (Some("0"), Some(200)),
            (Some("x"), None),
            (Some("1.5"), None),
            (Some("-3"), Some(1)),
            (Some("1000000"), Some(10_000)),
        ] {
            assert_eq!(tail(given).ok(), lines, "{given:?}");
        }
    }
}
