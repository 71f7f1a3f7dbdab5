//! The budgets of a month, as flags: the same for keys and workspaces.

use serde_json::{Map, Value, json};

use crate::table::dollars;

/// What may be consumed in a calendar month (UTC).
#[derive(Debug, clap::Args)]
pub(crate) struct MonthlyBudget {
    /// The most that model requests may cost in a month, in US dollars; `none` for any amount
    #[arg(long, value_name = "USD", value_parser = cost)]
    max_cost_per_month: Option<Value>,
    /// The most tokens in a month, input and output together; `none` for any number
    #[arg(long, value_name = "TOKENS", value_parser = tokens)]
    max_tokens_per_month: Option<Value>,
}

fn cost(text: &str) -> Result<Value, String> {
    match text {
        "none" => Ok(Value::Null),
        _ => text
            .parse::<f64>()
            .map(|usd| json!(usd))
            .map_err(|error| error.to_string()),
    }
}

fn tokens(text: &str) -> Result<Value, String> {
    match text {
        "none" => Ok(Value::Null),
        _ => text
            .parse::<u64>()
            .map(|tokens| json!(tokens))
            .map_err(|error| error.to_string()),
    }
}

impl MonthlyBudget {
    /// The fields of a request: of a new thing those that are set, of a change also those that are cleared.
    pub(crate) fn fields(self, new: bool) -> Map<String, Value> {
        [
            ("maxCostUsdPerMonth", self.max_cost_per_month),
            ("maxTokensPerMonth", self.max_tokens_per_month),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)))
        .filter(|(_, value)| !(new && value.is_null()))
        .collect()
    }
}

/// What a key or workspace may consume, in words.
pub(crate) fn describe(value: &Value) -> String {
    let cost = match &value["max_cost_usd_per_month"] {
        Value::Null => None,
        _ => Some(dollars(value, "max_cost_usd_per_month")),
    };
    let tokens = value["max_tokens_per_month"]
        .as_u64()
        .map(|tokens| format!("{tokens} tokens"));
    let caps: Vec<String> = cost.into_iter().chain(tokens).collect();
    if caps.is_empty() {
        "any".to_owned()
    } else {
        caps.join(", ")
    }
}
