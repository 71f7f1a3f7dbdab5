//! Credentials: what may be shown, and the ciphertexts of their secrets.

use oma_domain::page::{Order, Page};
use oma_domain::vault::Secrets;
use oma_domain::webhook::Topic;
use oma_domain::{Credential, CredentialId, Timestamp, VaultId, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::failure::{Failure, from_json, to_json};
use super::once::{self, Mark};
use super::rows::{id, number, page, page_limit, start, text, unknown_cursor};
use super::vaults;
use super::webhooks::{self, About};
use crate::{Admission, Error, Result as StoreResult, StoredCredential};

/// A credential, ready to be stored.
pub(super) struct CredentialRow {
    credential: Credential,
    revision: i64,
    spec: String,
    metadata: Option<String>,
    secrets: String,
}

impl CredentialRow {
    pub(super) fn new(stored: &StoredCredential) -> StoreResult<Self> {
        Ok(Self {
            credential: stored.credential.clone(),
            revision: i64::try_from(stored.revision)
                .map_err(|_| Error::Internal("a credential has changed too often".into()))?,
            spec: to_json("credential", &stored.credential.spec)?,
            metadata: vaults::metadata_text(&stored.credential.metadata)?,
            secrets: to_json("sealed secret", &stored.secrets)?,
        })
    }
}

pub(super) fn add(
    conn: &Connection,
    row: &CredentialRow,
    place: &str,
    admission: Admission,
    once: Option<&Mark>,
) -> Result<(), Failure> {
    let credential = &row.credential;
    once::check(conn, once)?;
    if conn
        .prepare_cached("SELECT 1 FROM credentials WHERE id = ?")?
        .exists([credential.id.as_str()])?
    {
        return Err(Error::Conflict.into());
    }
    let vault = vaults::key(conn, &credential.workspace, &credential.vault)?.ok_or(Error::NotFound)?;
    let (archived, count, same): (bool, i64, f64) = conn
        .prepare_cached(
            "SELECT (SELECT archived_at IS NOT NULL FROM vaults WHERE key = ?1), count(*), total(place = ?2)
             FROM credentials WHERE vault = ?1 AND archived_at IS NULL",
        )?
        .query_row(params![vault, place], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    if archived {
        return Err(Error::VaultArchived.into());
    }
    if admission.unique && same > 0.0 {
        return Err(Error::NameTaken.into());
    }
    if count >= i64::from(admission.most) {
        return Err(Error::TooMany(admission.most).into());
    }
    conn.prepare_cached(
        "INSERT INTO credentials (workspace, vault, id, revision, created_at, updated_at, spec, metadata, place, secrets)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        credential.workspace.as_str(),
        vault,
        credential.id.as_str(),
        row.revision,
        credential.created_at.as_millis(),
        credential.updated_at.as_millis(),
        row.spec,
        row.metadata,
        place,
        row.secrets,
    ])?;
    vaults::touch(conn, vault, credential.updated_at)?;
    let about = About {
        resource: credential.id.as_str(),
        vault: Some(credential.vault.as_str()),
        thread: None,
    };
    webhooks::tell_about(conn, &credential.workspace, &[Topic::CredentialCreated], about)?;
    once::remember(conn, once)
}

const WHOLE: &str =
    "SELECT id, revision, created_at, updated_at, archived_at, spec, metadata, secrets FROM credentials";

pub(super) fn find(
    conn: &Connection,
    workspace: &WorkspaceId,
    vault: &VaultId,
    id: &CredentialId,
) -> Result<Option<StoredCredential>, Failure> {
    let Some(key) = vaults::key(conn, workspace, vault)? else {
        return Ok(None);
    };
    let mut statement =
        conn.prepare_cached(&format!("{WHOLE} WHERE workspace = ? AND vault = ? AND id = ?"))?;
    let mut rows = statement.query(params![workspace.as_str(), key, id.as_str()])?;
    rows.next()?
        .map(|row| read(row, workspace, vault).map(|(stored, _)| stored))
        .transpose()
}

/// Reads a credential, and its size.
fn read(
    row: &Row<'_>,
    workspace: &WorkspaceId,
    vault: &VaultId,
) -> Result<(StoredCredential, usize), Failure> {
    let sealed = text(row, "secrets")?;
    let secrets: Secrets = from_json("sealed secret", sealed)?;
    let (credential, size) = read_spec(row, workspace, vault)?;
    let stored = StoredCredential {
        credential,
        secrets,
        revision: number(row, "revision")?,
    };
    Ok((stored, size + sealed.len()))
}

/// Reads what may be shown of a credential, and its size.
fn read_spec(
    row: &Row<'_>,
    workspace: &WorkspaceId,
    vault: &VaultId,
) -> Result<(Credential, usize), Failure> {
    let (metadata, size) = vaults::metadata(row)?;
    let spec = text(row, "spec")?;
    let credential = Credential {
        id: id(row, "id", CredentialId::parse)?,
        vault: vault.clone(),
        workspace: workspace.clone(),
        spec: from_json("credential", spec)?,
        metadata,
        created_at: Timestamp(row.get("created_at")?),
        updated_at: Timestamp(row.get("updated_at")?),
        archived_at: row.get::<_, Option<i64>>("archived_at")?.map(Timestamp),
    };
    Ok((credential, size + spec.len()))
}

pub(super) fn specs(
    conn: &Connection,
    workspace: &WorkspaceId,
    vault: &VaultId,
) -> Result<Vec<Credential>, Failure> {
    let Some(key) = vaults::key(conn, workspace, vault)? else {
        return Ok(Vec::new());
    };
    let mut statement = conn.prepare_cached(
        "SELECT id, created_at, updated_at, archived_at, spec, metadata FROM credentials
         WHERE workspace = ? AND vault = ? AND archived_at IS NULL ORDER BY key",
    )?;
    let mut rows = statement.query(params![workspace.as_str(), key])?;
    let mut specs = Vec::new();
    while let Some(row) = rows.next()? {
        specs.push(read_spec(row, workspace, vault)?.0);
    }
    Ok(specs)
}

pub(super) fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    vault: &VaultId,
    only_active: bool,
    order: Order,
    after: Option<&CredentialId>,
    limit: u32,
) -> Result<Page<StoredCredential, CredentialId>, Failure> {
    let limit = page_limit(limit);
    let vault_key = vaults::key(conn, workspace, vault)?;
    let after = match (after, vault_key) {
        (Some(id), Some(vault_key)) => Some(key(conn, vault_key, id)?.ok_or_else(unknown_cursor)?),
        (Some(_), None) => return Err(unknown_cursor()),
        (None, _) => None,
    };
    let after = start(after, order);
    let active = if only_active {
        " AND archived_at IS NULL"
    } else {
        ""
    };
    let (beyond, direction) = match order {
        Order::Ascending => (">", ""),
        Order::Descending => ("<", " DESC"),
    };
    let mut statement = conn.prepare_cached(&format!(
        "{WHOLE} WHERE workspace = ? AND vault = ? AND key {beyond} ?{active} ORDER BY key{direction} LIMIT ?"
    ))?;
    let rows = statement.query(params![workspace.as_str(), vault_key, after, limit + 1])?;
    page(
        rows,
        limit,
        |row| read(row, workspace, vault),
        |stored| stored.credential.id.clone(),
    )
}

pub(super) fn update(conn: &Connection, row: &CredentialRow) -> Result<(), Failure> {
    let credential = &row.credential;
    let vault = vaults::key(conn, &credential.workspace, &credential.vault)?.ok_or(Error::NotFound)?;
    let key = key(conn, vault, &credential.id)?.ok_or(Error::NotFound)?;
    let changed = conn
        .prepare_cached(
            "UPDATE credentials SET revision = ?, updated_at = max(updated_at, ?), spec = ?, metadata = ?, secrets = ?
             WHERE key = ? AND revision = ? - 1 AND archived_at IS NULL",
        )?
        .execute(params![
            row.revision,
            credential.updated_at.as_millis(),
            row.spec,
            row.metadata,
            row.secrets,
            key,
            row.revision,
        ])?;
    if changed == 0 {
        return Err(Error::Conflict.into());
    }
    vaults::touch(conn, vault, credential.updated_at)
}

/// Notes that the tokens of a credential could not be refreshed as it stands, and tells of it; nothing happens when
/// that was noted before, or it stands otherwise by now.
pub(super) fn refresh_failed(
    conn: &Connection,
    workspace: &WorkspaceId,
    vault: &VaultId,
    id: &CredentialId,
    revision: u64,
) -> Result<bool, Failure> {
    let Some(vault_key) = vaults::key(conn, workspace, vault)? else {
        return Ok(false);
    };
    let revision = i64::try_from(revision).map_err(|error| Error::Internal(error.to_string()))?;
    let noted = conn
        .prepare_cached(
            "UPDATE credentials SET refresh_failed = revision
             WHERE vault = ? AND id = ? AND revision = ? AND archived_at IS NULL AND refresh_failed IS NOT revision",
        )?
        .execute(params![vault_key, id.as_str(), revision])?;
    if noted > 0 {
        let about = About {
            resource: id.as_str(),
            vault: Some(vault.as_str()),
            thread: None,
        };
        webhooks::tell_about(conn, workspace, &[Topic::CredentialRefreshFailed], about)?;
    }
    Ok(noted > 0)
}

/// What archiving does to those that are not archived yet: its secrets go, and whoever is about to write finds another
/// revision.
const ARCHIVE: &str = "UPDATE credentials
    SET archived_at = ?1, updated_at = max(updated_at, ?1), secrets = '{}', revision = revision + 1
    WHERE archived_at IS NULL";

pub(super) fn archive(
    conn: &Connection,
    workspace: &WorkspaceId,
    vault: &VaultId,
    id: &CredentialId,
    at: Timestamp,
) -> Result<Option<Credential>, Failure> {
    let Some(vault_key) = vaults::key(conn, workspace, vault)? else {
        return Ok(None);
    };
    let archived = conn
        .prepare_cached(&format!("{ARCHIVE} AND vault = ?2 AND id = ?3"))?
        .execute(params![at.as_millis(), vault_key, id.as_str()])?;
    if archived > 0 {
        vaults::touch(conn, vault_key, at)?;
        tell_archived(conn, workspace, vault, id.as_str())?;
    }
    Ok(find(conn, workspace, vault, id)?.map(|stored| stored.credential))
}

/// Archives all credentials of a vault; `key` is its row's.
pub(super) fn archive_all(
    conn: &Connection,
    workspace: &WorkspaceId,
    vault: &VaultId,
    key: i64,
    at: Timestamp,
) -> Result<(), Failure> {
    let mut statement = conn.prepare_cached(&format!("{ARCHIVE} AND vault = ?2 RETURNING id"))?;
    let archived: Vec<String> = statement
        .query_map(params![at.as_millis(), key], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for id in &archived {
        tell_archived(conn, workspace, vault, id)?;
    }
    Ok(())
}

fn tell_archived(
    conn: &Connection,
    workspace: &WorkspaceId,
    vault: &VaultId,
    id: &str,
) -> Result<(), Failure> {
    let about = About {
        resource: id,
        vault: Some(vault.as_str()),
        thread: None,
    };
    webhooks::tell_about(conn, workspace, &[Topic::CredentialArchived], about)
}

pub(super) fn delete(
    conn: &Connection,
    workspace: &WorkspaceId,
    vault: &VaultId,
    id: &CredentialId,
    at: Timestamp,
) -> Result<bool, Failure> {
    let Some(vault_key) = vaults::key(conn, workspace, vault)? else {
        return Ok(false);
    };
    let Some(key) = key(conn, vault_key, id)? else {
        return Ok(false);
    };
    conn.prepare_cached("DELETE FROM credentials WHERE key = ?")?
        .execute([key])?;
    vaults::touch(conn, vault_key, at)?;
    let about = About {
        resource: id.as_str(),
        vault: Some(vault.as_str()),
        thread: None,
    };
    webhooks::tell_about(conn, workspace, &[Topic::CredentialDeleted], about)?;
    Ok(true)
}

fn key(conn: &Connection, vault: i64, id: &CredentialId) -> Result<Option<i64>, Failure> {
    Ok(conn
        .prepare_cached("SELECT key FROM credentials WHERE vault = ? AND id = ?")?
        .query_row(params![vault, id.as_str()], |row| row.get(0))
        .optional()?)
}
