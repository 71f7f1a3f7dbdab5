//! Delegation: a tool use of one session has another agent work in a session of its own.
//!
//! Invariant: a tool use opens one session, however often it is carried out: the session's id is made from the
//! tool use's, and its one message is posted while it has none.

use std::collections::BTreeMap;
use std::sync::Arc;

use oma_domain::event::StopReason;
use oma_domain::quota::Quota;
use oma_domain::session::{Outcome, Phase, Rejection, Spending};
use oma_domain::{AgentId, ContentBlock, EventId, KeyId, Session, SessionId, WorkspaceId};
use oma_runtime::{Answer, SessionInfo};
use oma_store::NewSession;
use tokio::sync::broadcast::error::RecvError;

use crate::error::{Error, Result};
use crate::hub::Note;
use crate::{Engine, Post, now};

/// A task for another agent.
pub(crate) struct Errand<'a> {
    pub(crate) parent: &'a SessionInfo,
    pub(crate) tool_use: &'a EventId,
    pub(crate) agent: &'a str,
    pub(crate) task: &'a str,
    pub(crate) share: Option<Quota>,
    /// The key that is charged for the parent's turn, and so for the task.
    pub(crate) charged: Option<KeyId>,
}

/// Why an errand can't be run, in words for the model.
fn refused(text: impl Into<String>) -> Answer {
    Answer {
        outcome: Outcome::error(text),
        spent: Spending::default(),
    }
}

impl Engine {
    /// Has an errand run, and waits for its end.
    ///
    /// # Errors
    /// A fault of ours; trying again is safe.
    pub(crate) async fn run_errand(&self, errand: &Errand<'_>) -> Result<Answer> {
        let workspace = &errand.parent.workspace;
        let child = SessionId::of_child(errand.tool_use);
        // Before anything happens in it, so that its end is not missed.
        let mut followed = self.inner.hub.subscribe(&child);
        let mut session = match self.session(workspace, &child).await {
            Ok(session) => session,
            Err(Error::SessionNotFound) => match self.open_errand(errand, &child).await? {
                Ok(session) => session,
                Err(refusal) => return Ok(refusal),
            },
            Err(error) => return Err(error),
        };
        if session.parent.as_ref() != Some(&errand.parent.id) {
            return Ok(refused("The session for this task is somebody else's."));
        }
        if session.state.turns == 0 {
            let post = Post {
                content: vec![ContentBlock::text(errand.task)],
                model: None,
                thinking_level: None,
                only_if_idle: false,
                charged: errand.charged.clone(),
                audit: None,
            };
            match self.post(workspace, &child, post, None).await {
                Ok(_) => {}
                Err(Error::Rejected(Rejection::QuotaExceeded(_))) => {
                    return Ok(refused("The budget leaves nothing for this task."));
                }
                Err(Error::AgentNotFound) => return Ok(refused("That agent has been deleted.")),
                Err(error) => return Err(error),
            }
        }
        loop {
            session = match self.session(workspace, &child).await {
                Ok(session) => session,
                Err(Error::SessionNotFound) => return Ok(deleted(&session)),
                Err(error) => return Err(error),
            };
            if let Some(outcome) = outcome(&session) {
                let spent = session.state.total();
                return Ok(Answer { outcome, spent });
            }
            loop {
                match followed.notes.recv().await {
                    Ok(Note::Event(event)) if event.body.kind() == "session.status_idle" => break,
                    Ok(Note::Event(_) | Note::Delta { .. }) => {}
                    Ok(Note::Deleted) => return Ok(deleted(&session)),
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => {
                        return Err(Error::Internal("a session's followers were dropped".into()));
                    }
                }
            }
        }
    }

    /// Opens the session of an errand, or says why the agent may not.
    async fn open_errand(
        &self,
        errand: &Errand<'_>,
        child: &SessionId,
    ) -> Result<std::result::Result<Session, Answer>> {
        let Errand { parent, agent, .. } = errand;
        let callable = &parent.agent.spec.callable_agents;
        if !callable.iter().any(|allowed| allowed == agent) {
            let all = callable.join(", ");
            return Ok(Err(refused(format!(
                "You may not call the agent {agent}. You may call: {all}."
            ))));
        }
        let Some(delegation_depth) = parent.delegation_depth.checked_sub(1) else {
            return Ok(Err(refused("Tasks may not be passed on any further from here.")));
        };
        let called = match AgentId::parse(agent) {
            Ok(id) => self.agent(&parent.workspace, &id).await,
            Err(_) => Err(Error::AgentNotFound),
        };
        let called = match called {
            Ok(called) if called.archived_at.is_some() => {
                return Ok(Err(refused(format!("The agent {agent} is archived."))));
            }
            Ok(called) => called,
            Err(Error::AgentNotFound) => return Ok(Err(refused(format!("There is no agent {agent}.")))),
            Err(error) => return Err(error),
        };
        if let Err(unsupported) = self.inner.runtime.check(&called, parent.environment.as_deref()) {
            return Ok(Err(refused(format!(
                "The agent {agent} can't be run here: {unsupported}."
            ))));
        }
        let roster = match self.roster_of(&parent.workspace, &called).await {
            Ok(roster) => roster,
            Err(error @ Error::Unsupported { .. }) => {
                return Ok(Err(refused(format!(
                    "The agent {agent} can't be run here: {error}."
                ))));
            }
            Err(error) => return Err(error),
        };
        let session = NewSession {
            id: child.clone(),
            workspace: parent.workspace.clone(),
            agent: Arc::new(called),
            roster,
            environment: parent.environment.clone(),
            // Credentials are not handed on.
            vaults: Vec::new(),
            memories: Vec::new(),
            resources: Vec::new(),
            files: Vec::new(),
            file_room: 0,
            parent: Some(parent.id.clone()),
            is_thread: false,
            delegation_depth,
            share: errand.share.filter(|share| *share != Quota::default()),
            budget: None,
            ephemeral: false,
            title: None,
            metadata: BTreeMap::new(),
            deployment: None,
            created_by: errand.parent.created_by.clone(),
            created_at: now(),
        };
        match self.inner.store.create_session(&session, None).await {
            Ok(()) | Err(oma_store::Error::Conflict) => {}
            Err(oma_store::Error::NotFound) => {
                return Ok(Err(refused("The environment has been deleted.")));
            }
            Err(error @ oma_store::Error::TooManySessions(_)) => {
                return Ok(Err(refused(format!("No session can be opened: {error}."))));
            }
            Err(error) => return Err(error.into()),
        }
        self.session(&parent.workspace, child).await.map(Ok)
    }

    /// Stops the session of a tool use, and tells what it consumed.
    ///
    /// # Errors
    /// When it could not be stopped.
    pub(crate) async fn cancel_child(&self, workspace: &WorkspaceId, tool_use: &EventId) -> Result<Spending> {
        let child = SessionId::of_child(tool_use);
        // It may not have been opened yet.
        let (_, session) = self.cancel_session(workspace, &child).await?;
        Ok(session.map(|session| session.state.total()).unwrap_or_default())
    }

    /// Stops a session, if there is one; tells whether something went on in it, and how it stands then.
    ///
    /// # Errors
    /// When it could not be stopped.
    pub(crate) async fn cancel_session(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
    ) -> Result<(bool, Option<Session>)> {
        let stopped = match self.interrupt(workspace, id, true, None).await {
            Ok(()) => true,
            // It had answered already.
            Err(Error::Rejected(Rejection::NotRunning)) => false,
            Err(Error::SessionNotFound) => return Ok((false, None)),
            Err(error) => return Err(error),
        };
        match self.session(workspace, id).await {
            Ok(session) => Ok((stopped, Some(session))),
            Err(Error::SessionNotFound) => Ok((stopped, None)),
            Err(error) => Err(error),
        }
    }
}

fn deleted(session: &Session) -> Answer {
    Answer {
        outcome: Outcome::error(format!(
            "The session {} was deleted before it had answered.",
            session.id
        )),
        spent: session.state.total(),
    }
}

/// What a child's session gave, once it rests.
fn outcome(session: &Session) -> Option<Outcome> {
    let Phase::Idle { stop: Some(stop) } = &session.state.phase else {
        return None;
    };
    if let StopReason::RequiresAction { .. } = stop {
        // A blocked session is not idle.
        return None;
    }
    Some(verdict(stop, session.state.output.as_deref().unwrap_or_default()))
}

/// What an agent's work has led to that stopped for this reason, having said this last.
pub(crate) fn verdict(stop: &StopReason, said: &str) -> Outcome {
    let because = |reason: String| {
        let so_far = if said.is_empty() {
            String::new()
        } else {
            format!(" The last that it said: {said}")
        };
        Outcome::error(format!("{reason}{so_far}"))
    };
    match stop {
        StopReason::EndTurn | StopReason::MaxTokens => Outcome::text(said),
        StopReason::Refusal { explanation } => because(format!(
            "The agent declined. {}",
            explanation.as_deref().unwrap_or_default()
        )),
        StopReason::Interrupted => because("The agent's work was cancelled.".to_owned()),
        StopReason::BudgetReached { cap } => {
            because(format!("The agent's {} budget was used up.", cap.as_str()))
        }
        StopReason::Failed { failure } => because(format!("The agent failed: {}.", failure.message)),
        StopReason::RequiresAction { .. } => because("The agent waits for a client.".to_owned()),
    }
}
