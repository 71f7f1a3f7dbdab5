//! Credentials: what may be shown, and the ciphertexts of their secrets.

use oma_domain::page::Page;
use oma_domain::vault::Secrets;
use oma_domain::webhook::Topic;
use oma_domain::{Credential, CredentialId, Timestamp, VaultId, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::failure::{Failure, from_json, to_json};
use super::once::{self, Mark};
use super::rows::{id, number, page, page_limit, text, unknown_cursor};
use super::vaults;
use super::webhooks::{self, About};
use crate::{Error, Result as StoreResult, StoredCredential};

/// A credential, ready to be stored.
pub(super) struct CredentialRow {
    credential: Credential,
    revision: i64,
    spec: String,
    secrets: String,
}

impl CredentialRow {
    pub(super) fn new(stored: &StoredCredential) -> StoreResult<Self> {
        Ok(Self {
            credential: stored.credential.clone(),
            revision: i64::try_from(stored.revision)
                .map_err(|_| Error::Internal("a credential has changed too often".into()))?,
            spec: to_json("credential", &stored.credential.spec)?,
            secrets: to_json("sealed secret", &stored.secrets)?,
        })
    }
}

pub(super) fn add(
    conn: &Connection,
    row: &CredentialRow,
    most: u32,
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
    let count: i64 = conn
        .prepare_cached("SELECT count(*) FROM credentials WHERE vault = ?")?
        .query_row([vault], |row| row.get(0))?;
    if count >= i64::from(most) {
        return Err(Error::TooMany(most).into());
    }
    conn.prepare_cached(
        "INSERT INTO credentials (workspace, vault, id, revision, created_at, updated_at, spec, secrets)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        credential.workspace.as_str(),
        vault,
        credential.id.as_str(),
        row.revision,
        credential.created_at.as_millis(),
        credential.updated_at.as_millis(),
        row.spec,
        row.secrets,
    ])?;
    vaults::touch(conn, vault, credential.updated_at)?;
    let about = About {
        resource: credential.id.as_str(),
        vault: Some(credential.vault.as_str()),
    };
    webhooks::tell_about(conn, &credential.workspace, &[Topic::CredentialCreated], about)?;
    once::remember(conn, once)
}

const WHOLE: &str = "SELECT id, revision, created_at, updated_at, spec, secrets FROM credentials";

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
    let stored = StoredCredential {
        credential: read_spec(row, workspace, vault)?,
        secrets,
        revision: number(row, "revision")?,
    };
    Ok((stored, text(row, "spec")?.len() + sealed.len()))
}

/// Reads what may be shown of a credential.
fn read_spec(row: &Row<'_>, workspace: &WorkspaceId, vault: &VaultId) -> Result<Credential, Failure> {
    Ok(Credential {
        id: id(row, "id", CredentialId::parse)?,
        vault: vault.clone(),
        workspace: workspace.clone(),
        spec: from_json("credential", text(row, "spec")?)?,
        created_at: Timestamp(row.get("created_at")?),
        updated_at: Timestamp(row.get("updated_at")?),
    })
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
        "SELECT id, created_at, updated_at, spec FROM credentials WHERE workspace = ? AND vault = ? ORDER BY key",
    )?;
    let mut rows = statement.query(params![workspace.as_str(), key])?;
    let mut specs = Vec::new();
    while let Some(row) = rows.next()? {
        specs.push(read_spec(row, workspace, vault)?);
    }
    Ok(specs)
}

pub(super) fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    vault: &VaultId,
    after: Option<&CredentialId>,
    limit: u32,
) -> Result<Page<StoredCredential, CredentialId>, Failure> {
    let limit = page_limit(limit);
    let vault_key = vaults::key(conn, workspace, vault)?;
    let after = match (after, vault_key) {
        (Some(id), Some(vault_key)) => key(conn, vault_key, id)?.ok_or_else(unknown_cursor)?,
        (Some(_), None) => return Err(unknown_cursor()),
        (None, _) => 0,
    };
    let mut statement = conn.prepare_cached(&format!(
        "{WHOLE} WHERE workspace = ? AND vault = ? AND key > ? ORDER BY key LIMIT ?"
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
            "UPDATE credentials SET revision = ?, updated_at = max(updated_at, ?), spec = ?, secrets = ?
             WHERE key = ? AND revision = ? - 1",
        )?
        .execute(params![
            row.revision,
            credential.updated_at.as_millis(),
            row.spec,
            row.secrets,
            key,
            row.revision,
        ])?;
    if changed == 0 {
        return Err(Error::Conflict.into());
    }
    vaults::touch(conn, vault, credential.updated_at)
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
