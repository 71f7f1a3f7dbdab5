//! A message's way to its thread: recorded as sent, then put into the thread, which is opened if it is new.

use std::collections::BTreeMap;
use std::sync::Arc;

use oma_domain::event::ThreadRef;
use oma_domain::quota::Quota;
use oma_domain::session::{Dispatch, Input, Queued, Rejection, Standing};
use oma_domain::{Agent, ContentBlock, Seq, Session, SessionId};
use oma_runtime::{PortError, Recipient};
use oma_store::NewSession;

use super::recipient::Chosen;
use super::{DELETED, Errand, gone};
use crate::actor::Command;
use crate::error::Error;
use crate::now;
use crate::parents::standing;

const OUTDATED: &str =
    "Your tools have been changed since this agent was created, so it can't go on. Create another one.";

impl Errand<'_> {
    /// Records that the message is sent; gives the end of the tool use when it can't be.
    pub(super) async fn dispatch(
        &self,
        chosen: Chosen,
        content: Vec<ContentBlock>,
    ) -> Result<Option<Input>, PortError> {
        let Chosen {
            thread,
            agent,
            agent_name,
            is_new,
        } = chosen;
        // Until its session is there.
        let _opening = self.engine.inner.opening.begin(&thread);
        let (head, known): (Seq, Option<(Option<Quota>, Standing)>) = if is_new {
            (Seq(0), None)
        } else {
            match self.engine.session(&self.info.workspace, &thread).await {
                // What clients have taken from the session since must not be had by another way.
                Ok(session) if is_outdated(&session, &self.info.agent) => {
                    return Ok(Some(self.refused(OUTDATED)));
                }
                Ok(session) => (session.head, Some((session.share, standing(&session)))),
                Err(Error::SessionNotFound) => {
                    return Ok(Some(
                        self.refused("This thread was deleted. Send the message to a new one."),
                    ));
                }
                Err(error) => return Err(gone(&error)),
            }
        };
        let dispatch = Dispatch {
            tool_use: self.tool_use.clone(),
            thread,
            agent,
            agent_name,
            content,
            head,
            known,
        };
        match self.port.commit(Input::Send(Box::new(dispatch))).await {
            // Somebody else was faster.
            Ok(_) | Err(PortError::Rejected(Rejection::Busy)) => Ok(None),
            Err(PortError::Rejected(Rejection::QuotaExceeded(_))) => {
                Ok(Some(self.refused("The budget leaves nothing for this message.")))
            }
            Err(PortError::Rejected(rejection @ Rejection::TooManyThreads)) => Ok(Some(
                self.refused(format!("The message was not sent: {rejection}.")),
            )),
            Err(error) => Err(error),
        }
    }

    /// Puts the message into the thread, which is opened if it is new. The inner error is for the model.
    pub(crate) async fn deliver(
        &self,
        thread: &SessionId,
        to: &Recipient,
        content: Vec<ContentBlock>,
    ) -> Result<Result<(), String>, PortError> {
        let workspace = &self.info.workspace;
        match self.engine.session(workspace, thread).await {
            Ok(session) if session.parent.as_ref() == Some(&self.info.id) && session.is_thread => {}
            Ok(_) => return Ok(Err("The session of this thread is somebody else's.".to_owned())),
            Err(Error::SessionNotFound) => {
                if let Err(text) = self.open(thread, to).await? {
                    return Ok(Err(text));
                }
            }
            Err(error) => return Err(gone(&error)),
        }
        let message = Queued {
            id: self.tool_use.clone(),
            content,
            model: None,
            thinking_level: None,
            trace: oma_trace::current(),
            charged: self.charged.clone(),
            from: Some(ThreadRef {
                thread: self.info.id.clone(),
                agent_name: self.info.agent.shown_name().to_owned(),
            }),
            system: None,
        };
        let asked = self.engine.ask(workspace, thread, |reply| Command::Deliver {
            message: Box::new(message),
            reply,
        });
        match asked.await {
            Ok(()) => Ok(Ok(())),
            Err(Error::Rejected(Rejection::QuotaExceeded(_))) => {
                Ok(Err("The budget leaves nothing for this message.".to_owned()))
            }
            Err(Error::Rejected(rejection)) => Ok(Err(format!("The message was not taken: {rejection}."))),
            Err(Error::AgentNotFound) => Ok(Err("That agent has been deleted.".to_owned())),
            Err(Error::SessionNotFound) => Ok(Err(DELETED.to_owned())),
            Err(error) => Err(gone(&error)),
        }
    }

    /// Opens a new thread's session.
    async fn open(&self, thread: &SessionId, to: &Recipient) -> Result<Result<(), String>, PortError> {
        let (state, _) = self.port.state();
        let Some(known) = state.threads.get(thread).filter(|known| known.seen == Seq(0)) else {
            return Ok(Err(DELETED.to_owned()));
        };
        let consults = known.is_consultation();
        let agent = match to {
            Recipient::Advisor => self.advisor(),
            Recipient::Defined(agent) => Ok(Arc::clone(agent)),
            Recipient::New(_) | Recipient::Newest(_) | Recipient::Thread(_) => {
                self.member(known.agent.as_str()).cloned()
            }
        };
        let agent = match agent {
            Ok(agent) => agent,
            Err(text) => return Ok(Err(text)),
        };
        let info = self.info;
        if let Err(unsupported) = self
            .engine
            .inner
            .runtime
            .check(&agent, info.environment.as_deref())
        {
            return Ok(Err(format!("The agent can't be run here: {unsupported}.")));
        }
        let share = state.delegated.opened.get(thread).and_then(|opened| opened.share);
        let session = NewSession {
            id: thread.clone(),
            workspace: info.workspace.clone(),
            delegation_depth: agent.spec.max_subagent_depth,
            agent,
            roster: Vec::new(),
            // An advisor has nothing to do with the sandbox and no tool that a vault could be for.
            environment: info.environment.clone().filter(|_| !consults),
            vaults: if consults { Vec::new() } else { info.vaults.clone() },
            // The sandbox is shared, and with it what is in it.
            memories: if consults {
                Vec::new()
            } else {
                info.memories.clone()
            },
            resources: Vec::new(),
            files: Vec::new(),
            file_room: 0,
            deployment: None,
            parent: Some(info.id.clone()),
            is_thread: true,
            share: share.filter(|share| *share != Quota::default()),
            budget: None,
            ephemeral: false,
            title: None,
            metadata: BTreeMap::new(),
            created_by: info.created_by.clone(),
            created_at: now(),
        };
        match self.engine.inner.store.create_session(&session, None).await {
            Ok(()) | Err(oma_store::Error::Conflict) => Ok(Ok(())),
            Err(oma_store::Error::NotFound) => Ok(Err("The environment has been deleted.".to_owned())),
            Err(oma_store::Error::VaultGone) => {
                Ok(Err("A vault of the session has been deleted.".to_owned()))
            }
            Err(error @ oma_store::Error::TooManySessions(_)) => {
                Ok(Err(format!("No thread can be opened: {error}.")))
            }
            Err(error) => Err(gone(&error.into())),
        }
    }
}

/// Whether an agent that was defined on the fly works in the thread, with something that its coordinator has no more.
fn is_outdated(thread: &Session, coordinator: &Agent) -> bool {
    thread.agent.is_inline() && !thread.agent.spec.has_only_tools_of(&coordinator.spec)
}
