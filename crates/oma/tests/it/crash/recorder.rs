//! Follows one session's stream over all restarts, always from the last frame that it got.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use super::link::Link;
use crate::system::soon;

/// How much was recorded.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Frames of the log.
    pub(super) frames: usize,
    /// Frames since the newest user message, that one not counted.
    pub(super) in_turn: usize,
    /// The most frames that any turn had so far.
    pub(super) deepest: usize,
    /// Pieces of answers.
    pub(super) deltas: usize,
}

#[derive(Default)]
struct Tape {
    frames: Vec<Value>,
    /// What was seen of each answer on its way, by the id of its event.
    pieces: BTreeMap<String, String>,
}

/// What a follower has seen.
#[derive(Clone)]
pub(super) struct Recorder {
    tape: Arc<Mutex<Tape>>,
    progress: Arc<watch::Sender<Progress>>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self {
            tape: Arc::default(),
            progress: Arc::new(watch::Sender::new(Progress::default())),
        }
    }

    fn tape(&self) -> std::sync::MutexGuard<'_, Tape> {
        self.tape.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows for as long as it is not dropped.
    pub(super) async fn record(self, link: Link, session: String) {
        loop {
            let (number, client) = link.current().await;
            let last = self
                .tape()
                .frames
                .last()
                .map(|frame| frame["event_id"].as_str().expect("an id").to_owned());
            let followed = client.try_follow(&session, last.as_deref(), true);
            let Some(mut frames) = link.unless_gone(number, followed).await else {
                continue;
            };
            loop {
                match frames.try_next().await {
                    Some(Ok(frame)) => self.take(frame),
                    // The connection broke: the server is gone or about to go.
                    Some(Err(_)) => break link.gone(number).await,
                    // A stream that ends in order may be opened again at once.
                    None => break,
                }
            }
        }
    }

    fn take(&self, frame: Value) {
        let kind = frame["type"].as_str().expect("a type").to_owned();
        let (is_delta, is_message) = (kind.ends_with("_delta"), kind == "user.message");
        if kind == "heartbeat" {
            return;
        }
        let mut tape = self.tape();
        if is_delta {
            let id = frame["event_id"].as_str().expect("an id").to_owned();
            tape.pieces
                .entry(id)
                .or_default()
                .push_str(frame["content"].as_str().expect("text"));
        } else {
            tape.frames.push(frame);
        }
        let frames = tape.frames.len();
        drop(tape);
        self.progress.send_modify(|progress| {
            progress.frames = frames;
            if is_delta {
                progress.deltas += 1;
            } else {
                progress.in_turn = if is_message { 0 } else { progress.in_turn + 1 };
                progress.deepest = progress.deepest.max(progress.in_turn);
            }
        });
    }

    pub(super) fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Waits until the progress is as wanted.
    pub(super) async fn wait(&self, mut wanted: impl FnMut(Progress) -> bool) {
        self.progress
            .subscribe()
            .wait_for(|progress| wanted(*progress))
            .await
            .expect("shared");
    }

    /// Waits for a frame at or after a position; gives it and the position after it.
    pub(super) async fn wait_for(
        &self,
        what: &str,
        from: usize,
        wanted: impl Fn(&Value) -> bool,
    ) -> (Value, usize) {
        let mut watch = self.progress.subscribe();
        let mut next = from;
        soon(what, async {
            loop {
                watch.borrow_and_update();
                {
                    let tape = self.tape();
                    while let Some(frame) = tape.frames.get(next) {
                        next += 1;
                        if wanted(frame) {
                            return (frame.clone(), next);
                        }
                    }
                }
                watch.changed().await.expect("shared");
            }
        })
        .await
    }

    pub(super) fn frames(&self) -> Vec<Value> {
        self.tape().frames.clone()
    }

    pub(super) fn pieces(&self) -> BTreeMap<String, String> {
        self.tape().pieces.clone()
    }
}
