//! Tool uses that have another agent do a task, and what that may consume.
//!
//! The child is a session of its own with a budget of its own: its share of what its parent's budgets leave. The
//! share is set aside when the child begins and given back, less what was consumed, when its answer is there. So
//! whatever the children do side by side, together they stay within what their parent had.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::input::Outcome;
use super::state::{Context, Gate, OpenTool, Rejection, State, Transition};
use crate::id::EventId;
use crate::quota::{Quota, Unreported};
use crate::usage::{CostTotal, NanoUsd, Usage};

/// The tool by which an agent delegates.
pub const CALL_AGENT: &str = "call_agent";

/// What was consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Spending {
    /// The tokens.
    pub usage: Usage,
    /// The cost.
    pub cost: CostTotal,
    /// What is reckoned to have been consumed besides.
    #[serde(default)]
    pub unreported: Unreported,
}

impl Spending {
    /// Adds another spending to this one.
    pub fn add(&mut self, other: &Self) {
        self.usage.add(&other.usage);
        self.cost.known = self.cost.known.plus(other.cost.known);
        self.cost.unknown_requests = self
            .cost
            .unknown_requests
            .saturating_add(other.cost.unknown_requests);
        self.unreported.add(&other.unreported);
    }

    /// The same as budgets see it: with what is only reckoned among what was reported.
    #[must_use]
    pub fn reckoned(mut self) -> Self {
        let Unreported { tokens, cost } = std::mem::take(&mut self.unreported);
        self.usage.input = self.usage.input.saturating_add(tokens);
        self.cost.known = self.cost.known.plus(cost);
        self
    }
}

/// What a session has delegated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Delegated {
    /// What children consumed, and children's children, once they had answered.
    pub spent: Spending,
    /// What those that have not answered may consume, by tool use. One that was cut off without a word about
    /// what it consumed stays here.
    pub shares: BTreeMap<EventId, Quota>,
}

impl Delegated {
    /// Whether nothing was ever delegated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl State {
    /// What the session and its children consumed.
    #[must_use]
    pub fn total(&self) -> Spending {
        let mut total = Spending {
            usage: self.usage,
            cost: self.cost,
            unreported: self.unreported,
        };
        total.add(&self.delegated.spent);
        total
    }

    /// The same as budgets see it, and whatever is set aside for children that have not answered.
    #[must_use]
    pub fn spoken_for(&self) -> Spending {
        let mut total = self.total().reckoned();
        for share in self.delegated.shares.values() {
            total.add(&Spending {
                usage: Usage {
                    input: share.max_tokens.unwrap_or(0),
                    ..Usage::default()
                },
                cost: CostTotal {
                    known: share.max_cost.unwrap_or_default(),
                    unknown_requests: 0,
                },
                unreported: Unreported::default(),
            });
        }
        total
    }
}

impl Transition {
    /// Sets a child's share aside: an equal part of what is left, for each child that this answer of the model
    /// asks for and that has none yet. Asked again, the share stays what it was.
    pub(super) fn delegate(&mut self, tool_use: &EventId, ctx: &mut Context<'_>) -> Result<(), Rejection> {
        let shares = &self.state.delegated.shares;
        let open = self.state.open_tools();
        let may_run = |tool: &&OpenTool| tool.id == *tool_use && tool.gate == Gate::Open;
        if !self.state.is_running() || !open.iter().any(|tool| may_run(&tool)) {
            return Err(Rejection::Stale);
        }
        if shares.contains_key(tool_use) {
            return Ok(());
        }
        let without = |tool: &&OpenTool| tool.name == CALL_AGENT && !shares.contains_key(&tool.id);
        let sharers = (open.iter().filter(without).count() as u64).max(1);
        let spoken_for = self.state.spoken_for();
        let quota = ctx.quota.unwrap_or_default();
        let part = |max: u64, taken: u64| max.saturating_sub(taken) / sharers;
        let age = ctx.now.millis_since(ctx.created_at);
        let share = Quota {
            max_cost: quota
                .max_cost
                .map(|max| NanoUsd(part(max.0, spoken_for.cost.known.0))),
            max_tokens: quota.max_tokens.map(|max| part(max, spoken_for.usage.total())),
            // Time passes for all of them at once.
            max_wall_ms: quota.max_wall_ms.map(|max| max.saturating_sub(age)),
        };
        self.state.delegated.shares.insert(tool_use.clone(), share);
        Ok(())
    }

    /// Gives a child's share back, and counts what it consumed.
    pub(super) fn settle(&mut self, tool_use: &EventId, spent: &Spending) {
        if self.state.delegated.shares.remove(tool_use).is_some() {
            self.state.delegated.spent.add(spent);
        }
    }

    /// Records a child's answer.
    pub(super) fn finish_delegation(
        &mut self,
        tool_use: &EventId,
        outcome: Outcome,
        spent: &Spending,
        ctx: &mut Context<'_>,
    ) -> Result<(), Rejection> {
        self.finish_tool(tool_use, outcome, ctx)?;
        self.settle(tool_use, spent);
        Ok(())
    }
}
