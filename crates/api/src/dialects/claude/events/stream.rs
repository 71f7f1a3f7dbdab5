//! The stream of a session's events: what happens from now on, or from a cursor on.
//!
//! Invariants: whoever gets the headers misses nothing that happens afterwards; a frame is what the list has under the
//! same id, in the same order; the pieces of a message, joined, are a prefix of it.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use oma_domain::page::Order;
use oma_domain::{Event, EventId, SessionId};
use oma_engine::Delta;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::projection::View;
use crate::AppState;
use crate::auth::Caller;
use crate::dialects::claude::body::bad;
use crate::dialects::claude::query::Query;
use crate::dialects::claude::time;
use crate::dialects::openclaw::events::cursor::Cursor;
use crate::dialects::openclaw::events::locate;
use crate::fault::Result;
use crate::params::SessionPath;
use crate::sse::{self, write_frame};

/// The most values of `event_deltas`.
const DELTAS: usize = 100;

/// Which previews a client wants.
#[derive(Debug, Clone, Copy, Default)]
struct Previews {
    messages: bool,
    thinking: bool,
}

impl Previews {
    fn read(query: &Query) -> Result<Self> {
        let wanted = query.list("event_deltas");
        if wanted.len() > DELTAS {
            return Err(bad(format!("event_deltas: must have at most {DELTAS} values")));
        }
        let mut previews = Self::default();
        for kind in wanted {
            match kind {
                "agent.message" => previews.messages = true,
                "agent.thinking" => previews.thinking = true,
                _ => return Err(bad("event_deltas: must be agent.message or agent.thinking")),
            }
        }
        Ok(previews)
    }

    fn any(self) -> bool {
        self.messages || self.thinking
    }
}

pub(super) async fn follow(
    State(state): State<AppState>,
    caller: Caller,
    SessionPath(id): SessionPath,
    query: Query,
    headers: HeaderMap,
) -> Result<Response> {
    open(&state, &caller, &id, &query, &headers, false).await
}

/// Opens a stream of a session, or of its primary thread. It is subscribed when this returns.
pub(crate) async fn open(
    state: &AppState,
    caller: &Caller,
    id: &SessionId,
    query: &Query,
    request: &HeaderMap,
    as_thread: bool,
) -> Result<Response> {
    let previews = Previews::read(query)?;
    let place = state.streams.open(caller)?;
    let (engine, workspace) = (&state.engine, caller.workspace());
    let session = engine.session(workspace, id).await?;
    let resumed = request.get("last-event-id").and_then(|value| value.to_str().ok());
    let resumed = resumed.map(str::trim).filter(|text| !text.is_empty());
    let (from, seen) = match resumed.or_else(|| query.get("after")) {
        None => (session.head, None),
        Some(cursor) => {
            let start = locate(engine, caller, id, cursor, Order::Ascending).await?;
            let start = start.ok_or_else(|| bad("after: no event of this session has this id"))?;
            (start.from.unwrap_or_default(), start.seen)
        }
    };
    let frames = engine.follow(workspace, id, from, previews.any()).await?;
    let wording = Events {
        view: View::of(session, as_thread),
        seen,
        previews,
    };
    Ok(sse::respond(state, caller, place, id, frames, wording))
}

/// A stream's events, as this dialect words them.
struct Events {
    view: View,
    /// What the client has got already.
    seen: Option<Cursor>,
    previews: Previews,
}

impl sse::Wording for Events {
    fn heartbeat(&self, chunk: &mut String) {
        write_frame(chunk, "ping", &json!({"type": "ping"}), None);
    }

    fn event(&mut self, event: &Event, chunk: &mut String) {
        self.view.learn(event);
        for frame in self.view.project(event) {
            let covers = |seen: &Cursor| seen.covers(&event.id, frame.index, Order::Ascending);
            if !self.seen.as_ref().is_some_and(covers) {
                write_frame(chunk, frame.kind, &frame, Some(&frame.id));
            }
        }
    }

    fn delta(&self, delta: &Delta, chunk: &mut String) {
        if let Some((kind, body)) = self.preview(delta) {
            write_frame(chunk, kind, &body, None);
        }
    }

    fn deleted(&self, chunk: &mut String) {
        let deleted = json!({
            "id": EventId::generate().as_str(),
            "type": "session.deleted",
            "processed_at": time::value(oma_engine::now()),
        });
        write_frame(chunk, "session.deleted", &deleted, None);
    }

    fn ends_at(&self) -> Option<Instant> {
        None
    }
}

impl Events {
    fn preview(&self, delta: &Delta) -> Option<(&'static str, Value)> {
        let start = |kind: &str, event: &EventId| {
            let event = json!({"type": kind, "id": event.as_str()});
            ("event_start", json!({"type": "event_start", "event": event}))
        };
        let Previews { messages, thinking } = self.previews;
        match delta {
            Delta::MessageStart { event } if messages => Some(start("agent.message", event)),
            Delta::ThinkingStart { event } if thinking => Some(start("agent.thinking", event)),
            Delta::Text { event, text } if messages => {
                let content = json!({"type": "text", "text": text});
                let delta = json!({"type": "content_delta", "index": 0, "content": content});
                let body = json!({"type": "event_delta", "event_id": event.as_str(), "delta": delta});
                Some(("event_delta", body))
            }
            // What was thought is shown to nobody; the other pieces were not asked for.
            _ => None,
        }
    }
}
