//! Threads of a session: its primary one, which is the session itself under another name, and one for each session that
//! another agent works in for it.

use axum::Json;
use axum::Router;
use axum::extract::FromRequestParts;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use oma_domain::page::Order;
use oma_domain::session::Rejection;
use oma_domain::usage::Totals;
use oma_domain::{Session, SessionId};
use oma_engine::{Error, SessionFilter};
use serde_json::value::to_raw_value;
use serde_json::{Value, json};

use super::body::bad;
use super::events;
use super::page::{self, Cursor, Page};
use super::query::Query;
use super::{agents, sessions, time};
use crate::AppState;
use crate::auth::Caller;
use crate::fault::{Fault, Result};
use crate::params::{SessionPath, segment};

/// The most threads of a page, and how many there are when the client does not say.
const MOST: u32 = 1_000;
/// The most threads of a session that lists get to.
const MOST_IN_ALL: usize = 20_000;
/// How deep threads may nest; agents can't delegate deeper.
const DEPTH: usize = 16;

/// The routes of this module.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/sessions/{session_id}/threads", get(list))
        .route("/v1/sessions/{session_id}/threads/{thread_id}", get(retrieve))
        .route(
            "/v1/sessions/{session_id}/threads/{thread_id}/archive",
            post(archive),
        )
        .route(
            "/v1/sessions/{session_id}/threads/{thread_id}/events",
            get(list_events),
        )
        .route(
            "/v1/sessions/{session_id}/threads/{thread_id}/stream",
            get(follow),
        )
}

/// The thread that a path names, with the session that it belongs to.
struct Thread {
    root: SessionId,
    session: Session,
}

impl FromRequestParts<AppState> for Thread {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let SessionPath(root) = SessionPath::from_request_parts(parts, state).await?;
        let name = segment(parts, "thread_id", state).await?;
        let caller = Caller::from_request_parts(parts, state).await?;
        let (engine, workspace) = (&state.engine, caller.workspace());
        engine.session(workspace, &root).await?;
        for id in SessionId::of_thread(&name) {
            let session = match engine.session(workspace, &id).await {
                Ok(session) => session,
                Err(Error::SessionNotFound) => continue,
                Err(error) => return Err(error.into()),
            };
            // It has to be the session itself, or to work for it.
            let mut above = Some(id);
            for _ in 0..=DEPTH {
                match above {
                    Some(id) if id == root => return Ok(Self { root, session }),
                    Some(id) => above = engine.session(workspace, &id).await?.parent,
                    None => break,
                }
            }
        }
        Err(Fault::new(
            StatusCode::NOT_FOUND,
            "thread_not_found",
            "no thread of this session has this id",
        ))
    }
}

/// A thread as clients read it.
fn view(root: &SessionId, session: &Session) -> Value {
    let state = &session.state;
    let now = oma_engine::now();
    let own = Totals {
        web: state.web,
        usage: state.usage,
        cost: state.cost,
        active_ms: state.totals(now).active_ms,
    };
    let ended = state.archived_at.unwrap_or(now);
    let parent = session.parent.as_ref().filter(|_| session.id != *root);
    json!({
        "id": session.id.thread_name(),
        "type": "session_thread",
        "session_id": root.as_str(),
        "parent_thread_id": parent.map(SessionId::thread_name),
        "agent": agents::of_thread(&session.agent),
        "status": sessions::status(session),
        "stats": {
            "active_seconds": time::seconds(own.active_ms),
            "duration_seconds": time::seconds(ended.millis_since(session.created_at)),
        },
        "usage": sessions::usage(&own),
        "workflow_run_id": session.id.call().filter(|_| session.is_thread).map(|call| call.run.to_string()),
        "created_at": time::value(session.created_at),
        "updated_at": time::value(session.last_event_at.unwrap_or(session.created_at)),
        "archived_at": time::optional(state.archived_at),
    })
}

async fn list(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(root): SessionPath,
    query: Query,
) -> Result<Json<Page>> {
    let limit = query.number("limit", 1, MOST)?.unwrap_or(MOST) as usize;
    let statuses = query.list("statuses");
    let known = ["running", "idle", "rescheduling", "terminated"];
    if statuses.iter().any(|status| !known.contains(status)) {
        return Err(bad("statuses: must be running, idle, rescheduling or terminated"));
    }
    let after = Cursor::read(&query, Order::Ascending)?.map(|cursor| cursor.row);
    let (engine, workspace) = (&state.engine, caller.workspace());
    // The primary thread first, then those that work for it, then those that work for them. A session has few of them,
    // or some thousands that were calls of workflow runs, for which nobody else works.
    let mut threads = vec![engine.session(workspace, &root).await?];
    let mut next = 0;
    while let Some(parent) = threads.get(next).filter(|_| threads.len() < MOST_IN_ALL) {
        next += 1;
        if parent.id.call().is_some() {
            continue;
        }
        let filter = SessionFilter {
            parent: Some(Some(parent.id.clone())),
            ..SessionFilter::default()
        };
        let mut from = None;
        loop {
            let children = engine
                .sessions(workspace, &filter, Order::Ascending, from.as_ref(), MOST)
                .await?;
            threads.extend(children.rows);
            from = children.next;
            if from.is_none() || threads.len() >= MOST_IN_ALL {
                break;
            }
        }
    }
    let begin = match after {
        None => 0,
        Some(row) => {
            let place = threads.iter().position(|thread| thread.id.as_str() == row);
            place.ok_or_else(page::invalid)? + 1
        }
    };
    let wanted = |thread: &&Session| statuses.is_empty() || statuses.contains(&sessions::status(thread));
    let mut found: Vec<&Session> = threads
        .iter()
        .skip(begin)
        .filter(wanted)
        .take(limit + 1)
        .collect();
    let more = found.len() > limit;
    found.truncate(limit);
    let next_page = found.last().filter(|_| more);
    let next_page = next_page.map(|last| Cursor::after(last.id.as_str(), Order::Ascending).to_text());
    let rows = found.iter().map(|thread| to_raw_value(&view(&root, thread)));
    let data = rows.collect::<std::result::Result<_, _>>();
    let data = data.map_err(|error| Fault::internal(format!("a thread can't be worded: {error}")))?;
    Ok(Json(Page { data, next_page }))
}

async fn retrieve(Thread { root, session }: Thread) -> Json<Value> {
    Json(view(&root, &session))
}

async fn archive(
    State(state): State<AppState>,
    caller: Caller,
    Thread { root, session }: Thread,
) -> Result<Json<Value>> {
    if session.id == root {
        return Err(bad(
            "The primary thread can't be archived by itself; archive the session",
        ));
    }
    let (engine, workspace) = (&state.engine, caller.workspace());
    // Only its coordinator can have a thread; what an agent called for its own sake is a session beside.
    let archived = match &session.parent {
        Some(coordinator) if session.is_thread => {
            engine.archive_thread(workspace, coordinator, &session.id).await
        }
        _ => engine.archive_session(workspace, &session.id).await,
    };
    match archived {
        Ok(archived) => Ok(Json(view(&root, &archived))),
        Err(Error::Rejected(Rejection::Busy)) => Err(bad(
            "The thread cannot be archived while its status is running; interrupt it first",
        )),
        Err(error) => Err(error.into()),
    }
}

async fn list_events(
    State(state): State<AppState>,
    caller: Caller,
    Thread { session, .. }: Thread,
    query: Query,
) -> Result<events::page::Written> {
    events::page::read(&state, &caller, &session.id, &query, true).await
}

async fn follow(
    State(state): State<AppState>,
    caller: Caller,
    Thread { session, .. }: Thread,
    query: Query,
    headers: HeaderMap,
) -> Result<Response> {
    events::stream::open(&state, &caller, &session.id, &query, &headers, true).await
}
