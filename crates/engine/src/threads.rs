//! Threads: a tool use of a coordinator sends a message to a thread and waits until the thread rests.
//!
//! A thread is a session of its own, in its coordinator's sandbox. The coordinator's log and state say what is to happen,
//! the thread's what has happened: the message goes by the tool use's id and is posted while the thread has none of that
//! id; what clients say to a thread stands in the coordinator's state until the thread has been told; and what happens in
//! the thread is entered in the coordinator's log together with how far the thread's log has been looked through. So each
//! step can be made again wherever the server stops.
//!
//! Invariant: a tool use sends its message once, and gets one result.
//! Invariant: what happens in a thread is entered once in its coordinator's log, in order.

mod archive;
mod attend;
mod deliver;
mod recipient;

use oma_domain::content::joined_text;
use oma_domain::session::{Input, News, Outcome, Thread};
use oma_domain::workflow::Call;
use oma_domain::{ContentBlock, EventId, KeyId, Seq, Session, SessionId};
use oma_runtime::{Port, PortError, Recipient, SessionInfo};

use crate::error::Error;
use crate::parents::standing;
use crate::{Engine, now};

const DELETED: &str = "This thread was deleted before it had answered. Send the message to a new one.";

/// The message of a tool use, on its way to a thread and back.
pub(crate) struct Errand<'a> {
    pub(crate) engine: Engine,
    pub(crate) port: &'a dyn Port,
    pub(crate) info: &'a SessionInfo,
    pub(crate) tool_use: &'a EventId,
    /// The key that is charged for the coordinator's turn, and so for the thread's.
    pub(crate) charged: Option<KeyId>,
    /// The call of the tool use's workflow run that the thread is.
    pub(crate) call: Option<Call>,
}

fn gone(error: &Error) -> PortError {
    PortError::Gone(error.to_string())
}

impl Errand<'_> {
    /// Has the message answered; gives the input that ends the tool use.
    ///
    /// # Errors
    /// [`PortError`]; trying again is safe.
    pub(crate) async fn run(&self, to: &Recipient, message: &str) -> Result<Input, PortError> {
        let content = vec![ContentBlock::text(message)];
        let thread = loop {
            let (state, _) = self.port.state();
            if let Some((thread, _)) = state.thread_of(self.tool_use) {
                break thread.clone();
            }
            let chosen = match self.choose(&state, to) {
                Ok(chosen) => chosen,
                Err(text) => return Ok(self.refused(text)),
            };
            // Another tool use waits for it; it has one message at a time.
            let busy = |thread: &Thread| thread.errand.is_some();
            if state.threads.get(&chosen.thread).is_some_and(busy) {
                self.port.changed().await;
                continue;
            }
            if let Some(refused) = self.dispatch(chosen, content.clone()).await? {
                return Ok(refused);
            }
        };
        let _opening = self.engine.inner.opening.begin(&thread);
        if let Err(text) = self.deliver(&thread, to, content).await? {
            return self
                .end(&thread, Outcome::error(text), (Seq(0), Vec::new()))
                .await;
        }
        self.attend(&thread).await
    }

    /// A refusal that nothing was done for.
    fn refused(&self, text: impl Into<String>) -> Input {
        Input::FinishTool {
            tool_use: self.tool_use.clone(),
            outcome: Outcome::error(text),
            sandbox: None,
        }
    }

    /// The end of the tool use, with how the thread stands.
    pub(crate) async fn end(
        &self,
        thread: &SessionId,
        outcome: Outcome,
        (through, news): (Seq, Vec<News>),
    ) -> Result<Input, PortError> {
        let session = match self.engine.session(&self.info.workspace, thread).await {
            Ok(session) => Some(session),
            Err(Error::SessionNotFound) => None,
            Err(error) => return Err(gone(&error)),
        };
        let active_ms = |session: &Session| session.state.totals(now()).active_ms;
        let active_ms = session.as_ref().map(active_ms).unwrap_or_default();
        let standing = session.as_ref().map(standing);
        Ok(match &self.call {
            None => Input::FinishErrand {
                tool_use: self.tool_use.clone(),
                outcome,
                through,
                news,
                active_ms,
                standing,
            },
            Some(call) => Input::FinishCall {
                call: call.clone(),
                ok: !outcome.is_error,
                text: joined_text(&outcome.content),
                through,
                news,
                standing,
                active_ms,
            },
        })
    }
}
