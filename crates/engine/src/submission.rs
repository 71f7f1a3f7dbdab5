//! Several things that a client posts at once: all of them take effect, in one transaction, or none.

use std::sync::Arc;

use oma_domain::audit::Entry;
use oma_domain::session::{Outcome, Queued};
use oma_domain::{EventId, KeyId, Session, SessionId, Timestamp, WorkspaceId};

use crate::actor::Command;
use crate::error::{Error, Result};
use crate::{Engine, IdempotencyKey, Post};

/// One of the things that a client posts.
#[derive(Debug, Clone)]
pub enum Submission {
    /// A message. Refused while the session waits for clients' answers.
    Message(Post),
    /// Stops the turn that is under way, if there is one; waiting messages stay.
    Interrupt,
    /// Stops one thread, if it does something. Its coordinator goes on.
    InterruptThread(SessionId),
    /// Answers a tool use that asks, of the session or of one of its threads.
    Confirm {
        /// The tool use.
        tool_use: EventId,
        /// Whether it may run.
        allow: bool,
        /// What the model is told when it may not.
        deny_message: Option<String>,
    },
    /// Brings the result of a custom tool, or of one that a worker carries out.
    Answer {
        /// The tool use.
        tool_use: EventId,
        /// Its result.
        outcome: Outcome,
        /// Whether a worker carries it out.
        remote: bool,
    },
}

/// What became of one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The id that its event has or will have.
    pub event: EventId,
    /// When it took effect; `None` while it waits.
    pub at: Option<Timestamp>,
    /// The thread that it went to, unless it is the session.
    pub thread: Option<SessionId>,
}

impl Engine {
    /// Takes all of these, in their order, or none. `charged` is the key of whoever posts them; `audit` is what the
    /// audit trail is to say of it, if they are taken, written in the same transaction.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::AgentNotFound`] when the agent was deleted; [`Error::Rejected`] with the
    /// reason of the first that is not legal where it stands; [`Error::KeyReused`].
    pub async fn submit(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        mut submissions: Vec<Submission>,
        charged: Option<KeyId>,
        key: Option<IdempotencyKey>,
        audit: Option<Box<Entry>>,
    ) -> Result<Vec<Submitted>> {
        for submission in &mut submissions {
            if let Submission::Message(post) = submission {
                post.charged.clone_from(&charged);
            }
        }
        self.ask(workspace, id, |reply| Command::Submit {
            submissions,
            trace: oma_trace::current(),
            key,
            audit,
            reply,
        })
        .await
    }

    /// Changes what is said about a session: the title (`Some(None)` takes it away) and, through `metadata`, what the
    /// client remembers with it.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::Rejected`] when it is archived.
    pub async fn update_session(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        title: Option<Option<String>>,
        metadata: Vec<(String, Option<String>)>,
    ) -> Result<Session> {
        self.ask(workspace, id, |reply| Command::Update {
            title,
            metadata,
            reply,
        })
        .await?;
        self.session(workspace, id).await
    }

    /// Archives a session, for good: it stays readable and takes nothing any more.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::Rejected`] while it works.
    pub async fn archive_session(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Session> {
        self.ask(workspace, id, |reply| Command::Archive { reply })
            .await?;
        self.session(workspace, id).await
    }

    /// The messages that wait for a busy session, oldest first, by the ids that their events will have.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub async fn waiting(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Vec<Arc<Queued>>> {
        let session = self.inner.store.load(workspace, id).await?;
        let session = session.ok_or(Error::SessionNotFound)?;
        Ok(session.state.queue.iter().cloned().collect())
    }
}
