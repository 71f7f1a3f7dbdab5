//! Reading a stream of server-sent events.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use serde_json::{Value, json};
use sse_stream::{Sse, SseByteStream};

use super::{canary, soon};

type Events = Pin<Box<dyn Stream<Item = Result<Value, String>> + Send>>;

/// The events of an answer as they are, comments left out.
pub(crate) fn raw(response: reqwest::Response) -> Pin<Box<dyn Stream<Item = Result<Sse, String>> + Send>> {
    let events = SseByteStream::new(response.bytes_stream()).filter_map(|event| async {
        match event {
            Ok(event) => event.data.is_some().then_some(Ok(event)),
            Err(error) => Some(Err(error.to_string())),
        }
    });
    Box::pin(events)
}

/// The frames of an open stream: their data, with the type of those that have none in it.
pub(crate) struct Frames(Events);

impl Frames {
    pub(crate) fn new(response: reqwest::Response) -> Self {
        let frames = raw(response).map(|frame| {
            let frame = frame?;
            let text = frame.data.unwrap_or_default();
            canary::absent("a frame", text.as_bytes());
            let mut data: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            if data.get("type").is_none() {
                data["type"] = json!(frame.event);
            }
            if data["type"] != json!(frame.event) {
                return Err(format!("the frame {:?} says {}", frame.event, data["type"]));
            }
            Ok(data)
        });
        Self(Box::pin(frames))
    }

    /// The next frame; `None` at the end, an error when the connection broke.
    pub(crate) async fn try_next(&mut self) -> Option<Result<Value, String>> {
        self.0.next().await
    }

    /// The next frame of a stream that must go on.
    pub(crate) async fn next(&mut self) -> Value {
        let frame = soon("a frame", self.0.next()).await;
        frame.expect("the stream goes on").expect("a frame")
    }

    /// Reads up to and including a frame that is wanted; heartbeats are left out.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut seen = Vec::new();
        loop {
            let frame = self.next().await;
            if frame["type"] == "heartbeat" {
                continue;
            }
            let found = wanted(&frame);
            seen.push(frame);
            if found {
                return seen;
            }
        }
    }

    /// Reads to the end of the stream; heartbeats are left out.
    pub(crate) async fn rest(mut self) -> Vec<Value> {
        let mut seen = Vec::new();
        while let Some(frame) = soon("the stream's end", self.0.next()).await {
            let Ok(frame) = frame else { break };
            if frame["type"] != "heartbeat" {
                seen.push(frame);
            }
        }
        seen
    }
}
