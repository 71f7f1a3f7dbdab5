//! A client has carried out a custom tool, or a worker one that runs with the developer.

use super::input::Outcome;
use super::queue::SystemNote;
use super::rejection::Rejection;
use super::state::Phase;
use super::tool_use::Gate;
use super::transition::{Context, Transition};
use super::turn::Step;
use crate::event::Body;
use crate::id::EventId;

impl Transition {
    /// Records the result. A blocked turn goes on once nothing waits for a client any more; a running one may still be
    /// busy with other tools.
    pub(super) fn answer(
        &mut self,
        id: EventId,
        tool_use: &EventId,
        outcome: Outcome,
        remote: bool,
        system: Option<SystemNote>,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        let routed = self.route_answer(&id, tool_use, (outcome, remote), system, ctx)?;
        let Some((outcome, system)) = routed else {
            return Ok(());
        };
        let (turn, blocked) = match &mut self.state.phase {
            Phase::Idle { .. } => return Err(Rejection::NotAwaited),
            Phase::Running { turn } => (turn, false),
            Phase::Blocked { turn } => (turn, true),
        };
        let Step::Acting { open } = &mut turn.step else {
            return Err(Rejection::NotAwaited);
        };
        let awaited = |tool: &super::OpenTool| {
            tool.id == *tool_use && tool.gate == Gate::Client && tool.remote == remote
        };
        let index = open.iter().position(awaited).ok_or(Rejection::NotAwaited)?;
        let mut open = std::mem::take(open);
        let tool = open.remove(index);
        let Outcome { content, is_error } = outcome;
        self.push_as(
            id,
            Body::UserCustomToolResult {
                tool_use: tool.id,
                name: tool.name,
                content,
                is_error,
                remote,
                thread: None,
            },
        );
        self.accompany(system);
        self.answered(open, None, blocked, ctx);
        Ok(())
    }
}
