//! The audit trail: one chain of rows over all workspaces.
//!
//! Invariant: a row's hash covers everything in the row, its position and the hash before it, and is computed in
//! the transaction that adds the row.

pub(super) mod chain;
mod held;
pub(super) mod verify;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use oma_domain::audit::Entry;
use oma_domain::page::Page;
use oma_domain::{AuditId, Timestamp, WorkspaceId};
use rusqlite::types::Value as Column;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};

use super::Sqlite;
use super::failure::{Failure, from_json, to_json};
use super::rows::{id, optional_text, page, page_limit, text, unknown_cursor};
use crate::{AuditFilter, Error, Result as StoreResult, Trail};
use chain::{End, Hash, Link};
pub(super) use held::Held;

/// How many rows retention removes in one transaction.
const PIECE: u32 = 1000;

const COLUMNS: &str = "key, workspace, id, at, request_id, actor, action, target, outcome, metadata, hash";

/// An entry, ready to be stored.
pub(super) struct EntryRow {
    entry: Entry,
    metadata: Option<String>,
}

impl EntryRow {
    pub(super) fn new(entry: Entry) -> StoreResult<Self> {
        let metadata = entry.metadata.as_ref();
        let metadata = metadata.map(|map| to_json("metadata", map)).transpose()?;
        Ok(Self { entry, metadata })
    }
}

/// Notes a call that begins.
pub(super) fn open(conn: &Connection, entry: &Entry) -> Result<(), Failure> {
    conn.prepare_cached(
        "INSERT INTO audit_open (id, workspace, at, request_id, actor, action, target) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        entry.id.as_str(),
        entry.workspace.as_str(),
        entry.at.as_millis(),
        entry.request_id,
        entry.actor,
        entry.action,
        entry.target,
    ])?;
    Ok(())
}

/// Adds the entries of up to [`PIECE`] calls that did not end.
fn close(conn: &Connection, outcome: &str) -> Result<u64, Failure> {
    let mut rows = Vec::new();
    {
        let mut statement = conn.prepare_cached(
            "SELECT workspace, id, at, request_id, actor, action, target, ?1 AS outcome, NULL AS metadata
             FROM audit_open ORDER BY at, id LIMIT ?2",
        )?;
        let mut found = statement.query(params![outcome, PIECE])?;
        while let Some(row) = found.next()? {
            let (entry, _) = read(row)?;
            rows.push(EntryRow {
                entry,
                metadata: None,
            });
        }
    }
    for row in &rows {
        append(conn, row)?;
    }
    Ok(rows.len() as u64)
}

pub(super) fn append(conn: &Connection, row: &EntryRow) -> Result<(), Failure> {
    let entry = &row.entry;
    conn.prepare_cached("DELETE FROM audit_open WHERE id = ?")?
        .execute([entry.id.as_str()])?;
    // A call may be told of twice: by what it changed, and by its client's leaving before it was answered.
    let is_taken = conn
        .prepare_cached("SELECT 1 FROM audit WHERE id = ?")?
        .exists([entry.id.as_str()])?;
    let id = match is_taken {
        true => AuditId::generate(),
        false => entry.id.clone(),
    };
    let head = chain::end(conn, End::Head)?;
    let link = Link {
        position: head.position + 1,
        workspace: entry.workspace.as_str(),
        id: id.as_str(),
        at: entry.at.as_millis(),
        request_id: entry.request_id.as_deref(),
        actor: &entry.actor,
        action: &entry.action,
        target: entry.target.as_deref(),
        outcome: &entry.outcome,
        metadata: row.metadata.as_deref(),
    };
    let hash = link.hash(&head.hash);
    conn.prepare_cached(&format!(
        "INSERT INTO audit ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    ))?
    .execute(params![
        link.position,
        link.workspace,
        link.id,
        link.at,
        link.request_id,
        link.actor,
        link.action,
        link.target,
        link.outcome,
        link.metadata,
        hash.0,
    ])?;
    chain::set_end(conn, End::Head, link.position, &hash)
}

fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    filter: &AuditFilter,
    after: Option<&AuditId>,
    limit: u32,
) -> Result<Page<Entry, AuditId>, Failure> {
    let limit = page_limit(limit);
    let position = match after {
        None => None,
        Some(after) => {
            let found: Option<(i64, i64)> = conn
                .prepare_cached("SELECT at, key FROM audit WHERE workspace = ? AND id = ?")?
                .query_row(params![workspace.as_str(), after.as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            Some(found.ok_or_else(unknown_cursor)?)
        }
    };
    let (sql, values) = query(workspace, filter, position, limit);
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query(params_from_iter(values))?;
    page(rows, limit, read, |entry| entry.id.clone())
}

/// The query of a list. Each combination is a statement of its own, so that each finds its own index.
fn query(
    workspace: &WorkspaceId,
    filter: &AuditFilter,
    after: Option<(i64, i64)>,
    limit: u32,
) -> (String, Vec<Column>) {
    let mut sql = format!("SELECT {COLUMNS} FROM audit WHERE workspace = ?");
    let mut values = vec![Column::from(workspace.as_str().to_owned())];
    if let Some((at, key)) = after {
        sql.push_str(" AND (at, key) < (?, ?)");
        values.extend([Column::from(at), Column::from(key)]);
    }
    let mut narrow = |condition: &str, value: Option<Column>| {
        if let Some(value) = value {
            sql.push_str(condition);
            values.push(value);
        }
    };
    narrow(" AND at >= ?", filter.since.map(|at| at.as_millis().into()));
    narrow(" AND at <= ?", filter.until.map(|at| at.as_millis().into()));
    narrow(" AND target = ?", filter.target.clone().map(Column::from));
    let pattern = filter.action.as_ref().is_some_and(|action| action.contains('%'));
    let condition = if pattern {
        " AND action LIKE ?"
    } else {
        " AND action = ?"
    };
    narrow(condition, filter.action.clone().map(Column::from));
    sql.push_str(" ORDER BY at DESC, key DESC LIMIT ?");
    values.push(Column::from(i64::from(limit) + 1));
    (sql, values)
}

/// Reads an entry and the size of its row.
fn read(row: &Row<'_>) -> Result<(Entry, usize), Failure> {
    let owned = |column: &str| -> Result<Option<String>, Failure> {
        Ok(optional_text(row, column)?.map(str::to_owned))
    };
    let metadata = optional_text(row, "metadata")?;
    let size = metadata.map_or(0, str::len) + 256;
    let entry = Entry {
        id: id(row, "id", AuditId::parse)?,
        workspace: id(row, "workspace", WorkspaceId::parse)?,
        at: Timestamp(row.get("at")?),
        request_id: owned("request_id")?,
        actor: text(row, "actor")?.to_owned(),
        action: text(row, "action")?.to_owned(),
        target: owned("target")?,
        outcome: text(row, "outcome")?.to_owned(),
        metadata: metadata.map(|text| from_json("metadata", text)).transpose()?,
    };
    Ok((entry, size))
}

/// Removes up to [`PIECE`] rows from the beginning of the chain and moves its anchor.
fn forget(conn: &Connection, before: Timestamp) -> Result<u64, Failure> {
    let mut count = 0_u64;
    let mut last: Option<(i64, Hash)> = None;
    {
        let mut statement = conn.prepare_cached("SELECT key, at, hash FROM audit ORDER BY key LIMIT ?")?;
        let mut rows = statement.query([PIECE])?;
        while let Some(row) = rows.next()? {
            let at: i64 = row.get("at")?;
            if at >= before.as_millis() {
                break;
            }
            last = Some((row.get("key")?, Hash(row.get("hash")?)));
            count += 1;
        }
    }
    if let Some((position, hash)) = last {
        conn.prepare_cached("DELETE FROM audit WHERE key <= ?")?
            .execute([position])?;
        chain::set_end(conn, End::Anchor, position, &hash)?;
    }
    Ok(count)
}

#[async_trait]
impl Trail for Sqlite {
    async fn open_audit(&self, entry: &Entry, reaches_out: bool) -> StoreResult<()> {
        let entry = entry.clone();
        if !reaches_out {
            self.writer.held.hold(entry);
            return Ok(());
        }
        self.writer.accept(move |conn| open(conn, &entry)).await
    }

    async fn close_audit(&self, outcome: &str) -> StoreResult<u64> {
        let mut closed = 0_u64;
        loop {
            let outcome = outcome.to_owned();
            let count = self.writer.run(move |conn| close(conn, &outcome)).await?;
            closed = closed.saturating_add(count);
            if count < u64::from(PIECE) {
                return Ok(closed);
            }
        }
    }

    async fn append_audit(&self, entry: &Entry) -> StoreResult<()> {
        let row = EntryRow::new(entry.clone())?;
        let held = Arc::clone(&self.writer.held);
        held.let_go(&entry.id);
        self.writer
            .run_entry(move |conn| {
                // A note that could not be written may have come back.
                held.let_go(&row.entry.id);
                append(conn, &row)
            })
            .await
    }

    async fn audit(
        &self,
        workspace: &WorkspaceId,
        filter: &AuditFilter,
        after: Option<&AuditId>,
        limit: u32,
    ) -> StoreResult<Page<Entry, AuditId>> {
        let (workspace, filter, after) = (workspace.clone(), filter.clone(), after.cloned());
        self.readers
            .run(move |conn| list(conn, &workspace, &filter, after.as_ref(), limit))
            .await
    }

    async fn forget_audit(&self, before: Timestamp) -> StoreResult<u64> {
        // In pieces, so that a large backlog does not hold up everybody else's writes.
        let mut forgotten = 0_u64;
        loop {
            let count = self.writer.run(move |conn| forget(conn, before)).await?;
            forgotten = forgotten.saturating_add(count);
            if count < u64::from(PIECE) {
                return Ok(forgotten);
            }
        }
    }
}

/// The chain's own verdict on a database that can't be one.
fn no_ends() -> Failure {
    Error::Internal("the audit trail's ends are missing".into()).into()
}
