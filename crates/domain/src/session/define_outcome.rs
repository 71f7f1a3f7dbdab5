//! A client says what is to be achieved.

use std::sync::Arc;

use super::rejection::Rejection;
use super::state::Phase;
use super::transition::{Context, Transition};
use crate::event::{Body, Purpose, Seq, StopReason};
use crate::id::EventId;
use crate::outcome::{Definition, Ending, Evaluation, Goal, MAX_REMEMBERED, Stage, Standing};

impl Transition {
    /// Records the outcome. A session at rest begins to work towards it at once; a busy one does so once its turn and
    /// the messages that wait are done with, and so the definition is shown to the model only then (I5).
    pub(super) fn define_outcome(
        &mut self,
        definition: &Definition,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        if self.state.goal.is_some() {
            return Err(Rejection::OutcomeActive);
        }
        self.check_budgets(ctx)?;
        let waits = match &self.state.phase {
            Phase::Idle { .. } => false,
            Phase::Running { .. } => true,
            Phase::Blocked { .. } => return Err(Rejection::AwaitsAnswers(self.state.awaited())),
        };
        if !waits {
            self.begin_work(ctx);
        }
        self.state.goal = Some(Goal {
            id: definition.outcome.clone(),
            defined: self.next_seq(ctx),
            max_iterations: definition.max_iterations,
            iteration: 0,
            stage: Stage::Waiting,
            trace: definition.trace.clone(),
            charged: definition.charged.clone(),
        });
        let evaluations = Arc::make_mut(&mut self.state.evaluations);
        if evaluations.len() >= MAX_REMEMBERED {
            evaluations.remove(0);
        }
        evaluations.push(Evaluation {
            outcome: definition.outcome.clone(),
            description: definition.description.clone(),
            iteration: 0,
            standing: Standing::Pending,
            explanation: None,
            completed_at: None,
        });
        self.push_as(
            definition.event.clone(),
            Body::UserDefineOutcome {
                outcome: definition.outcome.clone(),
                description: definition.description.clone(),
                rubric: definition.rubric.clone(),
                max_iterations: definition.max_iterations,
                waits,
            },
        );
        if !waits {
            self.work_towards(definition.event.clone(), ctx);
        }
        Ok(())
    }

    /// Begins to work towards an outcome that was defined in mid-turn.
    pub(super) fn begin_outcome(&mut self, ctx: &mut Context<'_>) {
        let Some(goal) = &self.state.goal else { return };
        let (outcome, defined) = (goal.id.clone(), goal.defined);
        if !self.state.is_running() {
            self.begin_work(ctx);
        }
        let id = (ctx.new_id)();
        self.push_as(id.clone(), Body::OutcomeBegun { outcome, defined });
        self.work_towards(id, ctx);
    }

    fn work_towards(&mut self, turn: EventId, ctx: &Context<'_>) {
        let Some(goal) = &mut self.state.goal else { return };
        goal.stage = Stage::Working;
        let (trace, charged) = (goal.trace.clone(), goal.charged.clone());
        self.note(Standing::Running, None);
        self.released();
        self.run(turn, Purpose::Reply, trace, charged, ctx);
    }

    /// Whether an outcome waits for the work towards it to begin.
    pub(super) fn outcome_waits(&self) -> bool {
        let stage = self.state.goal.as_ref().map(|goal| &goal.stage);
        stage == Some(&Stage::Waiting)
    }

    /// What the end of a turn means for the outcome.
    pub(super) fn settle_outcome(&mut self, stop: &StopReason, ctx: &mut Context<'_>) {
        let waits = self.outcome_waits();
        let of_agent = self
            .state
            .turn()
            .is_some_and(|turn| turn.purpose == Purpose::Reply);
        match stop {
            StopReason::Interrupted if of_agent => {
                self.end_outcome(Ending::Interrupted, "A client stopped the work.".to_owned(), ctx);
            }
            StopReason::Failed { failure } if of_agent && !waits => {
                let explanation = format!("The work can't go on: {}", failure.message);
                self.end_outcome(Ending::Failed, explanation, ctx);
            }
            StopReason::Refusal { explanation } if of_agent && !waits => {
                let why = explanation.as_deref().unwrap_or("it did not say why");
                self.end_outcome(Ending::Failed, format!("The model declined: {why}"), ctx);
            }
            // The turn goes on one day, or the outcome is yet to be worked towards.
            StopReason::Interrupted
            | StopReason::Failed { .. }
            | StopReason::Refusal { .. }
            | StopReason::EndTurn
            | StopReason::MaxTokens
            | StopReason::RequiresAction { .. }
            | StopReason::BudgetReached { .. } => {}
        }
    }

    /// Ends the outcome without a verdict.
    pub(super) fn end_outcome(&mut self, ending: Ending, explanation: String, ctx: &mut Context<'_>) {
        let Some(goal) = self.state.goal.take() else {
            return;
        };
        self.ended(&goal, ending, explanation, ctx);
    }

    /// Records the end of an iteration.
    pub(super) fn ended(&mut self, goal: &Goal, result: Ending, explanation: String, ctx: &mut Context<'_>) {
        let (start, usage) = match &goal.stage {
            Stage::Evaluating { start, before } => (Some(start.clone()), self.state.usage.since(before)),
            Stage::Waiting | Stage::Working => (None, crate::usage::Usage::default()),
        };
        self.note(Standing::Ended(result), Some(explanation.clone()));
        if result != Ending::NeedsRevision
            && let Some(evaluation) = Arc::make_mut(&mut self.state.evaluations).last_mut()
        {
            evaluation.completed_at = Some(ctx.now);
        }
        self.push(
            ctx,
            Body::OutcomeEvaluationEnd {
                start,
                outcome: goal.id.clone(),
                iteration: goal.iteration,
                result,
                explanation,
                usage,
            },
        );
    }

    /// Notes where the newest outcome stands.
    pub(super) fn note(&mut self, standing: Standing, explanation: Option<String>) {
        let iteration = self.state.goal.as_ref().map(|goal| goal.iteration);
        if let Some(evaluation) = Arc::make_mut(&mut self.state.evaluations).last_mut() {
            evaluation.standing = standing;
            evaluation.iteration = iteration.unwrap_or(evaluation.iteration);
            evaluation.explanation = explanation.or(evaluation.explanation.take());
        }
    }

    /// The position that the next event gets.
    pub(super) fn next_seq(&self, ctx: &Context<'_>) -> Seq {
        Seq(ctx.head.0 + self.events.len() as u64).next()
    }
}
