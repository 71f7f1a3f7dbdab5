//! Hard budgets: of a session, and of a month.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::usage::{CostTotal, NanoUsd, Usage};

/// Caps on one session. A cap that is absent does not bind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Default)]
pub struct Quota {
    /// The most that the session's model requests may cost.
    pub max_cost: Option<NanoUsd>,
    /// The most tokens, input and output together.
    pub max_tokens: Option<u64>,
    /// The longest time from the session's creation, in milliseconds.
    pub max_wall_ms: Option<u64>,
}

/// Caps on what is consumed in a calendar month (UTC), by whoever uses an API key or in a workspace. A cap that is
/// absent does not bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Monthly {
    /// The most that model requests may cost.
    pub max_cost: Option<NanoUsd>,
    /// The most tokens, input and output together.
    pub max_tokens: Option<u64>,
}

/// The least output that a model request is worth making for, in tokens.
pub const LEAST_OUTPUT: u64 = 512;

/// What a model request can consume and cost at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Bound {
    /// Input tokens.
    pub input: u64,
    /// Output tokens, unless the request limits them further.
    pub output: u64,
    /// What they cost; `None` when the price is unknown.
    pub price: Option<Price>,
}

/// What a model request costs at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// All of its input.
    pub input: NanoUsd,
    /// Each token of its output, rounded up.
    pub output_token: NanoUsd,
}

/// What requests that broke off are reckoned to have consumed beyond what was reported of them. It counts against
/// budgets and is in no report: it is an estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Unreported {
    /// Tokens, input and output together.
    pub tokens: u64,
    /// What they cost; nothing where the price is unknown.
    pub cost: NanoUsd,
}

impl Unreported {
    /// Adds another estimate to this one.
    pub fn add(&mut self, other: &Self) {
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.cost = self.cost.plus(other.cost);
    }

    /// What was added to an earlier estimate.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(earlier.tokens),
            cost: NanoUsd(self.cost.0.saturating_sub(earlier.cost.0)),
        }
    }
}

impl Bound {
    /// What a request of this bound, of which so much was `reported` and so many tokens of an answer had arrived, is
    /// reckoned to have consumed besides.
    #[must_use]
    pub fn unreported(&self, reported: &Usage, arrived: u64) -> Unreported {
        let knows_input = reported.total_input() > 0;
        let input = if knows_input { 0 } else { self.input };
        let output = arrived.saturating_sub(reported.output);
        let cost = self.price.map_or(NanoUsd(0), |price| {
            let input = if knows_input { NanoUsd(0) } else { price.input };
            input.plus(NanoUsd(price.output_token.0.saturating_mul(output)))
        });
        Unreported {
            tokens: input.saturating_add(output),
            cost,
        }
    }
}

/// Which cap is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exceeded {
    /// `max_cost`.
    Cost,
    /// `max_tokens`.
    Tokens,
    /// `max_wall_ms`.
    Duration,
    /// The monthly `max_cost` of the key that posted the message.
    KeyCost,
    /// The monthly `max_tokens` of the key that posted the message.
    KeyTokens,
    /// The monthly `max_cost` of the workspace.
    WorkspaceCost,
    /// The monthly `max_tokens` of the workspace.
    WorkspaceTokens,
}

impl Exceeded {
    /// The name that metrics and records use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cost => "cost",
            Self::Tokens => "tokens",
            Self::Duration => "duration",
            Self::KeyCost => "key_cost",
            Self::KeyTokens => "key_tokens",
            Self::WorkspaceCost => "workspace_cost",
            Self::WorkspaceTokens => "workspace_tokens",
        }
    }

    /// The budget in words.
    #[must_use]
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Cost => "the session's cost budget",
            Self::Tokens => "the session's tokens budget",
            Self::Duration => "the session's duration budget",
            Self::KeyCost => "the API key's cost budget of this month",
            Self::KeyTokens => "the API key's tokens budget of this month",
            Self::WorkspaceCost => "the workspace's cost budget of this month",
            Self::WorkspaceTokens => "the workspace's tokens budget of this month",
        }
    }
}

impl Quota {
    /// The tighter of two in each cap.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        fn tighter<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            }
        }
        Self {
            max_cost: tighter(self.max_cost, other.max_cost),
            max_tokens: tighter(self.max_tokens, other.max_tokens),
            max_wall_ms: tighter(self.max_wall_ms, other.max_wall_ms),
        }
    }

    /// How many output tokens a request may be given so that it can't lead beyond a cap: all that it could
    /// produce, or fewer. While its price is unknown, only the cap on tokens says something about that.
    ///
    /// # Errors
    /// The cap that leaves too little for a request to be worth making.
    pub fn allowance(&self, usage: &Usage, cost: &CostTotal, bound: &Bound) -> Result<u64, Exceeded> {
        let least = bound.output.min(LEAST_OUTPUT);
        let mut allowed = bound.output;
        if let Some(max) = self.max_tokens {
            let spoken_for = usage.total().saturating_add(bound.input);
            let room = max.checked_sub(spoken_for).filter(|room| *room >= least);
            allowed = allowed.min(room.ok_or(Exceeded::Tokens)?);
        }
        if let (Some(max), Some(price)) = (self.max_cost, bound.price) {
            let spoken_for = cost.known.plus(price.input);
            let room = max.0.checked_sub(spoken_for.0).ok_or(Exceeded::Cost)?;
            let tokens = room.checked_div(price.output_token.0).unwrap_or(u64::MAX);
            if tokens < least {
                return Err(Exceeded::Cost);
            }
            allowed = allowed.min(tokens);
        }
        Ok(allowed)
    }

    /// The first cap that is reached, if any.
    #[must_use]
    pub fn exceeded(
        &self,
        usage: &Usage,
        cost: &CostTotal,
        created: Timestamp,
        now: Timestamp,
    ) -> Option<Exceeded> {
        if self.max_cost.is_some_and(|max| cost.known >= max) {
            return Some(Exceeded::Cost);
        }
        if self.max_tokens.is_some_and(|max| usage.total() >= max) {
            return Some(Exceeded::Tokens);
        }
        if self
            .max_wall_ms
            .is_some_and(|max| now.millis_since(created) >= max)
        {
            return Some(Exceeded::Duration);
        }
        None
    }
}
