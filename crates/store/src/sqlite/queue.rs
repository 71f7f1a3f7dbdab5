//! Messages that wait for a busy session.

use std::collections::VecDeque;
use std::sync::Arc;

use oma_domain::session::{QueueChange, Queued};
use oma_domain::{EventId, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::failure::{Failure, from_json, to_json};
use super::rows::text;
use crate::{Error, Result as StoreResult};

/// A change to a queue, ready to be stored.
pub(super) enum Change {
    Push { id: EventId, body: String },
    Pop(EventId),
    Clear,
}

impl Change {
    pub(super) fn new(change: &QueueChange) -> StoreResult<Self> {
        Ok(match change {
            QueueChange::Push(message) => Self::Push {
                id: message.id.clone(),
                body: to_json("message", &**message)?,
            },
            QueueChange::Pop(id) => Self::Pop(id.clone()),
            QueueChange::Clear => Self::Clear,
        })
    }
}

pub(super) fn apply(
    conn: &Connection,
    workspace: &WorkspaceId,
    session: i64,
    change: &Change,
) -> Result<(), Failure> {
    match change {
        Change::Push { id, body } => {
            // The new key is above all others, so it goes to the end.
            conn.prepare_cached("INSERT INTO queue (session, workspace, id, body) VALUES (?, ?, ?, ?)")?
                .execute(params![session, workspace.as_str(), id.as_str(), body])?;
            Ok(())
        }
        Change::Pop(id) => pop(conn, session, id),
        Change::Clear => clear(conn, session),
    }
}

fn pop(conn: &Connection, session: i64, id: &EventId) -> Result<(), Failure> {
    let oldest: Option<(i64, String)> = conn
        .prepare_cached("SELECT key, id FROM queue WHERE session = ? ORDER BY key LIMIT 1")?
        .query_row([session], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match oldest {
        Some((key, oldest)) if oldest == id.as_str() => {
            conn.prepare_cached("DELETE FROM queue WHERE key = ?")?
                .execute([key])?;
            Ok(())
        }
        _ => Err(Error::Internal(format!("{id} is not the oldest message of the queue")).into()),
    }
}

/// Removes all messages of a session.
pub(super) fn clear(conn: &Connection, session: i64) -> Result<(), Failure> {
    conn.prepare_cached("DELETE FROM queue WHERE session = ?")?
        .execute([session])?;
    Ok(())
}

/// Whether messages wait.
pub(super) fn waits(conn: &Connection, session: i64) -> Result<bool, Failure> {
    Ok(conn
        .prepare_cached("SELECT 1 FROM queue WHERE session = ?")?
        .exists([session])?)
}

/// A session's messages, oldest first. The domain bounds their number.
pub(super) fn list(conn: &Connection, session: i64) -> Result<VecDeque<Arc<Queued>>, Failure> {
    let mut statement = conn.prepare_cached("SELECT body FROM queue WHERE session = ? ORDER BY key")?;
    let mut rows = statement.query([session])?;
    let mut queue = VecDeque::new();
    while let Some(row) = rows.next()? {
        queue.push_back(Arc::new(from_json::<Queued>("message", text(row, "body")?)?));
    }
    Ok(queue)
}
