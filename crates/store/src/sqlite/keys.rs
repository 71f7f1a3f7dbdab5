//! API keys. A key has a secret and, for a time after a rotation, the one before; only digests are stored.

use oma_domain::page::Page;
use oma_domain::quota::Monthly;
use oma_domain::{ApiKey, EnvironmentId, KeyId, Scope, Timestamp, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::failure::{Failure, unreadable};
use super::once::{self, Mark};
use super::rows::{id, number, optional_id, page, page_limit, text, unknown_cursor};
use super::workspaces;
use crate::{Error, KeyDigest, StoredKey};

const COLUMNS: &str = "workspace, id, name, scope, digest, previous, previous_until, created_at, rotated_at, \
                       expires_at, revoked_at, last_used_at, max_cost, max_tokens, environment";

pub(super) fn create(
    conn: &Connection,
    stored: &StoredKey,
    most: u32,
    once: Option<&Mark>,
) -> Result<(), Failure> {
    let key = &stored.key;
    once::check(conn, once)?;
    if workspaces::key(conn, &key.workspace)?.is_none() {
        return Err(Error::NotFound.into());
    }
    if live_in(conn, &key.workspace)? >= most {
        return Err(Error::Limit(most).into());
    }
    if conn
        .prepare_cached("SELECT 1 FROM api_keys WHERE id = ? OR digest = ?")?
        .exists(params![key.id.as_str(), stored.digest.0])?
    {
        return Err(Error::Conflict.into());
    }
    conn.prepare_cached(
        "INSERT INTO api_keys (workspace, id, name, scope, digest, created_at, expires_at, max_cost, max_tokens, \
                               environment) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        key.workspace.as_str(),
        key.id.as_str(),
        key.name,
        key.scope.as_str(),
        stored.digest.0,
        key.created_at.as_millis(),
        key.expires_at.map(Timestamp::as_millis),
        workspaces::stored_cost(&key.budget),
        workspaces::stored_tokens(&key.budget),
        key.environment.as_ref().map(EnvironmentId::as_str),
    ])?;
    once::remember(conn, once)
}

fn live_in(conn: &Connection, workspace: &WorkspaceId) -> Result<u32, Failure> {
    let mut statement =
        conn.prepare_cached("SELECT count(*) AS n FROM api_keys WHERE workspace = ? AND revoked_at IS NULL")?;
    let mut rows = statement.query([workspace.as_str()])?;
    rows.next()?.map_or(Ok(0), |row| number(row, "n"))
}

pub(super) fn find(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &KeyId,
) -> Result<Option<StoredKey>, Failure> {
    let sql = format!("SELECT {COLUMNS} FROM api_keys WHERE workspace = ? AND id = ?");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params![workspace.as_str(), id.as_str()])?;
    rows.next()?
        .map(|row| read(row).map(|(stored, _)| stored))
        .transpose()
}

pub(super) fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    after: Option<&KeyId>,
    limit: u32,
) -> Result<Page<ApiKey, KeyId>, Failure> {
    let limit = page_limit(limit);
    let after = match after {
        Some(id) => conn
            .prepare_cached("SELECT key FROM api_keys WHERE workspace = ? AND id = ?")?
            .query_row(params![workspace.as_str(), id.as_str()], |row| row.get(0))
            .optional()?
            .ok_or_else(unknown_cursor)?,
        None => 0_i64,
    };
    let sql = format!("SELECT {COLUMNS} FROM api_keys WHERE workspace = ? AND key > ? ORDER BY key LIMIT ?");
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query(params![workspace.as_str(), after, limit + 1])?;
    let read = |row: &Row<'_>| read(row).map(|(stored, size)| (stored.key, size));
    page(rows, limit, read, |key| key.id.clone())
}

pub(super) fn live(
    conn: &Connection,
    after: Option<&KeyId>,
    limit: u32,
) -> Result<Page<StoredKey, KeyId>, Failure> {
    let limit = page_limit(limit);
    let after = match after {
        Some(id) => conn
            .prepare_cached("SELECT key FROM api_keys WHERE id = ?")?
            .query_row([id.as_str()], |row| row.get(0))
            .optional()?
            .ok_or_else(unknown_cursor)?,
        None => 0_i64,
    };
    let sql =
        format!("SELECT {COLUMNS} FROM api_keys WHERE key > ? AND revoked_at IS NULL ORDER BY key LIMIT ?");
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query(params![after, limit + 1])?;
    page(rows, limit, read, |stored| stored.key.id.clone())
}

/// What a rotation changes.
pub(super) struct Rotation {
    pub(super) workspace: WorkspaceId,
    pub(super) id: KeyId,
    pub(super) digest: KeyDigest,
    pub(super) previous_until: Option<Timestamp>,
    pub(super) at: Timestamp,
}

pub(super) fn rotate(
    conn: &Connection,
    rotation: &Rotation,
    once: Option<&Mark>,
) -> Result<StoredKey, Failure> {
    once::check(conn, once)?;
    let stored = find(conn, &rotation.workspace, &rotation.id)?.ok_or(Error::NotFound)?;
    if stored.key.revoked_at.is_some() {
        return Err(Error::Conflict.into());
    }
    let until = rotation.previous_until;
    let rotated = StoredKey {
        previous: until.map(|_| stored.digest),
        digest: rotation.digest,
        key: ApiKey {
            rotated_at: Some(rotation.at),
            previous_until: until,
            ..stored.key
        },
    };
    conn.prepare_cached(
        "UPDATE api_keys SET digest = ?, previous = ?, previous_until = ?, rotated_at = ? WHERE id = ?",
    )?
    .execute(params![
        rotated.digest.0,
        rotated.previous.map(|digest| digest.0),
        until.map(Timestamp::as_millis),
        rotation.at.as_millis(),
        rotation.id.as_str(),
    ])?;
    once::remember(conn, once)?;
    Ok(rotated)
}

pub(super) fn set_budget(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &KeyId,
    budget: &Monthly,
) -> Result<ApiKey, Failure> {
    conn.prepare_cached("UPDATE api_keys SET max_cost = ?, max_tokens = ? WHERE workspace = ? AND id = ?")?
        .execute(params![
            workspaces::stored_cost(budget),
            workspaces::stored_tokens(budget),
            workspace.as_str(),
            id.as_str(),
        ])?;
    let found = find(conn, workspace, id)?;
    found
        .map(|stored| stored.key)
        .ok_or_else(|| Error::NotFound.into())
}

pub(super) fn revoke(
    conn: &Connection,
    workspace: &WorkspaceId,
    id: &KeyId,
    at: Timestamp,
) -> Result<ApiKey, Failure> {
    let mut key = find(conn, workspace, id)?.ok_or(Error::NotFound)?.key;
    if key.revoked_at.is_none() {
        conn.prepare_cached("UPDATE api_keys SET revoked_at = ? WHERE id = ?")?
            .execute(params![at.as_millis(), id.as_str()])?;
        key.revoked_at = Some(at);
    }
    Ok(key)
}

/// A user's key goes with the user.
pub(super) fn forget(conn: &Connection, before: Timestamp) -> Result<u64, Failure> {
    let gone = conn
        .prepare_cached(
            "DELETE FROM api_keys WHERE revoked_at < ?
             AND NOT EXISTS (SELECT 1 FROM users WHERE users.api_key = api_keys.id)",
        )?
        .execute([before.as_millis()])?;
    Ok(gone as u64)
}

pub(super) fn touch(conn: &Connection, used: &[(KeyId, Timestamp)]) -> Result<(), Failure> {
    let mut statement = conn.prepare_cached(
        "UPDATE api_keys SET last_used_at = ?1 WHERE id = ?2 AND (last_used_at IS NULL OR last_used_at < ?1)",
    )?;
    for (id, at) in used {
        statement.execute(params![at.as_millis(), id.as_str()])?;
    }
    Ok(())
}

/// Reads a key and the size of its row.
fn read(row: &Row<'_>) -> Result<(StoredKey, usize), Failure> {
    let time = |column: &str| -> Result<Option<Timestamp>, Failure> {
        Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp))
    };
    let name = text(row, "name")?;
    let scope = text(row, "scope")?;
    let key = ApiKey {
        id: id(row, "id", KeyId::parse)?,
        workspace: id(row, "workspace", WorkspaceId::parse)?,
        name: name.to_owned(),
        environment: optional_id(row, "environment", EnvironmentId::parse)?,
        budget: workspaces::budget(row)?,
        scope: Scope::parse(scope).ok_or_else(|| unreadable("scope", scope))?,
        created_at: Timestamp(row.get("created_at")?),
        rotated_at: time("rotated_at")?,
        previous_until: time("previous_until")?,
        expires_at: time("expires_at")?,
        revoked_at: time("revoked_at")?,
        last_used_at: time("last_used_at")?,
    };
    let stored = StoredKey {
        key,
        digest: KeyDigest(row.get("digest")?),
        previous: row.get::<_, Option<[u8; 32]>>("previous")?.map(KeyDigest),
    };
    Ok((stored, name.len() + 128))
}
