//! Connections and their settings.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::Options;
use super::failure::Failure;

/// How long a connection waits for a lock of SQLite's. Within one server such waits are of microseconds: there
/// is one writer, and readers never block it.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// After a burst the write-ahead log is cut back to this size, in bytes.
const WAL_KEPT: i64 = 64 << 20;

/// The most prepared statements that one connection keeps; above the number that we have.
const STATEMENTS: usize = 320;

/// The connection of the writer: it makes the database what it should be.
pub(super) fn writer(path: &Path, options: &Options) -> Result<Connection, Failure> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    prepare(&conn, options.writer_cache)?;
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(
            crate::Error::Internal(format!("the file system allows only the journal mode {mode}")).into(),
        );
    }
    durable(&conn)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "journal_size_limit", WAL_KEPT)?;
    // The checkpointer does it, so that no commit has to wait for it.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    if let Some(bytes) = options.max_bytes {
        let page: i64 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
        conn.pragma_update_and_check(None, "max_page_count", pages.max(1), |_| Ok(()))?;
    }
    Ok(conn)
}

/// The connection of the checkpointer.
pub(super) fn checkpointer(path: &Path) -> Result<Connection, Failure> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    prepare(&conn, 256)?;
    durable(&conn)?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(conn)
}

/// A connection of a reader; it can't write.
pub(super) fn reader(path: &Path, options: &Options) -> Result<Connection, Failure> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    prepare(&conn, options.reader_cache)?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

/// `cache` is the most memory for pages, in KiB.
fn prepare(conn: &Connection, cache: u32) -> Result<(), Failure> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.pragma_update(None, "cache_size", -i64::from(cache))?;
    conn.pragma_update(None, "temp_store", "memory")?;
    conn.pragma_update(None, "trusted_schema", false)?;
    Ok(())
}

/// Every commit is on the disk when it returns, on macOS, too.
fn durable(conn: &Connection) -> Result<(), Failure> {
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "fullfsync", true)?;
    Ok(())
}
