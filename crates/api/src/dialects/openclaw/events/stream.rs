//! The stream of events: server-sent events, first from the log and then as they happen.
//!
//! Invariants: a frame is what the list has under the same id, in the same order; nothing is sent that the log
//! does not hold, except heartbeats and, when asked for, deltas, neither of which carry an id to resume from.

use std::borrow::Cow;
use std::fmt::Write;
use std::pin::pin;
use std::time::Duration;

use axum::body::Body as HttpBody;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use oma_domain::event::{Body, StopReason};
use oma_domain::page::Order;
use oma_domain::session::Phase;
use oma_domain::{EventId, Seq, SessionId};
use oma_engine::{Delta, Follow, Frame};
use serde::Serialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::cursor::Cursor;
use super::projection::project;
use super::{Start, locate};
use crate::AppState;
use crate::auth::Caller;
use crate::fault::Result;
use crate::streams::OpenStream;

/// Frames that are ready together are sent together, up to about this many bytes.
const BATCH: usize = 32 << 10;

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
    let config = &state.config;
    let mut heartbeats = interval_at(Instant::now() + config.heartbeat, config.heartbeat);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let streamer = Streamer {
        state: state.clone(),
        caller: caller.clone(),
        frames,
        session: id.clone(),
        seen,
        idle: matches!(session.state.phase, Phase::Idle { .. }),
        linger: config.stream_linger,
        ends_at: Instant::now() + config.stream_linger,
        heartbeats,
        greeted: false,
        finished: false,
        _place: place,
    };
    let chunks = stream::unfold(streamer, |mut streamer| async move {
        let chunk = streamer.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), streamer))
    });
    Ok((headers(), HttpBody::from_stream(chunks)).into_response())
}

/// The headers of a stream; the last one keeps proxies from holding frames back.
pub(crate) fn headers() -> [(header::HeaderName, &'static str); 3] {
    [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ]
}

struct Streamer {
    state: AppState,
    caller: Caller,
    frames: Follow,
    session: SessionId,
    /// What the client has got already.
    seen: Option<Cursor>,
    /// Whether the session is idle, as of the last frame that was sent.
    idle: bool,
    linger: Duration,
    /// When the stream ends if the session stays idle and nothing new happens.
    ends_at: Instant,
    heartbeats: Interval,
    greeted: bool,
    finished: bool,
    _place: OpenStream,
}

impl Streamer {
    /// The next bytes to send; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        let mut chunk = String::new();
        if !self.greeted {
            // The first bytes go out at once, so that the client knows that the stream is open.
            self.greeted = true;
            heartbeat(&mut chunk);
            return Some(chunk.into());
        }
        while chunk.is_empty() && !self.finished {
            tokio::select! {
                biased;
                () = self.state.shutdown.cancelled() => return None,
                frame = self.frames.next() => self.take(frame, &mut chunk),
                _ = self.heartbeats.tick() => heartbeat(&mut chunk),
                () = sleep_until(self.ends_at), if self.idle => return None,
            }
        }
        while !self.finished && chunk.len() < BATCH {
            let Some(frame) = pin!(self.frames.next()).now_or_never() else {
                break;
            };
            self.take(frame, &mut chunk);
        }
        // Nothing goes to whoever has lost the right to it since.
        (!chunk.is_empty() && self.caller.is_welcome(&self.state)).then(|| chunk.into())
    }

    fn take(&mut self, frame: Option<oma_engine::Result<Frame>>, chunk: &mut String) {
        match frame {
            Some(Ok(Frame::Event(event))) => {
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
                for (index, view) in project(&event).into_iter().enumerate() {
                    if self
                        .seen
                        .as_ref()
                        .is_some_and(|seen| seen.covers(&event.id, index, Order::Ascending))
                    {
                        continue;
                    }
                    write_frame(chunk, view.r#type, &view, Some(&view.event_id));
                }
            }
            Some(Ok(Frame::Delta(delta))) => self.delta(&delta, chunk),
            Some(Ok(Frame::Deleted)) | None => self.finished = true,
            Some(Err(error)) => {
                // The client resumes from its last cursor; there is no frame that could say more.
                tracing::warn!(session_id = %self.session, %error, "an event stream broke off");
                self.finished = true;
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

fn heartbeat(chunk: &mut String) {
    #[derive(Serialize)]
    struct Heartbeat {
        ts: i64,
    }
    write_frame(
        chunk,
        "heartbeat",
        &Heartbeat {
            ts: oma_engine::now().as_millis(),
        },
        None,
    );
}

/// Appends a frame: its event, its data on one line, and its id where it has one.
pub(crate) fn write_frame(chunk: &mut String, event: &str, data: &impl Serialize, id: Option<&str>) {
    let json = match serde_json::to_string(data) {
        Ok(json) => json,
        Err(error) => {
            tracing::error!(%error, event, "a frame can't be worded");
            return;
        }
    };
    // Writing to a string can't fail, and JSON has no line breaks of its own.
    let _infallible = write!(chunk, "event: {event}\ndata: {json}\n");
    if let Some(id) = id {
        let _infallible = writeln!(chunk, "id: {id}");
    }
    chunk.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_event_then_data_then_id() {
        let mut chunk = String::new();
        write_frame(&mut chunk, "agent.message", &"a\nb", Some("evt_1"));
        write_frame(&mut chunk, "heartbeat", &1, None);
        assert_eq!(
            chunk,
            "event: agent.message\ndata: \"a\\nb\"\nid: evt_1\n\nevent: heartbeat\ndata: 1\n\n"
        );
    }
}
