//! A client posts a message.

use std::sync::Arc;

use super::state::{Context, MAX_QUEUE, MAX_QUEUE_BYTES, Phase, QueueChange, Queued, Rejection, Transition};
use crate::content::ContentBlock;
use crate::event::StopReason;

impl Transition {
    /// Starts a turn when the session is idle; otherwise the message waits and is not in the log yet (I5).
    pub(super) fn post(&mut self, message: Arc<Queued>, ctx: &mut Context<'_>) -> Result<(), Rejection> {
        let state = &mut self.state;
        if let Some(quota) = ctx.quota {
            let total = state.total().reckoned();
            if let Some(cap) = quota.exceeded(&total.usage, &total.cost, ctx.created_at, ctx.now) {
                return Err(Rejection::QuotaExceeded(cap));
            }
            // What was left was too little for a request, and nothing has become more since.
            if let Phase::Idle {
                stop: Some(StopReason::BudgetReached { cap }),
            } = &state.phase
                && state.held_by == Some(quota)
            {
                return Err(Rejection::QuotaExceeded(*cap));
            }
        }
        let idle = matches!(state.phase, Phase::Idle { .. });
        let bytes = |message: &Arc<Queued>| message.content.iter().map(ContentBlock::bytes).sum::<usize>();
        let waiting: usize = state.queue.iter().map(bytes).sum();
        if state.queue.len() >= MAX_QUEUE || (!idle && waiting + bytes(&message) > MAX_QUEUE_BYTES) {
            return Err(Rejection::QueueFull);
        }
        state.turns += 1;
        // A budget that was reached and then raised leaves waiting messages behind; they go first.
        self.queue.push(QueueChange::Push(Arc::clone(&message)));
        self.state.queue.push_back(message);
        if idle && let Some(first) = self.state.queue.pop_front() {
            if self.state.queue.is_empty() {
                self.queue.clear();
            } else {
                self.queue.push(QueueChange::Pop(first.id.clone()));
            }
            self.start_turn(&first, ctx);
        }
        Ok(())
    }
}
