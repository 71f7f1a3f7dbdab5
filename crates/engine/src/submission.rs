//! Several things that a client posts at once: all of them take effect, in one transaction, or none.

use std::sync::Arc;

use oma_domain::agent::{Agent, Spec};
use oma_domain::audit::Entry;
use oma_domain::session::Outcome;
use oma_domain::usage::NanoUsd;
use oma_domain::{ContentBlock, EventId, KeyId, Session, SessionId, Timestamp, WorkspaceId};

use crate::actor::Command;
use crate::agents::unsupported;
use crate::error::Result;
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
    /// A system message, which accompanies the message or the custom tool's result before it.
    System(Vec<ContentBlock>),
    /// Says what is to be achieved. The outcome's id is [`OutcomeId::of`](oma_domain::OutcomeId::of) its event's.
    DefineOutcome {
        /// What is to be achieved.
        description: String,
        /// What the grader goes by.
        rubric: String,
        /// How often the grader looks at the work at the most.
        max_iterations: u32,
        /// The key of whoever posts it, which is charged.
        charged: Option<KeyId>,
    },
}

impl Submission {
    /// Whether it begins new work, which needs the agent.
    pub(crate) fn is_work(&self) -> bool {
        matches!(self, Self::Message(_) | Self::DefineOutcome { .. })
    }
}

/// What changes about a session.
#[derive(Debug, Clone, Default)]
pub struct SessionUpdate {
    /// The title; `Some(None)` takes it away.
    pub title: Option<Option<String>>,
    /// Metadata to set, or to take away where there is no value.
    pub metadata: Vec<(String, Option<String>)>,
    /// The agent, for this session alone.
    pub agent: Option<AgentUpdate>,
    /// The most that it may cost; `Some(None)` takes the budget away.
    pub budget: Option<Option<NanoUsd>>,
}

/// An agent with another definition.
#[derive(Debug, Clone)]
pub struct AgentUpdate {
    /// What the definition was made from.
    pub base: Arc<Agent>,
    /// The definition.
    pub spec: Spec,
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
            match submission {
                Submission::Message(post) => post.charged.clone_from(&charged),
                Submission::DefineOutcome { charged: key, .. } => key.clone_from(&charged),
                _ => {}
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

    /// Changes what is said about a session, its agent's definition, or its own budget: all of it, or nothing. A turn
    /// that a spent budget stopped goes on once there is room in it again.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::Unsupported`] when the agent can't be run like that; [`Error::Rejected`]
    /// when the session is archived, when it is not at rest and its agent is to change, and when the budget is not to
    /// be had.
    pub async fn update_session(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        update: SessionUpdate,
    ) -> Result<Session> {
        if let Some(AgentUpdate { base, spec }) = &update.agent {
            let session = self.session(workspace, id).await?;
            let agent = Agent {
                spec: spec.clone(),
                ..(**base).clone()
            };
            let runtime = &self.inner.runtime;
            runtime
                .check(&agent, session.environment.as_deref())
                .map_err(unsupported)?;
        }
        let update = Box::new(update);
        self.ask(workspace, id, |reply| Command::Update { update, reply })
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
}
