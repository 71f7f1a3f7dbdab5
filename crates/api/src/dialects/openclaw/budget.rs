//! The budgets of a month, which keys and workspaces have.

use oma_domain::quota::Monthly;
use oma_domain::usage::NanoUsd;
use utoipa::ToSchema;

use crate::validate::checks::{integer, positive};
use crate::validate::{Body, Change, Object};

/// Changes to the budgets of a month. A field that is not sent stays; `null` clears it.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct ChangeBudget {
    /// The most that model requests may cost in a calendar month (UTC): US dollars, above 0.
    #[schema(value_type = Option<f64>)]
    max_cost_usd_per_month: Change<f64>,
    /// The most tokens in a calendar month (UTC), input and output together.
    #[schema(value_type = Option<u64>, minimum = 1)]
    max_tokens_per_month: Change<u64>,
}

const COST: &str = "maxCostUsdPerMonth";
const TOKENS: &str = "maxTokensPerMonth";

impl Body for ChangeBudget {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let cost = object.change(COST, positive);
        let tokens = object.change(TOKENS, integer(1, i64::MAX as u64));
        Some(Self {
            max_cost_usd_per_month: cost?,
            max_tokens_per_month: tokens?,
        })
    }
}

impl ChangeBudget {
    /// Lays the changes over a budget.
    #[must_use]
    pub fn apply(self, mut budget: Monthly) -> Monthly {
        let cost = match self.max_cost_usd_per_month {
            Change::Keep => Change::Keep,
            Change::Clear => Change::Clear,
            Change::Set(usd) => Change::Set(amount(usd)),
        };
        cost.apply_optional(&mut budget.max_cost);
        self.max_tokens_per_month.apply_optional(&mut budget.max_tokens);
        budget
    }
}

/// A cap that is smaller than our unit of money is still a cap above 0.
fn amount(usd: f64) -> NanoUsd {
    NanoUsd::from_usd(usd).max(NanoUsd(1))
}

/// Reads the budgets of something that is created.
pub(super) fn read(object: &mut Object<'_>) -> Option<Monthly> {
    let cost = object.optional(COST, positive);
    let tokens = object.optional(TOKENS, integer(1, i64::MAX as u64));
    Some(Monthly {
        max_cost: cost?.map(amount),
        max_tokens: tokens?,
    })
}
