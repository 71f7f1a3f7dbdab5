//! What a workspace consumed, by day, agent, model and key.

use axum::Json;
use axum::extract::State;
use oma_domain::AgentId;
use oma_domain::usage::NanoUsd;
use oma_engine::{UsageFilter, UsageRow};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use crate::AppState;
use crate::auth::Caller;
use crate::fault::{Fault, Result};
use crate::limits;
use crate::listing::{Slice, collect};
use crate::params::Params;

const MILLIS_PER_DAY: i64 = 24 * 3_600_000;

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// What one agent consumed with one model on one day, by messages that were posted with one key.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageView {
    /// When the day began, UTC: milliseconds since the epoch.
    day: i64,
    agent_id: String,
    /// `provider/model`.
    model: String,
    /// The key that posted the messages; null where it was none.
    #[schema(required)]
    key_id: Option<String>,
    /// Model requests that consumed something.
    requests: u64,
    /// Uncached input tokens.
    input_tokens: u64,
    output_tokens: u64,
    cache_read_tokens: u64,
    cache_write_tokens: u64,
    /// US dollars; null when the price of some request is unknown.
    #[schema(required)]
    cost_usd: Option<f64>,
    /// The part of the cost that is known, in US dollars.
    known_cost_usd: f64,
}

impl UsageView {
    fn of(row: &UsageRow) -> Self {
        let used = &row.used;
        Self {
            day: used.day.saturating_mul(MILLIS_PER_DAY),
            agent_id: row.agent.to_string(),
            model: used.model.clone(),
            key_id: used.key.as_ref().map(ToString::to_string),
            requests: used.requests,
            input_tokens: used.usage.input,
            output_tokens: used.usage.output,
            cache_read_tokens: used.usage.cache_read,
            cache_write_tokens: used.usage.cache_write,
            cost_usd: used.cost.total().map(NanoUsd::as_usd),
            known_cost_usd: used.cost.known.as_usd(),
        }
    }
}

/// A page of usage.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageList {
    #[schema(value_type = Vec<UsageView>)]
    usage: Vec<Box<RawValue>>,
    /// How many rows there are on this page.
    count: usize,
    /// Whether there are more after this page.
    has_more: bool,
    /// The cursor of the next page.
    #[schema(required)]
    next: Option<String>,
}

/// What was consumed.
///
/// One row for each day, agent, model and key. A request counts on the day (UTC) on which it ended.
#[utoipa::path(
    get, path = "/v1/usage", tag = "usage",
    params(
        ("from" = Option<i64>, Query, description = "A moment of the first day, in milliseconds since the epoch"),
        ("to" = Option<i64>, Query, description = "A moment of the last day, in milliseconds since the epoch"),
        ("agent_id" = Option<String>, Query, description = "Only what this agent consumed"),
        ("limit" = Option<u32>, Query, description = "1 to 1000; 1000 without it"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses((status = 200, body = UsageList), (status = 400, body = ErrorBody)),
)]
async fn list(State(state): State<AppState>, caller: Caller, params: Params) -> Result<Json<UsageList>> {
    let slice = Slice::read(&params, limits::PAGE)?;
    let after = slice.after(|text| text.parse::<i64>().ok().filter(|row| *row > 0))?;
    let agent = match params.get("agent_id").map(AgentId::parse) {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(_)) => return Err(Fault::invalid_field(&["agent_id"], "Invalid id")),
    };
    let filter = UsageFilter {
        from: day(&params, "from")?.unwrap_or(i64::MIN),
        to: day(&params, "to")?.unwrap_or(i64::MAX),
        agent,
    };
    let (engine, workspace, filter) = (&state.engine, caller.workspace(), &filter);
    let fetch =
        |after: Option<i64>, limit| async move { Ok(engine.usage(workspace, filter, after, limit).await?) };
    let rows = collect(slice.limit, after, fetch, UsageView::of, |row| row.row).await?;
    Ok(Json(UsageList {
        count: rows.rows.len(),
        has_more: rows.next.is_some(),
        next: rows.next,
        usage: rows.rows,
    }))
}

/// The day of a moment, in days since the epoch.
fn day(params: &Params, name: &str) -> Result<Option<i64>> {
    match params.get(name) {
        None => Ok(None),
        Some(text) => match text.parse::<i64>() {
            Ok(moment) => Ok(Some(moment.div_euclid(MILLIS_PER_DAY))),
            Err(_) => Err(Fault::invalid_field(
                &[name],
                "Expected milliseconds since the epoch",
            )),
        },
    }
}
