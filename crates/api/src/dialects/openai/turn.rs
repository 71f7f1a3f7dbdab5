//! One turn of a session, followed from its message to its end.
//!
//! Invariant: a turn that is dropped before its end, because the client is gone, is interrupted, and no other
//! turn ever is.

use futures_util::StreamExt;
use oma_domain::event::{Body, StopReason};
use oma_domain::usage::Usage;
use oma_domain::{ContentBlock, EventId, KeyId, Seq, Session, SessionId, WorkspaceId};
use oma_engine::{Delta, Engine, Error, Follow, Frame, IdempotencyKey, Post};

use crate::fault::{Fault, Result};

/// What a turn shows on its way.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Progress {
    /// A piece of a message on its way.
    Piece {
        /// The message's future event.
        event: EventId,
        /// The text.
        text: String,
    },
    /// A whole message.
    Message {
        /// Its event.
        event: EventId,
        /// The model request that it came from.
        request: EventId,
        /// The text.
        text: String,
        /// The model.
        model: String,
    },
    /// The turn is over.
    End(StopReason),
}

/// A turn under way.
pub(super) struct Running {
    guard: Guard,
    frames: Follow,
    /// The message that started it.
    message: EventId,
    /// Whether the message has been seen in the log.
    begun: bool,
    /// What its model requests consumed so far.
    pub(super) usage: Usage,
}

impl Running {
    /// Posts a message to an idle session and follows its turn.
    pub(super) async fn start(
        engine: &Engine,
        session: &Session,
        content: Vec<ContentBlock>,
        charged: Option<KeyId>,
        key: Option<IdempotencyKey>,
        deltas: bool,
    ) -> Result<Self> {
        let (workspace, id) = (&session.workspace, &session.id);
        // Subscribed before the message is there, so that nothing of its turn is missed.
        let mut frames = engine.follow(workspace, id, session.head, deltas).await?;
        let post = Post {
            content,
            model: None,
            thinking_level: None,
            only_if_idle: true,
            charged,
            audit: None,
        };
        let posted = engine.post(workspace, id, post, key).await?;
        if posted.replayed {
            // The message is older than what is followed so far. While it waits in the queue it has no
            // position, and will come.
            if let Some(Seq(position)) = engine.locate(workspace, id, &posted.event).await? {
                frames = engine
                    .follow(workspace, id, Seq(position.saturating_sub(1)), deltas)
                    .await?;
            }
        }
        let guard = Guard {
            engine: engine.clone(),
            workspace: workspace.clone(),
            session: id.clone(),
            turn: posted.event.clone(),
            armed: true,
        };
        Ok(Self {
            guard,
            frames,
            message: posted.event,
            begun: false,
            usage: Usage::default(),
        })
    }

    /// What comes next; after [`Progress::End`] nothing does.
    pub(super) async fn next(&mut self) -> Result<Progress> {
        loop {
            let frame = self.frames.next().await;
            match frame {
                Some(Ok(Frame::Event(event))) => {
                    if let Some(progress) = self.event(&event.id, &event.body) {
                        return Ok(progress);
                    }
                }
                Some(Ok(Frame::Delta(Delta::Text { event, text }))) if self.begun => {
                    return Ok(Progress::Piece { event, text });
                }
                Some(Ok(Frame::Delta(_))) => {}
                Some(Ok(Frame::Deleted)) => {
                    self.guard.armed = false;
                    return Err(Error::SessionNotFound.into());
                }
                Some(Err(error)) => return Err(error.into()),
                None => {
                    // The turn goes on after the restart; it is not this client's any more.
                    self.guard.armed = false;
                    return Err(Error::Unavailable(
                        "the server is stopping; the turn goes on afterwards".into(),
                    )
                    .into());
                }
            }
        }
    }

    fn event(&mut self, id: &EventId, body: &Body) -> Option<Progress> {
        if !self.begun {
            self.begun = *id == self.message;
            return None;
        }
        match body {
            Body::AgentMessage {
                request,
                content,
                model,
                ..
            } => Some(Progress::Message {
                event: id.clone(),
                request: request.clone(),
                text: oma_domain::content::joined_text(content),
                model: model.clone(),
            }),
            Body::ModelRequestEnd { usage, .. } => {
                self.usage.add(usage);
                None
            }
            Body::StatusIdle {
                stop_reason: StopReason::RequiresAction { .. },
                ..
            } => None,
            Body::StatusIdle { stop_reason, .. } => Some(self.end(stop_reason.clone())),
            // A waiting message follows a plain end without a pause.
            Body::UserMessage { .. } => Some(self.end(StopReason::EndTurn)),
            _ => None,
        }
    }

    fn end(&mut self, stop: StopReason) -> Progress {
        self.guard.armed = false;
        Progress::End(stop)
    }

    /// Stops the turn because it takes too long.
    pub(super) async fn give_up(mut self) {
        // Disarmed only afterwards: a client that leaves meanwhile must not leave the turn running.
        self.guard.interrupt().await;
        self.guard.armed = false;
    }
}

/// Interrupts the turn when it is dropped before its end.
struct Guard {
    engine: Engine,
    workspace: WorkspaceId,
    session: SessionId,
    turn: EventId,
    armed: bool,
}

impl Guard {
    async fn interrupt(&self) {
        interrupt(&self.engine, &self.workspace, &self.session, &self.turn).await;
    }
}

async fn interrupt(engine: &Engine, workspace: &WorkspaceId, session: &SessionId, turn: &EventId) {
    match engine
        .interrupt(workspace, session, false, Some(turn.clone()))
        .await
    {
        Ok(()) => {}
        Err(Error::Rejected(_) | Error::SessionNotFound) => {
            tracing::debug!(session_id = %session, "the turn was over before it could be interrupted");
        }
        Err(error) => tracing::warn!(session_id = %session, %error, "a turn that nobody waits for goes on"),
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (engine, workspace) = (self.engine.clone(), self.workspace.clone());
        let (session, turn) = (self.session.clone(), self.turn.clone());
        runtime.spawn(async move { interrupt(&engine, &workspace, &session, &turn).await });
    }
}

/// How a turn's end reads as a finish reason.
///
/// # Errors
/// What a client is told of a turn without an answer.
pub(super) fn finish_reason(stop: &StopReason) -> Result<&'static str> {
    use axum::http::StatusCode;
    match stop {
        StopReason::EndTurn => Ok("stop"),
        StopReason::MaxTokens => Ok("length"),
        StopReason::Refusal { .. } => Ok("content_filter"),
        StopReason::Interrupted => Err(Fault::new(
            StatusCode::CONFLICT,
            "run_cancelled",
            "The turn was cancelled",
        )),
        StopReason::BudgetReached { cap } => {
            let message = format!("The session's {} budget is used up", cap.as_str());
            Err(Fault::new(
                StatusCode::TOO_MANY_REQUESTS,
                "quota_exceeded",
                message,
            ))
        }
        StopReason::Failed { failure } => Err(Fault::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "run_failed",
            failure.message.clone(),
        )),
        StopReason::RequiresAction { .. } => {
            Err(Fault::internal("a blocked turn was taken for a finished one"))
        }
    }
}
