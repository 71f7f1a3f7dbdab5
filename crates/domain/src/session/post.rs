//! A client posts a message.

use std::sync::Arc;

use super::queue::{MAX_QUEUE, MAX_QUEUE_BYTES, QueueChange, Queued};
use super::rejection::Rejection;
use super::state::Phase;
use super::transition::{Context, Transition};
use crate::content::ContentBlock;

impl Transition {
    /// Starts a turn when the session is idle; otherwise the message waits and is not in the log yet (I5).
    pub(super) fn post(&mut self, message: Arc<Queued>, ctx: &mut Context<'_>) -> Result<(), Rejection> {
        self.check_budgets(ctx)?;
        let state = &mut self.state;
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
        if idle && self.state.suspended.is_some() && self.state.goal.is_some() {
            // The work towards the outcome stands where the grader or the agent was to go on.
            self.take_up(ctx);
        } else if idle && let Some(first) = self.state.queue.pop_front() {
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
