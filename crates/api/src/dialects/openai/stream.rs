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
use crate::dialects::openclaw::events::stream::{OpenStream, headers, permit};
use crate::fault::{Fault, Result};

/// How long a failure may take to be answered as JSON; after that the stream is opened without content.
const FIRST: Duration = Duration::from_secs(10);

/// What separates two messages of one turn.
const BETWEEN: &str = "\n\n";

/// Opens the stream. A turn that fails before it says anything is answered as an error.
pub(super) async fn open(
    state: &AppState,
    session: &Session,
    turn: Running,
    deadline: Instant,
    include_usage: bool,
) -> Result<Response> {
    let open = OpenStream::count(permit(state)?);
    let mut writer = Writer {
        turn: Some(turn),
        head: head(session),
        text: Text::default(),
        include_usage,
        deadline,
        heartbeat: state.config.heartbeat,
        early: VecDeque::new(),
        opened: false,
        _open: open,
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
    _open: OpenStream,
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
    /// The message that was last sent from, and how many bytes of it.
    current: Option<(EventId, usize)>,
}

impl Text {
    /// What to send for a piece of a message.
    fn piece(&mut self, event: EventId, text: &str) -> String {
        let mut new = String::new();
        match &mut self.current {
            Some((current, sent)) if *current == event => *sent += text.len(),
            current => {
                if current.is_some() {
                    new.push_str(BETWEEN);
                }
                *current = Some((event, text.len()));
            }
        }
        new.push_str(text);
        new
    }

    /// What to send when a message is complete: whatever no piece has brought.
    fn whole(&mut self, event: &EventId, text: &str) -> String {
        match &self.current {
            Some((current, sent)) if current == event => {
                let rest = text.get(*sent..).unwrap_or_default().to_owned();
                self.current = Some((event.clone(), text.len()));
                rest
            }
            _ => self.piece(event.clone(), text),
        }
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
}
