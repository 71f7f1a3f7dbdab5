//! `oma usage`: what model requests consumed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::client::{Client, Connection, Slice};
use crate::config::value::Value as _;
use crate::print::{Failure, Outcome, Output};
use crate::table::{cell, dollars, list_table, time};

/// Show what model requests consumed, by day, agent, model and API key
#[derive(Debug, clap::Args)]
pub(crate) struct Usage {
    #[command(flatten)]
    connection: Connection,
    /// How far to look back (`7d`); days count from midnight UTC
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// Only this agent's
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    #[command(flatten)]
    slice: Slice,
}

fn duration(text: &str) -> Result<Duration, String> {
    Duration::parse(text)
}

impl Usage {
    /// Carries the command out.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn run(self, output: Output) -> Outcome {
        let client = Client::connect(&self.connection)?;
        let mut query = Vec::new();
        if let Some(since) = self.since {
            let from = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .ok()
                .and_then(|now| now.checked_sub(since))
                .ok_or_else(|| Failure::Usage("that is too far back".into()))?;
            query.push(("from", from.as_millis().to_string()));
        }
        if let Some(agent) = self.agent {
            query.push(("agent_id", agent));
        }
        let list = client
            .list(&["v1", "usage"], "usage", &query, &self.slice)
            .await?;
        output.list(&list, |list| {
            list_table(
                list,
                "usage",
                &[
                    "day", "agent", "model", "key", "requests", "input", "cached", "output", "cost",
                ],
                row,
            )
        })?;
        Ok(())
    }
}

fn row(row: &Value) -> Vec<String> {
    let number = |field: &str| row[field].as_u64().unwrap_or(0);
    let cached = number("cache_read_tokens").saturating_add(number("cache_write_tokens"));
    let day: String = time(row, "day").chars().take(10).collect();
    vec![
        day,
        cell(row, "agent_id"),
        cell(row, "model"),
        cell(row, "key_id"),
        cell(row, "requests"),
        cell(row, "input_tokens"),
        cached.to_string(),
        cell(row, "output_tokens"),
        dollars(row, "cost_usd"),
    ]
}
