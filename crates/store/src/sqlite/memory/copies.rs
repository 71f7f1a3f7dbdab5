//! What sessions' copies of stores were when they were last the same as the store.

use oma_domain::memory::{Path, Sha};
use oma_domain::{MemoryStoreId, SessionId, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::place;
use crate::Error;
use crate::sqlite::failure::{Failure, unreadable};
use crate::sqlite::rows::text;

/// The row's key of a session.
pub(super) fn session(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &SessionId,
) -> Result<Option<i64>, Failure> {
    Ok(conn
        .prepare_cached("SELECT key FROM sessions WHERE workspace = ? AND id = ?")?
        .query_row(params![workspace.as_str(), id.as_str()], |row| row.get(0))
        .optional()?)
}

pub(super) fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &SessionId,
    store: &MemoryStoreId,
) -> Result<Vec<(Path, Sha)>, Failure> {
    let (Some(session), Some(place)) = (session(conn, workspace, id)?, place(conn, workspace, store)?) else {
        return Ok(Vec::new());
    };
    let mut statement = conn.prepare_cached(
        "SELECT path, sha FROM memory_copies WHERE session = ? AND store = ? ORDER BY path",
    )?;
    let mut rows = statement.query(params![session, place.key])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let path = Path::parse(text(row, "path")?).map_err(|error| unreadable("path", error))?;
        found.push((path, Sha(row.get("sha")?)));
    }
    Ok(found)
}

pub(super) fn set(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &SessionId,
    store: &MemoryStoreId,
    paths: &[(Path, Option<Sha>)],
) -> Result<(), Failure> {
    let session = session(conn, workspace, id)?.ok_or(Error::NotFound)?;
    let store = place(conn, workspace, store)?.ok_or(Error::NotFound)?.key;
    for (path, sha) in paths {
        set_one(conn, workspace, session, store, path, *sha)?;
    }
    Ok(())
}

pub(super) fn set_one(
    conn: &Connection,
    workspace: &WorkspaceId,
    session: i64,
    store: i64,
    path: &Path,
    sha: Option<Sha>,
) -> Result<(), Failure> {
    match sha {
        Some(sha) => conn
            .prepare_cached(
                "INSERT INTO memory_copies (workspace, session, store, path, sha) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (session, store, path) DO UPDATE SET sha = excluded.sha",
            )?
            .execute(params![workspace.as_str(), session, store, path.as_str(), sha.0])?,
        None => conn
            .prepare_cached("DELETE FROM memory_copies WHERE session = ? AND store = ? AND path = ?")?
            .execute(params![session, store, path.as_str()])?,
    };
    Ok(())
}
