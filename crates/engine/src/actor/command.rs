//! What clients ask of a session's actor.

use std::sync::Arc;

use oma_domain::audit::Entry;
use oma_domain::quota::Quota;
use oma_domain::session::{Input, Order, Phase, Queued, Rejection, Standing};
use oma_domain::{EventId, KeyId, Session, SessionId, Timestamp, TraceParent, WorkspaceId};
use serde_json::json;
use tokio::sync::oneshot;

use super::Actor;
use super::commit::{Refusal, With};
use crate::error::{Error, Result};
use crate::registry::Sent;
use crate::{Engine, IdempotencyKey, Post, Posted, SessionUpdate, Submission, Submitted, once};

/// What clients ask of a session's actor.
pub(crate) enum Command {
    /// Take a message.
    Post {
        post: Box<Post>,
        /// The trace of the request that posts it.
        trace: Option<TraceParent>,
        key: Option<IdempotencyKey>,
        reply: oneshot::Sender<Result<Posted>>,
    },
    /// Take several things at once.
    Submit {
        submissions: Vec<Submission>,
        trace: Option<TraceParent>,
        key: Option<IdempotencyKey>,
        audit: Option<Box<Entry>>,
        reply: oneshot::Sender<Result<Vec<Submitted>>>,
    },
    /// Change what is said about the session, its agent or its budget.
    Update {
        update: Box<SessionUpdate>,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Archive the session.
    Archive { reply: oneshot::Sender<Result<()>> },
    /// Let a tool use run or not.
    Confirm {
        tool_use: EventId,
        allow: bool,
        deny_message: Option<String>,
        key: Option<IdempotencyKey>,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Deny the tool uses that have waited long enough for a confirmation.
    Lapse { reply: oneshot::Sender<Result<()>> },
    /// Stop the turn.
    Interrupt {
        clear_queue: bool,
        /// The turn that is meant; whichever is under way otherwise.
        only: Option<EventId>,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Summarise the history.
    Compact {
        charged: Option<KeyId>,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Remove the session.
    Delete { reply: oneshot::Sender<Result<()>> },
    /// Remove the session if nothing has happened in it since.
    Expire {
        before: Timestamp,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Set aside what a child may consume that was opened with a parent token.
    Lend {
        child: SessionId,
        known: Option<(Option<Quota>, Standing)>,
        reply: oneshot::Sender<Result<Option<Quota>>>,
    },
    /// Count what such a child consumed.
    GiveBack {
        child: SessionId,
        standing: Option<Standing>,
        reply: oneshot::Sender<Result<()>>,
    },
    /// In a thread: take a message of the coordinator, unless it was taken before.
    Deliver {
        message: Box<Queued>,
        reply: oneshot::Sender<Result<()>>,
    },
    /// In a thread: do what clients have said to it. What was done before, or is too late, is nothing.
    Order {
        orders: Vec<Order>,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Archive a thread.
    ArchiveThread {
        thread: SessionId,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Forget a thread that is archived.
    CloseThread {
        thread: SessionId,
        reply: oneshot::Sender<Result<()>>,
    },
    /// A thread that waited for clients does not any more. Nobody waits for an answer.
    LookAt { thread: SessionId },
    /// Go on with a turn that a restart cut off. The actor does so by itself when it is loaded; the answer says
    /// that it is.
    Wake { reply: oneshot::Sender<Result<()>> },
    /// The same for the first turn of a session that was stored together with what it begins with.
    Begin { reply: oneshot::Sender<Result<()>> },
}

impl Command {
    /// Whether it begins something that a server on its way out should leave to the next one. What ends something, or
    /// answers what a turn waits for, is taken until the end.
    fn is_new_work(&self) -> bool {
        match self {
            Self::Post { .. }
            | Self::Lend { .. }
            | Self::Compact { .. }
            | Self::Expire { .. }
            | Self::Deliver { .. }
            | Self::Wake { .. }
            | Self::Begin { .. } => true,
            Self::Submit { submissions, .. } => submissions.iter().any(Submission::is_work),
            Self::Confirm { .. }
            | Self::GiveBack { .. }
            | Self::Lapse { .. }
            | Self::Interrupt { .. }
            | Self::Update { .. }
            | Self::Archive { .. }
            | Self::Order { .. }
            | Self::ArchiveThread { .. }
            | Self::CloseThread { .. }
            | Self::LookAt { .. }
            | Self::Delete { .. } => false,
        }
    }

    /// Answers without obeying.
    pub(super) fn refuse(self, error: Error) {
        // Whoever asked may have left; then nobody wants the answer.
        match self {
            Self::Post { reply, .. } => drop(reply.send(Err(error))),
            Self::Submit { reply, .. } => drop(reply.send(Err(error))),
            Self::Lend { reply, .. } => drop(reply.send(Err(error))),
            Self::GiveBack { reply, .. }
            | Self::Confirm { reply, .. }
            | Self::Interrupt { reply, .. }
            | Self::Update { reply, .. }
            | Self::Archive { reply }
            | Self::Lapse { reply }
            | Self::Compact { reply, .. }
            | Self::Delete { reply }
            | Self::Expire { reply, .. }
            | Self::Deliver { reply, .. }
            | Self::Order { reply, .. }
            | Self::ArchiveThread { reply, .. }
            | Self::CloseThread { reply, .. }
            | Self::Wake { reply }
            | Self::Begin { reply } => drop(reply.send(Err(error))),
            Self::LookAt { .. } => {}
        }
    }
}

/// The scope of a post's idempotency key.
pub(crate) fn post_scope(session: &SessionId) -> String {
    format!("session.post:{session}")
}

/// The scope of a confirmation's idempotency key.
pub(crate) fn confirm_scope(session: &SessionId) -> String {
    format!("session.confirm:{session}")
}

impl Engine {
    /// Has a session's actor carry out a command.
    pub(crate) async fn ask<T>(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(workspace, session, command(reply))?;
        answer
            .await
            .map_err(|_| Error::Internal("a session's actor died before it answered".into()))?
    }

    /// Puts a command into a session's mailbox, starting its actor when there is none.
    pub(crate) fn send(&self, workspace: &WorkspaceId, session: &SessionId, command: Command) -> Result<()> {
        let inner = &self.inner;
        if inner.closed.is_cancelled() || (inner.stopping.is_cancelled() && command.is_new_work()) {
            return Err(super::stopping_error());
        }
        let begins = matches!(command, Command::Begin { .. });
        match self.inner.registry.send(workspace, session, command) {
            Sent::Delivered => Ok(()),
            Sent::Start(mailbox) => {
                let inner = Arc::clone(&self.inner);
                let actor = super::run(inner, workspace.clone(), session.clone(), mailbox, begins);
                self.inner.tasks.spawn(actor);
                Ok(())
            }
            Sent::Full => Err(Error::Unavailable(
                "too many requests wait for this session".into(),
            )),
        }
    }
}

impl Actor {
    pub(super) async fn obey(&mut self, command: Command) {
        match command {
            Command::Post {
                post,
                trace,
                key,
                reply,
            } => {
                let outcome = self.post(*post, trace, key).await;
                let _gone = reply.send(outcome);
            }
            Command::Submit {
                submissions,
                trace,
                key,
                audit,
                reply,
            } => {
                let outcome = self.submit(submissions, trace, key, audit).await;
                let _gone = reply.send(outcome);
            }
            Command::Update { update, reply } => {
                let outcome = self.update(*update).await;
                let _gone = reply.send(outcome);
            }
            Command::Archive { reply } => {
                let outcome = self.archive().await;
                let _gone = reply.send(outcome);
            }
            Command::Confirm {
                tool_use,
                allow,
                deny_message,
                key,
                reply,
            } => {
                let outcome = self.confirm(tool_use, allow, deny_message, key).await;
                let _gone = reply.send(outcome);
            }
            Command::Interrupt {
                clear_queue,
                only,
                reply,
            } => {
                let outcome = self.interrupt(clear_queue, only).await;
                let _gone = reply.send(outcome);
            }
            Command::Lapse { reply } => {
                let outcome = match self.apply(Input::Lapse, With::default()).await {
                    // Stale: it was confirmed or cancelled just now.
                    Ok(_) | Err(Refusal::Rejected(_)) => Ok(()),
                    Err(error) => Err(error.into()),
                };
                let _gone = reply.send(outcome);
            }
            Command::Compact { charged, reply } => {
                match self.apply(Input::Compact { charged }, With::default()).await {
                    Ok(_) => self.compaction = Some(reply),
                    Err(error) => drop(reply.send(Err(error.into()))),
                }
            }
            Command::Delete { reply } => {
                let outcome = self.delete().await;
                let _gone = reply.send(outcome);
            }
            Command::Expire { before, reply } => {
                let outcome = if self.is_idle_since(before) {
                    self.delete().await
                } else {
                    Ok(())
                };
                let _gone = reply.send(outcome);
            }
            Command::Lend { child, known, reply } => {
                let lend = Input::Lend {
                    child: child.clone(),
                    known,
                };
                let lent = self.apply(lend, With::default()).await;
                let lent = lent.map(|committed| {
                    let opened = committed.state.delegated.opened.get(&child);
                    opened.and_then(|opened| opened.share)
                });
                let _gone = reply.send(lent.map_err(Error::from));
            }
            Command::GiveBack {
                child,
                standing,
                reply,
            } => {
                let counted = self
                    .apply(Input::GiveBack { child, standing }, With::default())
                    .await;
                let _gone = reply.send(counted.map(|_| ()).map_err(Error::from));
            }
            Command::Deliver { message, reply } => {
                let outcome = self.deliver(*message).await;
                let _gone = reply.send(outcome);
            }
            Command::Order { orders, reply } => {
                let outcome = self.follow_orders(orders).await;
                let _gone = reply.send(outcome);
            }
            Command::ArchiveThread { thread, reply } => {
                let archived = self.apply(Input::ArchiveThread { thread }, With::default()).await;
                let _gone = reply.send(archived.map(|_| ()).map_err(Error::from));
            }
            Command::CloseThread { thread, reply } => {
                let closed = self.apply(Input::CloseThread { thread }, With::default()).await;
                let _gone = reply.send(closed.map(|_| ()).map_err(Error::from));
            }
            Command::LookAt { thread } => self.look_at(thread).await,
            Command::Wake { reply } | Command::Begin { reply } => drop(reply.send(Ok(()))),
        }
    }

    /// Whether the session rests and has been at rest since before then.
    fn is_idle_since(&self, before: Timestamp) -> bool {
        let Session {
            state,
            last_event_at,
            created_at,
            ..
        } = &self.session;
        let idle = matches!(state.phase, Phase::Idle { .. }) && state.queue.is_empty();
        idle && last_event_at.unwrap_or(*created_at) < before
    }

    async fn post(
        &mut self,
        post: Post,
        trace: Option<TraceParent>,
        key: Option<IdempotencyKey>,
    ) -> Result<Posted> {
        let scope = post_scope(&self.session.id);
        let known = once::lookup(&*self.inner.store, &self.session.workspace, &scope, key.as_ref()).await?;
        if let Some(receipt) = known {
            self.record(post.audit).await?;
            return posted_before(&receipt);
        }
        if self.session.is_thread {
            return Err(Rejection::OfThread.into());
        }
        let busy = !matches!(self.session.state.phase, Phase::Idle { .. });
        if post.only_if_idle && busy {
            return Err(Rejection::Busy.into());
        }
        let event = EventId::generate();
        let with = With {
            once: once::record(&scope, key.as_ref(), json!({ "event": event, "queued": busy })),
            needs_agent: true,
            audit: post.audit,
        };
        let message = Queued {
            id: event.clone(),
            content: post.content,
            model: post.model,
            thinking_level: post.thinking_level,
            trace,
            charged: post.charged,
            system: None,
            from: None,
        };
        self.apply(Input::Post(Arc::new(message)), with).await?;
        Ok(Posted {
            event,
            queued: busy,
            replayed: false,
        })
    }

    async fn confirm(
        &mut self,
        tool_use: EventId,
        allow: bool,
        deny_message: Option<String>,
        key: Option<IdempotencyKey>,
    ) -> Result<()> {
        let scope = confirm_scope(&self.session.id);
        let known = once::lookup(&*self.inner.store, &self.session.workspace, &scope, key.as_ref()).await?;
        if known.is_some() {
            return Ok(());
        }
        let record = once::record(&scope, key.as_ref(), json!({ "tool_use": tool_use }));
        let id = EventId::generate();
        self.apply(
            Input::Confirm {
                id,
                tool_use,
                allow,
                deny_message,
            },
            With {
                once: record,
                ..With::default()
            },
        )
        .await?;
        Ok(())
    }
}

/// The answer to a post that had been carried out before.
pub(crate) fn posted_before(receipt: &serde_json::Value) -> Result<Posted> {
    let event = receipt
        .get("event")
        .and_then(serde_json::Value::as_str)
        .and_then(|id| EventId::parse(id).ok());
    let queued = receipt.get("queued").and_then(serde_json::Value::as_bool);
    match (event, queued) {
        (Some(event), Some(queued)) => Ok(Posted {
            event,
            queued,
            replayed: true,
        }),
        _ => Err(Error::Internal("an idempotency record can't be read".into())),
    }
}
