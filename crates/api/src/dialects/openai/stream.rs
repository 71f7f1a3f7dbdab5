//! A chat completion as a stream of chunks: text as the model writes it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use oma_domain::{EventId, Session};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::chat::{head, timed_out};
use super::error::ChatErrorBody;
use super::reply::ChunkHead;
use super::turn::{Progress, Running, finish_reason};
use crate::AppState;
use crate::auth::Caller;
use crate::fault::{Fault, Result};
use crate::sse::headers;
use crate::streams::OpenStream;

/// How long a failure may take to be answered as JSON; after that the stream is opened without content.
const FIRST: Duration = Duration::from_secs(10);

/// What separates two messages of one turn.
const BETWEEN: &str = "\n\n";

/// Opens the stream. A turn that fails before it says anything is answered as an error.
pub(super) async fn open(
    state: &AppState,
    caller: &Caller,
    session: &Session,
    turn: Running,
    deadline: Instant,
    include_usage: bool,
) -> Result<Response> {
    let place = state.streams.open(caller)?;
    let mut writer = Writer {
        turn: Some(turn),
        head: head(session),
        text: Text::default(),
        include_usage,
        deadline,
        heartbeat: state.config.heartbeat,
        early: VecDeque::new(),
        opened: false,
        state: state.clone(),
        caller: caller.clone(),
        _place: place,
    };
    writer.wait_for_first(FIRST.min(state.config.heartbeat)).await?;
    let chunks = stream::unfold(writer, |mut writer| async move {
        let chunk = writer.next().await?;
        Some((Ok::<_, Infallible>(chunk), writer))
    });
    Ok((headers(), Body::from_stream(chunks)).into_response())
}

struct Writer {
    /// `None` once the stream has been finished.
    turn: Option<Running>,
    head: ChunkHead,
    text: Text,
    include_usage: bool,
    deadline: Instant,
    heartbeat: Duration,
    /// Progress from before the stream was opened.
    early: VecDeque<Progress>,
    opened: bool,
    state: AppState,
    caller: Caller,
    _place: OpenStream,
}

impl Writer {
    /// Waits a while for something to say, so that an early failure still gets a status of its own.
    async fn wait_for_first(&mut self, patience: Duration) -> Result<()> {
        let Some(turn) = &mut self.turn else { return Ok(()) };
        let Ok(progress) = timeout_at(self.deadline.min(Instant::now() + patience), turn.next()).await else {
            return Ok(());
        };
        let progress = progress?;
        if let Progress::End(stop) = &progress {
            finish_reason(stop)?;
        }
        self.early.push_back(progress);
        Ok(())
    }

    async fn next(&mut self) -> Option<Bytes> {
        // Whoever has lost the right to the answer leaves the stream, which cancels the turn.
        if !self.caller.is_welcome(&self.state) {
            return None;
        }
        let mut out = String::new();
        if !self.opened {
            self.opened = true;
            data(&mut out, &self.head.role());
        }
        while out.is_empty() || !self.early.is_empty() {
            let progress = match self.early.pop_front() {
                Some(progress) => Ok(progress),
                None => {
                    let turn = self.turn.as_mut()?;
                    let pause = Instant::now() + self.heartbeat;
                    match timeout_at(self.deadline.min(pause), turn.next()).await {
                        Ok(progress) => progress,
                        Err(_) if Instant::now() < self.deadline => {
                            // A comment, which clients skip, keeps the connection alive.
                            out.push_str(": keep-alive\n\n");
                            break;
                        }
                        Err(_) => {
                            if let Some(turn) = self.turn.take() {
                                turn.give_up().await;
                            }
                            Err(timed_out())
                        }
                    }
                }
            };
            match progress {
                Ok(progress) => self.write(progress, &mut out),
                Err(fault) => self.fail(&fault, &mut out),
            }
        }
        Some(out.into())
    }

    fn write(&mut self, progress: Progress, out: &mut String) {
        let new = match progress {
            Progress::Piece { event, text } => self.text.piece(event, &text),
            Progress::Message {
                event, text, model, ..
            } => {
                self.head.model = model;
                self.text.whole(&event, &text)
            }
            Progress::End(stop) => {
                match finish_reason(&stop) {
                    Ok(reason) => self.finish(reason, out),
                    Err(fault) => self.fail(&fault, out),
                }
                return;
            }
        };
        if !new.is_empty() {
            data(out, &self.head.text(&new));
        }
    }

    fn finish(&mut self, reason: &'static str, out: &mut String) {
        data(out, &self.head.finish(reason));
        if let Some(turn) = self.turn.take()
            && self.include_usage
        {
            data(out, &self.head.usage(&turn.usage));
        }
        out.push_str("data: [DONE]\n\n");
    }

    /// The stream has begun, so the status can't say it any more.
    fn fail(&mut self, fault: &Fault, out: &mut String) {
        // An answer that can't be finished is not wanted: dropping the turn stops it if it still goes on.
        self.turn = None;
        tracing::info!(code = fault.code(), "a chat stream ended with an error");
        let mut body = json!(ChatErrorBody::of(fault));
        body["error"]["type"] = json!("stream_error");
        out.push_str("event: error\n");
        data(out, &body);
    }
}

/// What of the turn's text was sent.
#[derive(Debug, Default)]
struct Text {
    /// The messages that pieces were sent of and that are not complete yet, oldest first, and how many bytes of
    /// each. One answer may have several: all their pieces come before the first of them is complete.
    partial: Vec<(EventId, usize)>,
    /// Whether anything was sent.
    any: bool,
}

impl Text {
    /// What to send for a piece of a message.
    fn piece(&mut self, event: EventId, text: &str) -> String {
        match self.partial.last_mut() {
            Some((last, sent)) if *last == event => {
                *sent += text.len();
                text.to_owned()
            }
            _ => {
                self.partial.push((event, text.len()));
                self.next(text)
            }
        }
    }

    /// What to send when a message is complete: whatever no piece has brought.
    fn whole(&mut self, event: &EventId, text: &str) -> String {
        let Some(at) = self.partial.iter().position(|(partial, _)| partial == event) else {
            return self.next(text);
        };
        let (_, sent) = self.partial.remove(at);
        // Messages become complete in their order: pieces of those before this one belong to an attempt that
        // failed, and no whole message will follow them.
        self.partial.drain(..at);
        text.get(sent..).unwrap_or_default().to_owned()
    }

    fn next(&mut self, text: &str) -> String {
        let between = if self.any { BETWEEN } else { "" };
        self.any = true;
        format!("{between}{text}")
    }
}

fn data(out: &mut String, value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(json) => {
            // Writing to a string can't fail.
            let _infallible = write!(out, "data: {json}\n\n");
        }
        Err(error) => tracing::error!(%error, "a chunk can't be worded"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_whole_messages_join_without_gap_or_repetition() {
        let (one, two, three) = (EventId::generate(), EventId::generate(), EventId::generate());
        let mut text = Text::default();
        let mut all = String::new();
        all += &text.piece(one.clone(), "Hel");
        all += &text.piece(one.clone(), "lo");
        all += &text.whole(&one, "Hello, wörld");
        all += &text.whole(&two, "Again");
        all += &text.piece(three.clone(), "ü");
        all += &text.whole(&three, "ü");
        assert_eq!(all, "Hello, wörld\n\nAgain\n\nü");
    }

    #[test]
    fn an_answer_of_several_messages_is_sent_once() {
        let (lost, one, two) = (EventId::generate(), EventId::generate(), EventId::generate());
        let mut text = Text::default();
        let mut all = String::new();
        all += &text.piece(lost, "an attempt that failed");
        all += &text.piece(one.clone(), "One");
        all += &text.piece(two.clone(), "Tw");
        all += &text.whole(&one, "One");
        all += &text.whole(&two, "Two");
        all += &text.whole(&EventId::generate(), "Three");
        assert_eq!(all, "an attempt that failed\n\nOne\n\nTwo\n\nThree");
        assert!(text.partial.is_empty());
    }
}
