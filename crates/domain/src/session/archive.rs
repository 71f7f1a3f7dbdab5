//! A client archives the session.

use super::input::Outcome;
use super::queue::QueueChange;
use super::rejection::Rejection;
use super::state::Phase;
use super::transition::{Context, Transition};
use super::turn::INTERRUPTED;
use super::turn::Step;
use crate::event::{Body, StopReason};
use crate::outcome::Ending;
use crate::workflow::Ending::Stopped;

impl Transition {
    /// Ends the session for good, unless it works. What waits for a client is closed, and messages that wait for a
    /// raised budget are dropped. Archiving again changes nothing.
    pub(super) fn archive(&mut self, ctx: &mut Context<'_>) -> Result<(), Rejection> {
        if self.state.archived_at.is_some() {
            return Ok(());
        }
        if !self.state.runs.is_empty() {
            return Err(Rejection::RunOpen);
        }
        if !self.state.queue.is_empty() {
            self.queue.push(QueueChange::Clear);
            self.state.queue.clear();
        }
        match &mut self.state.phase {
            Phase::Running { .. } => return Err(Rejection::Busy),
            // A budget may hold the work towards an outcome.
            Phase::Idle { .. } => {
                let explanation = "The session was archived.".to_owned();
                self.end_outcome(Ending::Interrupted, explanation, ctx);
                self.released();
            }
            Phase::Blocked { turn } => {
                if let Step::Acting { open } = std::mem::replace(&mut turn.step, Step::Ready) {
                    for tool in open {
                        self.close_tool(&tool, Outcome::error(INTERRUPTED), ctx);
                    }
                }
                self.release_threads(&Stopped, ctx);
                self.end_turn(StopReason::Interrupted, ctx);
            }
        }
        self.archive_threads(ctx);
        self.state.archived_at = Some(ctx.now);
        self.push(ctx, Body::StatusTerminated);
        Ok(())
    }
}
