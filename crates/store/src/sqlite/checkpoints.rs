//! What is known of checkpoints. A trigger of the schema keeps the list of those that are released.

use async_trait::async_trait;
use oma_domain::{Checkpoint, CheckpointId, SessionId, Timestamp, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::failure::Failure;
use super::rows::{id, number, text};
use super::{Sqlite, sessions};
use crate::{Checkpoints, Error, Result as StoreResult};

const WHOLE: &str =
    "SELECT c.id, c.size, c.sha256, c.bytes, c.entries, c.skipped, c.created_at, s.id AS session
     FROM checkpoints c JOIN sessions s ON s.key = c.session
     WHERE c.ready = 1 AND c.workspace = ?";

fn begin(conn: &Connection, checkpoint: &Checkpoint, most: u32) -> Result<(), Failure> {
    let session = sessions::key(conn, &checkpoint.workspace, &checkpoint.session)?.ok_or(Error::NotFound)?;
    let count: u32 = conn
        .prepare_cached("SELECT count(*) FROM checkpoints WHERE session = ?")?
        .query_row([session], |row| row.get(0))?;
    if count >= most {
        return Err(Error::TooMany(most).into());
    }
    conn.prepare_cached(
        "INSERT INTO checkpoints (workspace, id, session, ready, size, sha256, bytes, entries, skipped, created_at)
         VALUES (?, ?, ?, 0, 0, '', 0, 0, 0, ?)",
    )?
    .execute(params![
        checkpoint.workspace.as_str(),
        checkpoint.id.as_str(),
        session,
        checkpoint.created_at.as_millis(),
    ])?;
    Ok(())
}

fn finish(conn: &Connection, checkpoint: &Checkpoint) -> Result<(), Failure> {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let found = conn
        .prepare_cached(
            "UPDATE checkpoints SET ready = 1, size = ?, sha256 = ?, bytes = ?, entries = ?, skipped = ?
             WHERE workspace = ? AND id = ? AND ready = 0",
        )?
        .execute(params![
            whole(checkpoint.size),
            checkpoint.sha256,
            whole(checkpoint.bytes),
            whole(checkpoint.entries),
            whole(checkpoint.skipped),
            checkpoint.workspace.as_str(),
            checkpoint.id.as_str(),
        ])?;
    if found == 0 {
        return Err(Error::NotFound.into());
    }
    Ok(())
}

fn read(row: &Row<'_>, workspace: &WorkspaceId) -> Result<Checkpoint, Failure> {
    Ok(Checkpoint {
        id: id(row, "id", CheckpointId::parse)?,
        workspace: workspace.clone(),
        session: id(row, "session", SessionId::parse)?,
        size: number(row, "size")?,
        sha256: text(row, "sha256")?.to_owned(),
        bytes: number(row, "bytes")?,
        entries: number(row, "entries")?,
        skipped: number(row, "skipped")?,
        created_at: Timestamp(number(row, "created_at")?),
    })
}

fn list(conn: &Connection, workspace: &WorkspaceId, session: &SessionId) -> Result<Vec<Checkpoint>, Failure> {
    let mut statement = conn.prepare_cached(&format!("{WHOLE} AND s.id = ? ORDER BY c.key DESC"))?;
    let mut rows = statement.query(params![workspace.as_str(), session.as_str()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row, workspace)?);
    }
    Ok(found)
}

/// Removes those of a session that goes.
pub(super) fn clear(conn: &Connection, session: i64) -> Result<(), Failure> {
    conn.prepare_cached("DELETE FROM checkpoints WHERE session = ?")?
        .execute([session])?;
    Ok(())
}

#[async_trait]
impl Checkpoints for Sqlite {
    async fn begin_checkpoint(&self, checkpoint: &Checkpoint, most: u32) -> StoreResult<()> {
        let checkpoint = checkpoint.clone();
        self.writer.run(move |conn| begin(conn, &checkpoint, most)).await
    }

    async fn finish_checkpoint(&self, checkpoint: &Checkpoint) -> StoreResult<()> {
        let checkpoint = checkpoint.clone();
        self.writer.run(move |conn| finish(conn, &checkpoint)).await
    }

    async fn checkpoint(
        &self,
        workspace: &WorkspaceId,
        id: &CheckpointId,
    ) -> StoreResult<Option<Checkpoint>> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers
            .run(move |conn| {
                let mut statement = conn.prepare_cached(&format!("{WHOLE} AND c.id = ?"))?;
                let found = statement.query_row(params![workspace.as_str(), id.as_str()], |row| {
                    Ok(read(row, &workspace))
                });
                found.optional()?.transpose()
            })
            .await
    }

    async fn checkpoints(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
    ) -> StoreResult<Vec<Checkpoint>> {
        let (workspace, session) = (workspace.clone(), session.clone());
        self.readers
            .run(move |conn| list(conn, &workspace, &session))
            .await
    }

    async fn delete_checkpoint(&self, workspace: &WorkspaceId, id: &CheckpointId) -> StoreResult<bool> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.writer
            .run(move |conn| {
                let gone = conn
                    .prepare_cached("DELETE FROM checkpoints WHERE workspace = ? AND id = ?")?
                    .execute(params![workspace.as_str(), id.as_str()])?;
                Ok(gone > 0)
            })
            .await
    }

    async fn give_up_checkpoints(&self) -> StoreResult<Vec<CheckpointId>> {
        self.writer
            .run(|conn| {
                let mut statement =
                    conn.prepare_cached("DELETE FROM checkpoints WHERE ready = 0 RETURNING id")?;
                ids(&mut statement.query([])?)
            })
            .await
    }

    async fn released_checkpoints(
        &self,
        after: Option<&CheckpointId>,
        limit: u32,
    ) -> StoreResult<Vec<CheckpointId>> {
        let after = after.map_or_else(String::new, |id| id.as_str().to_owned());
        self.readers
            .run(move |conn| {
                let mut statement = conn
                    .prepare_cached("SELECT id FROM released_checkpoints WHERE id > ? ORDER BY id LIMIT ?")?;
                ids(&mut statement.query(params![after, limit])?)
            })
            .await
    }

    async fn forget_released_checkpoints(&self, ids: &[CheckpointId]) -> StoreResult<()> {
        let ids = ids.to_vec();
        self.writer
            .run(move |conn| {
                let mut statement = conn.prepare_cached("DELETE FROM released_checkpoints WHERE id = ?")?;
                for id in &ids {
                    statement.execute([id.as_str()])?;
                }
                Ok(())
            })
            .await
    }
}

fn ids(rows: &mut rusqlite::Rows<'_>) -> Result<Vec<CheckpointId>, Failure> {
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(id(row, "id", CheckpointId::parse)?);
    }
    Ok(found)
}
