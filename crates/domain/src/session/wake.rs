//! The server has started again.

use super::state::Phase;
use super::transition::{Context, Effect, Transition};
use super::turn::Step;
use crate::usage::Spent;

impl Transition {
    /// A request that was under way is closed, to be made again; open tool uses stay open, because their
    /// results may wait in the sandbox. Then the turn goes on.
    pub(super) fn wake(&mut self, ctx: &mut Context<'_>) {
        let Phase::Running { turn } = &mut self.state.phase else {
            return;
        };
        if let Step::Sampling {
            request,
            purpose,
            bound,
            ..
        } = &turn.step
        {
            let (request, purpose, bound) = (request.clone(), *purpose, *bound);
            turn.step = Step::Ready;
            // The server's own stop is not the model's failure: it does not use up the turn's requests.
            turn.requests = turn.requests.saturating_sub(1);
            // The provider may have billed it, and nobody knows how much: its input in any case.
            self.close_request(request, purpose, &bound, Spent::unknown(), ctx);
        }
        self.effects.push(Effect::Drive);
    }
}
