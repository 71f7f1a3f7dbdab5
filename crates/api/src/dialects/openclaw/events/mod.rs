//! A session's events: post, list, stream.

pub mod body;
pub mod cursor;
mod page;
pub mod projection;
pub(crate) mod stream;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use oma_domain::SessionId;
use oma_domain::page::Order;
use oma_domain::session::Rejection;
use oma_engine::{Error, Post};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use super::sessions::view::Status;
use crate::AppState;
use crate::auth::Caller;
use crate::fault::{Fault, Result};
use crate::limits;
use crate::listing::Slice;
use crate::params::{Params, SessionPath};
use crate::payload::Payload;
use body::{Confirmation, Incoming, UserMessage};
use cursor::Cursor;
use projection::EventView;

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(post, read))
}

/// What came of a posted event.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Accepted {
    /// A message was accepted.
    Message {
        /// The session.
        session_id: String,
        /// Where it stands now.
        session_status: Status,
        /// Whether the message waits behind other work.
        queued: bool,
        /// The id that the message has in the log once its turn begins.
        event_id: String,
    },
    /// A tool use was confirmed or denied.
    Confirmation {
        /// The session.
        session_id: String,
        /// Always true.
        confirmed: bool,
    },
}

/// Post a message or a confirmation.
///
/// A message to a busy session waits and gets a turn of its own. It is durable when this returns. `model` and
/// `thinkingLevel` hold from this message on.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/events", tag = "events", request_body = Incoming,
    security(("api_key" = []), ("parent_token" = [])),
    params(
        ("session_id" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeated request take effect once"),
    ),
    responses(
        (status = 200, body = Accepted), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 422, body = ErrorBody), (status = 429, body = ErrorBody),
    ),
)]
async fn post(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
    payload: Payload,
) -> Result<Json<Accepted>> {
    let (engine, workspace) = (&state.engine, caller.workspace());
    let incoming = match payload.parse::<Incoming>() {
        Ok(incoming) => incoming,
        Err(fault) => {
            // A missing session is reported before a bad body.
            visible(&state, &caller, &id).await?;
            return Err(fault);
        }
    };
    match incoming {
        Incoming::Message(UserMessage {
            content,
            model,
            thinking_level,
            ..
        }) => {
            let post = Post {
                content: content.into_blocks(),
                model,
                thinking_level,
                only_if_idle: false,
                charged: caller.key(),
                audit: caller.success(),
            };
            let posted = match caller.parent() {
                Some(claims) => engine.post_to_child(claims, &id, post, payload.key).await?,
                None => engine.post(workspace, &id, post, payload.key).await?,
            };
            caller.recorded();
            Ok(Json(Accepted::Message {
                session_id: id.to_string(),
                session_status: Status::after_post(posted.queued),
                queued: posted.queued,
                event_id: posted.event.to_string(),
            }))
        }
        Incoming::Confirmation(Confirmation {
            tool_use_id,
            result,
            deny_message,
            ..
        }) => {
            if caller.parent().is_some() {
                let message = "A parent token does not confirm tool uses";
                return Err(Fault::new(StatusCode::FORBIDDEN, "forbidden", message));
            }
            // The id of the request's frame names the same tool use as its approval id.
            let cursor = Cursor::parse(&tool_use_id).ok_or(Error::Rejected(Rejection::NotAsking))?;
            caller.begin(&state).await?;
            engine
                .confirm(
                    workspace,
                    &id,
                    cursor.event,
                    result.allows(),
                    deny_message,
                    payload.key,
                )
                .await?;
            Ok(Json(Accepted::Confirmation {
                session_id: id.to_string(),
                confirmed: true,
            }))
        }
    }
}

/// Passes when the session is there for this caller.
async fn visible(state: &AppState, caller: &Caller, id: &SessionId) -> Result<()> {
    match caller.parent() {
        Some(claims) => state.engine.child(claims, id).await?,
        None => state.engine.session(caller.workspace(), id).await?,
    };
    Ok(())
}

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventList {
    session_id: String,
    #[schema(value_type = Vec<EventView>)]
    events: Vec<Box<RawValue>>,
    /// How many there are on this page.
    count: usize,
    /// Whether there are more after this page.
    has_more: bool,
    /// The cursor of the next page.
    #[schema(required)]
    next: Option<String>,
}

/// List or stream events.
///
/// Without `stream=true`: a page of the log, oldest first unless `order` says otherwise. A client that asks
/// for no page gets up to 10000 events.
///
/// With `stream=true`: server-sent events. First whatever the log holds after the cursor, then what happens.
/// Frames are the events of the list, each with its `id`, and `heartbeat`s. With `deltas=true` also
/// `agent.message_delta` and `agent.thinking_delta`: pieces of the event named by their `event_id`, which are
/// not part of the log and can't be resumed from. The stream ends some 30 seconds after the session is idle.
/// A cursor that is unknown replays everything.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/events", tag = "events",
    security(("api_key" = []), ("parent_token" = [])),
    params(
        ("session_id" = String, Path),
        ("limit" = Option<u32>, Query, description = "List: 1 to 1000; 10000 without it"),
        ("after" = Option<String>, Query, description = "The id of the last event that the client has"),
        ("order" = Option<String>, Query, description = "List: `asc` (the default) or `desc`"),
        ("stream" = Option<bool>, Query, description = "`true` to follow the session"),
        ("deltas" = Option<bool>, Query, description = "Stream: `true` to see answers as they are written"),
        ("Last-Event-ID" = Option<String>, Header, description = "Stream: like `after`, and wins over it"),
    ),
    responses(
        (status = 200, description = "A page, or a stream of the same events", content(
            (EventList = "application/json"), (String = "text/event-stream"),
        )),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody),
    ),
)]
async fn read(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
    params: Params,
    headers: HeaderMap,
) -> Result<Response> {
    if caller.parent().is_some() {
        visible(&state, &caller, &id).await?;
    }
    let deltas = params.switch("deltas")?;
    if params.switch("stream")? {
        let resumed = headers.get("last-event-id").and_then(|value| value.to_str().ok());
        let resumed = resumed.map(str::trim).filter(|text| !text.is_empty());
        let after = resumed.or_else(|| params.get("after"));
        return stream::open(&state, &caller, &id, after, deltas).await;
    }
    let slice = Slice::ordered(&params, limits::EVENTS, Order::Ascending)?;
    let rows = page::read(&state.engine, &caller, &id, &slice).await?;
    let list = EventList {
        session_id: id.to_string(),
        count: rows.rows.len(),
        has_more: rows.next.is_some(),
        next: rows.next,
        events: rows.rows,
    };
    Ok(Json(list).into_response())
}

/// Where reading begins: exclusive of this position, and of the frames that the cursor covers. At the end that the order
/// begins with, without either.
#[derive(Default)]
pub(crate) struct Start {
    /// The position to read from.
    pub(crate) from: Option<oma_domain::Seq>,
    /// Frames of the first event that were seen already.
    pub(crate) seen: Option<Cursor>,
}

/// Finds a cursor in the log; `None` when the session has no such event.
pub(crate) async fn locate(
    state: &oma_engine::Engine,
    caller: &Caller,
    id: &oma_domain::SessionId,
    cursor: &str,
    order: Order,
) -> Result<Option<Start>> {
    let Some(cursor) = Cursor::parse(cursor) else {
        return Ok(None);
    };
    let Some(seq) = state.locate(caller.workspace(), id, &cursor.event).await? else {
        return Ok(None);
    };
    // The event itself is read again: some of its frames may not have been seen.
    let from = match order {
        Order::Ascending => oma_domain::Seq(seq.0.saturating_sub(1)),
        Order::Descending => seq.next(),
    };
    Ok(Some(Start {
        from: Some(from),
        seen: Some(cursor),
    }))
}
