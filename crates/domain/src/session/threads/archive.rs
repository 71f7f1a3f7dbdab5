//! A client archives a thread.

use super::super::input::Outcome;
use super::super::rejection::Rejection;
use super::super::state::Phase;
use super::super::transition::{Context, Transition};
use super::super::turn::Step;
use crate::event::ThreadStatus;
use crate::id::SessionId;

/// What the model is told of a thread that a client archived while it waited for clients.
const ARCHIVED: &str = "This thread was archived before it had answered.";

impl Transition {
    /// Ends a thread for good, unless it works. Its own session has yet to be told.
    pub(in crate::session) fn archive_thread(
        &mut self,
        thread: &SessionId,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        let known = self.state.threads.get_mut(thread).ok_or(Rejection::NoThread)?;
        if known.is_over {
            return Ok(());
        }
        if known.works || (known.errand.is_some() && known.awaited.is_empty()) {
            return Err(Rejection::Busy);
        }
        known.is_over = true;
        known.awaited.clear();
        known.orders.clear();
        let errand = known.errand.take();
        let call = known.call.clone().filter(|_| errand.is_some());
        self.announce(thread, ThreadStatus::Terminated, ctx);
        if let Some(call) = call {
            // The run goes on without it, or waits for what is left.
            self.push_answer(&call, (false, ARCHIVED.to_owned()), ctx);
            self.settle_run(&call.run, ctx);
            if matches!(self.state.phase, Phase::Blocked { .. }) {
                self.block(ctx);
            }
            return Ok(());
        }
        let (turn, blocked) = match &mut self.state.phase {
            Phase::Idle { .. } => return Ok(()),
            Phase::Running { turn } => (turn, false),
            Phase::Blocked { turn } => (turn, true),
        };
        let Step::Acting { open } = &mut turn.step else {
            return Ok(());
        };
        let Some(index) = open.iter().position(|tool| Some(&tool.id) == errand.as_ref()) else {
            return Ok(());
        };
        let mut open = std::mem::take(open);
        let tool = open.remove(index);
        let outcome = Outcome::error(ARCHIVED);
        self.answered(open, [(tool, outcome)], blocked, ctx);
        Ok(())
    }

    /// With its session all threads end.
    pub(in crate::session) fn archive_threads(&mut self, ctx: &mut Context<'_>) {
        let ids: Vec<SessionId> = self.state.threads.keys().cloned().collect();
        for id in ids {
            let Some(thread) = self.state.threads.get_mut(&id).filter(|thread| !thread.is_over) else {
                continue;
            };
            thread.is_over = true;
            self.announce(&id, ThreadStatus::Terminated, ctx);
        }
    }

    /// The session of a thread that was archived is archived, too.
    pub(in crate::session) fn close_thread(&mut self, thread: &SessionId) -> Result<(), Rejection> {
        let is_over = |thread: &super::Thread| thread.is_over;
        if !self.state.threads.get(thread).is_some_and(is_over) {
            return Err(Rejection::Stale);
        }
        self.forget_thread(thread);
        let opened = &mut self.state.delegated.opened;
        if opened.get(thread).is_some_and(|opened| opened.share.is_none()) {
            opened.remove(thread);
        }
        Ok(())
    }
}
