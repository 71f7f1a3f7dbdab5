//! Server-sent events: how the events of a session go out, in whatever dialect.
//!
//! Invariants: the first bytes go out at once; a stream ends with the server, and nothing goes to whoever has lost the
//! right to it; a frame is not sent by halves.

use std::fmt::Write;
use std::pin::pin;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use oma_domain::{Event, SessionId};
use oma_engine::{Delta, Follow, Frame};
use serde::Serialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use crate::AppState;
use crate::auth::Caller;
use crate::streams::OpenStream;

/// Frames that are ready together are sent together, up to about this many bytes.
const BATCH: usize = 32 << 10;

/// How a dialect words a session's stream. Each method appends frames, or none.
pub(crate) trait Wording: Send + 'static {
    /// The stream is open.
    fn heartbeat(&self, chunk: &mut String);

    /// The log has another event.
    fn event(&mut self, event: &Event, chunk: &mut String);

    /// A piece of an answer has come, which the log does not have.
    fn delta(&self, delta: &Delta, chunk: &mut String);

    /// The session was deleted: this is the end of the stream.
    fn deleted(&self, chunk: &mut String);

    /// When the stream ends unless something happens before; `None` when it does not end by itself.
    fn ends_at(&self) -> Option<Instant>;
}

/// A session's events, for a caller who holds a place.
pub(crate) fn respond(
    state: &AppState,
    caller: &Caller,
    place: OpenStream,
    session: &SessionId,
    frames: Follow,
    wording: impl Wording,
) -> Response {
    let period = state.config.heartbeat;
    let mut heartbeats = interval_at(Instant::now() + period, period);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let streamer = Streamer {
        state: state.clone(),
        caller: caller.clone(),
        frames,
        session: session.clone(),
        wording,
        heartbeats,
        greeted: false,
        finished: false,
        _place: place,
    };
    let chunks = stream::unfold(streamer, |mut streamer| async move {
        let chunk = streamer.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), streamer))
    });
    (headers(), Body::from_stream(chunks)).into_response()
}

/// The headers of a stream; the last one keeps proxies from holding frames back.
pub(crate) fn headers() -> [(header::HeaderName, &'static str); 3] {
    [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ]
}

struct Streamer<W> {
    state: AppState,
    caller: Caller,
    frames: Follow,
    session: SessionId,
    wording: W,
    heartbeats: Interval,
    greeted: bool,
    finished: bool,
    _place: OpenStream,
}

impl<W: Wording> Streamer<W> {
    /// The next bytes to send; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        let mut chunk = String::new();
        if !self.greeted {
            // So that the client knows that the stream is open, and whoever stands between passes the headers on.
            self.greeted = true;
            self.wording.heartbeat(&mut chunk);
            return Some(chunk.into());
        }
        while chunk.is_empty() && !self.finished {
            let ends_at = self.wording.ends_at();
            tokio::select! {
                biased;
                () = self.state.shutdown.cancelled() => return None,
                frame = self.frames.next() => self.take(frame, &mut chunk),
                _ = self.heartbeats.tick() => self.wording.heartbeat(&mut chunk),
                () = sleep_until(ends_at.unwrap_or_else(Instant::now)), if ends_at.is_some() => return None,
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
            Some(Ok(Frame::Event(event))) => self.wording.event(&event, chunk),
            Some(Ok(Frame::Delta(delta))) => self.wording.delta(&delta, chunk),
            Some(Ok(Frame::Deleted)) => {
                self.wording.deleted(chunk);
                self.finished = true;
            }
            None => self.finished = true,
            Some(Err(error)) => {
                // The client goes on from its last cursor, or lists what it has missed; no frame could say more.
                tracing::warn!(session_id = %self.session, %error, "an event stream broke off");
                self.finished = true;
            }
        }
    }
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
