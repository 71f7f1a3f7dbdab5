//! Stopping what a session does: an interrupt, and the session's end.

use std::sync::{Arc, PoisonError};

use oma_domain::session::{Input, Outcome, Partial, Rejection, Spending};
use oma_domain::{EventId, Session, SessionId};

use super::commit::{Refusal, With};
use super::{ABORT_TIMEOUT, Actor, Arriving};
use crate::Engine;
use crate::error::{Error, Result};
use crate::hub::Note;
use crate::parents::standing;

/// What a turn had achieved when it was stopped.
#[derive(Default)]
pub(super) struct Stopped {
    partial: Vec<Partial>,
    arrived: u64,
    outcomes: Vec<(EventId, Outcome)>,
    delegated: Vec<(EventId, Spending)>,
    /// Sessions opened with parent tokens.
    pub(super) opened: Vec<(SessionId, bool, Option<Session>)>,
}

impl Stopped {
    /// The record of that.
    pub(super) fn into_input(self, id: EventId, clear_queue: bool) -> Input {
        Input::Interrupt {
            id,
            clear_queue,
            partial: self.partial,
            arrived: self.arrived,
            outcomes: self.outcomes,
            delegated: self.delegated,
        }
    }
}

impl Actor {
    /// Stops the turn: first what it does in this process, then what it started outside, then the record of
    /// all that, in one transaction, keeping what had been achieved (I7).
    pub(super) async fn interrupt(&mut self, clear_queue: bool, only: Option<EventId>) -> Result<()> {
        let turn = self.session.state.turn().map(|turn| &turn.id);
        if only.is_some_and(|only| turn != Some(&only)) {
            return Err(Rejection::NotRunning.into());
        }
        if self.session.state.turn().is_none() && self.session.state.queue.is_empty() {
            let opened = self.stop_opened().await;
            if self.count_stopped(opened).await {
                return Ok(());
            }
        }
        let mut stopped = self.stop_work().await;
        let opened = std::mem::take(&mut stopped.opened);
        let input = stopped.into_input(EventId::generate(), clear_queue);
        let outcome = self.apply(input, With::default()).await;
        if outcome.is_err() {
            self.take_up_again();
        }
        self.count_stopped(opened).await;
        outcome?;
        Ok(())
    }

    /// Stops what the turn does, in this process and outside, and tells what it had achieved. Whoever calls this
    /// records the end of the turn, or has it taken up again, and counts what opened sessions consumed.
    pub(super) async fn stop_work(&mut self) -> Stopped {
        self.drop_drive().await;
        let Arriving { messages, tokens } =
            std::mem::take(&mut *self.partials.lock().unwrap_or_else(PoisonError::into_inner));
        let open = self.session.state.open_tools().to_vec();
        let abort = async {
            if open.is_empty() {
                return Vec::new();
            }
            let abort = self.inner.runtime.abort(&self.info, &open);
            let aborted = tokio::time::timeout(ABORT_TIMEOUT, abort).await;
            aborted.unwrap_or_default()
        };
        let (outcomes, delegated, opened) = tokio::join!(abort, self.cancel_children(), self.stop_opened());
        Stopped {
            partial: messages,
            arrived: tokens,
            outcomes,
            delegated,
            opened,
        }
    }

    /// The turn's task is gone, but its end could not be recorded: the turn has to go on.
    pub(super) fn take_up_again(&mut self) {
        self.recovering = true;
        self.due = self.session.state.is_running();
    }

    /// Stops the sessions that open tool uses have other agents work in, all at once, and tells what each consumed.
    /// Before this session's own end is recorded: should the server stop in between, its turn goes on and finds
    /// them stopped.
    async fn cancel_children(&self) -> Vec<(EventId, Spending)> {
        let open = self.session.state.open_tools();
        let working = |id: &&EventId| open.iter().any(|tool| tool.id == **id);
        let shares = self.session.state.delegated.shares.keys();
        let tool_uses: Vec<EventId> = shares.filter(working).cloned().collect();
        let cancels = tool_uses.into_iter().map(|tool_use| {
            let workspace = self.session.workspace.clone();
            let engine = Engine {
                inner: Arc::clone(&self.inner),
            };
            async move {
                let cancel = Box::pin(engine.cancel_child(&workspace, &tool_use));
                match tokio::time::timeout(ABORT_TIMEOUT, cancel).await {
                    Ok(Ok(spent)) => Some((tool_use, spent)),
                    Ok(Err(error)) => {
                        tracing::error!(%tool_use, %error, "a child session could not be cancelled");
                        None
                    }
                    Err(_) => {
                        tracing::error!(%tool_use, "a child session is slow to be cancelled");
                        None
                    }
                }
            }
        });
        let cancelled = futures_util::future::join_all(cancels).await;
        cancelled.into_iter().flatten().collect()
    }

    /// Stops the sessions that work on this one's behalf because somebody has a parent token of it. Tells of each
    /// whether anything went on in it, and how it stands.
    async fn stop_opened(&self) -> Vec<(SessionId, bool, Option<Session>)> {
        let opened = self.session.state.delegated.opened.iter();
        let working = opened.filter(|(_, opened)| opened.share.is_some());
        let cancels = working.map(|(child, _)| {
            let (workspace, child) = (self.session.workspace.clone(), child.clone());
            let engine = Engine {
                inner: Arc::clone(&self.inner),
            };
            async move {
                let cancel = Box::pin(engine.cancel_session(&workspace, &child));
                match tokio::time::timeout(ABORT_TIMEOUT, cancel).await {
                    Ok(Ok((stopped, session))) => Some((child, stopped, session)),
                    Ok(Err(error)) => {
                        tracing::error!(%child, %error, "a child session could not be cancelled");
                        None
                    }
                    Err(_) => {
                        tracing::error!(%child, "a child session is slow to be cancelled");
                        None
                    }
                }
            }
        });
        let stopped = futures_util::future::join_all(cancels).await;
        stopped.into_iter().flatten().collect()
    }

    /// Counts what stopped sessions consumed. Tells whether anything went on in any of them.
    pub(super) async fn count_stopped(&mut self, stopped: Vec<(SessionId, bool, Option<Session>)>) -> bool {
        let mut any = false;
        for (child, stopped, session) in stopped {
            any |= stopped;
            let standing = session.as_ref().map(standing);
            let counted = self.apply(Input::GiveBack { child, standing }, With::default());
            match counted.await {
                // It has been counted already, or not begun.
                Ok(_) | Err(Refusal::Rejected(_)) => {}
                // It is counted before the next use of this session's budgets.
                Err(error) => {
                    tracing::error!(session = %self.session.id, %error, "a child's consumption waits to be counted");
                }
            }
        }
        any
    }

    /// Comes to rest first, so that whatever fails afterwards leaves a session that is idle and whole.
    pub(super) async fn delete(&mut self) -> Result<()> {
        if self.session.state.turn().is_some() {
            self.interrupt(true, None).await?;
        } else {
            // There is nothing left to count it in.
            self.stop_opened().await;
        }
        self.delete_threads().await?;
        let Self { inner, session, .. } = &*self;
        if let Err(reason) = inner.runtime.discard(&session.id).await {
            tracing::error!(%reason, "a deleted session's sandbox could not be removed");
            return Err(Error::Internal(reason));
        }
        let removed = self
            .inner
            .store
            .delete_session(&session.workspace, &session.id)
            .await?;
        self.inner.hub.publish(&self.session.id, || [Note::Deleted]);
        self.deleted = true;
        self.tell_coordinator();
        if removed {
            Ok(())
        } else {
            Err(Error::SessionNotFound)
        }
    }
}
