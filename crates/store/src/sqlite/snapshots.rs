//! Agent versions that sessions have pinned. Sessions that pinned the same one share a row, and the sessions of
//! one page share a value.

use std::collections::HashMap;
use std::sync::Arc;

use oma_domain::agent::Agent;
use oma_domain::environment::Environment;
use oma_domain::{Member, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::environments;
use super::failure::{Failure, from_json};
use crate::Error;

/// Finds the row of this very agent, or adds it. `body` is the agent as JSON.
pub(super) fn pin(conn: &Connection, agent: &Agent, body: &str) -> Result<i64, Failure> {
    // Agents that were defined on the fly all have one id: each has a row to itself, because there are ever more to look
    // through.
    let found = if agent.is_inline() {
        None
    } else {
        shared(conn, agent, body)?
    };
    if let Some(key) = found {
        return Ok(key);
    }
    conn.prepare_cached(
        "INSERT INTO agent_snapshots (workspace, agent_id, version, body) VALUES (?, ?, ?, ?)",
    )?
    .execute(params![
        agent.workspace.as_str(),
        agent.id.as_str(),
        agent.version,
        body
    ])?;
    Ok(conn.last_insert_rowid())
}

/// The row of this very agent, which others have pinned already.
fn shared(conn: &Connection, agent: &Agent, body: &str) -> Result<Option<i64>, Failure> {
    let found = conn
        .prepare_cached(
            "SELECT key FROM agent_snapshots WHERE agent_id = ? AND version = ? AND workspace = ? AND body = ?",
        )?
        .query_row(params![agent.id.as_str(), agent.version, agent.workspace.as_str(), body], |row| row.get(0))
        .optional()?;
    Ok(found)
}

/// Pins an agent that may work in a session's threads.
pub(super) fn pin_member(
    conn: &Connection,
    session: i64,
    position: usize,
    agent: &Agent,
    body: &str,
) -> Result<(), Failure> {
    let snapshot = pin(conn, agent, body)?;
    let position = i64::try_from(position).map_err(|error| Error::Internal(error.to_string()))?;
    conn.prepare_cached(
        "INSERT INTO session_rosters (session, position, workspace, snapshot) VALUES (?, ?, ?, ?)",
    )?
    .execute(params![session, position, agent.workspace.as_str(), snapshot])?;
    Ok(())
}

/// Forgets who may work in a session's threads; gives the rows that they were pinned by.
pub(super) fn clear_roster(conn: &Connection, session: i64) -> Result<Vec<i64>, Failure> {
    let pinned = conn
        .prepare_cached("SELECT snapshot FROM session_rosters WHERE session = ?")?
        .query_map([session], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    conn.prepare_cached("DELETE FROM session_rosters WHERE session = ?")?
        .execute([session])?;
    Ok(pinned)
}

/// Gives a session another agent.
pub(super) fn repin(conn: &Connection, session: i64, agent: &Agent, body: &str) -> Result<(), Failure> {
    let before: i64 = conn
        .prepare_cached("SELECT snapshot FROM sessions WHERE key = ?")?
        .query_row([session], |row| row.get(0))?;
    let key = pin(conn, agent, body)?;
    conn.prepare_cached("UPDATE sessions SET snapshot = ? WHERE key = ?")?
        .execute([key, session])?;
    unpin(conn, before)
}

/// Removes the row when no session refers to it any more.
pub(super) fn unpin(conn: &Connection, key: i64) -> Result<(), Failure> {
    conn.prepare_cached(
        "DELETE FROM agent_snapshots WHERE key = ?1 AND NOT EXISTS (SELECT 1 FROM sessions WHERE snapshot = ?1)
         AND NOT EXISTS (SELECT 1 FROM session_rosters WHERE snapshot = ?1)",
    )?
    .execute([key])?;
    Ok(())
}

/// What the sessions of one page refer to, each read once.
pub(super) struct Shared<'c> {
    conn: &'c Connection,
    workspace: &'c WorkspaceId,
    agents: HashMap<i64, Arc<Agent>>,
    environments: HashMap<i64, Arc<Environment>>,
}

impl<'c> Shared<'c> {
    pub(super) fn new(conn: &'c Connection, workspace: &'c WorkspaceId) -> Self {
        Self {
            conn,
            workspace,
            agents: HashMap::new(),
            environments: HashMap::new(),
        }
    }

    /// The connection that all is read from.
    pub(super) fn conn(&self) -> &'c Connection {
        self.conn
    }

    pub(super) fn agent(&mut self, key: i64) -> Result<Arc<Agent>, Failure> {
        if let Some(agent) = self.agents.get(&key) {
            return Ok(Arc::clone(agent));
        }
        let body: Option<String> = self
            .conn
            .prepare_cached("SELECT body FROM agent_snapshots WHERE workspace = ? AND key = ?")?
            .query_row(params![self.workspace.as_str(), key], |row| row.get(0))
            .optional()?;
        let body = body.ok_or_else(|| Error::Internal("the agent of a session is missing".into()))?;
        let agent = Arc::new(from_json::<Agent>("agent", &body)?);
        self.agents.insert(key, Arc::clone(&agent));
        Ok(agent)
    }

    /// The other agents that may work in a session's threads, in the order of its agent's list.
    pub(super) fn roster(&mut self, session: i64, agent: &Agent) -> Result<Vec<Arc<Agent>>, Failure> {
        let is_other = |member: &&Member| matches!(member, Member::Agent { .. });
        if !agent.named().iter().any(is_other) {
            return Ok(Vec::new());
        }
        let mut statement = self
            .conn
            .prepare_cached("SELECT snapshot FROM session_rosters WHERE session = ? ORDER BY position")?;
        let pinned: Vec<i64> = statement
            .query_map([session], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        pinned.into_iter().map(|key| self.agent(key)).collect()
    }

    pub(super) fn environment(&mut self, key: i64) -> Result<Arc<Environment>, Failure> {
        if let Some(environment) = self.environments.get(&key) {
            return Ok(Arc::clone(environment));
        }
        let environment = Arc::new(environments::by_key(self.conn, self.workspace, key)?);
        self.environments.insert(key, Arc::clone(&environment));
        Ok(environment)
    }
}
