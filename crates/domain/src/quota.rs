//! Hard budgets of a session.

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
}

impl Exceeded {
    /// The name that metrics and messages use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cost => "cost",
            Self::Tokens => "tokens",
            Self::Duration => "duration",
        }
    }
}

impl Quota {
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
