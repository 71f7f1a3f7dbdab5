//! A client answers a tool use that asks.

use super::input::Outcome;
use super::rejection::Rejection;
use super::state::Phase;
use super::tool_use::{Gate, OpenTool};
use super::transition::{Context, Effect, Transition};
use super::turn::Step;
use crate::event::Body;
use crate::id::EventId;

impl Transition {
    /// Lets a tool use run, or closes it with the client's words. A blocked turn goes on once nothing waits
    /// any more; until then it stays idle and says what it still waits for.
    pub(super) fn confirm(
        &mut self,
        id: EventId,
        tool_use: EventId,
        allow: bool,
        deny_message: Option<String>,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        if self.route_confirmation(&id, &tool_use, (allow, &deny_message), ctx)? {
            return Ok(());
        }
        let (turn, blocked) = match &mut self.state.phase {
            Phase::Idle { .. } => return Err(Rejection::NotAsking),
            Phase::Running { turn } => (turn, false),
            Phase::Blocked { turn } => (turn, true),
        };
        let Step::Acting { open } = &mut turn.step else {
            return Err(Rejection::NotAsking);
        };
        let asking = |tool: &super::OpenTool| tool.id == tool_use && tool.gate == Gate::Asking;
        let index = open.iter().position(asking).ok_or(Rejection::NotAsking)?;
        let mut open = std::mem::take(open);
        let mut denied = None;
        if allow {
            let tool = &mut open[index];
            tool.gate = match (tool.remote, blocked) {
                (true, _) => Gate::Client,
                (false, true) => Gate::Confirmed,
                (false, false) => Gate::Open,
            };
        } else {
            denied = Some(open.remove(index));
        }
        let explanation = deny_message.as_deref().map_or_else(
            || "The user denied this tool use.".to_owned(),
            |text| format!("The user denied this tool use: {text}"),
        );
        self.push_as(
            id,
            Body::UserToolConfirmation {
                tool_use,
                allow,
                deny_message,
                thread: None,
            },
        );
        let denied = denied.map(|tool| (tool, Outcome::error(explanation)));
        self.answered(open, denied, blocked, ctx);
        Ok(())
    }

    /// Goes on after some of the tool uses that asked have been answered: closes the denied ones; a blocked turn
    /// resumes once nothing waits any more.
    pub(super) fn answered(
        &mut self,
        mut open: Vec<OpenTool>,
        denied: impl IntoIterator<Item = (OpenTool, Outcome)>,
        blocked: bool,
        ctx: &mut Context<'_>,
    ) {
        let still_asking = open.iter().any(|tool| tool.gate.awaits_client());
        if blocked && !still_asking {
            self.begin_work(ctx);
        }
        for (tool, outcome) in denied {
            self.close_tool(&tool, outcome, ctx);
        }
        if blocked && still_asking {
            if let Phase::Blocked { turn } = &mut self.state.phase {
                turn.step = Step::Acting { open };
            }
            self.block(ctx);
            return;
        }
        for tool in &mut open {
            if tool.gate == Gate::Confirmed {
                tool.gate = Gate::Open;
            }
        }
        if let Phase::Blocked { turn } | Phase::Running { turn } = std::mem::take(&mut self.state.phase) {
            self.state.phase = Phase::Running { turn };
        }
        self.after_tools(open, ctx);
        if self.state.is_running() {
            self.effects.push(Effect::Drive);
        }
    }
}
