//! Memories as they stand, and lists of them, in which deep folders can be rolled up.

use oma_domain::memory::{Item, Memory, Path, Sha};
use oma_domain::page::Page;
use oma_domain::{MemoryId, MemoryStoreId, MemoryVersionId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::memories::MemoryFilter;
use crate::sqlite::failure::{Failure, unreadable};
use crate::sqlite::rows::{id, number, optional_text, page_limit, text};

/// A page ends early once its contents are this large together, in bytes.
const MAX_PAGE_BYTES: usize = 8 << 20;

/// The columns of a memory, with its content or a null in its place.
fn columns(content: bool) -> String {
    let content = if content { "v.content" } else { "NULL AS content" };
    format!(
        "SELECT m.key, m.id, m.path, m.created_at, m.updated_at, v.id AS version, v.sha, v.size, {content}
         FROM memories m JOIN memory_versions v ON v.key = m.version"
    )
}

pub(super) fn find(
    conn: &Connection,
    store: &MemoryStoreId,
    key: i64,
    id: &MemoryId,
    content: bool,
) -> Result<Option<Memory>, Failure> {
    let sql = format!("{} WHERE m.store = ? AND m.id = ?", columns(content));
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params![key, id.as_str()])?;
    rows.next()?.map(|row| read(row, store)).transpose()
}

/// The memory at a path.
pub(super) fn at(
    conn: &Connection,
    store: &MemoryStoreId,
    key: i64,
    path: &Path,
) -> Result<Option<Memory>, Failure> {
    let sql = format!("{} WHERE m.store = ? AND m.path = ?", columns(false));
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params![key, path.as_str()])?;
    rows.next()?.map(|row| read(row, store)).transpose()
}

fn read(row: &Row<'_>, store: &MemoryStoreId) -> Result<Memory, Failure> {
    Ok(Memory {
        id: id(row, "id", MemoryId::parse)?,
        store: store.clone(),
        version: id(row, "version", MemoryVersionId::parse)?,
        path: Path::parse(text(row, "path")?).map_err(|error| unreadable("path", error))?,
        sha: Sha(row.get("sha")?),
        size: number(row, "size")?,
        content: optional_text(row, "content")?.map(str::to_owned),
        created_at: Timestamp(row.get("created_at")?),
        updated_at: Timestamp(row.get("updated_at")?),
    })
}

/// The first text that is above all those that begin with a folder: the slash gives way to its successor.
pub(super) fn above(prefix: &str) -> String {
    let folder = prefix.strip_suffix('/').unwrap_or(prefix);
    format!("{folder}0")
}

pub(super) fn list(
    conn: &Connection,
    store: &MemoryStoreId,
    key: i64,
    filter: &MemoryFilter,
    after: Option<&str>,
    limit: u32,
) -> Result<Page<Item, String>, Failure> {
    let limit = page_limit(limit) as usize;
    let prefix = filter.prefix.as_str();
    let end = above(prefix);
    // Where to go on: a folder is passed as a whole, a memory only itself.
    let beyond = |path: &str| match path.ends_with('/') {
        true => above(path),
        false => format!("{path}\0"),
    };
    let mut from = match after {
        Some(path) if path >= prefix => beyond(path),
        _ => prefix.to_owned(),
    };
    let mut page = Page {
        rows: Vec::new(),
        next: None,
    };
    let mut bytes = 0;
    let sql = format!(
        "{} WHERE m.store = ? AND m.path >= ? AND m.path < ? ORDER BY m.path LIMIT ?",
        columns(filter.contents)
    );
    let mut statement = conn.prepare_cached(&sql)?;
    // A folder ends a query: what it holds is skipped, however much that is.
    'seek: loop {
        let room = limit - page.rows.len() + 1;
        let mut rows = statement.query(params![key, from, end, i64::try_from(room).unwrap_or(i64::MAX)])?;
        while let Some(row) = rows.next()? {
            if page.rows.len() == limit || bytes >= MAX_PAGE_BYTES {
                page.next = page.rows.last().map(|item: &Item| item.path().to_owned());
                return Ok(page);
            }
            let path = text(row, "path")?;
            let below = path.get(prefix.len()..).unwrap_or_default();
            if let Some(end) = below.find('/').filter(|_| filter.rolled_up) {
                let folder = path[..=prefix.len() + end].to_owned();
                from = above(&folder);
                page.rows.push(Item::Folder(folder));
                continue 'seek;
            }
            let memory = read(row, store)?;
            bytes += memory.content.as_ref().map_or(0, String::len);
            page.rows.push(Item::Memory(memory));
        }
        return Ok(page);
    }
}

/// What keeps a memory from being at a path: one that is there, or at a folder of it, or below it.
pub(super) fn obstacle(
    conn: &Connection,
    key: i64,
    path: &Path,
    except: Option<&MemoryId>,
) -> Result<Option<(MemoryId, Path)>, Failure> {
    let except = except.map(MemoryId::as_str);
    let mut exact =
        conn.prepare_cached("SELECT id, path FROM memories WHERE store = ? AND path = ? AND id IS NOT ?")?;
    for candidate in std::iter::once(path.as_str()).chain(path.ancestors()) {
        let found = exact
            .query_row(params![key, candidate, except], pair)
            .optional()?;
        if let Some(found) = found {
            return named(found).map(Some);
        }
    }
    let mut below = conn.prepare_cached(
        "SELECT id, path FROM memories WHERE store = ? AND path >= ? AND path < ? AND id IS NOT ?
         ORDER BY path LIMIT 1",
    )?;
    let folder = format!("{path}/");
    let found = below
        .query_row(params![key, folder, above(&folder), except], pair)
        .optional()?;
    found.map(named).transpose()
}

fn pair(row: &Row<'_>) -> rusqlite::Result<(String, String)> {
    Ok((row.get(0)?, row.get(1)?))
}

fn named((id, path): (String, String)) -> Result<(MemoryId, Path), Failure> {
    let id = MemoryId::parse(&id).map_err(|error| unreadable("id", error))?;
    let path = Path::parse(&path).map_err(|error| unreadable("path", error))?;
    Ok((id, path))
}
