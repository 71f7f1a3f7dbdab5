//! What is known of files. The triggers of the schema keep the sums, and the list of those that are released.

use async_trait::async_trait;
use oma_domain::page::{Order, Page};
use oma_domain::{File, FileId, Resource, ResourceId, SessionId, Timestamp, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params};

use super::failure::Failure;
use super::once::{self, Mark};
use super::rows::{id, number, optional_id, page, page_limit, text, unknown_cursor};
use super::{Sqlite, resources, sessions};
use crate::{Error, FileFilter, Files, Once, Output, Result as StoreResult};

const WHOLE: &str =
    "SELECT f.id, f.filename, f.mime_type, f.size, f.downloadable, f.created_at, f.expires_at,
            s.id AS session
     FROM files f LEFT JOIN sessions s ON s.key = f.session";

/// Where a session has made a file, and what tells whether it has changed since.
pub(super) type Made<'a> = (&'a str, &'a str);

/// Adds a file, of the session with this key if it has one.
pub(super) fn add(
    conn: &Connection,
    file: &File,
    session: Option<i64>,
    made: Option<Made<'_>>,
    room: u64,
) -> Result<(), Failure> {
    let total: Option<i64> = conn
        .prepare_cached("SELECT bytes FROM file_totals WHERE workspace = ?")?
        .query_row([file.workspace.as_str()], |row| row.get(0))
        .optional()?;
    let total = u64::try_from(total.unwrap_or(0)).unwrap_or(0);
    if total.saturating_add(file.size) > room {
        return Err(Error::NoRoom(room).into());
    }
    let size = i64::try_from(file.size).map_err(|_| Error::NoRoom(room))?;
    conn.prepare_cached(
        "INSERT INTO files (workspace, id, filename, mime_type, size, downloadable, created_at, expires_at, session,
                            output, stamp)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        file.workspace.as_str(),
        file.id.as_str(),
        file.filename,
        file.mime_type,
        size,
        file.downloadable,
        file.created_at.as_millis(),
        file.expires_at.map(Timestamp::as_millis),
        session,
        made.map(|(path, _)| path),
        made.map(|(_, stamp)| stamp),
    ])?;
    Ok(())
}

fn put_output(
    conn: &Connection,
    file: &File,
    session: &SessionId,
    made: Made<'_>,
    room: u64,
) -> Result<(), Failure> {
    let session = sessions::key(conn, &file.workspace, session)?.ok_or(Error::NotFound)?;
    conn.prepare_cached("DELETE FROM files WHERE session = ? AND output = ?")?
        .execute(params![session, made.0])?;
    add(conn, file, Some(session), Some(made), room)
}

fn find(conn: &Connection, workspace: &WorkspaceId, id: &FileId) -> Result<Option<File>, Failure> {
    let mut statement = conn.prepare_cached(&format!("{WHOLE} WHERE f.workspace = ? AND f.id = ?"))?;
    let mut rows = statement.query(params![workspace.as_str(), id.as_str()])?;
    rows.next()?
        .map(|row| read(row, workspace).map(|(file, _)| file))
        .transpose()
}

fn read(row: &Row<'_>, workspace: &WorkspaceId) -> Result<(File, usize), Failure> {
    let file = File {
        id: id(row, "id", FileId::parse)?,
        workspace: workspace.clone(),
        filename: text(row, "filename")?.to_owned(),
        mime_type: text(row, "mime_type")?.to_owned(),
        size: number(row, "size")?,
        downloadable: row.get("downloadable")?,
        created_at: Timestamp(row.get("created_at")?),
        expires_at: row.get::<_, Option<i64>>("expires_at")?.map(Timestamp),
        session: optional_id(row, "session", SessionId::parse)?,
    };
    let size = file.filename.len() + file.mime_type.len();
    Ok((file, size))
}

fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    filter: &FileFilter,
    order: Order,
    after: Option<&FileId>,
    limit: u32,
) -> Result<Page<File, FileId>, Failure> {
    let limit = page_limit(limit);
    let after: Option<i64> = match after {
        Some(id) => Some(
            conn.prepare_cached("SELECT key FROM files WHERE workspace = ? AND id = ?")?
                .query_row(params![workspace.as_str(), id.as_str()], |row| row.get(0))
                .optional()?
                .ok_or_else(unknown_cursor)?,
        ),
        None => None,
    };
    let session = match &filter.session {
        Some(session) => match sessions::key(conn, workspace, session)? {
            Some(key) => Some(key),
            None => {
                return Ok(Page {
                    rows: Vec::new(),
                    next: None,
                });
            }
        },
        None => None,
    };
    let (workspace_text, now, one_more) = (workspace.as_str(), filter.now.as_millis(), limit + 1);
    let mut values: Vec<&dyn ToSql> = vec![&workspace_text, &now];
    let mut sql = format!("{WHOLE} WHERE f.workspace = ? AND (f.expires_at IS NULL OR f.expires_at > ?)");
    if session.is_some() {
        sql.push_str(" AND f.session = ?");
        values.push(&session);
    }
    let (beyond, direction) = match order {
        Order::Ascending => (">", ""),
        Order::Descending => ("<", " DESC"),
    };
    if after.is_some() {
        sql.push_str(&format!(" AND f.key {beyond} ?"));
        values.push(&after);
    }
    sql.push_str(&format!(" ORDER BY f.key{direction} LIMIT ?"));
    values.push(&one_more);
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query(values.as_slice())?;
    page(rows, limit, |row| read(row, workspace), |file| file.id.clone())
}

pub(super) fn delete(conn: &Connection, workspace: &WorkspaceId, id: &FileId) -> Result<bool, Failure> {
    let gone = conn
        .prepare_cached("DELETE FROM files WHERE workspace = ? AND id = ?")?
        .execute(params![workspace.as_str(), id.as_str()])?;
    Ok(gone > 0)
}

/// Removes those of a session that goes.
pub(super) fn clear(conn: &Connection, session: i64) -> Result<(), Failure> {
    conn.prepare_cached("DELETE FROM files WHERE session = ?")?
        .execute([session])?;
    Ok(())
}

fn expire(conn: &Connection, now: Timestamp, limit: u32) -> Result<u64, Failure> {
    let now = now.as_millis();
    conn.prepare_cached(
        "INSERT INTO expired_files (id, workspace, at)
         SELECT id, workspace, expires_at FROM files WHERE expires_at <= ? ORDER BY expires_at LIMIT ?",
    )?
    .execute(params![now, limit])?;
    let gone = conn
        .prepare_cached("DELETE FROM files WHERE expires_at <= ? AND id IN (SELECT id FROM expired_files)")?
        .execute([now])?;
    Ok(gone as u64)
}

fn has_expired(conn: &Connection, workspace: &WorkspaceId, id: &FileId) -> Result<bool, Failure> {
    Ok(conn
        .prepare_cached("SELECT 1 FROM expired_files WHERE id = ? AND workspace = ?")?
        .exists(params![id.as_str(), workspace.as_str()])?)
}

fn ids(mut statement: rusqlite::CachedStatement<'_>, limit: u32) -> Result<Vec<FileId>, Failure> {
    let mut rows = statement.query([limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(id(row, "id", FileId::parse)?);
    }
    Ok(found)
}

fn outputs(conn: &Connection, workspace: &WorkspaceId, session: &SessionId) -> Result<Vec<Output>, Failure> {
    let Some(session) = sessions::key(conn, workspace, session)? else {
        return Ok(Vec::new());
    };
    let mut statement = conn.prepare_cached(
        "SELECT id, output, stamp FROM files WHERE session = ? AND output IS NOT NULL ORDER BY output",
    )?;
    let mut rows = statement.query([session])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Output {
            path: text(row, "output")?.to_owned(),
            stamp: text(row, "stamp")?.to_owned(),
            file: id(row, "id", FileId::parse)?,
        });
    }
    Ok(found)
}

#[async_trait]
impl Files for Sqlite {
    async fn add_file(&self, file: &File, room: u64, once: Option<&Once>) -> StoreResult<()> {
        let once = Mark::of(&file.workspace, once)?;
        let file = file.clone();
        self.writer
            .run(move |conn| {
                once::check(conn, once.as_ref())?;
                add(conn, &file, None, None, room)?;
                once::remember(conn, once.as_ref())
            })
            .await
    }

    async fn file(&self, workspace: &WorkspaceId, id: &FileId) -> StoreResult<Option<File>> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers.run(move |conn| find(conn, &workspace, &id)).await
    }

    async fn files(
        &self,
        workspace: &WorkspaceId,
        filter: &FileFilter,
        order: Order,
        after: Option<&FileId>,
        limit: u32,
    ) -> StoreResult<Page<File, FileId>> {
        let (workspace, filter, after) = (workspace.clone(), filter.clone(), after.cloned());
        self.readers
            .run(move |conn| list(conn, &workspace, &filter, order, after.as_ref(), limit))
            .await
    }

    async fn delete_file(&self, workspace: &WorkspaceId, id: &FileId) -> StoreResult<bool> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.writer.run(move |conn| delete(conn, &workspace, &id)).await
    }

    async fn expire_files(&self, now: Timestamp, limit: u32) -> StoreResult<u64> {
        self.writer.run(move |conn| expire(conn, now, limit)).await
    }

    async fn has_expired(&self, workspace: &WorkspaceId, id: &FileId) -> StoreResult<bool> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers
            .run(move |conn| has_expired(conn, &workspace, &id))
            .await
    }

    async fn forget_expired(&self, before: Timestamp) -> StoreResult<u64> {
        self.writer
            .run(move |conn| {
                let gone = conn
                    .prepare_cached("DELETE FROM expired_files WHERE at < ?")?
                    .execute([before.as_millis()])?;
                Ok(gone as u64)
            })
            .await
    }

    async fn released_files(&self, limit: u32) -> StoreResult<Vec<FileId>> {
        self.readers
            .run(move |conn| {
                let statement = conn.prepare_cached("SELECT id FROM released_files LIMIT ?")?;
                ids(statement, limit)
            })
            .await
    }

    async fn forget_released(&self, ids: &[FileId]) -> StoreResult<()> {
        let ids = ids.to_vec();
        self.writer
            .run(move |conn| {
                let mut statement = conn.prepare_cached("DELETE FROM released_files WHERE id = ?")?;
                for id in &ids {
                    statement.execute([id.as_str()])?;
                }
                Ok(())
            })
            .await
    }

    async fn existing_files(&self, ids: &[FileId]) -> StoreResult<Vec<FileId>> {
        let ids = ids.to_vec();
        self.readers
            .run(move |conn| {
                let mut statement = conn.prepare_cached("SELECT 1 FROM files WHERE id = ?")?;
                let mut found = Vec::new();
                for id in ids {
                    if statement.exists([id.as_str()])? {
                        found.push(id);
                    }
                }
                Ok(found)
            })
            .await
    }

    async fn outputs(&self, workspace: &WorkspaceId, session: &SessionId) -> StoreResult<Vec<Output>> {
        let (workspace, session) = (workspace.clone(), session.clone());
        self.readers
            .run(move |conn| outputs(conn, &workspace, &session))
            .await
    }

    async fn put_output(
        &self,
        file: &File,
        session: &SessionId,
        path: &str,
        stamp: &str,
        room: u64,
    ) -> StoreResult<()> {
        let (file, session) = (file.clone(), session.clone());
        let (path, stamp) = (path.to_owned(), stamp.to_owned());
        self.writer
            .run(move |conn| put_output(conn, &file, &session, (&path, &stamp), room))
            .await
    }

    async fn add_resource(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        resource: &Resource,
        copy: &File,
        most: u32,
        room: u64,
    ) -> StoreResult<()> {
        let (workspace, session) = (workspace.clone(), session.clone());
        let (resource, copy) = (resource.clone(), copy.clone());
        self.writer
            .run(move |conn| resources::add_later(conn, &workspace, &session, &resource, &copy, (most, room)))
            .await
    }

    async fn resources(&self, workspace: &WorkspaceId, session: &SessionId) -> StoreResult<Vec<Resource>> {
        let (workspace, session) = (workspace.clone(), session.clone());
        self.readers
            .run(move |conn| match sessions::key(conn, &workspace, &session)? {
                Some(session) => resources::list(conn, session),
                None => Ok(Vec::new()),
            })
            .await
    }

    async fn update_resource(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        resource: &Resource,
    ) -> StoreResult<bool> {
        let (workspace, session, resource) = (workspace.clone(), session.clone(), resource.clone());
        self.writer
            .run(move |conn| resources::update(conn, &workspace, &session, &resource))
            .await
    }

    async fn remove_resource(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        id: &ResourceId,
    ) -> StoreResult<Option<Resource>> {
        let (workspace, session, id) = (workspace.clone(), session.clone(), id.clone());
        self.writer
            .run(move |conn| resources::remove(conn, &workspace, &session, &id))
            .await
    }
}
