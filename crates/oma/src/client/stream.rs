//! Following a session's events over server-sent events, across lost connections.
//!
//! Invariant: frames come in log order, none twice and none left out: after a lost connection the stream
//! resumes behind the last id that it has seen.

use std::time::Duration;

use eventsource_stream::Eventsource as _;
use futures_util::stream::{BoxStream, StreamExt as _};
use serde_json::Value;

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
        let frames = response.bytes_stream().eventsource().filter_map(move |event| {
            let frame = match event {
                Ok(event) => read(event).transpose(),
                Err(error) => Some(Err(Error::Unreachable(format!(
                    "the stream from {base} broke off: {error}"
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

fn read(event: eventsource_stream::Event) -> Result<Option<Frame>, Error> {
    if event.data.is_empty() {
        return Ok(None);
    }
    let data: Value = serde_json::from_str(&event.data)
        .map_err(|error| Error::Protocol(format!("a frame of the stream is not JSON: {error}")))?;
    let id = data["event_id"]
        .as_str()
        .map(str::to_owned)
        .filter(|id| *id == event.id);
    Ok(Some(Frame {
        kind: event.event,
        id,
        data,
    }))
}
