//! The links of the chain.

use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};

use super::super::failure::Failure;

/// What every link begins with, so that no other hash of this program can be taken for one.
const DOMAIN: &[u8] = b"oma audit row 1";

/// The hash of a row and of everything before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hash(pub(crate) [u8; 32]);

/// An end of the chain.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// The last row that was removed; position 0 when none was.
    Anchor,
    /// The newest row.
    Head,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Anchor => "anchor",
            Self::Head => "head",
        }
    }
}

/// Where an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: i64,
    pub(crate) hash: Hash,
}

/// Everything in a row, as it is stored.
#[derive(Debug)]
pub(crate) struct Link<'a> {
    pub(crate) position: i64,
    pub(crate) workspace: &'a str,
    pub(crate) id: &'a str,
    pub(crate) at: i64,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) actor: &'a str,
    pub(crate) action: &'a str,
    pub(crate) target: Option<&'a str>,
    pub(crate) outcome: &'a str,
    pub(crate) metadata: Option<&'a str>,
}

impl Link<'_> {
    /// The hash of the row behind `before`. Each field stands behind its length, so that no two rows look the same.
    pub(crate) fn hash(&self, before: &Hash) -> Hash {
        let mut digest = Sha256::new();
        digest.update(DOMAIN);
        digest.update(before.0);
        digest.update(self.position.to_be_bytes());
        digest.update(self.at.to_be_bytes());
        for field in [
            Some(self.workspace),
            Some(self.id),
            self.request_id,
            Some(self.actor),
            Some(self.action),
            self.target,
            Some(self.outcome),
            self.metadata,
        ] {
            match field {
                None => digest.update([0]),
                Some(text) => {
                    digest.update([1]);
                    digest.update((text.len() as u64).to_be_bytes());
                    digest.update(text.as_bytes());
                }
            }
        }
        Hash(digest.finalize().into())
    }
}

/// Where the chain begins or ends.
pub(super) fn end(conn: &Connection, end: End) -> Result<Place, Failure> {
    conn.prepare_cached("SELECT position, hash FROM audit_ends WHERE name = ?")?
        .query_row([end.name()], |row| {
            Ok(Place {
                position: row.get(0)?,
                hash: Hash(row.get(1)?),
            })
        })
        .optional()?
        .ok_or_else(super::no_ends)
}

/// Moves an end.
pub(super) fn set_end(conn: &Connection, end: End, position: i64, hash: &Hash) -> Result<(), Failure> {
    conn.prepare_cached("UPDATE audit_ends SET position = ?, hash = ? WHERE name = ?")?
        .execute(params![position, hash.0, end.name()])?;
    Ok(())
}
