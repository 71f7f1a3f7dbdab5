//! A tool has finished.

use super::input::Outcome;
use super::rejection::Rejection;
use super::sandbox::SandboxSource;
use super::tool_use::Gate;
use super::transition::{Context, Transition};
use super::turn::Step;
use crate::id::EventId;

impl Transition {
    /// Appends the result. A second result for the same tool use, or one for a tool use of another turn, is
    /// stale (I4).
    pub(super) fn finish_tool(
        &mut self,
        tool_use: &EventId,
        outcome: Outcome,
        sandbox: Option<SandboxSource>,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        let turn = self.running_turn()?;
        let Step::Acting { open } = &mut turn.step else {
            return Err(Rejection::Stale);
        };
        let running = |tool: &super::OpenTool| tool.id == *tool_use && tool.gate == Gate::Open;
        let index = open.iter().position(running).ok_or(Rejection::Stale)?;
        let mut open = std::mem::take(open);
        let tool = open.remove(index);
        // What did not run in one says nothing of it.
        self.state.sandbox = sandbox.or(self.state.sandbox);
        match tool.name.as_str() {
            "web_search" => self.state.web.searches += 1,
            "web_fetch" => self.state.web.fetches += 1,
            _ => {}
        }
        self.close_tool(&tool, outcome, ctx);
        self.after_tools(open, ctx);
        Ok(())
    }
}
