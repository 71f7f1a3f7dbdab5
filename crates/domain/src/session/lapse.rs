//! What clients did not do in time: confirmations, and answers that workflow runs wait for.

use super::input::Outcome;
use super::rejection::Rejection;
use super::state::Phase;
use super::tool_use::{Gate, OpenTool};
use super::transition::{Context, Transition};
use super::turn::Step;

/// What the model is told of a tool use that nobody confirmed in time.
const LAPSED: &str = "Nobody confirmed this tool use in time, so it was not run.";

impl Transition {
    /// Closes, as denied, the tool uses whose time for a confirmation is over, and lets workflow runs go on whose time is, to
    /// be ended. `Stale` when there is none.
    pub(super) fn lapse(&mut self, ctx: &mut Context<'_>) -> Result<(), Rejection> {
        let goes_on = self.lapse_runs(ctx);
        match self.lapse_confirmations(ctx) {
            Err(Rejection::Stale) if goes_on => Ok(()),
            lapsed => lapsed,
        }
    }

    fn lapse_confirmations(&mut self, ctx: &mut Context<'_>) -> Result<(), Rejection> {
        let (turn, blocked) = match &mut self.state.phase {
            Phase::Idle { .. } => return Err(Rejection::Stale),
            Phase::Running { turn } => (turn, false),
            Phase::Blocked { turn } => (turn, true),
        };
        let Step::Acting { open } = &mut turn.step else {
            return Err(Rejection::Stale);
        };
        let over = |tool: &OpenTool| {
            tool.gate == Gate::Asking && tool.asks_until.is_some_and(|deadline| deadline <= ctx.now)
        };
        let (lapsed, open): (Vec<_>, Vec<_>) = std::mem::take(open).into_iter().partition(over);
        if lapsed.is_empty() {
            turn.step = Step::Acting { open };
            return Err(Rejection::Stale);
        }
        let denied = lapsed.into_iter().map(|tool| (tool, Outcome::error(LAPSED)));
        self.answered(open, denied, blocked, ctx);
        Ok(())
    }
}
