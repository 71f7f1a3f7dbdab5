//! Changes of memories. Each adds a version.

use oma_domain::memory::{Content, MAX_MEMORIES, Memory, Operation, Path, Sha};
use oma_domain::{Actor, MemoryId, MemoryVersionId};
use rusqlite::{Connection, params};

use super::{Place, copies, memories, place};
use crate::Error;
use crate::memories::{Change, Edit, NewMemory, Outcome, Removal, Written};
use crate::sqlite::failure::Failure;
use crate::sqlite::once::{self, Mark};

/// The store that is changed. With `writes` it must not be archived.
fn open(conn: &Connection, change: &Change, writes: bool) -> Result<i64, Failure> {
    let Place { key, archived } = place(conn, &change.workspace, &change.store)?.ok_or(Error::NotFound)?;
    if archived && writes {
        return Err(Error::Archived.into());
    }
    Ok(key)
}

pub(super) fn create(
    conn: &Connection,
    change: &Change,
    new: &NewMemory,
    once: Option<&Mark>,
) -> Result<Memory, Failure> {
    once::check(conn, once)?;
    let store = open(conn, change, true)?;
    if let Some((memory, path)) = memories::obstacle(conn, store, &new.path, None)? {
        return Err(Error::PathTaken { memory, path }.into());
    }
    if is_full(conn, store)? {
        return Err(Error::TooMany(MAX_MEMORIES).into());
    }
    insert(
        conn,
        change,
        store,
        &new.id,
        &new.version,
        &new.path,
        &new.content,
    )?;
    once::remember(conn, once)?;
    stored(conn, change, store, &new.id)
}

fn is_full(conn: &Connection, store: i64) -> Result<bool, Failure> {
    let count: i64 = conn
        .prepare_cached("SELECT count(*) FROM memories WHERE store = ?")?
        .query_row([store], |row| row.get(0))?;
    Ok(count >= i64::from(MAX_MEMORIES))
}

fn stored(conn: &Connection, change: &Change, store: i64, id: &MemoryId) -> Result<Memory, Failure> {
    let found = memories::find(conn, &change.store, store, id, true)?;
    Ok(found.ok_or(Error::NotFound)?)
}

fn insert(
    conn: &Connection,
    change: &Change,
    store: i64,
    id: &MemoryId,
    version: &MemoryVersionId,
    path: &Path,
    content: &Content,
) -> Result<(), Failure> {
    let row = Row {
        memory: id,
        id: version,
        operation: Operation::Created,
        path,
        content: Some(content),
    };
    let version = row.insert(conn, change, store)?;
    conn.prepare_cached(
        "INSERT INTO memories (workspace, store, id, path, version, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
    )?
    .execute(params![
        change.workspace.as_str(),
        store,
        id.as_str(),
        path.as_str(),
        version,
        change.at.as_millis(),
    ])?;
    Ok(())
}

/// A version to add.
struct Row<'a> {
    memory: &'a MemoryId,
    id: &'a MemoryVersionId,
    operation: Operation,
    path: &'a Path,
    content: Option<&'a Content>,
}

impl Row<'_> {
    /// Adds it and gives its key. Nothing stands at a deletion, so that one is superseded from the start.
    fn insert(self, conn: &Connection, change: &Change, store: i64) -> Result<i64, Failure> {
        let at = change.at.as_millis();
        let superseded = (self.operation == Operation::Deleted).then_some(at);
        // Contents are short.
        let size = self
            .content
            .map(|content| i64::try_from(content.text().len()).unwrap_or(i64::MAX));
        conn.prepare_cached(
            "INSERT INTO memory_versions
                 (workspace, store, id, memory, operation, author, path, sha, size, content, created_at, superseded_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            change.workspace.as_str(),
            store,
            self.id.as_str(),
            self.memory.as_str(),
            self.operation.as_str(),
            change.author.to_string(),
            self.path.as_str(),
            self.content.map(|content| content.sha().0),
            size,
            self.content.map(Content::text),
            at,
            superseded,
        ])?;
        Ok(conn.last_insert_rowid())
    }
}

/// The version that a memory stands at gives way.
fn supersede(conn: &Connection, change: &Change, store: i64, id: &MemoryId) -> Result<(), Failure> {
    conn.prepare_cached(
        "UPDATE memory_versions SET superseded_at = ?
         WHERE key = (SELECT version FROM memories WHERE store = ? AND id = ?)",
    )?
    .execute(params![change.at.as_millis(), store, id.as_str()])?;
    Ok(())
}

pub(super) fn update(conn: &Connection, change: &Change, edit: &Edit) -> Result<Memory, Failure> {
    let store = open(conn, change, true)?;
    let current = stored(conn, change, store, &edit.id)?;
    let content = edit.content.as_ref();
    let same_path = edit.path.as_ref().is_none_or(|path| *path == current.path);
    let same = same_path && content.is_none_or(|content| content.sha() == current.sha);
    let met = edit.expected.is_none_or(|sha| sha == current.sha);
    let asks = edit.path.is_some() || edit.content.is_some();
    if !(met || same && asks) {
        return Err(Error::Unexpected.into());
    }
    if same {
        return Ok(current);
    }
    let path = edit.path.as_ref().unwrap_or(&current.path);
    if !same_path && let Some((memory, path)) = memories::obstacle(conn, store, path, Some(&edit.id))? {
        return Err(Error::PathTaken { memory, path }.into());
    }
    match content {
        Some(content) => modify(conn, change, store, &edit.id, &edit.version, path, content)?,
        None => {
            // The content is the stored one, which fits.
            let text = current.content.unwrap_or_default();
            let content = Content::new(text).map_err(|error| Error::Internal(error.to_string()))?;
            modify(conn, change, store, &edit.id, &edit.version, path, &content)?;
        }
    }
    stored(conn, change, store, &edit.id)
}

fn modify(
    conn: &Connection,
    change: &Change,
    store: i64,
    id: &MemoryId,
    version: &MemoryVersionId,
    path: &Path,
    content: &Content,
) -> Result<(), Failure> {
    supersede(conn, change, store, id)?;
    let row = Row {
        memory: id,
        id: version,
        operation: Operation::Modified,
        path,
        content: Some(content),
    };
    let version = row.insert(conn, change, store)?;
    // A memory's time never goes back, whatever the clock does.
    conn.prepare_cached(
        "UPDATE memories SET path = ?, version = ?, updated_at = max(updated_at, ?) WHERE store = ? AND id = ?",
    )?
    .execute(params![
        path.as_str(),
        version,
        change.at.as_millis(),
        store,
        id.as_str()
    ])?;
    Ok(())
}

pub(super) fn delete(conn: &Connection, change: &Change, removal: &Removal) -> Result<(), Failure> {
    let store = open(conn, change, false)?;
    let current = memories::find(conn, &change.store, store, &removal.id, false)?.ok_or(Error::NotFound)?;
    if removal.expected.is_some_and(|sha| sha != current.sha) {
        return Err(Error::Unexpected.into());
    }
    remove(conn, change, store, &current, &removal.version)
}

fn remove(
    conn: &Connection,
    change: &Change,
    store: i64,
    memory: &Memory,
    version: &MemoryVersionId,
) -> Result<(), Failure> {
    supersede(conn, change, store, &memory.id)?;
    let row = Row {
        memory: &memory.id,
        id: version,
        operation: Operation::Deleted,
        path: &memory.path,
        content: None,
    };
    row.insert(conn, change, store)?;
    conn.prepare_cached("DELETE FROM memories WHERE store = ? AND id = ?")?
        .execute(params![store, memory.id.as_str()])?;
    Ok(())
}

pub(super) fn write_back(
    conn: &Connection,
    change: &Change,
    written: &[Written],
) -> Result<Vec<Outcome>, Failure> {
    let store = open(conn, change, true)?;
    let mut outcomes = vec![Outcome::Stored; written.len()];
    let session = match &change.author {
        Actor::Session(session) => copies::session(conn, &change.workspace, session)?,
        Actor::Key(_) | Actor::Operator | Actor::Local => None,
    };
    // What goes makes room: a file may have become a folder.
    for removals in [true, false] {
        for (one, outcome) in written.iter().zip(&mut outcomes) {
            match &one.content {
                None if removals => *outcome = take_away(conn, change, store, one)?,
                Some(content) if !removals => *outcome = put(conn, change, store, one, content)?,
                _ => {}
            }
        }
    }
    if let Some(session) = session {
        for (one, outcome) in written.iter().zip(&outcomes) {
            match outcome {
                Outcome::Stored | Outcome::Replaced(_) => {
                    let sha = one.content.as_ref().map(Content::sha);
                    copies::set_one(conn, &change.workspace, session, store, &one.path, sha)?;
                }
                // Its copy has nothing there, and is given what the store has.
                Outcome::Kept => copies::set_one(conn, &change.workspace, session, store, &one.path, None)?,
                Outcome::PathTaken(_) | Outcome::TooMany(_) => {}
            }
        }
    }
    Ok(outcomes)
}

fn take_away(conn: &Connection, change: &Change, store: i64, one: &Written) -> Result<Outcome, Failure> {
    match memories::at(conn, &change.store, store, &one.path)? {
        None => Ok(Outcome::Stored),
        Some(current) if one.base == Some(current.sha) => {
            remove(conn, change, store, &current, &one.version)?;
            Ok(Outcome::Stored)
        }
        Some(_) => Ok(Outcome::Kept),
    }
}

fn put(
    conn: &Connection,
    change: &Change,
    store: i64,
    one: &Written,
    content: &Content,
) -> Result<Outcome, Failure> {
    let same = |sha: Sha| sha == content.sha();
    if let Some(current) = memories::at(conn, &change.store, store, &one.path)? {
        if same(current.sha) {
            return Ok(Outcome::Stored);
        }
        let known = one.base == Some(current.sha);
        modify(conn, change, store, &current.id, &one.version, &one.path, content)?;
        return Ok(match known {
            true => Outcome::Stored,
            false => Outcome::Replaced(current.version),
        });
    }
    if let Some((_, path)) = memories::obstacle(conn, store, &one.path, None)? {
        return Ok(Outcome::PathTaken(path));
    }
    if is_full(conn, store)? {
        return Ok(Outcome::TooMany(MAX_MEMORIES));
    }
    insert(conn, change, store, &one.id, &one.version, &one.path, content)?;
    Ok(Outcome::Stored)
}
