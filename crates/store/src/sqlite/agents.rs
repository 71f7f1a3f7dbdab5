//! Agents and their versions.

use oma_domain::agent::Agent;
use oma_domain::page::{Order, Page};
use oma_domain::webhook::Topic;
use oma_domain::{AgentId, Timestamp, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::deployments;
use super::failure::{Failure, from_json, to_json};
use super::once::{self, Mark};
use super::rows::{List, id, number, page, page_limit, text, unknown_cursor};
use super::webhooks;
use crate::{Error, ListFilter, Result as StoreResult};

/// An agent, ready to be stored.
pub(super) struct AgentRow {
    agent: Agent,
    spec: String,
}

impl AgentRow {
    pub(super) fn new(agent: &Agent) -> StoreResult<Self> {
        Ok(Self {
            agent: agent.clone(),
            spec: to_json("agent", &agent.spec)?,
        })
    }
}

pub(super) fn create(conn: &Connection, row: &AgentRow, once: Option<&Mark>) -> Result<(), Failure> {
    let agent = &row.agent;
    once::check(conn, once)?;
    if conn
        .prepare_cached("SELECT 1 FROM agents WHERE id = ?")?
        .exists([agent.id.as_str()])?
    {
        return Err(Error::Conflict.into());
    }
    conn.prepare_cached(
        "INSERT INTO agents (workspace, id, version, created_at, updated_at, archived_at) VALUES (?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        agent.workspace.as_str(),
        agent.id.as_str(),
        agent.version,
        agent.created_at.as_millis(),
        agent.updated_at.as_millis(),
        agent.archived_at.map(Timestamp::as_millis),
    ])?;
    add_version(conn, conn.last_insert_rowid(), row)?;
    webhooks::tell(conn, &agent.workspace, &[Topic::AgentCreated], agent.id.as_str())?;
    once::remember(conn, once)
}

fn add_version(conn: &Connection, key: i64, row: &AgentRow) -> Result<(), Failure> {
    conn.prepare_cached(
        "INSERT INTO agent_versions (workspace, agent, version, written_at, spec) VALUES (?, ?, ?, ?, ?)",
    )?
    .execute(params![
        row.agent.workspace.as_str(),
        key,
        row.agent.version,
        row.agent.updated_at.as_millis(),
        row.spec,
    ])?;
    Ok(())
}

const CURRENT: &str = "SELECT a.id, a.version, a.created_at, a.updated_at, a.archived_at, v.spec
     FROM agents a JOIN agent_versions v ON v.agent = a.key AND v.version = a.version";

pub(super) fn find(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &AgentId,
) -> Result<Option<Agent>, Failure> {
    let mut statement = conn.prepare_cached(&format!("{CURRENT} WHERE a.workspace = ? AND a.id = ?"))?;
    let mut rows = statement.query(params![workspace.as_str(), id.as_str()])?;
    rows.next()?
        .map(|row| read(row, workspace).map(|(agent, _)| agent))
        .transpose()
}

/// Reads an agent and the size of its definition.
fn read(row: &Row<'_>, workspace: &WorkspaceId) -> Result<(Agent, usize), Failure> {
    let spec = text(row, "spec")?;
    let agent = Agent {
        id: id(row, "id", AgentId::parse)?,
        workspace: workspace.clone(),
        version: number(row, "version")?,
        spec: from_json("agent", spec)?,
        created_at: Timestamp(row.get("created_at")?),
        updated_at: Timestamp(row.get("updated_at")?),
        archived_at: row.get::<_, Option<i64>>("archived_at")?.map(Timestamp),
    };
    Ok((agent, spec.len()))
}

pub(super) fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    filter: &ListFilter,
    order: Order,
    after: Option<&AgentId>,
    limit: u32,
) -> Result<Page<Agent, AgentId>, Failure> {
    let after = match after {
        Some(id) => Some(key(conn, workspace, id)?.ok_or_else(unknown_cursor)?),
        None => None,
    };
    let list = List {
        select: CURRENT,
        table: "a",
        workspace,
        filter,
        order,
        after,
        limit,
    };
    list.page(conn, read, |agent| agent.id.clone())
}

pub(super) fn versions(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &AgentId,
    order: Order,
    after: Option<u32>,
    limit: u32,
) -> Result<Page<Agent, u32>, Failure> {
    let limit = page_limit(limit);
    let (after, condition) = match order {
        Order::Ascending => (after.unwrap_or(0), "> ? ORDER BY v.version"),
        Order::Descending => (after.unwrap_or(u32::MAX), "< ? ORDER BY v.version DESC"),
    };
    let mut statement = conn.prepare_cached(&format!(
        "SELECT a.id, v.version, a.created_at, v.written_at AS updated_at, NULL AS archived_at, v.spec
         FROM agents a JOIN agent_versions v ON v.agent = a.key
         WHERE a.workspace = ? AND a.id = ? AND v.version {condition} LIMIT ?",
    ))?;
    let rows = statement.query(params![workspace.as_str(), id.as_str(), after, limit + 1])?;
    page(rows, limit, |row| read(row, workspace), |agent| agent.version)
}

pub(super) fn update(conn: &Connection, row: &AgentRow) -> Result<(), Failure> {
    let agent = &row.agent;
    let stored: Option<(i64, u32, bool)> = conn
        .prepare_cached(
            "SELECT key, version, archived_at IS NOT NULL FROM agents WHERE workspace = ? AND id = ?",
        )?
        .query_row(params![agent.workspace.as_str(), agent.id.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((key, version, archived)) = stored else {
        return Err(Error::NotFound.into());
    };
    if archived || version.checked_add(1) != Some(agent.version) {
        return Err(Error::Conflict.into());
    }
    conn.prepare_cached("UPDATE agents SET version = ?, updated_at = ? WHERE key = ?")?
        .execute(params![agent.version, agent.updated_at.as_millis(), key])?;
    add_version(conn, key, row)?;
    webhooks::tell(conn, &agent.workspace, &[Topic::AgentUpdated], agent.id.as_str())
}

pub(super) fn archive(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &AgentId,
    at: Timestamp,
) -> Result<Agent, Failure> {
    let archived = conn
        .prepare_cached(
            "UPDATE agents SET archived_at = ?1, updated_at = ?1
             WHERE workspace = ?2 AND id = ?3 AND archived_at IS NULL",
        )?
        .execute(params![at.as_millis(), workspace.as_str(), id.as_str()])?;
    if archived > 0 {
        webhooks::tell(conn, workspace, &[Topic::AgentArchived], id.as_str())?;
    }
    deployments::archive_of_agent(conn, workspace, id, at)?;
    find(conn, workspace, id)?.ok_or_else(|| Error::NotFound.into())
}

pub(super) fn delete(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &AgentId,
    at: Timestamp,
) -> Result<bool, Failure> {
    let Some(key) = key(conn, workspace, id)? else {
        return Ok(false);
    };
    deployments::archive_of_agent(conn, workspace, id, at)?;
    conn.prepare_cached("DELETE FROM agent_versions WHERE agent = ?")?
        .execute([key])?;
    conn.prepare_cached("DELETE FROM agents WHERE key = ?")?
        .execute([key])?;
    webhooks::tell(conn, workspace, &[Topic::AgentDeleted], id.as_str())?;
    Ok(true)
}

/// The row's key, if the agent is there.
pub(super) fn key(conn: &Connection, workspace: &WorkspaceId, id: &AgentId) -> Result<Option<i64>, Failure> {
    Ok(conn
        .prepare_cached("SELECT key FROM agents WHERE workspace = ? AND id = ?")?
        .query_row(params![workspace.as_str(), id.as_str()], |row| row.get(0))
        .optional()?)
}
