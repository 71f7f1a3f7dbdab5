//! Environments. What their sandboxes are made of never changes, so a session refers to the row itself.

use oma_domain::environment::Environment;
use oma_domain::page::{Order, Page};
use oma_domain::webhook::Topic;
use oma_domain::{EnvironmentId, Timestamp, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::failure::{Failure, from_json, to_json};
use super::once::{self, Mark};
use super::rows::{List, id, number, text, unknown_cursor};
use super::webhooks;
use crate::{Error, ListFilter, Result as StoreResult};

const WHOLE: &str = "SELECT e.id, e.created_at, e.updated_at, e.archived_at, e.spec FROM environments e";

/// An environment, ready to be stored.
pub(super) struct EnvironmentRow {
    environment: Environment,
    spec: String,
}

impl EnvironmentRow {
    pub(super) fn new(environment: &Environment) -> StoreResult<Self> {
        Ok(Self {
            environment: environment.clone(),
            spec: to_json("environment", &environment.spec)?,
        })
    }
}

/// Whether an environment that is not archived, other than this one, has its name.
fn is_named(conn: &Connection, environment: &Environment) -> Result<bool, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT 1 FROM environments
         WHERE workspace = ? AND archived_at IS NULL AND spec ->> '$.name' = ? AND id != ?",
    )?;
    let Environment {
        workspace, spec, id, ..
    } = environment;
    Ok(statement.exists(params![workspace.as_str(), spec.name, id.as_str()])?)
}

pub(super) fn update(
    conn: &Connection,
    before: &EnvironmentRow,
    after: &EnvironmentRow,
    unique_name: bool,
) -> Result<(), Failure> {
    let (old, new) = (&before.environment, &after.environment);
    let current = find(conn, &old.workspace, &old.id)?.ok_or(Error::NotFound)?;
    if current != *old {
        return Err(Error::Conflict.into());
    }
    if unique_name && is_named(conn, new)? {
        return Err(Error::NameTaken.into());
    }
    conn.prepare_cached(
        "UPDATE environments SET spec = ?, updated_at = ?, archived_at = ? WHERE workspace = ? AND id = ?",
    )?
    .execute(params![
        after.spec,
        new.updated_at.as_millis(),
        new.archived_at.map(Timestamp::as_millis),
        old.workspace.as_str(),
        old.id.as_str(),
    ])?;
    let topic = if old.archived_at == new.archived_at {
        Topic::EnvironmentUpdated
    } else {
        Topic::EnvironmentArchived
    };
    webhooks::tell(conn, &old.workspace, &[topic], old.id.as_str())
}

pub(super) fn create(
    conn: &Connection,
    row: &EnvironmentRow,
    unique_name: bool,
    once: Option<&Mark>,
) -> Result<(), Failure> {
    let environment = &row.environment;
    once::check(conn, once)?;
    if unique_name && is_named(conn, environment)? {
        return Err(Error::NameTaken.into());
    }
    if conn
        .prepare_cached("SELECT 1 FROM environments WHERE id = ?")?
        .exists([environment.id.as_str()])?
    {
        return Err(Error::Conflict.into());
    }
    conn.prepare_cached(
        "INSERT INTO environments (workspace, id, created_at, updated_at, archived_at, spec)
         VALUES (?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        environment.workspace.as_str(),
        environment.id.as_str(),
        environment.created_at.as_millis(),
        environment.updated_at.as_millis(),
        environment.archived_at.map(Timestamp::as_millis),
        row.spec,
    ])?;
    let topics = [Topic::EnvironmentCreated];
    webhooks::tell(conn, &environment.workspace, &topics, environment.id.as_str())?;
    once::remember(conn, once)
}

pub(super) fn find(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &EnvironmentId,
) -> Result<Option<Environment>, Failure> {
    let mut statement = conn.prepare_cached(&format!("{WHOLE} WHERE e.workspace = ? AND e.id = ?"))?;
    let mut rows = statement.query(params![workspace.as_str(), id.as_str()])?;
    rows.next()?
        .map(|row| read(row, workspace).map(|(environment, _)| environment))
        .transpose()
}

/// The environment that a session refers to.
pub(super) fn by_key(conn: &Connection, workspace: &WorkspaceId, key: i64) -> Result<Environment, Failure> {
    let mut statement = conn.prepare_cached(&format!("{WHOLE} WHERE e.workspace = ? AND e.key = ?"))?;
    let mut rows = statement.query(params![workspace.as_str(), key])?;
    match rows.next()? {
        Some(row) => read(row, workspace).map(|(environment, _)| environment),
        None => Err(Error::Internal("the environment of a session is missing".into()).into()),
    }
}

/// Reads an environment and the size of its definition.
fn read(row: &Row<'_>, workspace: &WorkspaceId) -> Result<(Environment, usize), Failure> {
    let spec = text(row, "spec")?;
    let environment = Environment {
        id: id(row, "id", EnvironmentId::parse)?,
        workspace: workspace.clone(),
        spec: from_json("environment", spec)?,
        created_at: Timestamp(row.get("created_at")?),
        updated_at: Timestamp(row.get("updated_at")?),
        archived_at: row.get::<_, Option<i64>>("archived_at")?.map(Timestamp),
    };
    Ok((environment, spec.len()))
}

pub(super) fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    filter: &ListFilter,
    order: Order,
    after: Option<&EnvironmentId>,
    limit: u32,
) -> Result<Page<Environment, EnvironmentId>, Failure> {
    let after = match after {
        Some(id) => Some(key(conn, workspace, id)?.ok_or_else(unknown_cursor)?),
        None => None,
    };
    let list = List {
        select: WHOLE,
        table: "e",
        workspace,
        filter,
        order,
        after,
        limit,
    };
    list.page(conn, read, |environment| environment.id.clone())
}

pub(super) fn delete(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &EnvironmentId,
) -> Result<bool, Failure> {
    let Some(key) = key(conn, workspace, id)? else {
        return Ok(false);
    };
    let sessions: u64 = {
        let mut statement =
            conn.prepare_cached("SELECT count(*) AS n FROM sessions WHERE environment = ?")?;
        let mut rows = statement.query([key])?;
        rows.next()?.map_or(Ok(0), |row| number(row, "n"))?
    };
    if sessions > 0 {
        return Err(Error::InUse(sessions).into());
    }
    // Sessions have taken their items with them, and keys of its workers open nothing else.
    conn.prepare_cached("DELETE FROM environments WHERE key = ?")?
        .execute([key])?;
    Ok(true)
}

/// The row's key, by which sessions refer to it.
pub(super) fn key(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &EnvironmentId,
) -> Result<Option<i64>, Failure> {
    Ok(conn
        .prepare_cached("SELECT key FROM environments WHERE workspace = ? AND id = ?")?
        .query_row(params![workspace.as_str(), id.as_str()], |row| row.get(0))
        .optional()?)
}
