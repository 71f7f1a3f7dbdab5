//! Vaults, each with its sealed data key.

use std::collections::BTreeMap;

use oma_domain::page::{Order, Page};
use oma_domain::vault::{DataKey, MasterKeyId, Sealed, Vault};
use oma_domain::webhook::Topic;
use oma_domain::{Timestamp, VaultId, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params};

use super::failure::{Failure, from_json, to_json};
use super::once::{self, Mark};
use super::rows::{id, number, optional_text, page, page_limit, text, unknown_cursor};
use super::{credentials, vault_keys, webhooks};
use crate::{Error, Result as StoreResult, VaultFilter};

const WHOLE: &str = "SELECT id, user, name, metadata, created_at, updated_at, archived_at FROM vaults";

/// A vault, ready to be stored.
pub(super) struct VaultRow {
    vault: Vault,
    metadata: Option<String>,
}

impl VaultRow {
    pub(super) fn new(vault: &Vault) -> StoreResult<Self> {
        Ok(Self {
            vault: vault.clone(),
            metadata: metadata_text(&vault.metadata)?,
        })
    }
}

/// Metadata as it is stored: nothing when there is none.
pub(super) fn metadata_text(metadata: &BTreeMap<String, String>) -> StoreResult<Option<String>> {
    if metadata.is_empty() {
        return Ok(None);
    }
    to_json("metadata", metadata).map(Some)
}

/// Reads metadata, and its size.
pub(super) fn metadata(row: &Row<'_>) -> Result<(BTreeMap<String, String>, usize), Failure> {
    match optional_text(row, "metadata")? {
        Some(text) => Ok((from_json("metadata", text)?, text.len())),
        None => Ok((BTreeMap::new(), 0)),
    }
}

pub(super) fn create(
    conn: &Connection,
    VaultRow { vault, metadata }: &VaultRow,
    key: &DataKey,
    once: Option<&Mark>,
) -> Result<(), Failure> {
    once::check(conn, once)?;
    let taken = conn
        .prepare_cached("SELECT 1 FROM vaults WHERE id = ?")?
        .exists([vault.id.as_str()])?;
    // A data key under another master key could never be opened.
    if taken || vault_keys::master(conn)?.as_ref() != Some(&key.master) {
        return Err(Error::Conflict.into());
    }
    conn.prepare_cached(
        "INSERT INTO vaults (workspace, id, user, name, metadata, created_at, updated_at, data_key_version, master_key,
                             data_key)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        vault.workspace.as_str(),
        vault.id.as_str(),
        vault.user,
        vault.name,
        metadata,
        vault.created_at.as_millis(),
        vault.updated_at.as_millis(),
        key.version,
        key.master.as_str(),
        key.sealed.as_str(),
    ])?;
    webhooks::tell(conn, &vault.workspace, &[Topic::VaultCreated], vault.id.as_str())?;
    once::remember(conn, once)
}

pub(super) fn find(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &VaultId,
) -> Result<Option<Vault>, Failure> {
    let mut statement = conn.prepare_cached(&format!("{WHOLE} WHERE workspace = ? AND id = ?"))?;
    let mut rows = statement.query(params![workspace.as_str(), id.as_str()])?;
    rows.next()?
        .map(|row| read(row, workspace).map(|(vault, _)| vault))
        .transpose()
}

/// Reads a vault, and its size.
fn read(row: &Row<'_>, workspace: &WorkspaceId) -> Result<(Vault, usize), Failure> {
    let (metadata, more) = metadata(row)?;
    let vault = Vault {
        id: id(row, "id", VaultId::parse)?,
        workspace: workspace.clone(),
        user: optional_text(row, "user")?.map(str::to_owned),
        name: text(row, "name")?.to_owned(),
        metadata,
        created_at: Timestamp(row.get("created_at")?),
        updated_at: Timestamp(row.get("updated_at")?),
        archived_at: row.get::<_, Option<i64>>("archived_at")?.map(Timestamp),
    };
    let size = more + vault.name.len() + vault.user.as_ref().map_or(0, String::len);
    Ok((vault, size))
}

pub(super) fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    VaultFilter { user, only_active }: &VaultFilter,
    order: Order,
    after: Option<&VaultId>,
    limit: u32,
) -> Result<Page<Vault, VaultId>, Failure> {
    let limit = page_limit(limit);
    let after = match after {
        Some(id) => Some(key(conn, workspace, id)?.ok_or_else(unknown_cursor)?),
        None => None,
    };
    let (workspace_text, one_more) = (workspace.as_str(), limit + 1);
    let mut values: Vec<&dyn ToSql> = vec![&workspace_text];
    let mut sql = format!("{WHOLE} WHERE workspace = ?");
    if user.is_some() {
        sql.push_str(" AND user = ?");
        values.push(user);
    }
    if *only_active {
        sql.push_str(" AND archived_at IS NULL");
    }
    let direction = match order {
        Order::Ascending => "",
        Order::Descending => " DESC",
    };
    if after.is_some() {
        sql.push_str(match order {
            Order::Ascending => " AND key > ?",
            Order::Descending => " AND key < ?",
        });
        values.push(&after);
    }
    sql.push_str(&format!(" ORDER BY key{direction} LIMIT ?"));
    values.push(&one_more);
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query(values.as_slice())?;
    page(rows, limit, |row| read(row, workspace), |vault| vault.id.clone())
}

pub(super) fn update(conn: &Connection, before: &Vault, after: &VaultRow) -> Result<(), Failure> {
    let (workspace, id) = (&before.workspace, &before.id);
    let current = find(conn, workspace, id)?.ok_or(Error::NotFound)?;
    if current.archived_at.is_some() {
        return Err(Error::VaultArchived.into());
    }
    if (&current.name, &current.metadata) != (&before.name, &before.metadata) {
        return Err(Error::Conflict.into());
    }
    let VaultRow { vault, metadata } = after;
    conn.prepare_cached(
        "UPDATE vaults SET name = ?, metadata = ?, updated_at = max(updated_at, ?) WHERE workspace = ? AND id = ?",
    )?
    .execute(params![
        vault.name,
        metadata,
        vault.updated_at.as_millis(),
        workspace.as_str(),
        id.as_str(),
    ])?;
    Ok(())
}

pub(super) fn archive(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &VaultId,
    at: Timestamp,
) -> Result<Vault, Failure> {
    let key = key(conn, workspace, id)?.ok_or(Error::NotFound)?;
    let archived = conn
        .prepare_cached(
            "UPDATE vaults SET archived_at = ?1, updated_at = max(updated_at, ?1)
             WHERE key = ?2 AND archived_at IS NULL",
        )?
        .execute(params![at.as_millis(), key])?;
    if archived > 0 {
        credentials::archive_all(conn, workspace, id, key, at)?;
        webhooks::tell(conn, workspace, &[Topic::VaultArchived], id.as_str())?;
    }
    Ok(find(conn, workspace, id)?.ok_or(Error::NotFound)?)
}

/// The vault counts as changed. Its time never goes back, whatever the clock does.
pub(super) fn touch(conn: &Connection, key: i64, at: Timestamp) -> Result<(), Failure> {
    conn.prepare_cached("UPDATE vaults SET updated_at = max(updated_at, ?) WHERE key = ?")?
        .execute(params![at.as_millis(), key])?;
    Ok(())
}

pub(super) fn delete(conn: &Connection, workspace: &WorkspaceId, id: &VaultId) -> Result<bool, Failure> {
    let Some(key) = key(conn, workspace, id)? else {
        return Ok(false);
    };
    conn.prepare_cached("DELETE FROM credentials WHERE vault = ?")?
        .execute([key])?;
    conn.prepare_cached("DELETE FROM once WHERE workspace = ? AND subject = ?")?
        .execute(params![workspace.as_str(), id.as_str()])?;
    conn.prepare_cached("DELETE FROM vaults WHERE key = ?")?
        .execute([key])?;
    webhooks::tell(conn, workspace, &[Topic::VaultDeleted], id.as_str())?;
    Ok(true)
}

pub(super) fn data_key(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &VaultId,
) -> Result<Option<DataKey>, Failure> {
    let mut statement = conn.prepare_cached(
        "SELECT data_key_version, master_key, data_key FROM vaults WHERE workspace = ? AND id = ?",
    )?;
    let mut rows = statement.query(params![workspace.as_str(), id.as_str()])?;
    rows.next()?.map(read_key).transpose()
}

/// Reads the data key of a row that has its columns.
pub(super) fn read_key(row: &Row<'_>) -> Result<DataKey, Failure> {
    Ok(DataKey {
        version: number(row, "data_key_version")?,
        master: MasterKeyId::new(text(row, "master_key")?.to_owned()),
        sealed: Sealed::new(text(row, "data_key")?.to_owned()),
    })
}

/// The row's key, by which credentials refer to it.
pub(super) fn key(conn: &Connection, workspace: &WorkspaceId, id: &VaultId) -> Result<Option<i64>, Failure> {
    Ok(conn
        .prepare_cached("SELECT key FROM vaults WHERE workspace = ? AND id = ?")?
        .query_row(params![workspace.as_str(), id.as_str()], |row| row.get(0))
        .optional()?)
}
