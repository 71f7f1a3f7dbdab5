//! Tokens and money.

use serde::{Deserialize, Serialize};

/// What one or more model requests consumed, in tokens. `input` counts only what no cache served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Usage {
    /// Uncached input tokens.
    pub input: u64,
    /// Output tokens, thinking included.
    pub output: u64,
    /// Input tokens read from a prompt cache.
    pub cache_read: u64,
    /// Input tokens written to a prompt cache.
    pub cache_write: u64,
}

impl Usage {
    /// All input, cached or not.
    #[must_use]
    pub fn total_input(&self) -> u64 {
        self.input
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write)
    }

    /// All input and output.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total_input().saturating_add(self.output)
    }

    /// What was added to an earlier count.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            input: self.input.saturating_sub(earlier.input),
            output: self.output.saturating_sub(earlier.output),
            cache_read: self.cache_read.saturating_sub(earlier.cache_read),
            cache_write: self.cache_write.saturating_sub(earlier.cache_write),
        }
    }

    /// Adds another count to this one.
    pub fn add(&mut self, other: &Self) {
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.cache_read = self.cache_read.saturating_add(other.cache_read);
        self.cache_write = self.cache_write.saturating_add(other.cache_write);
    }
}

/// Money in billionths of a US dollar, so that sums are exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct NanoUsd(pub u64);

impl NanoUsd {
    /// From dollars; negative and absurd amounts are clamped.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the range first"
    )]
    pub fn from_usd(usd: f64) -> Self {
        Self((usd * 1e9).round().clamp(0.0, 9e18) as u64)
    }

    /// In dollars.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "exact below nine million dollars")]
    pub fn as_usd(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The sum, saturating.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// The price of one model request and who said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// The amount.
    pub amount: NanoUsd,
    /// `provider` when the provider stated it, else the price catalogue's name and date.
    pub source: String,
}

/// What a failed model request consumed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Spent {
    /// Nothing: it never reached the provider, or the provider refused it.
    #[default]
    Nothing,
    /// This, as the provider said once it was done.
    All {
        /// The tokens.
        usage: Usage,
        /// Their price; `None` when it is unknown.
        cost: Option<Cost>,
    },
    /// No less than this: it broke off before the provider had said everything.
    AtLeast {
        /// The tokens that the provider had reported until then.
        usage: Usage,
        /// Their price; `None` when it is unknown.
        cost: Option<Cost>,
        /// How many tokens of an answer had arrived, as far as that can be reckoned.
        arrived: u64,
    },
}

impl Spent {
    /// What is not known at all.
    #[must_use]
    pub fn unknown() -> Self {
        Self::AtLeast {
            usage: Usage::default(),
            cost: None,
            arrived: 0,
        }
    }
}

/// What a session has consumed until some moment, its children included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Totals {
    /// Tokens.
    pub usage: Usage,
    /// Money.
    pub cost: CostTotal,
    /// How long it worked, in milliseconds: waiting for clients does not count.
    pub active_ms: u64,
    /// How often its web tools were used. That of children is not counted here.
    #[serde(default, skip_serializing_if = "WebUse::is_none")]
    pub web: WebUse,
}

/// How often the web was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct WebUse {
    /// Searches.
    pub searches: u64,
    /// Pages that were fetched, or that it was tried to fetch.
    pub fetches: u64,
}

impl WebUse {
    /// Whether it was not read at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A session's cost so far. A request whose price is unknown makes the total unknown, never cheaper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct CostTotal {
    /// The sum of what is known.
    pub known: NanoUsd,
    /// How many requests had no known price, or one that is known in part.
    pub unknown_requests: u64,
}

impl CostTotal {
    /// Counts one request.
    pub fn add(&mut self, cost: Option<&Cost>) {
        match cost {
            Some(cost) => self.known = self.known.plus(cost.amount),
            None => self.unknown_requests = self.unknown_requests.saturating_add(1),
        }
    }

    /// What was added to an earlier total.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            known: NanoUsd(self.known.0.saturating_sub(earlier.known.0)),
            unknown_requests: self.unknown_requests.saturating_sub(earlier.unknown_requests),
        }
    }

    /// Counts one request of which only a part is known. That part still counts against a budget.
    pub fn add_at_least(&mut self, cost: Option<&Cost>) {
        self.add(None);
        if let Some(cost) = cost {
            self.known = self.known.plus(cost.amount);
        }
    }

    /// The total, or `None` when some request's price is unknown.
    #[must_use]
    pub fn total(&self) -> Option<NanoUsd> {
        (self.unknown_requests == 0).then_some(self.known)
    }
}
