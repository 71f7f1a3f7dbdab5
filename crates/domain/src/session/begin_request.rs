//! The runtime is about to make a model request.

use super::delegate::Spending;
use super::rejection::Rejection;
use super::transition::{Context, Transition};
use super::turn::Step;
use crate::event::{Body, Failure, FailureKind, Purpose};
use crate::id::EventId;
use crate::outcome::Stage;
use crate::quota::Bound;
use crate::thinking::ThinkingLevel;

impl Transition {
    /// Records the start of a request, unless a budget or the turn's limit forbids it: then the turn ends
    /// here. The runtime sees from the new state which of the two happened, and how much the budgets leave.
    pub(super) fn begin_request(
        &mut self,
        id: EventId,
        model: String,
        thinking_level: ThinkingLevel,
        purpose: Purpose,
        bound: &Bound,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        let turn = self.running_turn()?;
        if turn.step != Step::Ready {
            return Err(Rejection::Stale);
        }
        let of_agent = turn.purpose == Purpose::Reply;
        let goal = self.state.goal.as_ref().filter(|_| of_agent);
        let evaluated = goal.filter(|goal| matches!(goal.stage, Stage::Evaluating { .. }));
        let evaluated = evaluated.map(|goal| (goal.id.clone(), goal.iteration));
        if evaluated.is_some() != (purpose == Purpose::Evaluation) {
            return Err(Rejection::Stale);
        }
        let turn = self.running_turn()?;
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
        let mut allowed = bound.output;
        if let Some(quota) = self.quota(ctx) {
            let Spending { usage, cost, .. } = self.state.spoken_for();
            let own = match quota.exceeded(&usage, &cost, ctx.created_at, ctx.now) {
                Some(cap) => Err(cap),
                None => quota.allowance(&usage, &cost, bound),
            };
            match own {
                Ok(tokens) => allowed = allowed.min(tokens),
                Err(cap) => {
                    self.state.held_by = Some(quota);
                    self.hold(cap, ctx);
                    return Ok(());
                }
            }
        }
        match ctx.granted {
            Ok(tokens) => allowed = allowed.min(tokens),
            Err(cap) => {
                self.state.held_for = Some(*bound);
                self.hold(cap, ctx);
                return Ok(());
            }
        }
        let max_output = (allowed < bound.output).then_some(allowed);
        self.running_turn()?.step = Step::Sampling {
            request: id.clone(),
            purpose,
            max_output,
            bound: *bound,
            model: (purpose == Purpose::Evaluation).then(|| model.clone()),
        };
        self.push_as(
            id,
            Body::ModelRequestStart {
                model,
                thinking_level,
                purpose,
            },
        );
        if let Some((outcome, iteration)) = evaluated {
            self.push(ctx, Body::OutcomeEvaluationOngoing { outcome, iteration });
        }
        Ok(())
    }
}
