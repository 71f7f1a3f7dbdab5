//! Agent versions that sessions have pinned. Sessions that pinned the same one share a row, and the sessions of
//! one page share a value.

use std::collections::HashMap;
use std::sync::Arc;

use oma_domain::WorkspaceId;
use oma_domain::agent::Agent;
use oma_domain::environment::Environment;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::environments;
use super::failure::{Failure, from_json};
use crate::Error;

/// Finds the row of this very agent, or adds it. `body` is the agent as JSON.
pub(super) fn pin(conn: &Connection, agent: &Agent, body: &str) -> Result<i64, Failure> {
    let found = conn
        .prepare_cached(
            "SELECT key FROM agent_snapshots WHERE agent_id = ? AND version = ? AND workspace = ? AND body = ?",
        )?
        .query_row(params![agent.id.as_str(), agent.version, agent.workspace.as_str(), body], |row| row.get(0))
        .optional()?;
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

/// Removes the row when no session refers to it any more.
pub(super) fn unpin(conn: &Connection, key: i64) -> Result<(), Failure> {
    conn.prepare_cached(
        "DELETE FROM agent_snapshots WHERE key = ?1 AND NOT EXISTS (SELECT 1 FROM sessions WHERE snapshot = ?1)",
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

    pub(super) fn environment(&mut self, key: i64) -> Result<Arc<Environment>, Failure> {
        if let Some(environment) = self.environments.get(&key) {
            return Ok(Arc::clone(environment));
        }
        let environment = Arc::new(environments::by_key(self.conn, self.workspace, key)?);
        self.environments.insert(key, Arc::clone(&environment));
        Ok(environment)
    }
}
