//! A model request or the whole turn failed.

use super::input::Outcome;
use super::rejection::Rejection;
use super::state::Phase;
use super::transition::{Context, Transition};
use super::turn::INTERRUPTED;
use super::turn::Step;
use crate::event::{Body, Failure, Purpose, StopReason};
use crate::id::EventId;
use crate::quota::Bound;
use crate::usage::Spent;
use crate::workflow::{Ending, Error, ErrorKind};

impl Transition {
    /// Records the failure; with `retry` the turn stays and the request is made again.
    pub(super) fn fail_request(
        &mut self,
        request: &EventId,
        failure: Failure,
        spent: Spent,
        retry: bool,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        let turn = self.sampling_turn(request)?;
        let (purpose, bound) = match std::mem::replace(&mut turn.step, Step::Ready) {
            Step::Sampling { purpose, bound, .. } => (purpose, bound),
            Step::Ready | Step::Acting { .. } => (Purpose::Reply, Bound::default()),
        };
        turn.failed_attempts += 1;
        self.close_request(request.clone(), purpose, &bound, spent, ctx);
        if retry {
            self.push(
                ctx,
                Body::Error {
                    failure,
                    retrying: true,
                },
            );
            return Ok(());
        }
        self.fail_turn(failure, ctx)
    }

    /// Records a failure that the running turn can do without.
    pub(super) fn remark(&mut self, failure: Failure, ctx: &mut Context<'_>) -> Result<(), Rejection> {
        self.running_turn()?;
        self.push(
            ctx,
            Body::Error {
                failure,
                retrying: true,
            },
        );
        Ok(())
    }

    /// Ends the turn as failed, closing whatever is open. Waiting messages get their own turns.
    pub(super) fn fail_turn(&mut self, failure: Failure, ctx: &mut Context<'_>) -> Result<(), Rejection> {
        let step = match &mut self.state.phase {
            Phase::Idle { .. } => return Err(Rejection::Stale),
            Phase::Running { turn } | Phase::Blocked { turn } => {
                std::mem::replace(&mut turn.step, Step::Ready)
            }
        };
        match step {
            Step::Ready => {}
            Step::Sampling {
                request,
                purpose,
                bound,
                ..
            } => {
                self.close_request(request, purpose, &bound, Spent::unknown(), ctx);
            }
            Step::Acting { open } => {
                for tool in open {
                    self.close_tool(&tool, Outcome::error(INTERRUPTED), ctx);
                }
            }
        }
        let error = Error {
            kind: ErrorKind::Unknown,
            message: failure.message.clone(),
        };
        self.release_threads(&Ending::Error { error }, ctx);
        self.push(
            ctx,
            Body::Error {
                failure: failure.clone(),
                retrying: false,
            },
        );
        self.end_turn(StopReason::Failed { failure }, ctx);
        Ok(())
    }
}
