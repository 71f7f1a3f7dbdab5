//! What was consumed: counters that grow with the commits that end model requests.

use oma_domain::page::Page;
use oma_domain::session::Spending;
use oma_domain::usage::{CostTotal, NanoUsd, Usage};
use oma_domain::{AgentId, KeyId, WorkspaceId};
use rusqlite::{Connection, Row, params};

use super::failure::Failure;
use super::rows::{id, number, page, page_limit, text};
use crate::{Error, Result as StoreResult, UsageFilter, UsageRow, Used};

/// What a commit adds, ready to be stored.
pub(super) struct Addition {
    day: i64,
    model: String,
    /// Empty for none.
    key: String,
    numbers: [i64; 7],
}

impl Addition {
    pub(super) fn new(used: &Used) -> StoreResult<Self> {
        let Used {
            day,
            model,
            key,
            requests,
            usage,
            cost,
        } = used;
        let all = [
            *requests,
            usage.input,
            usage.output,
            usage.cache_read,
            usage.cache_write,
            cost.known.0,
            cost.unknown_requests,
        ];
        let mut numbers = [0; 7];
        for (number, count) in numbers.iter_mut().zip(all) {
            *number = i64::try_from(count).map_err(|error| Error::Internal(error.to_string()))?;
        }
        Ok(Self {
            day: *day,
            model: model.clone(),
            key: key.as_ref().map(ToString::to_string).unwrap_or_default(),
            numbers,
        })
    }
}

/// Adds to the counters of a session's agent.
pub(super) fn add(
    conn: &Connection,
    workspace: &WorkspaceId,
    session: i64,
    addition: &Addition,
) -> Result<(), Failure> {
    let [requests, input, output, cache_read, cache_write, cost, unknown] = addition.numbers;
    conn.prepare_cached(
        "INSERT INTO usage (workspace, day, agent_id, model, api_key, requests, input, output, cache_read, cache_write,
                            cost, unknown_requests)
         SELECT ?1, ?2, s.agent_id, ?3, ?12, ?4, ?5, ?6, ?7, ?8, ?9, ?10
         FROM sessions s WHERE s.key = ?11
         ON CONFLICT (workspace, day, agent_id, model, api_key) DO UPDATE SET
             requests = requests + excluded.requests, input = input + excluded.input,
             output = output + excluded.output, cache_read = cache_read + excluded.cache_read,
             cache_write = cache_write + excluded.cache_write, cost = cost + excluded.cost,
             unknown_requests = unknown_requests + excluded.unknown_requests",
    )?
    .execute(params![
        workspace.as_str(),
        addition.day,
        addition.model,
        requests,
        input,
        output,
        cache_read,
        cache_write,
        cost,
        unknown,
        session,
        addition.key,
    ])?;
    Ok(())
}

/// The sum of a workspace, or of one key in it, over some days.
pub(super) fn sum(
    conn: &Connection,
    workspace: &WorkspaceId,
    key: Option<&KeyId>,
    from: i64,
    to: i64,
) -> Result<Spending, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT coalesce(sum(input), 0) AS input, coalesce(sum(output), 0) AS output,
                coalesce(sum(cache_read), 0) AS cache_read, coalesce(sum(cache_write), 0) AS cache_write,
                coalesce(sum(cost), 0) AS cost, coalesce(sum(unknown_requests), 0) AS unknown_requests
         FROM usage WHERE workspace = ?1 AND day BETWEEN ?2 AND ?3 AND (?4 IS NULL OR api_key = ?4)",
    )?;
    let mut rows = statement.query(params![workspace.as_str(), from, to, key.map(KeyId::as_str)])?;
    match rows.next()? {
        Some(row) => Ok(Spending {
            usage: usage(row)?,
            cost: cost(row)?,
            ..Spending::default()
        }),
        None => Ok(Spending::default()),
    }
}

fn usage(row: &Row<'_>) -> Result<Usage, Failure> {
    Ok(Usage {
        input: number(row, "input")?,
        output: number(row, "output")?,
        cache_read: number(row, "cache_read")?,
        cache_write: number(row, "cache_write")?,
    })
}

fn cost(row: &Row<'_>) -> Result<CostTotal, Failure> {
    Ok(CostTotal {
        known: NanoUsd(number(row, "cost")?),
        unknown_requests: number(row, "unknown_requests")?,
    })
}

pub(super) fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    filter: &UsageFilter,
    after: Option<i64>,
    limit: u32,
) -> Result<Page<UsageRow, i64>, Failure> {
    let limit = page_limit(limit);
    let mut statement = conn.prepare_cached(
        "SELECT * FROM usage
         WHERE workspace = ?1 AND day BETWEEN ?2 AND ?3 AND key > ?4 AND (?5 IS NULL OR agent_id = ?5)
         ORDER BY key LIMIT ?6",
    )?;
    let rows = statement.query(params![
        workspace.as_str(),
        filter.from,
        filter.to,
        after.unwrap_or(0),
        filter.agent.as_ref().map(AgentId::as_str),
        limit + 1,
    ])?;
    page(rows, limit, |row| Ok((read(row)?, 0)), |row| row.row)
}

fn read(row: &Row<'_>) -> Result<UsageRow, Failure> {
    let api_key = match text(row, "api_key")? {
        "" => None,
        _ => Some(id(row, "api_key", KeyId::parse)?),
    };
    Ok(UsageRow {
        row: row.get("key")?,
        agent: id(row, "agent_id", AgentId::parse)?,
        used: Used {
            key: api_key,
            day: row.get("day")?,
            model: text(row, "model")?.to_owned(),
            requests: number(row, "requests")?,
            usage: usage(row)?,
            cost: cost(row)?,
        },
    })
}
