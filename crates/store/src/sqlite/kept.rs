//! Values that the server keeps for itself, and the row that the readiness check writes.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::failure::Failure;

pub(super) fn find(conn: &Connection, name: &str) -> Result<Option<Vec<u8>>, Failure> {
    Ok(conn
        .prepare_cached("SELECT value FROM kept WHERE name = ?")?
        .query_row([name], |row| row.get(0))
        .optional()?)
}

pub(super) fn keep(conn: &Connection, name: &str, value: &[u8]) -> Result<Vec<u8>, Failure> {
    if let Some(kept) = find(conn, name)? {
        return Ok(kept);
    }
    conn.prepare_cached("INSERT INTO kept (name, value) VALUES (?, ?)")?
        .execute(params![name, value])?;
    Ok(value.to_vec())
}

/// Really writes: a read would not notice a full disk.
pub(super) fn probe(conn: &Connection) -> Result<(), Failure> {
    conn.prepare_cached("UPDATE probe SET count = count + 1")?
        .execute([])?;
    Ok(())
}
