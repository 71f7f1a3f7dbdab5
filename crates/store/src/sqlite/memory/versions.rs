//! Versions of memories.

use oma_domain::memory::{Operation, Path, Sha, Version};
use oma_domain::page::{Order, Page};
use oma_domain::{Actor, MemoryId, MemoryStoreId, MemoryVersionId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params};

use super::place;
use crate::Error;
use crate::memories::{Change, VersionFilter};
use crate::sqlite::failure::{Failure, unreadable};
use crate::sqlite::rows::{ends, id, number, optional_text, page, page_limit, start, text, unknown_cursor};

fn columns(content: bool) -> String {
    let content = if content { "content" } else { "NULL AS content" };
    format!(
        "SELECT id, memory, operation, author, path, sha, size, created_at, redacted_at, redacted_by, {content}
         FROM memory_versions"
    )
}

pub(super) fn find(
    conn: &Connection,
    store: &MemoryStoreId,
    key: i64,
    id: &MemoryVersionId,
    content: bool,
) -> Result<Option<Version>, Failure> {
    let sql = format!("{} WHERE store = ? AND id = ?", columns(content));
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params![key, id.as_str()])?;
    rows.next()?
        .map(|row| read(row, store).map(|(version, _)| version))
        .transpose()
}

/// Reads a version, and its size.
fn read(row: &Row<'_>, store: &MemoryStoreId) -> Result<(Version, usize), Failure> {
    let actor = |text: &str| Actor::parse(text).ok_or_else(|| unreadable("author", text));
    let operation = text(row, "operation")?;
    let path = optional_text(row, "path")?.map(Path::parse).transpose();
    let digest = match row.get::<_, Option<[u8; 32]>>("sha")? {
        Some(sha) => Some((Sha(sha), number(row, "size")?)),
        None => None,
    };
    let redacted = match row.get::<_, Option<i64>>("redacted_at")? {
        Some(at) => Some((Timestamp(at), actor(text(row, "redacted_by")?)?)),
        None => None,
    };
    let version = Version {
        id: id(row, "id", MemoryVersionId::parse)?,
        store: store.clone(),
        memory: id(row, "memory", MemoryId::parse)?,
        operation: Operation::parse(operation).ok_or_else(|| unreadable("operation", operation))?,
        author: actor(text(row, "author")?)?,
        path: path.map_err(|error| unreadable("path", error))?,
        digest,
        content: optional_text(row, "content")?.map(str::to_owned),
        created_at: Timestamp(row.get("created_at")?),
        redacted,
    };
    let size = version.content.as_ref().map_or(0, String::len);
    Ok((version, size))
}

pub(super) fn list(
    conn: &Connection,
    store: &MemoryStoreId,
    key: i64,
    filter: &VersionFilter,
    after: Option<&MemoryVersionId>,
    limit: u32,
) -> Result<Page<Version, MemoryVersionId>, Failure> {
    let limit = page_limit(limit);
    let after = match after {
        Some(id) => Some(row_key(conn, key, id)?.ok_or_else(unknown_cursor)?),
        None => None,
    };
    let (before, one_more) = (start(after, Order::Descending), limit + 1);
    let (from, until) = ends(filter.created);
    let memory = filter.memory.as_ref().map(MemoryId::as_str);
    let operation = filter.operation.map(Operation::as_str);
    let mut values: Vec<&dyn ToSql> = vec![&key, &before, &from, &until];
    let mut sql = columns(filter.contents);
    sql.push_str(" WHERE store = ? AND key < ? AND created_at BETWEEN ? AND ?");
    for (column, value) in [("memory", &memory as &dyn ToSql), ("operation", &operation)] {
        let given = match column {
            "memory" => memory.is_some(),
            _ => operation.is_some(),
        };
        if given {
            sql.push_str(&format!(" AND {column} = ?"));
            values.push(value);
        }
    }
    if filter.author.is_some() {
        sql.push_str(" AND author = ?");
        values.push(&filter.author);
    }
    sql.push_str(" ORDER BY key DESC LIMIT ?");
    values.push(&one_more);
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query(values.as_slice())?;
    page(rows, limit, |row| read(row, store), |version| version.id.clone())
}

fn row_key(conn: &Connection, store: i64, id: &MemoryVersionId) -> Result<Option<i64>, Failure> {
    Ok(conn
        .prepare_cached("SELECT key FROM memory_versions WHERE store = ? AND id = ?")?
        .query_row(params![store, id.as_str()], |row| row.get(0))
        .optional()?)
}

pub(super) fn redact(conn: &Connection, change: &Change, id: &MemoryVersionId) -> Result<Version, Failure> {
    let store = place(conn, &change.workspace, &change.store)?
        .ok_or(Error::NotFound)?
        .key;
    let key = row_key(conn, store, id)?.ok_or(Error::NotFound)?;
    let live = conn
        .prepare_cached("SELECT 1 FROM memories WHERE version = ?")?
        .exists([key])?;
    if live {
        return Err(Error::Conflict.into());
    }
    conn.prepare_cached(
        "UPDATE memory_versions
         SET path = NULL, sha = NULL, size = NULL, content = NULL, redacted_at = ?, redacted_by = ?
         WHERE key = ? AND redacted_at IS NULL",
    )?
    .execute(params![change.at.as_millis(), change.author.to_string(), key])?;
    Ok(find(conn, &change.store, store, id, true)?.ok_or(Error::NotFound)?)
}

/// The key of a store's newest version: every change adds one. Only superseded ones are ever forgotten, and an old
/// key is not given again while a newer one is there; that a store falls back by losing its last one is a change, too.
pub(super) fn revision(conn: &Connection, store: i64) -> Result<i64, Failure> {
    let newest: Option<i64> = conn
        .prepare_cached("SELECT max(key) FROM memory_versions WHERE store = ?")?
        .query_row([store], |row| row.get(0))?;
    Ok(newest.unwrap_or(0))
}

/// Forgets up to `most` versions that were superseded before `before`, and says how many.
pub(super) fn forget(conn: &Connection, before: Timestamp, most: i64) -> Result<u64, Failure> {
    let count = conn
        .prepare_cached(
            "DELETE FROM memory_versions WHERE key IN
                 (SELECT key FROM memory_versions WHERE superseded_at < ? LIMIT ?)",
        )?
        .execute(params![before.as_millis(), most])?;
    Ok(u64::try_from(count).unwrap_or(u64::MAX))
}
