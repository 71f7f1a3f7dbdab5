//! The master key in force, and the data keys that are sealed under it.
//!
//! Invariant: every vault's data key is sealed under the master key in force: both change in one transaction.

use oma_domain::page::Page;
use oma_domain::vault::MasterKeyId;
use oma_domain::{VaultId, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::failure::Failure;
use super::rows::{id, page, page_limit};
use super::vaults;
use crate::{Error, VaultKey};

pub(super) fn master(conn: &Connection) -> Result<Option<MasterKeyId>, Failure> {
    Ok(conn
        .prepare_cached("SELECT id FROM master_key WHERE key = 1")?
        .query_row([], |row| row.get(0))
        .optional()?
        .map(MasterKeyId::new))
}

fn put_in_force(conn: &Connection, id: &MasterKeyId) -> Result<(), Failure> {
    conn.prepare_cached(
        "INSERT INTO master_key (key, id) VALUES (1, ?) ON CONFLICT (key) DO UPDATE SET id = excluded.id",
    )?
    .execute([id.as_str()])?;
    Ok(())
}

pub(super) fn claim(conn: &Connection, id: &MasterKeyId) -> Result<MasterKeyId, Failure> {
    if let Some(found) = master(conn)?
        && (found == *id || conn.prepare_cached("SELECT 1 FROM vaults LIMIT 1")?.exists([])?)
    {
        return Ok(found);
    }
    put_in_force(conn, id)?;
    Ok(id.clone())
}

pub(super) fn list(
    conn: &Connection,
    after: Option<&VaultId>,
    limit: u32,
) -> Result<Page<VaultKey, VaultId>, Failure> {
    let limit = page_limit(limit);
    let mut statement = conn.prepare_cached(
        "SELECT workspace, id, data_key_version, master_key, data_key FROM vaults
         WHERE id > ? ORDER BY id LIMIT ?",
    )?;
    // Every id is greater than the empty text.
    let rows = statement.query(params![after.map_or("", VaultId::as_str), limit + 1])?;
    page(
        rows,
        limit,
        |row| {
            let found = VaultKey {
                workspace: id(row, "workspace", WorkspaceId::parse)?,
                vault: id(row, "id", VaultId::parse)?,
                key: vaults::read_key(row)?,
            };
            let size = found.key.sealed.as_str().len();
            Ok((found, size))
        },
        |found| found.vault.clone(),
    )
}

pub(super) fn change(
    conn: &Connection,
    from: &MasterKeyId,
    to: &MasterKeyId,
    keys: &[VaultKey],
) -> Result<(), Failure> {
    if master(conn)?.as_ref() != Some(from) {
        return Err(Error::Conflict.into());
    }
    let mut update = conn.prepare_cached(
        "UPDATE vaults SET master_key = ?, data_key = ?
         WHERE workspace = ? AND id = ? AND data_key_version = ? AND master_key = ?",
    )?;
    for VaultKey {
        workspace,
        vault,
        key,
    } in keys
    {
        let changed = update.execute(params![
            to.as_str(),
            key.sealed.as_str(),
            workspace.as_str(),
            vault.as_str(),
            key.version,
            from.as_str(),
        ])?;
        if changed != 1 || key.master != *to {
            return Err(Error::Conflict.into());
        }
    }
    // A vault that was made since the keys were read would be lost.
    let left = conn
        .prepare_cached("SELECT 1 FROM vaults WHERE master_key <> ? LIMIT 1")?
        .exists([to.as_str()])?;
    if left {
        return Err(Error::Conflict.into());
    }
    put_in_force(conn, to)
}
