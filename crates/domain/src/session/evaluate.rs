//! A grader looks at the work towards an outcome.

use super::rejection::Rejection;
use super::transition::{Context, Transition};
use super::turn::Step;
use crate::event::{Body, Purpose, StopReason};
use crate::id::EventId;
use crate::outcome::{Ending, Stage, Standing, Verdict};
use crate::usage::{Cost, Usage};

impl Transition {
    /// The agent says that it is done: the grader's turn, if it works towards an outcome and no message waits that the
    /// agent has yet to see. Otherwise the turn ends.
    pub(super) fn finish_answer(&mut self, stop: StopReason, ctx: &mut Context<'_>) {
        let is_done = matches!(stop, StopReason::EndTurn | StopReason::MaxTokens);
        let id = (ctx.new_id)();
        let before = self.state.usage;
        match &mut self.state.goal {
            Some(goal) if is_done && goal.stage == Stage::Working && self.state.queue.is_empty() => {
                let (outcome, iteration) = (goal.id.clone(), goal.iteration);
                goal.stage = Stage::Evaluating {
                    start: id.clone(),
                    before,
                };
                self.push_as(id, Body::OutcomeEvaluationStart { outcome, iteration });
                self.note(Standing::Evaluating, None);
                if let Ok(turn) = self.running_turn() {
                    turn.step = Step::Ready;
                }
            }
            _ => self.end_turn(stop, ctx),
        }
    }

    /// Records the verdict. What needs revision is revised in the same turn, which counts its requests anew; after the
    /// last iteration the agent has one more answer.
    pub(super) fn finish_evaluation(
        &mut self,
        request: &EventId,
        verdict: Verdict,
        explanation: String,
        (usage, cost): (Usage, Option<Cost>),
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        let turn = self.sampling_turn(request)?;
        if !matches!(
            turn.step,
            Step::Sampling {
                purpose: Purpose::Evaluation,
                ..
            }
        ) {
            return Err(Rejection::Stale);
        }
        turn.step = Step::Ready;
        turn.failed_attempts = 0;
        turn.requests = 0;
        let mut goal = self.state.goal.clone().ok_or(Rejection::Stale)?;
        self.state.usage.add(&usage);
        self.state.cost.add(cost.as_ref());
        self.push(
            ctx,
            Body::ModelRequestEnd {
                request: request.clone(),
                is_error: false,
                purpose: Purpose::Evaluation,
                usage,
                cost,
            },
        );
        let ending = match verdict {
            Verdict::Satisfied => Ending::Satisfied,
            Verdict::Failed => Ending::Failed,
            Verdict::NeedsRevision if goal.iteration + 1 >= goal.max_iterations => {
                Ending::MaxIterationsReached
            }
            Verdict::NeedsRevision => Ending::NeedsRevision,
        };
        self.ended(&goal, ending, explanation, ctx);
        match ending {
            Ending::NeedsRevision => {
                goal.iteration += 1;
                goal.stage = Stage::Working;
                self.state.goal = Some(goal);
            }
            Ending::MaxIterationsReached => self.state.goal = None,
            Ending::Satisfied | Ending::Failed | Ending::Interrupted => {
                self.state.goal = None;
                self.end_turn(StopReason::EndTurn, ctx);
            }
        }
        Ok(())
    }
}
