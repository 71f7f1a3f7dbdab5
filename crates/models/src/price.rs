//! What models cost, and how large their contexts are.
//!
//! The catalogue is data of the PyPI package genai-prices, vendored by `scripts/update-prices.py`; its version
//! is the `source` of each cost computed from it. It is not always right (its authors say so), so a figure
//! that the provider states itself goes first, and an operator's own file goes before both catalogue and
//! defaults. A model without a known price has no cost: `None`, never zero.

use std::collections::HashMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use oma_domain::quota::Price;
use oma_domain::usage::{Cost, NanoUsd, Usage};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// The vendored catalogue. It is part of the program, and a test reads it whole; should it be unreadable all
/// the same, prices are unknown.
static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../data/prices.json")).unwrap_or_else(|error| {
        tracing::error!(%error, "the built-in price catalogue can't be read; costs are unknown");
        Catalogue::default()
    })
});

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    source: String,
    /// When the script fetched it.
    #[serde(rename = "retrieved")]
    _retrieved: String,
    providers: HashMap<String, Vec<Entry>>,
}

/// A model of the catalogue.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    pub(crate) window: Option<u64>,
    /// Whether the provider has withdrawn it.
    #[serde(default)]
    pub(crate) old: bool,
    #[serde(rename = "match")]
    rule: Option<Rule>,
    #[serde(default)]
    prices: Vec<Rate>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Rule {
    Pattern(String),
    Any(Vec<Rule>),
    All { all: Vec<Rule> },
}

impl Rule {
    fn matches(&self, id: &str) -> bool {
        match self {
            Self::Any(rules) => rules.iter().any(|rule| rule.matches(id)),
            Self::All { all } => all.iter().all(|rule| rule.matches(id)),
            Self::Pattern(pattern) => {
                let mut chars = pattern.chars();
                let kind = chars.next();
                let rest = chars.as_str();
                match kind {
                    Some('=') => id.len() == rest.len() && begins(id, rest),
                    Some('^') => begins(id, rest),
                    Some('$') => id.ends_with(rest),
                    Some('*') => id.contains(rest),
                    Some('!') => !id.contains(rest),
                    _ => false,
                }
            }
        }
    }
}

/// Whether the text begins with the pattern, in which `#` stands for a digit.
fn begins(text: &str, pattern: &str) -> bool {
    text.len() >= pattern.len()
        && text
            .bytes()
            .zip(pattern.bytes())
            .all(|(have, want)| have == want || want == b'#' && have.is_ascii_digit())
}

/// Prices in dollars per million tokens, and when they hold.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rate {
    /// The first day.
    #[serde(default, deserialize_with = "day")]
    from: Option<Date>,
    /// Minutes of the day, UTC: from the first, before the second; over midnight when the second is smaller.
    utc: Option<(u16, u16)>,
    /// Input, output, cache read, cache write.
    p: Figures,
    /// Other prices for the whole request when its input is larger than the first number.
    #[serde(default)]
    t: Vec<Tier>,
}

fn day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Date>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(D::Error::custom)
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
struct Figures(f64, f64, Option<f64>, Option<f64>);

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
struct Tier(u64, f64, f64, Option<f64>, Option<f64>);

impl Rate {
    fn holds_at(&self, date: Date, minute: u16) -> bool {
        let begun = self.from.is_none_or(|from| from <= date);
        let in_hours = self.utc.is_none_or(|(start, end)| {
            if start <= end {
                (start..end).contains(&minute)
            } else {
                minute >= start || minute < end
            }
        });
        begun && in_hours
    }

    fn usd(&self, usage: &Usage) -> f64 {
        let mut figures = self.p;
        for tier in &self.t {
            if usage.total_input() > tier.0 {
                figures = Figures(tier.1, tier.2, tier.3, tier.4);
            }
        }
        let Figures(input, output, cache_read, cache_write) = figures;
        // Where a provider has no price of its own for cached tokens, they cost what others cost.
        let parts = [
            (usage.input, input),
            (usage.output, output),
            (usage.cache_read, cache_read.unwrap_or(input)),
            (usage.cache_write, cache_write.unwrap_or(input)),
        ];
        parts
            .into_iter()
            .map(|(tokens, price)| millions(tokens) * price)
            .sum()
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53 tokens")]
fn millions(tokens: u64) -> f64 {
    tokens as f64 / 1e6
}

/// One model's prices.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Prices {
    source: String,
    rates: Vec<Rate>,
}

impl Prices {
    /// What a request costs that ends now; `None` when the price is unknown.
    pub(crate) fn cost(&self, usage: &Usage) -> Option<Cost> {
        self.cost_at(usage, Timestamp::now())
    }

    /// What a request with so many input tokens can cost at the most, were it to end now; `None` when the price
    /// is unknown.
    pub(crate) fn most(&self, input: u64) -> Option<Price> {
        // Whether the input is new, comes from a cache or goes to one is known only afterwards.
        let only = |input, cache_read, cache_write, output| Usage {
            input,
            output,
            cache_read,
            cache_write,
        };
        let at = Timestamp::now();
        let amount = |usage: Usage| self.cost_at(&usage, at).map(|cost| cost.amount);
        let ways = [only(input, 0, 0, 0), only(0, input, 0, 0), only(0, 0, input, 0)];
        let input_price = ways.into_iter().filter_map(amount).max()?;
        // A million tokens, so that fractions of a billionth of a dollar are not lost.
        let with_output = amount(only(input, 0, 0, 1_000_000))?;
        let million = with_output.0.saturating_sub(amount(only(input, 0, 0, 0))?.0);
        Some(Price {
            input: input_price,
            output_token: NanoUsd(million.div_ceil(1_000_000)),
        })
    }

    fn cost_at(&self, usage: &Usage, at: Timestamp) -> Option<Cost> {
        let now = at.to_zoned(TimeZone::UTC);
        let minute = u16::try_from(now.hour()).ok()? * 60 + u16::try_from(now.minute()).ok()?;
        let rate = self
            .rates
            .iter()
            .rev()
            .find(|rate| rate.holds_at(now.date(), minute))?;
        Some(Cost {
            amount: NanoUsd::from_usd(rate.usd(usage)),
            source: self.source.clone(),
        })
    }
}

/// A model of a provider in the catalogue.
pub(crate) fn find(provider: &str, model: &str) -> Option<&'static Entry> {
    let model = model.to_lowercase();
    let entries = CATALOGUE.providers.get(provider)?;
    entries.iter().find(|entry| match &entry.rule {
        Some(rule) => rule.matches(&model),
        None => entry.id == model,
    })
}

/// All models of a provider in the catalogue.
pub(crate) fn all(provider: &str) -> &'static [Entry] {
    CATALOGUE
        .providers
        .get(provider)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

impl Entry {
    /// Its prices.
    pub(crate) fn prices(&self) -> Prices {
        Prices {
            source: CATALOGUE.source.clone(),
            rates: self.prices.clone(),
        }
    }
}

/// An operator's own figures for a model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Dollars per million uncached input tokens.
    pub input: f64,
    /// Dollars per million output tokens.
    pub output: f64,
    /// Dollars per million input tokens read from a cache; the input price when absent.
    pub cache_read: Option<f64>,
    /// Dollars per million input tokens written to a cache; the input price when absent.
    pub cache_write: Option<f64>,
}

impl Override {
    /// These figures as prices, whose source is `operator`.
    pub(crate) fn prices(&self) -> Prices {
        let p = Figures(self.input, self.output, self.cache_read, self.cache_write);
        Prices {
            source: "operator".to_owned(),
            rates: vec![Rate {
                from: None,
                utc: None,
                p,
                t: Vec::new(),
            }],
        }
    }
}

/// An operator's price file: TOML, one table a model.
///
/// ```toml
/// ["openai/gpt-6-sol"]
/// input = 2.0
/// output = 10.0
/// cache_read = 0.2
/// ```
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Overrides(pub HashMap<String, Override>);

impl Overrides {
    /// Reads the text of a price file.
    ///
    /// # Errors
    /// What is wrong with it, with its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let all: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        for (model, figures) in &all.0 {
            let given = [
                Some(figures.input),
                Some(figures.output),
                figures.cache_read,
                figures.cache_write,
            ];
            if given
                .into_iter()
                .flatten()
                .any(|price| !price.is_finite() || price < 0.0)
            {
                return Err(format!(
                    "{model}: a price must be a number of dollars, not below zero"
                ));
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
#[path = "price_tests.rs"]
mod tests;
