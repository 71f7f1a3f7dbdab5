//! Verifying the chain: whether anything in the trail was changed, removed or put in between behind the server's
//! back.
//!
//! What a chain can't show by itself is the replacement of all of it. Whoever fears that keeps the head's hash
//! elsewhere from time to time; a later trail must still have that hash at that position.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row};

use super::chain::{self, End, Hash, Link, Place};
use crate::Error;
use crate::sqlite::connection::BUSY_TIMEOUT;
use crate::sqlite::failure::Failure;
use crate::sqlite::folder::DATABASE;
use crate::sqlite::rows::{optional_text, text};

/// What a walk along the chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How many rows were walked along.
    pub rows: u64,
    /// The position before the first row: how many rows retention has removed.
    pub removed: u64,
    /// The position of the last row.
    pub head: u64,
    /// The hash there.
    pub head_hash: [u8; 32],
    /// The first thing that is wrong.
    pub broken: Option<Broken>,
}

/// Where the chain is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The position of the row, or of where it should be.
    pub position: u64,
    /// The row's id, when there is a row.
    pub id: Option<String>,
    /// What is wrong.
    pub reason: &'static str,
}

/// Walks along the audit trail in a data folder, whether a server has it open or not.
///
/// # Errors
/// [`Error::NotFound`] when there is no database, [`Error::Internal`] when it can't be read.
pub fn verify(folder: &Path) -> crate::Result<Verified> {
    let path = folder.join(DATABASE);
    if !path.exists() {
        return Err(Error::NotFound);
    }
    let read = || -> Result<Verified, Failure> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&path, flags)?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        conn.pragma_update(None, "query_only", true)?;
        let transaction = conn.unchecked_transaction()?;
        walk(&transaction)
    };
    read().map_err(|failure| match failure {
        Failure::Refused(error) => error,
        Failure::Database(error) => Error::Internal(error.to_string()),
    })
}

fn walk(conn: &Connection) -> Result<Verified, Failure> {
    let (anchor, head) = (chain::end(conn, End::Anchor)?, chain::end(conn, End::Head)?);
    let mut found = Verified {
        rows: 0,
        removed: unsigned(anchor.position),
        head: unsigned(anchor.position),
        head_hash: anchor.hash.0,
        broken: None,
    };
    let mut at = anchor;
    let mut statement = conn.prepare(&format!("SELECT {} FROM audit ORDER BY key", super::COLUMNS))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match step(row, &at)? {
            Ok(next) => at = next,
            Err(broken) => {
                found.broken = Some(broken);
                return Ok(found);
            }
        }
        found.rows += 1;
        found.head = unsigned(at.position);
        found.head_hash = at.hash.0;
    }
    if at != head {
        found.broken = Some(Broken {
            position: unsigned(at.position) + 1,
            id: None,
            reason: "rows are missing at the end",
        });
    }
    Ok(found)
}

/// The place after a row that follows on `before`.
fn step(row: &Row<'_>, before: &Place) -> Result<Result<Place, Broken>, Failure> {
    let link = Link {
        position: row.get("key")?,
        workspace: text(row, "workspace")?,
        id: text(row, "id")?,
        at: row.get("at")?,
        request_id: optional_text(row, "request_id")?,
        actor: text(row, "actor")?,
        action: text(row, "action")?,
        target: optional_text(row, "target")?,
        outcome: text(row, "outcome")?,
        metadata: optional_text(row, "metadata")?,
    };
    let expected = before.position + 1;
    if link.position != expected {
        return Ok(Err(Broken {
            position: unsigned(expected),
            id: None,
            reason: "rows are missing",
        }));
    }
    let hash = link.hash(&before.hash);
    let stored: Vec<u8> = row.get("hash")?;
    if stored != hash.0 {
        return Ok(Err(Broken {
            position: unsigned(link.position),
            id: Some(link.id.to_owned()),
            reason: "the row, or its hash, is not what was written",
        }));
    }
    Ok(Ok(Place {
        position: link.position,
        hash: Hash(hash.0),
    }))
}

fn unsigned(position: i64) -> u64 {
    u64::try_from(position).unwrap_or(0)
}
