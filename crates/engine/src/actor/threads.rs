//! What an actor does about threads: in a thread for its coordinator, in a coordinator for its threads.

use std::sync::Arc;

use oma_domain::page::Order;
use oma_domain::session::{Gate, Input, Order as Said, Phase, Queued, Rejection, State, SystemNote};
use oma_domain::{EventId, SessionId};
use oma_store::SessionFilter;

use super::Actor;
use super::command::Command;
use super::commit::{Refusal, With};
use crate::Engine;
use crate::error::{Error, Result};

/// How many sessions one look for threads brings.
const PAGE: u32 = 100;

impl Actor {
    fn engine(&self) -> Engine {
        Engine {
            inner: Arc::clone(&self.inner),
        }
    }

    /// Takes a message of the coordinator, once.
    pub(super) async fn deliver(&mut self, message: Queued) -> Result<()> {
        let waits = |waiting: &Arc<Queued>| waiting.id == message.id;
        let (store, session) = (&self.inner.store, &self.session);
        let is_known = session.state.queue.iter().any(waits)
            || store
                .locate(&session.workspace, &session.id, &message.id)
                .await?
                .is_some();
        if is_known {
            return Ok(());
        }
        let with = With {
            // An advisor is nobody's agent, and one that was defined on the fly its thread's: they can't be deleted.
            needs_agent: !session.agent.is_advisor() && !session.agent.is_inline(),
            ..With::default()
        };
        self.apply(Input::Post(Arc::new(message)), with).await?;
        Ok(())
    }

    /// Does what clients have said to this thread: all of it at once, or what of it is not done yet.
    pub(super) async fn follow_orders(&mut self, orders: Vec<Said>) -> Result<()> {
        if orders.contains(&Said::Interrupt) {
            return match self.interrupt(true, None).await {
                Ok(()) | Err(Error::Rejected(Rejection::NotRunning)) => Ok(()),
                Err(error) => Err(error),
            };
        }
        let inputs: Vec<Input> = orders.into_iter().filter_map(input).collect();
        match self.apply_all(inputs.clone(), With::default()).await {
            Ok(_) => return Ok(()),
            Err(Refusal::Rejected(_)) => {}
            Err(error) => return Err(error.into()),
        }
        for input in inputs {
            match self.apply(input, With::default()).await {
                Ok(_) | Err(Refusal::Rejected(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Tells the coordinator that this thread does not wait for clients any more, in case that it does not know.
    pub(super) fn tell_coordinator(&self) {
        let Some(coordinator) = self.session.parent.as_ref().filter(|_| self.session.is_thread) else {
            return;
        };
        let look = Command::LookAt {
            thread: self.session.id.clone(),
        };
        // A server that stops has it looked at by the next one.
        if let Err(error) = self.engine().send(&self.session.workspace, coordinator, look) {
            tracing::debug!(%error, "a coordinator was not told of its thread");
        }
    }

    /// Goes on if a thread does that was waiting for clients.
    pub(super) async fn look_at(&mut self, thread: SessionId) {
        let state = &self.session.state;
        let known = state.threads.get(&thread).and_then(|known| known.errand.as_ref());
        let waits = |errand: &EventId| {
            let mut open = state.open_tools().iter();
            open.any(|tool| tool.id == *errand && tool.gate == Gate::Thread)
        };
        if !matches!(state.phase, Phase::Blocked { .. }) || !known.is_some_and(waits) {
            return;
        }
        let found = self.inner.store.session(&self.session.workspace, &thread).await;
        let resumed = match found {
            Ok(Some(session)) if matches!(session.state.phase, Phase::Blocked { .. }) => return,
            Ok(_) => self.apply(Input::ResumeThread { thread }, With::default()).await,
            Err(error) => Err(error.into()),
        };
        match resumed {
            Ok(_) | Err(Refusal::Rejected(_)) => {}
            Err(error) => tracing::error!(%error, "a coordinator could not go on with its thread"),
        }
    }

    /// Has the sessions archived of threads that are.
    pub(super) fn close_threads(&self, before: Option<&State>) {
        let was_over = |id: &SessionId| {
            let thread = before.and_then(|before| before.threads.get(id));
            thread.is_some_and(|thread| thread.is_over)
        };
        let threads = self.session.state.threads.iter();
        let over: Vec<SessionId> = threads
            .filter(|(id, thread)| thread.is_over && !was_over(id))
            .map(|(id, _)| id.clone())
            .collect();
        if over.is_empty() {
            return;
        }
        let (engine, workspace, id) = (
            self.engine(),
            self.session.workspace.clone(),
            self.session.id.clone(),
        );
        self.inner.tasks.spawn(async move {
            for thread in over {
                // The next server finds it in the state.
                if let Err(error) = engine.close_thread(&workspace, &id, &thread).await {
                    tracing::warn!(%thread, %error, "an archived thread waits to be closed");
                }
            }
        });
    }

    /// Removes the sessions of all threads, before their coordinator goes: also of those that were archived, of which the
    /// state knows nothing any more.
    pub(super) async fn delete_threads(&self) -> Result<()> {
        for thread in self.session.state.threads.keys() {
            self.delete_thread(thread).await?;
        }
        let (store, workspace) = (&self.inner.store, &self.session.workspace);
        let children = SessionFilter {
            parent: Some(Some(self.session.id.clone())),
            ..SessionFilter::default()
        };
        let mut after = None;
        loop {
            let page = store.sessions(workspace, &children, Order::Ascending, after.as_ref(), PAGE);
            let page = page.await?;
            // The cursor has to be a session that stays until the next page is read.
            let threads = page.rows.iter().filter(|child| child.is_thread);
            let any = threads.clone().next().is_some();
            for thread in threads {
                self.delete_thread(&thread.id).await?;
            }
            match page.next {
                None => return Ok(()),
                Some(_) if any => after = None,
                next => after = next,
            }
        }
    }

    async fn delete_thread(&self, thread: &SessionId) -> Result<()> {
        let engine = self.engine();
        let asked = engine.ask(&self.session.workspace, thread, |reply| Command::Delete { reply });
        match Box::pin(asked).await {
            Ok(()) | Err(Error::SessionNotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What a client has said, as the thread's state machine takes it.
fn input(order: Said) -> Option<Input> {
    let id = EventId::generate();
    match order {
        Said::Confirm {
            tool_use,
            allow,
            deny_message,
        } => Some(Input::Confirm {
            id,
            tool_use,
            allow,
            deny_message,
        }),
        Said::Answer {
            tool_use,
            outcome,
            remote,
            system,
        } => Some(Input::Answer {
            remote,
            id,
            tool_use,
            outcome,
            system: system.map(|content| SystemNote {
                id: EventId::generate(),
                content,
            }),
        }),
        Said::Interrupt => None,
    }
}
