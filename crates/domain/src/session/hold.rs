//! Budgets: what they stop, and what goes on when there is room again.

use super::queue::QueueChange;
use super::rejection::Rejection;
use super::state::Phase;
use super::transition::{Context, Transition};
use crate::event::{Purpose, StopReason};
use crate::quota::{Exceeded, Quota};

impl Transition {
    /// The session's hard budgets: its own, its agent's and its parent's.
    pub(super) fn quota(&self, ctx: &Context<'_>) -> Option<Quota> {
        let own = self.state.budget.map(|max_cost| Quota {
            max_cost: Some(max_cost),
            ..Quota::default()
        });
        match (ctx.quota, own) {
            (Some(quota), Some(own)) => Some(quota.and(own)),
            (quota, own) => quota.or(own),
        }
    }

    /// Whether the budgets leave anything for new work.
    pub(super) fn check_budgets(&self, ctx: &Context<'_>) -> Result<(), Rejection> {
        let Some(quota) = self.quota(ctx) else {
            return Ok(());
        };
        let total = self.state.total().reckoned();
        if let Some(cap) = quota.exceeded(&total.usage, &total.cost, ctx.created_at, ctx.now) {
            return Err(Rejection::QuotaExceeded(cap));
        }
        // What was left was too little for a request, and nothing has become more since.
        if let Phase::Idle {
            stop: Some(StopReason::BudgetReached { cap }),
        } = &self.state.phase
            && self.state.held_by == Some(quota)
        {
            return Err(Rejection::QuotaExceeded(*cap));
        }
        Ok(())
    }

    /// Stops the turn before its next model request, for which a budget leaves too little. The agent's work is kept:
    /// it goes on where it stood.
    pub(super) fn hold(&mut self, cap: Exceeded, ctx: &mut Context<'_>) {
        let kept = self
            .state
            .turn()
            .filter(|turn| turn.purpose == Purpose::Reply)
            .cloned();
        self.end_turn(StopReason::BudgetReached { cap }, ctx);
        if let Some(mut turn) = kept {
            turn.requests = turn.requests.saturating_sub(1);
            self.state.suspended = Some(turn);
        }
    }

    /// Goes on with what a budget stopped, if the budgets leave something for it now.
    pub(super) fn resume(&mut self, ctx: &mut Context<'_>) {
        let held = matches!(
            self.state.phase,
            Phase::Idle {
                stop: Some(StopReason::BudgetReached { .. })
            }
        );
        if !held || self.check_budgets(ctx).is_err() {
            return;
        }
        if self.state.suspended.is_some() {
            self.take_up(ctx);
        } else if let Some(message) = self.state.queue.pop_front() {
            self.queue.push(QueueChange::Pop(message.id.clone()));
            self.start_turn(&message, ctx);
        } else if self.outcome_waits() {
            self.begin_outcome(ctx);
        }
    }

    /// Goes on with the turn that a budget stopped.
    pub(super) fn take_up(&mut self, ctx: &mut Context<'_>) {
        let Some(turn) = self.state.suspended.take() else {
            return;
        };
        if !self.state.is_running() {
            self.begin_work(ctx);
        }
        self.released();
        self.state.phase = Phase::Running { turn };
        self.effects.push(super::Effect::Drive);
    }

    /// No budget holds the session any more, and no turn waits for one.
    pub(super) fn released(&mut self) {
        self.state.held_by = None;
        self.state.held_for = None;
        self.state.suspended = None;
    }
}
