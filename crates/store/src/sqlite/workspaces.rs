//! Workspaces.

use oma_domain::page::Page;
use oma_domain::quota::Monthly;
use oma_domain::usage::NanoUsd;
use oma_domain::{Timestamp, Workspace, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::failure::Failure;
use super::once::{self, Mark};
use super::rows::{id, number, page, page_limit, text, unknown_cursor};
use crate::Error;

pub(super) fn create(conn: &Connection, workspace: &Workspace, once: Option<&Mark>) -> Result<(), Failure> {
    once::check(conn, once)?;
    if key(conn, &workspace.id)?.is_some() {
        return Err(Error::Conflict.into());
    }
    conn.prepare_cached(
        "INSERT INTO workspaces (id, name, created_at, max_cost, max_tokens, max_sessions) VALUES (?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        workspace.id.as_str(),
        workspace.name,
        workspace.created_at.as_millis(),
        stored_cost(&workspace.budget),
        stored_tokens(&workspace.budget),
        workspace.max_sessions,
    ])?;
    once::remember(conn, once)
}

pub(super) fn find(conn: &Connection, id: &WorkspaceId) -> Result<Option<Workspace>, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT id, name, created_at, max_cost, max_tokens, max_sessions FROM workspaces WHERE id = ?",
    )?;
    let mut rows = statement.query([id.as_str()])?;
    rows.next()?
        .map(|row| read(row).map(|(workspace, _)| workspace))
        .transpose()
}

pub(super) fn list(
    conn: &Connection,
    after: Option<&WorkspaceId>,
    limit: u32,
) -> Result<Page<Workspace, WorkspaceId>, Failure> {
    let limit = page_limit(limit);
    let after = match after {
        Some(id) => key(conn, id)?.ok_or_else(unknown_cursor)?,
        None => 0,
    };
    let mut statement = conn
        .prepare_cached("SELECT id, name, created_at, max_cost, max_tokens, max_sessions FROM workspaces WHERE key > ? ORDER BY key LIMIT ?")?;
    let rows = statement.query(params![after, limit + 1])?;
    page(rows, limit, read, |workspace| workspace.id.clone())
}

pub(super) fn set_budget(
    conn: &Connection,
    id: &WorkspaceId,
    budget: &Monthly,
) -> Result<Workspace, Failure> {
    conn.prepare_cached("UPDATE workspaces SET max_cost = ?, max_tokens = ? WHERE id = ?")?
        .execute(params![stored_cost(budget), stored_tokens(budget), id.as_str()])?;
    find(conn, id)?.ok_or_else(|| Error::NotFound.into())
}

/// A cap that is beyond what the database can hold is none that could ever be reached.
pub(super) fn stored_cost(budget: &Monthly) -> Option<i64> {
    budget.max_cost.and_then(|cost| i64::try_from(cost.0).ok())
}

/// The same for tokens.
pub(super) fn stored_tokens(budget: &Monthly) -> Option<i64> {
    budget.max_tokens.and_then(|tokens| i64::try_from(tokens).ok())
}

/// The budget of a row.
pub(super) fn budget(row: &Row<'_>) -> Result<Monthly, Failure> {
    let cap = |column: &str| match row.get::<_, Option<i64>>(column)? {
        Some(_) => number(row, column).map(Some),
        None => Ok(None),
    };
    Ok(Monthly {
        max_cost: cap("max_cost")?.map(NanoUsd),
        max_tokens: cap("max_tokens")?,
    })
}

fn read(row: &Row<'_>) -> Result<(Workspace, usize), Failure> {
    let name = text(row, "name")?;
    let workspace = Workspace {
        id: id(row, "id", WorkspaceId::parse)?,
        name: name.to_owned(),
        budget: budget(row)?,
        max_sessions: row.get("max_sessions")?,
        created_at: Timestamp(row.get("created_at")?),
    };
    Ok((workspace, name.len()))
}

/// Whether there may be one more session in a workspace.
pub(super) fn check_sessions(conn: &Connection, workspace: &WorkspaceId) -> Result<(), Failure> {
    let most: Option<Option<u32>> = conn
        .prepare_cached("SELECT max_sessions FROM workspaces WHERE id = ?")?
        .query_row([workspace.as_str()], |row| row.get(0))
        .optional()?;
    let Some(Some(most)) = most else {
        return Ok(());
    };
    let mut counted = conn.prepare_cached("SELECT count(*) AS n FROM sessions WHERE workspace = ?")?;
    let mut rows = counted.query([workspace.as_str()])?;
    let there: u32 = rows.next()?.map_or(Ok(0), |row| number(row, "n"))?;
    if there >= most {
        return Err(Error::TooManySessions(most).into());
    }
    Ok(())
}

/// The row's key; `None` when there is no such workspace.
pub(super) fn key(conn: &Connection, id: &WorkspaceId) -> Result<Option<i64>, Failure> {
    Ok(conn
        .prepare_cached("SELECT key FROM workspaces WHERE id = ?")?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()?)
}
