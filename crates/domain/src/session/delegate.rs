//! Work that is given to other agents, and what that may consume: by tool uses, and on a session's behalf by whoever
//! holds a parent token of it.
//!
//! The child is a session of its own with a budget of its own: its share of what its parent's budgets leave. The
//! share is set aside when the child begins and given back, less what was consumed, when its answer is there. So
//! whatever the children do side by side, together they stay within what their parent had.
//!
//! A child of a tool use has one task. One that was opened with a parent token can be given another one once it has
//! answered; what is then left of its share is set aside again before it begins.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::input::Outcome;
use super::rejection::Rejection;
use super::state::State;
use super::tool_use::{Gate, OpenTool};
use super::transition::{Context, Transition};
use crate::id::{EventId, SessionId};
use crate::quota::{Exceeded, LEAST_OUTPUT, Quota, Unreported};
use crate::usage::{CostTotal, NanoUsd, Usage};

/// The tool by which an agent delegates.
pub const CALL_AGENT: &str = "call_agent";

/// The most sessions that can be opened with parent tokens of one session.
pub const MAX_OPENED: usize = 64;

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

    /// What was added to an earlier spending.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            usage: self.usage.since(&earlier.usage),
            cost: self.cost.since(&earlier.cost),
            unreported: self.unreported.since(&earlier.unreported),
        }
    }

    /// All that a share allows.
    fn of_share(share: &Quota) -> Self {
        Self {
            usage: Usage {
                input: share.max_tokens.unwrap_or(0),
                ..Usage::default()
            },
            cost: CostTotal {
                known: share.max_cost.unwrap_or_default(),
                unknown_requests: 0,
            },
            unreported: Unreported::default(),
        }
    }
}

/// A session that was opened with a parent token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Default)]
pub struct Opened {
    /// What is set aside for it while it works.
    pub share: Option<Quota>,
    /// How many messages it had accepted when that was set aside: it is given back once there is one more, and the
    /// child rests.
    pub turns: u64,
    /// What of its consumption counts in [`Delegated::spent`].
    pub counted: Spending,
}

/// A child that was opened with a parent token, as it stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// How many messages it has accepted.
    pub turns: u64,
    /// What it and its children have consumed.
    pub spent: Spending,
}

/// What a session has delegated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Delegated {
    /// What children consumed, and children's children, once they had answered.
    pub spent: Spending,
    /// What those that have not answered may consume, by tool use. One that was cut off without a word about
    /// what it consumed stays here.
    pub shares: BTreeMap<EventId, Quota>,
    /// Those that were opened with a parent token.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub opened: BTreeMap<SessionId, Opened>,
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
        let opened = self.delegated.opened.values();
        let shares = self.delegated.shares.values();
        for share in shares.chain(opened.filter_map(|child| child.share.as_ref())) {
            total.add(&Spending::of_share(share));
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
        let share = self.part(sharers, ctx);
        self.state.delegated.shares.insert(tool_use.clone(), share);
        Ok(())
    }

    /// An equal part of what the session's budgets leave.
    fn part(&self, sharers: u64, ctx: &Context<'_>) -> Quota {
        let spoken_for = self.state.spoken_for();
        let quota = self.quota(ctx).unwrap_or_default();
        let part = |max: u64, taken: u64| max.saturating_sub(taken) / sharers;
        let age = ctx.now.millis_since(ctx.created_at);
        Quota {
            max_cost: quota
                .max_cost
                .map(|max| NanoUsd(part(max.0, spoken_for.cost.known.0))),
            max_tokens: quota.max_tokens.map(|max| part(max, spoken_for.usage.total())),
            // Time passes for all of them at once.
            max_wall_ms: quota.max_wall_ms.map(|max| max.saturating_sub(age)),
        }
    }

    /// Sets aside what a child that was opened with a parent token, or a thread, may consume: for a new one an equal
    /// part of what is left (half of it when nobody knows how many will follow); for one that has rested what is left
    /// of its own share, if that is still there to be had.
    pub(super) fn lend(
        &mut self,
        child: &SessionId,
        known: Option<(Option<Quota>, Standing)>,
        parts: u64,
        ctx: &Context<'_>,
    ) -> Result<(), Rejection> {
        let opened = &self.state.delegated.opened;
        let Some((cap, standing)) = known else {
            // Calls of workflow runs have a bound of their own.
            let counted = opened.keys().filter(|child| child.call().is_none()).count();
            if child.call().is_none() && counted >= MAX_OPENED {
                return Err(Rejection::TooManyChildren);
            }
            let share = self.part(parts, ctx);
            if share.max_cost == Some(NanoUsd(0)) {
                return Err(Rejection::QuotaExceeded(Exceeded::Cost));
            }
            if share.max_tokens.is_some_and(|tokens| tokens < LEAST_OUTPUT) {
                return Err(Rejection::QuotaExceeded(Exceeded::Tokens));
            }
            if share.max_wall_ms == Some(0) {
                return Err(Rejection::QuotaExceeded(Exceeded::Duration));
            }
            let new = Opened {
                share: Some(share),
                ..Opened::default()
            };
            self.state.delegated.opened.insert(child.clone(), new);
            return Ok(());
        };
        let before = *opened.get(child).ok_or(Rejection::Stale)?;
        let share = match before.share {
            // It works already: its share is set aside, and one more message is no more to consume.
            Some(share) => share,
            None => {
                let cap = cap.unwrap_or_default();
                let spent = standing.spent.reckoned();
                let rest = Quota {
                    max_cost: cap
                        .max_cost
                        .map(|max| NanoUsd(max.0.saturating_sub(spent.cost.known.0))),
                    max_tokens: cap.max_tokens.map(|max| max.saturating_sub(spent.usage.total())),
                    max_wall_ms: cap.max_wall_ms,
                };
                let left = self.part(1, ctx);
                if left
                    .max_cost
                    .is_some_and(|left| left < rest.max_cost.unwrap_or_default())
                {
                    return Err(Rejection::QuotaExceeded(Exceeded::Cost));
                }
                if left
                    .max_tokens
                    .is_some_and(|left| left < rest.max_tokens.unwrap_or(0))
                {
                    return Err(Rejection::QuotaExceeded(Exceeded::Tokens));
                }
                rest
            }
        };
        let again = Opened {
            share: Some(share),
            turns: standing.turns,
            counted: before.counted,
        };
        self.state.delegated.opened.insert(child.clone(), again);
        Ok(())
    }

    /// Gives back what was set aside for a child that was opened with a parent token, and counts what it consumed
    /// since it was counted last. One that is gone was counted before that.
    pub(super) fn give_back(
        &mut self,
        child: &SessionId,
        standing: Option<&Standing>,
    ) -> Result<(), Rejection> {
        let delegated = &mut self.state.delegated;
        let opened = delegated.opened.get_mut(child).ok_or(Rejection::Stale)?;
        let Some(standing) = standing else {
            delegated.opened.remove(child);
            return Ok(());
        };
        // It has yet to begin what the share was set aside for.
        if opened.share.is_none() || standing.turns <= opened.turns {
            return Err(Rejection::Stale);
        }
        opened.share = None;
        let more = standing.spent.since(&opened.counted);
        opened.counted = standing.spent;
        delegated.spent.add(&more);
        // Of a call that was stopped nobody will ask again.
        if child.call().is_some() && !self.state.threads.contains_key(child) {
            delegated.opened.remove(child);
        }
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
        self.finish_tool(tool_use, outcome, None, ctx)?;
        self.settle(tool_use, spent);
        Ok(())
    }
}
