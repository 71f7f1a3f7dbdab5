//! The stream of events: server-sent events, first from the log and then as they happen.
//!
//! Invariants: a frame is what the list has under the same id, in the same order; nothing is sent that the log
//! does not hold, except heartbeats and, when asked for, deltas, neither of which carry an id to resume from.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::Response;
use oma_domain::event::{Body, StopReason};
use oma_domain::page::Order;
use oma_domain::session::Phase;
use oma_domain::{Event, EventId, Seq, SessionId};
use oma_engine::Delta;
use serde::Serialize;
use tokio::time::Instant;

use super::cursor::Cursor;
use super::projection::project;
use super::{Start, locate};
use crate::AppState;
use crate::auth::Caller;
use crate::fault::Result;
use crate::sse::{self, write_frame};

/// Opens a stream after a cursor; an unknown one means from the start.
pub(super) async fn open(
    state: &AppState,
    caller: &Caller,
    id: &SessionId,
    after: Option<&str>,
    deltas: bool,
) -> Result<Response> {
    let place = state.streams.open(caller)?;
    let workspace = caller.workspace();
    let session = state.engine.session(workspace, id).await?;
    let start = match after {
        None => None,
        Some(cursor) => locate(&state.engine, caller, id, cursor, Order::Ascending).await?,
    };
    let Start { from, seen } = start.unwrap_or(Start {
        from: None,
        seen: None,
    });
    let frames = state
        .engine
        .follow(workspace, id, from.unwrap_or(Seq(0)), deltas)
        .await?;
    let linger = state.config.stream_linger;
    let wording = Events {
        session: id.clone(),
        seen,
        idle: matches!(session.state.phase, Phase::Idle { .. }),
        linger,
        ends_at: Instant::now() + linger,
    };
    Ok(sse::respond(state, caller, place, id, frames, wording))
}

/// A stream's events, as this dialect words them.
struct Events {
    session: SessionId,
    /// What the client has got already.
    seen: Option<Cursor>,
    /// Whether the session is idle, as of the last frame that was sent.
    idle: bool,
    linger: Duration,
    /// When the stream ends if the session stays idle and nothing new happens.
    ends_at: Instant,
}

impl sse::Wording for Events {
    fn heartbeat(&self, chunk: &mut String) {
        let heartbeat = Heartbeat {
            ts: oma_engine::now().as_millis(),
        };
        write_frame(chunk, "heartbeat", &heartbeat, None);
    }

    fn event(&mut self, event: &Event, chunk: &mut String) {
        match &*event.body {
            Body::StatusRunning => self.idle = false,
            Body::StatusIdle {
                stop_reason: StopReason::RequiresAction { .. },
                ..
            } => {}
            Body::StatusIdle { .. } => self.idle = true,
            _ => {}
        }
        self.ends_at = Instant::now() + self.linger;
        for (index, view) in project(event).into_iter().enumerate() {
            let covers = |seen: &Cursor| seen.covers(&event.id, index, Order::Ascending);
            if !self.seen.as_ref().is_some_and(covers) {
                write_frame(chunk, view.r#type, &view, Some(&view.event_id));
            }
        }
    }

    fn delta(&self, delta: &Delta, chunk: &mut String) {
        let (kind, event, text) = match delta {
            Delta::MessageStart { .. } | Delta::ThinkingStart { .. } => return,
            Delta::Text { event, text } => ("agent.message_delta", event, text),
            Delta::Thinking { event, text } => ("agent.thinking_delta", event, text),
        };
        write_frame(
            chunk,
            kind,
            &DeltaView::of(&self.session, kind, event, text),
            None,
        );
    }

    fn deleted(&self, _: &mut String) {}

    fn ends_at(&self) -> Option<Instant> {
        self.idle.then_some(self.ends_at)
    }
}

/// What says that the stream is open.
#[derive(Serialize)]
struct Heartbeat {
    ts: i64,
}

/// A piece of an answer on its way.
#[derive(Serialize)]
struct DeltaView<'a> {
    event_id: &'a str,
    session_id: &'a str,
    r#type: &'static str,
    content: Cow<'a, str>,
    created_at: i64,
}

impl<'a> DeltaView<'a> {
    fn of(session: &'a SessionId, kind: &'static str, event: &'a EventId, text: &'a str) -> Self {
        Self {
            event_id: event.as_str(),
            session_id: session.as_str(),
            r#type: kind,
            content: text.into(),
            created_at: oma_engine::now().as_millis(),
        }
    }
}
