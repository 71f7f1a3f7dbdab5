//! What sessions' sandboxes are given.

use oma_domain::resource::Spec;
use oma_domain::{File, Resource, ResourceId, SessionId, Timestamp, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::failure::{Failure, from_json, to_json};
use super::rows::{id, text};
use super::{files, sessions};
use crate::Error;

const WHOLE: &str = "SELECT id, created_at, updated_at, spec FROM session_resources";

pub(super) fn add(
    conn: &Connection,
    workspace: &WorkspaceId,
    session: i64,
    resource: &Resource,
) -> Result<(), Failure> {
    conn.prepare_cached(
        "INSERT INTO session_resources (workspace, session, id, created_at, updated_at, spec)
         VALUES (?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        workspace.as_str(),
        session,
        resource.id.as_str(),
        resource.created_at.as_millis(),
        resource.updated_at.as_millis(),
        to_json("resource", &resource.spec)?,
    ])?;
    Ok(())
}

/// Adds one to a session that is there already.
pub(super) fn add_later(
    conn: &Connection,
    workspace: &WorkspaceId,
    session: &SessionId,
    resource: &Resource,
    copy: &File,
    (most, room): (u32, u64),
) -> Result<(), Failure> {
    let session = sessions::key(conn, workspace, session)?.ok_or(Error::NotFound)?;
    let count: u32 = conn
        .prepare_cached("SELECT count(*) FROM session_resources WHERE session = ?")?
        .query_row([session], |row| row.get(0))?;
    if count >= most {
        return Err(Error::TooMany(count).into());
    }
    files::add(conn, copy, Some(session), None, room)?;
    add(conn, workspace, session, resource)
}

/// Those of the session with this key.
pub(super) fn list(conn: &Connection, session: i64) -> Result<Vec<Resource>, Failure> {
    let mut statement = conn.prepare_cached(&format!("{WHOLE} WHERE session = ? ORDER BY key"))?;
    let mut rows = statement.query([session])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Result<Resource, Failure> {
    Ok(Resource {
        id: id(row, "id", ResourceId::parse)?,
        spec: from_json("resource", text(row, "spec")?)?,
        created_at: Timestamp(row.get("created_at")?),
        updated_at: Timestamp(row.get("updated_at")?),
    })
}

pub(super) fn update(
    conn: &Connection,
    workspace: &WorkspaceId,
    session: &SessionId,
    resource: &Resource,
) -> Result<bool, Failure> {
    let Some(session) = sessions::key(conn, workspace, session)? else {
        return Ok(false);
    };
    let changed = conn
        .prepare_cached("UPDATE session_resources SET updated_at = ?, spec = ? WHERE session = ? AND id = ?")?
        .execute(params![
            resource.updated_at.as_millis(),
            to_json("resource", &resource.spec)?,
            session,
            resource.id.as_str(),
        ])?;
    Ok(changed > 0)
}

pub(super) fn remove(
    conn: &Connection,
    workspace: &WorkspaceId,
    session: &SessionId,
    resource: &ResourceId,
) -> Result<Option<Resource>, Failure> {
    let Some(session) = sessions::key(conn, workspace, session)? else {
        return Ok(None);
    };
    let mut statement = conn.prepare_cached(&format!("{WHOLE} WHERE session = ? AND id = ?"))?;
    let found = statement
        .query_row(params![session, resource.as_str()], |row| Ok(read(row)))
        .optional()?
        .transpose()?;
    let Some(found) = found else { return Ok(None) };
    conn.prepare_cached("DELETE FROM session_resources WHERE session = ? AND id = ?")?
        .execute(params![session, resource.as_str()])?;
    if let Spec::File { file, .. } = &found.spec {
        files::delete(conn, workspace, file)?;
    }
    Ok(Some(found))
}

/// Forgets those of a session that goes.
pub(super) fn clear(conn: &Connection, session: i64) -> Result<(), Failure> {
    conn.prepare_cached("DELETE FROM session_resources WHERE session = ?")?
        .execute([session])?;
    Ok(())
}
