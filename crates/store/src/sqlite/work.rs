//! The work queue. An item is stored whole as JSON, beside the columns that it is found by.

use async_trait::async_trait;
use oma_domain::audit::Entry;
use oma_domain::page::Page;
use oma_domain::work::{State, Work};
use oma_domain::{EnvironmentId, SessionId, Timestamp, WorkId, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Params, Row, params};

use super::Sqlite;
use super::audit::{self, EntryRow};
use super::failure::{Failure, from_json, to_json};
use super::rows::{number, page, page_limit, text, unknown_cursor};
use crate::work::KEPT;
use crate::{Error, Result, WorkQueue, WorkStats};

/// An item, ready to be stored.
struct WorkRow {
    work: Work,
    json: String,
}

impl WorkRow {
    fn new(work: &Work) -> Result<Self> {
        Ok(Self {
            work: work.clone(),
            json: to_json("work item", work)?,
        })
    }
}

fn read(row: &Row<'_>) -> Result<(Work, usize), Failure> {
    let json = text(row, "work")?;
    Ok((from_json("work item", json)?, json.len()))
}

fn one(conn: &Connection, condition: &str, params: impl Params) -> Result<Option<Work>, Failure> {
    let mut statement = conn.prepare_cached(&format!("SELECT work FROM work WHERE {condition} LIMIT 1"))?;
    let mut rows = statement.query(params)?;
    rows.next()?
        .map(|row| read(row).map(|(work, _)| work))
        .transpose()
}

fn of_session(
    conn: &Connection,
    workspace: &WorkspaceId,
    session: &SessionId,
) -> Result<Option<Work>, Failure> {
    let condition = "workspace = ? AND session = ? AND state != 'stopped'";
    one(conn, condition, params![workspace.as_str(), session.as_str()])
}

fn find(
    conn: &Connection,
    workspace: &WorkspaceId,
    environment: &EnvironmentId,
    id: &WorkId,
) -> Result<Option<Work>, Failure> {
    let condition = "workspace = ? AND environment = ? AND id = ?";
    one(
        conn,
        condition,
        params![workspace.as_str(), environment.as_str(), id.as_str()],
    )
}

fn add(conn: &Connection, row: &WorkRow) -> Result<bool, Failure> {
    let WorkRow { work, json } = row;
    if let Some(open) = of_session(conn, &work.workspace, &work.session)? {
        if open.state != State::Stopping || work.created_at < open.due {
            return Ok(false);
        }
        let over = open
            .stopped(true, work.created_at)
            .map_err(|refusal| Error::Internal(refusal.to_string()))?;
        write(conn, &WorkRow::new(&over)?)?;
    }
    conn.prepare_cached(
        "INSERT INTO work (workspace, id, environment, session, state, acknowledged, polled_at, due, created_at, work)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        work.workspace.as_str(),
        work.id.as_str(),
        work.environment.as_str(),
        work.session.as_str(),
        work.state.as_str(),
        work.acknowledged_at.is_some(),
        work.polled_at.map(Timestamp::as_millis),
        work.due.as_millis(),
        work.created_at.as_millis(),
        json,
    ])?;
    conn.prepare_cached(
        "DELETE FROM work WHERE session = ?1 AND state = 'stopped' AND key <=
         (SELECT key FROM work WHERE session = ?1 AND state = 'stopped' ORDER BY key DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![work.session.as_str(), KEPT])?;
    Ok(true)
}

fn write(conn: &Connection, row: &WorkRow) -> Result<(), Failure> {
    let WorkRow { work, json } = row;
    conn.prepare_cached(
        "UPDATE work SET state = ?, acknowledged = ?, polled_at = ?, due = ?, work = ? WHERE workspace = ? AND id = ?",
    )?
    .execute(params![
        work.state.as_str(),
        work.acknowledged_at.is_some(),
        work.polled_at.map(Timestamp::as_millis),
        work.due.as_millis(),
        json,
        work.workspace.as_str(),
        work.id.as_str(),
    ])?;
    Ok(())
}

/// Whether an item's session works, or waits for answers.
fn needs_hands(conn: &Connection, work: &Work) -> Result<bool, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT 1 FROM sessions s JOIN session_states t ON t.session = s.key
         WHERE s.workspace = ? AND s.id = ? AND t.archived = 0 AND t.state ->> '$.phase.phase' IN ('running', 'blocked')",
    )?;
    Ok(statement.exists(params![work.workspace.as_str(), work.session.as_str()])?)
}

/// What goes with a session.
pub(super) fn forget_session(
    conn: &Connection,
    workspace: &WorkspaceId,
    session: &SessionId,
) -> Result<(), Failure> {
    conn.prepare_cached("DELETE FROM work WHERE workspace = ? AND session = ?")?
        .execute(params![workspace.as_str(), session.as_str()])?;
    Ok(())
}

#[async_trait]
impl WorkQueue for Sqlite {
    async fn add_work(&self, work: &Work) -> Result<bool> {
        let row = WorkRow::new(work)?;
        self.writer.run(move |conn| add(conn, &row)).await
    }

    async fn work(
        &self,
        workspace: &WorkspaceId,
        environment: &EnvironmentId,
        id: &WorkId,
    ) -> Result<Option<Work>> {
        let (workspace, environment, id) = (workspace.clone(), environment.clone(), id.clone());
        self.readers
            .run(move |conn| find(conn, &workspace, &environment, &id))
            .await
    }

    async fn work_of(&self, workspace: &WorkspaceId, session: &SessionId) -> Result<Option<Work>> {
        let (workspace, session) = (workspace.clone(), session.clone());
        self.readers
            .run(move |conn| of_session(conn, &workspace, &session))
            .await
    }

    async fn due_work(
        &self,
        workspace: &WorkspaceId,
        environment: &EnvironmentId,
        reclaim_ms: u64,
        now: Timestamp,
    ) -> Result<Option<Work>> {
        let (workspace, environment) = (workspace.clone(), environment.clone());
        let forgotten = now
            .as_millis()
            .saturating_sub(i64::try_from(reclaim_ms).unwrap_or(i64::MAX));
        let condition = "workspace = ?1 AND environment = ?2 AND state != 'stopped' AND (
                (state IN ('queued', 'starting', 'active') AND due <= ?3)
                OR (state = 'starting' AND acknowledged = 0 AND polled_at <= ?4))
            ORDER BY key";
        self.readers
            .run(move |conn| {
                let params = params![
                    workspace.as_str(),
                    environment.as_str(),
                    now.as_millis(),
                    forgotten
                ];
                one(conn, condition, params)
            })
            .await
    }

    async fn update_work(
        &self,
        before: &Work,
        after: &Work,
        next: Option<&Work>,
        audit: Option<&Entry>,
    ) -> Result<()> {
        let (before, after) = (before.clone(), WorkRow::new(after)?);
        let next = next.map(WorkRow::new).transpose()?;
        let audit = audit.cloned().map(EntryRow::new).transpose()?;
        self.writer
            .run(move |conn| {
                let current = find(conn, &before.workspace, &before.environment, &before.id)?;
                if current.ok_or(Error::NotFound)? != before {
                    return Err(Error::Conflict.into());
                }
                write(conn, &after)?;
                if let Some(next) = next.as_ref().filter(|_| after.work.state == State::Stopped)
                    && needs_hands(conn, &next.work)?
                {
                    add(conn, next)?;
                }
                audit.as_ref().map_or(Ok(()), |audit| audit::append(conn, audit))
            })
            .await
    }

    async fn works(
        &self,
        workspace: &WorkspaceId,
        environment: &EnvironmentId,
        after: Option<&WorkId>,
        limit: u32,
    ) -> Result<Page<Work, WorkId>> {
        let (workspace, environment, after) = (workspace.clone(), environment.clone(), after.cloned());
        self.readers
            .run(move |conn| {
                let limit = page_limit(limit);
                let from = match after {
                    Some(id) => conn
                        .prepare_cached("SELECT key FROM work WHERE workspace = ? AND environment = ? AND id = ?")?
                        .query_row(
                            params![workspace.as_str(), environment.as_str(), id.as_str()],
                            |row| row.get(0),
                        )
                        .optional()?
                        .ok_or_else(unknown_cursor)?,
                    None => i64::MAX,
                };
                let mut statement = conn.prepare_cached(
                    "SELECT work FROM work WHERE workspace = ? AND environment = ? AND key < ? ORDER BY key DESC LIMIT ?",
                )?;
                let rows =
                    statement.query(params![workspace.as_str(), environment.as_str(), from, limit + 1])?;
                page(rows, limit, read, |work| work.id.clone())
            })
            .await
    }

    async fn work_stats(&self, workspace: &WorkspaceId, environment: &EnvironmentId) -> Result<WorkStats> {
        let (workspace, environment) = (workspace.clone(), environment.clone());
        self.readers
            .run(move |conn| {
                let mut statement = conn.prepare_cached(
                    "SELECT count(*) FILTER (WHERE state = 'queued') AS queued,
                            count(*) FILTER (WHERE state = 'starting' AND acknowledged = 0) AS pending,
                            min(created_at) FILTER (WHERE state = 'queued' OR (state = 'starting' AND acknowledged = 0))
                                AS oldest
                     FROM work WHERE workspace = ? AND environment = ? AND state != 'stopped'",
                )?;
                let mut rows = statement.query(params![workspace.as_str(), environment.as_str()])?;
                let Some(row) = rows.next()? else {
                    return Ok(WorkStats::default());
                };
                Ok(WorkStats {
                    queued: number(row, "queued")?,
                    pending: number(row, "pending")?,
                    oldest: row.get::<_, Option<i64>>("oldest")?.map(Timestamp),
                })
            })
            .await
    }
}
