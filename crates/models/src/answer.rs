//! Drives a protocol's decoder over its frames.
//!
//! Invariant: a stream that ends before its decoder is satisfied is a passing error, never a short answer.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use oma_domain::event::FailureKind;
use oma_domain::session::ReplyStop;
use oma_domain::usage::{Cost, NanoUsd, Spent, Usage};

use reqwest::header::HeaderMap;

use crate::registry::Target;
use crate::request::{AssistantBlock, Chunk, Completion, ModelStream};
use crate::{Error, failure, sse};

/// Frames of a protocol: the data of server-sent events, or messages of an event stream.
pub(crate) type Frames<F> = Pin<Box<dyn Stream<Item = Result<F, Error>> + Send>>;

/// What a decoder knows when the answer is complete.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) blocks: Vec<AssistantBlock>,
    pub(crate) stop: ReplyStop,
}

/// What the provider has said so far about what an answer consumes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Tally {
    /// Absent when it did not say.
    pub(crate) usage: Option<Usage>,
    /// Its own figure of the price, in dollars.
    pub(crate) cost: Option<f64>,
    /// Whether the answer can't consume more than that.
    pub(crate) is_final: bool,
}

/// Whether a decoder wants more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More frames belong to the answer.
    Open,
    /// The provider's end mark has been seen.
    Complete,
}

/// Understands one protocol's stream.
pub(crate) trait Decoder: Send + 'static {
    /// What one frame is.
    type Frame: Send;

    /// Takes in a frame.
    fn frame(&mut self, frame: Self::Frame, out: &mut Vec<Chunk>) -> Result<Progress, Error>;

    /// Whether the answer is complete although the stream ended without a separate end mark.
    fn complete_at_end(&self) -> bool {
        false
    }

    /// What the provider has said so far about what the answer consumes.
    fn tally(&self) -> Tally;

    /// The whole answer, after the end mark.
    fn finish(self) -> Result<Answer, Error>;
}

struct Drive<D: Decoder> {
    frames: Frames<D::Frame>,
    decoder: Option<D>,
    ready: VecDeque<Chunk>,
    /// Whether the provider has begun to answer. What it reports before that refuses the request.
    has_begun: bool,
    /// How many tokens the text and the thoughts had that have come, as far as that can be reckoned.
    arrived: u64,
    target: Arc<Target>,
}

/// Posts a request whose answer is a stream of server-sent events.
pub(crate) async fn ask<D: Decoder<Frame = String>>(
    target: &Arc<Target>,
    url: &str,
    body: &serde_json::Value,
    headers: HeaderMap,
    decoder: D,
) -> Result<ModelStream, Error> {
    let bytes = target.endpoint.post(url, encoded(body)?, headers).await?;
    Ok(stream_of(
        Box::pin(sse::events(bytes, sse::MAX_EVENT)),
        decoder,
        target,
    ))
}

/// A request's bytes.
pub(crate) fn encoded(body: &serde_json::Value) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(body).map_err(|error| Error::fatal(FailureKind::Internal, error.to_string()))
}

/// The pieces of an answer.
pub(crate) fn stream_of<D: Decoder>(
    frames: Frames<D::Frame>,
    decoder: D,
    target: &Arc<Target>,
) -> ModelStream {
    let drive = Drive {
        frames,
        decoder: Some(decoder),
        ready: VecDeque::new(),
        has_begun: false,
        arrived: 0,
        target: Arc::clone(target),
    };
    Box::pin(stream::unfold(drive, |mut drive| async move {
        let next = drive.next().await?;
        let next = next.map_err(|error| drive.target.endpoint.redacted(error));
        if next.is_err() {
            // An error is the last item: nothing after it could be trusted.
            drive.decoder = None;
            drive.ready.clear();
        }
        Some((next, drive))
    }))
}

impl<D: Decoder> Drive<D> {
    async fn next(&mut self) -> Option<Result<Chunk, Error>> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(Ok(chunk));
            }
            let decoder = self.decoder.as_mut()?;
            let progress = match self.frames.next().await {
                Some(Ok(frame)) => {
                    let mut chunks = Vec::new();
                    let progress = decoder.frame(frame, &mut chunks);
                    self.arrived += chunks.iter().map(tokens).sum::<u64>();
                    self.ready.extend(chunks);
                    progress
                }
                Some(Err(error)) => Err(error),
                None if decoder.complete_at_end() => Ok(Progress::Complete),
                None => Err(Error::passing(
                    FailureKind::ModelOverloaded,
                    "the answer ended before it was complete",
                )
                .unaccounted()),
            };
            match progress {
                Ok(Progress::Open) => self.has_begun = true,
                Ok(Progress::Complete) => {
                    let decoder = self.decoder.take()?;
                    let tally = Tally {
                        is_final: true,
                        ..decoder.tally()
                    };
                    match decoder.finish() {
                        Ok(answer) => self
                            .ready
                            .push_back(Chunk::Done(Box::new(self.completion(answer, tally)))),
                        Err(error) => return Some(Err(self.failed(error, tally))),
                    }
                }
                Err(error) if !self.has_begun && *error.spent == Spent::Nothing => return Some(Err(error)),
                Err(error) => {
                    let tally = decoder.tally();
                    return Some(Err(self.failed(error, tally)));
                }
            }
        }
    }

    fn completion(&self, answer: Answer, tally: Tally) -> Completion {
        if tally.usage.is_none() {
            tracing::warn!(model = self.target.name, "the provider reported no usage");
        }
        Completion {
            blocks: answer.blocks,
            usage: tally.usage.unwrap_or_default(),
            cost: self.cost(tally),
            stop: answer.stop,
        }
    }

    /// The error of an answer that had begun, with what it consumed until then.
    fn failed(&self, error: Error, tally: Tally) -> Error {
        let cost = self.cost(tally);
        let spent = match tally.usage {
            Some(usage) if tally.is_final => Spent::All { usage, cost },
            usage => Spent::AtLeast {
                usage: usage.unwrap_or_default(),
                cost,
                arrived: self.arrived,
            },
        };
        Error {
            spent: Box::new(spent),
            ..error
        }
    }

    /// The provider's own figure, else the catalogue's.
    fn cost(&self, tally: Tally) -> Option<Cost> {
        match tally.cost.filter(|usd| usd.is_finite() && *usd >= 0.0) {
            Some(usd) => Some(Cost {
                amount: NanoUsd::from_usd(usd),
                source: "provider".to_owned(),
            }),
            None => tally.usage.and_then(|usage| self.target.prices.cost(&usage)),
        }
    }
}

fn tokens(chunk: &Chunk) -> u64 {
    match chunk {
        Chunk::Text { text, .. } | Chunk::Thinking { text, .. } => oma_domain::tokens::at_most(text),
        Chunk::ToolUse { .. } | Chunk::Done(_) => 0,
    }
}

/// The error for an answer that was cut where the context window ended.
pub(crate) fn out_of_window() -> Error {
    let message = "the model's answer reached the end of its context window";
    Error::fatal(FailureKind::ContextOverflow, message)
}

/// Reads one frame's JSON.
pub(crate) fn json<T: serde::de::DeserializeOwned>(data: &str) -> Result<T, Error> {
    serde_json::from_str(data).map_err(|error| crate::sse::malformed(&error.to_string()))
}

/// The error that a frame reports.
pub(crate) fn reported(value: &serde_json::Value) -> Error {
    failure::in_stream(&failure::Report::from_json(value))
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
