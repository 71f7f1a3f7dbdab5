//! Event logs. The key of an event's row is made of its session's key and its position, so that a page is one
//! range of the table.

use std::ops::RangeInclusive;
use std::sync::Arc;

use oma_domain::event::Body;
use oma_domain::page::{Order, Page};
use oma_domain::{Event, EventId, Seq, SessionId, Timestamp, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::failure::{Failure, from_json, to_json};
use super::rows::{id, number, page, page_limit, text};
use super::sessions;
use crate::{Error, Result as StoreResult};

/// The last position that a log can have.
const LAST: u64 = u32::MAX as u64;

/// An event, ready to be stored.
pub(super) struct EventRow {
    id: EventId,
    seq: Seq,
    kind: &'static str,
    at: Timestamp,
    body: String,
}

impl EventRow {
    pub(super) fn new(event: &Event) -> StoreResult<Self> {
        Ok(Self {
            id: event.id.clone(),
            seq: event.seq,
            kind: event.body.kind(),
            at: event.at,
            body: to_json("event", &*event.body)?,
        })
    }
}

/// The key of a position. Position 0 is before the first event, so no row has it.
fn key(session: i64, seq: Seq) -> Result<i64, Failure> {
    let parts = u32::try_from(session)
        .ok()
        .filter(|key| i32::try_from(*key).is_ok())
        .zip(u32::try_from(seq.0).ok());
    match parts {
        Some((session, seq)) => Ok((i64::from(session) << 32) | i64::from(seq)),
        None => Err(Error::Internal("a log or the number of sessions is too long".into()).into()),
    }
}

/// The keys of a session's events.
fn keys(session: i64) -> Result<RangeInclusive<i64>, Failure> {
    Ok(key(session, Seq(0))?..=key(session, Seq(LAST))?)
}

/// Adds an event; its position was checked in the same transaction.
pub(super) fn append(
    conn: &Connection,
    workspace: &WorkspaceId,
    session: i64,
    row: &EventRow,
) -> Result<(), Failure> {
    let key = key(session, row.seq)?;
    conn.prepare_cached("INSERT INTO events (key, workspace, id, type, at, body) VALUES (?, ?, ?, ?, ?, ?)")?
        .execute(params![
            key,
            workspace.as_str(),
            row.id.as_str(),
            row.kind,
            row.at.as_millis(),
            row.body
        ])?;
    Ok(())
}

pub(super) fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    session: &SessionId,
    from: Option<Seq>,
    order: Order,
    limit: u32,
) -> Result<Page<Event, Seq>, Failure> {
    let limit = page_limit(limit);
    let Some(session_key) = sessions::key(conn, workspace, session)? else {
        return Ok(Page {
            rows: Vec::new(),
            next: None,
        });
    };
    let range = keys(session_key)?;
    // A cursor beyond every possible position is beyond the end.
    let cursor = |seq: Seq| key(session_key, Seq(seq.0.min(LAST)));
    let (sql, bounds) = match order {
        Order::Ascending => (
            "SELECT seq, id, at, body FROM events WHERE key > ? AND key <= ? ORDER BY key LIMIT ?",
            (cursor(from.unwrap_or_default())?, *range.end()),
        ),
        Order::Descending => (
            "SELECT seq, id, at, body FROM events WHERE key < ? AND key > ? ORDER BY key DESC LIMIT ?",
            (from.map_or(Ok(*range.end()), cursor)?, *range.start()),
        ),
    };
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query(params![bounds.0, bounds.1, limit + 1])?;
    page(rows, limit, |row| read(row, session), |event| event.seq)
}

/// Reads an event and the size of its body.
fn read(row: &Row<'_>, session: &SessionId) -> Result<(Event, usize), Failure> {
    let body = text(row, "body")?;
    let event = Event {
        id: id(row, "id", EventId::parse)?,
        seq: Seq(number(row, "seq")?),
        session: session.clone(),
        at: Timestamp(row.get("at")?),
        body: Arc::new(from_json::<Body>("event", body)?),
    };
    Ok((event, body.len()))
}

pub(super) fn locate(
    conn: &Connection,
    workspace: &WorkspaceId,
    session: &SessionId,
    event: &EventId,
) -> Result<Option<Seq>, Failure> {
    let Some(session) = sessions::key(conn, workspace, session)? else {
        return Ok(None);
    };
    let seq: Option<u32> = conn
        .prepare_cached("SELECT seq FROM events WHERE id = ? AND session = ?")?
        .query_row(params![event.as_str(), session], |row| row.get(0))
        .optional()?;
    Ok(seq.map(|seq| Seq(seq.into())))
}

/// Removes a session's log.
pub(super) fn clear(conn: &Connection, session: i64) -> Result<(), Failure> {
    let keys = keys(session)?;
    conn.prepare_cached("DELETE FROM events WHERE key BETWEEN ? AND ?")?
        .execute([keys.start(), keys.end()])?;
    Ok(())
}
