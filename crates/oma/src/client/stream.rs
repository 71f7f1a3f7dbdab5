//! Following a session's events over server-sent events, across lost connections.
//!
//! Invariant: frames come in log order, none twice and none left out: after a lost connection the stream
//! resumes behind the last id that it has seen.
//! Invariant: a frame is of bounded size, whatever the server sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{BoxStream, Stream, StreamExt as _};
use reqwest::Response;
use serde_json::Value;
use sse_stream::{Sse, SseByteStream};

use crate::client::{Client, Error, Request};

/// How long the server may be silent; it sends a heartbeat every 15 seconds.
const SILENCE: Duration = Duration::from_secs(50);
/// How long the server may take to answer the request for a stream.
const OPENING: Duration = Duration::from_secs(30);
/// The first wait before a new attempt; it doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How many attempts in a row may fail.
const ATTEMPTS: u32 = 8;
/// The largest frame, in bytes; a message has at most four million characters, and JSON escapes some of them.
const MAX_FRAME: usize = 64 << 20;

/// A frame of a session's stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    /// Its type, for example `agent.message`.
    pub(crate) kind: String,
    /// Its id, when it is a committed event.
    pub(crate) id: Option<String>,
    /// Its content.
    pub(crate) data: Value,
}

impl Frame {
    /// A text field of its content; empty when there is none.
    #[must_use]
    pub(crate) fn text(&self, field: &str) -> &str {
        self.data[field].as_str().unwrap_or_default()
    }
}

/// A session's frames, as they come.
pub(crate) struct Follow {
    client: Client,
    session: String,
    after: Option<String>,
    deltas: bool,
    open: Option<BoxStream<'static, Result<Frame, Error>>>,
    failures: u32,
    seen_any: bool,
}

impl Follow {
    /// Follows a session from behind the event `after`, or from its beginning.
    #[must_use]
    pub(crate) fn new(client: Client, session: &str, after: Option<String>, deltas: bool) -> Self {
        Self {
            client,
            session: session.to_owned(),
            after,
            deltas,
            open: None,
            failures: 0,
            seen_any: false,
        }
    }

    /// Connects now, so that nothing that happens from here on is missed, deltas included.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn connect(&mut self) -> Result<(), Error> {
        let mut request = Request::get(&["v1", "sessions", &self.session, "events"])
            .query("stream", "true")
            .unlimited();
        if self.deltas {
            request = request.query("deltas", "true");
        }
        if let Some(after) = &self.after {
            request = request.header("last-event-id", after)?;
        }
        let response = tokio::time::timeout(OPENING, self.client.open(request))
            .await
            .map_err(|_| Error::Unreachable(format!("{} did not answer in time", self.client.base())))??;
        let base = self.client.base().clone();
        let frames = events(response, MAX_FRAME).filter_map(move |event| {
            let frame = match event {
                Ok(event) => read(event).transpose(),
                Err(error) if is_connection(&error) => Some(Err(Error::Unreachable(format!(
                    "the stream from {base} broke off: {error}"
                )))),
                Err(error) => Some(Err(Error::Protocol(format!(
                    "the stream from {base} can't be read: {error}"
                )))),
            };
            std::future::ready(frame)
        });
        self.open = Some(frames.boxed());
        self.seen_any = false;
        Ok(())
    }

    /// The next frame; connects again as needed. Cancel-safe.
    ///
    /// # Errors
    /// [`Error`] when the server refuses, or does not come back.
    pub(crate) async fn next(&mut self) -> Result<Frame, Error> {
        loop {
            let Some(open) = &mut self.open else {
                if let Err(error) = self.connect().await {
                    self.wait_after(error).await?;
                }
                continue;
            };
            let ended = match tokio::time::timeout(SILENCE, open.next()).await {
                Ok(Some(Ok(frame))) => {
                    self.seen_any = true;
                    self.failures = 0;
                    if frame.kind == "heartbeat" {
                        continue;
                    }
                    if let Some(id) = &frame.id {
                        self.after = Some(id.clone());
                    }
                    return Ok(frame);
                }
                Ok(Some(Err(error))) => error,
                Ok(None) => Error::Unreachable(format!("{} ended the stream", self.client.base())),
                Err(_) => Error::Unreachable(format!("{} has fallen silent", self.client.base())),
            };
            self.open = None;
            // What can't be read now can't be read the next time either.
            if !ended.passing() {
                return Err(ended);
            }
            // A server ends the stream of a session that has been idle for a while; one that says nothing at
            // all before it does so must not be asked again at once.
            if !self.seen_any {
                self.wait_after(ended).await?;
            }
        }
    }

    async fn wait_after(&mut self, error: Error) -> Result<(), Error> {
        self.failures += 1;
        if !error.passing() || self.failures >= ATTEMPTS {
            return Err(error);
        }
        let wait = FIRST_WAIT
            .saturating_mul(1 << (self.failures - 1).min(16))
            .min(LONGEST_WAIT);
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Why an answer's bytes end before it does.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Connection(#[from] reqwest::Error),
    #[error("a frame has more than {0} bytes")]
    TooLarge(usize),
}

/// Whether it is the connection that failed, and not what came over it.
fn is_connection(error: &sse_stream::Error) -> bool {
    let sse_stream::Error::Body(cause) = error else {
        return false;
    };
    matches!(cause.downcast_ref(), Some(Broken::Connection(_)))
}

/// The events of an answer. The parser holds an unfinished event of any size, so the bytes since the last event
/// are counted before they reach it.
fn events(response: Response, max: usize) -> impl Stream<Item = Result<Sse, sse_stream::Error>> {
    let pending = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&pending);
    let bounded = response.bytes_stream().map(move |piece| {
        let piece = piece?;
        if counted.fetch_add(piece.len(), Ordering::Relaxed) > max {
            return Err(Broken::TooLarge(max));
        }
        Ok(piece)
    });
    SseByteStream::new(bounded).inspect(move |_| pending.store(0, Ordering::Relaxed))
}

fn read(event: Sse) -> Result<Option<Frame>, Error> {
    let Some(data) = event.data.filter(|data| !data.is_empty()) else {
        return Ok(None);
    };
    let data: Value = serde_json::from_str(&data)
        .map_err(|error| Error::Protocol(format!("a frame of the stream is not JSON: {error}")))?;
    Ok(Some(Frame {
        kind: event.event.unwrap_or_default(),
        id: event.id.filter(|id| !id.is_empty()),
        data,
    }))
}
