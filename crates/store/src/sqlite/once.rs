//! Idempotency keys.

use oma_domain::{SessionId, Timestamp, WorkspaceId};
use rusqlite::{Connection, params};

use super::failure::{Failure, from_json, to_json};
use super::rows::text;
use crate::{Error, Once, OnceRecord, Result as StoreResult};

/// How many keys are forgotten in one transaction.
const PIECE: i64 = 1000;

/// An idempotency key, ready to be stored.
pub(super) struct Mark {
    workspace: WorkspaceId,
    scope: String,
    name: String,
    fingerprint: String,
    receipt: String,
    at: Timestamp,
}

impl Mark {
    pub(super) fn of(workspace: &WorkspaceId, once: Option<&Once>) -> StoreResult<Option<Self>> {
        let Some(once) = once else { return Ok(None) };
        Ok(Some(Self {
            workspace: workspace.clone(),
            scope: once.scope.clone(),
            name: once.key.clone(),
            fingerprint: once.fingerprint.clone(),
            receipt: to_json("receipt", &once.receipt)?,
            at: once.at,
        }))
    }

    /// The id at the end of the scope: what the call was for.
    fn subject(&self) -> Option<&str> {
        self.scope.rsplit_once(':').map(|(_, subject)| subject)
    }
}

/// Refuses when the key is taken.
pub(super) fn check(conn: &Connection, mark: Option<&Mark>) -> Result<(), Failure> {
    let Some(mark) = mark else { return Ok(()) };
    match find(conn, &mark.workspace, &mark.scope, &mark.name)? {
        Some(record) => Err(Error::AlreadyDone(record).into()),
        None => Ok(()),
    }
}

/// Remembers the key; it was checked in the same transaction.
pub(super) fn remember(conn: &Connection, mark: Option<&Mark>) -> Result<(), Failure> {
    let Some(mark) = mark else { return Ok(()) };
    conn.prepare_cached(
        "INSERT INTO once (workspace, scope, name, subject, fingerprint, receipt, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        mark.workspace.as_str(),
        mark.scope,
        mark.name,
        mark.subject(),
        mark.fingerprint,
        mark.receipt,
        mark.at.as_millis(),
    ])?;
    Ok(())
}

pub(super) fn find(
    conn: &Connection,
    workspace: &WorkspaceId,
    scope: &str,
    key: &str,
) -> Result<Option<OnceRecord>, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT fingerprint, receipt FROM once WHERE workspace = ? AND scope = ? AND name = ?",
    )?;
    let mut rows = statement.query(params![workspace.as_str(), scope, key])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(OnceRecord {
        fingerprint: row.get("fingerprint")?,
        receipt: from_json("receipt", text(row, "receipt")?)?,
    }))
}

/// Forgets up to [`PIECE`] keys from before `before`, and says how many.
pub(super) fn forget(conn: &Connection, before: Timestamp) -> Result<u64, Failure> {
    let count = conn
        .prepare_cached("DELETE FROM once WHERE key IN (SELECT key FROM once WHERE at < ? LIMIT ?)")?
        .execute(params![before.as_millis(), PIECE])?;
    Ok(u64::try_from(count).unwrap_or(u64::MAX))
}

/// Forgets the keys of calls for a session.
pub(super) fn forget_session(
    conn: &Connection,
    workspace: &WorkspaceId,
    session: &SessionId,
) -> Result<(), Failure> {
    conn.prepare_cached("DELETE FROM once WHERE workspace = ? AND subject = ?")?
        .execute(params![workspace.as_str(), session.as_str()])?;
    Ok(())
}
