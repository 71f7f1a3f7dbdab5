//! The runtime is about to make a model request.

use super::state::{Context, Rejection, Step, Transition};
use crate::event::{Body, Failure, FailureKind, Purpose, StopReason};
use crate::id::EventId;
use crate::thinking::ThinkingLevel;

impl Transition {
    /// Records the start of a request, unless a budget or the turn's limit forbids it: then the turn ends
    /// here. The runtime sees from the new state which of the two happened.
    pub(super) fn begin_request(
        &mut self,
        id: EventId,
        model: String,
        thinking_level: ThinkingLevel,
        purpose: Purpose,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        let turn = self.running_turn()?;
        if turn.step != Step::Ready {
            return Err(Rejection::Stale);
        }
        if turn.requests >= ctx.max_requests_per_turn {
            let message = format!(
                "the turn made {} model requests, the most that one may make",
                turn.requests
            );
            return self.fail_turn(
                Failure {
                    kind: FailureKind::TurnLimit,
                    message,
                },
                ctx,
            );
        }
        turn.requests += 1;
        turn.step = Step::Sampling {
            request: id.clone(),
            purpose,
        };
        let state = &self.state;
        if let Some(quota) = ctx.quota
            && let Some(cap) = quota.exceeded(&state.usage, &state.cost, ctx.created_at, ctx.now)
        {
            self.end_turn(StopReason::BudgetReached { cap }, ctx);
            return Ok(());
        }
        self.push_as(
            id,
            Body::ModelRequestStart {
                model,
                thinking_level,
                purpose,
            },
        );
        Ok(())
    }
}
