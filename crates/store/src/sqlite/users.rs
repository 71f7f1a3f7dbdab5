//! Those who signed up by themselves, and the end of what is theirs.

use oma_domain::user::{GithubAccount, Tier, User};
use oma_domain::{KeyId, Timestamp, UserId, Workspace, WorkspaceId};
use rusqlite::{Connection, Row, params};

use super::failure::{Failure, unreadable};
use super::rows::{id, number, optional_text, page_limit, text};
use super::{keys, workspaces};
use crate::{Error, StoredKey};

const COLUMNS: &str =
    "workspace, id, api_key, tier, created_at, expires_at, github_id, login, avatar_url FROM users";

/// Adds a user with the workspace and the key, as long as there are less than `most` whose time is not over.
pub(super) fn create(
    conn: &Connection,
    user: &User,
    workspace: &Workspace,
    key: &StoredKey,
    most: u32,
) -> Result<(), Failure> {
    let mut counted = conn.prepare_cached(
        "SELECT count(*) AS n FROM users WHERE tier = ? AND (expires_at IS NULL OR expires_at > ?)",
    )?;
    let mut rows = counted.query(params![user.tier.as_str(), user.created_at.as_millis()])?;
    let there: u32 = rows.next()?.map_or(Ok(0), |row| number(row, "n"))?;
    if there >= most {
        return Err(Error::Limit(most).into());
    }
    let github = user.github.as_ref();
    let github_id = match github {
        Some(account) => Some(i64::try_from(account.id).map_err(|error| Error::Internal(error.to_string()))?),
        None => None,
    };
    if conn
        .prepare_cached("SELECT 1 FROM users WHERE github_id = ?")?
        .exists([github_id])?
    {
        return Err(Error::Conflict.into());
    }
    workspaces::create(conn, workspace, None)?;
    keys::create(conn, key, 1, None)?;
    conn.prepare_cached(
        "INSERT INTO users (workspace, id, api_key, tier, created_at, expires_at, github_id, login, avatar_url)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        user.workspace.as_str(),
        user.id.as_str(),
        user.key.as_str(),
        user.tier.as_str(),
        user.created_at.as_millis(),
        user.expires_at.map(Timestamp::as_millis),
        github_id,
        github.map(|account| account.login.as_str()),
        github.and_then(|account| account.avatar_url.as_deref()),
    ])?;
    Ok(())
}

pub(super) fn of_key(conn: &Connection, key: &KeyId) -> Result<Option<User>, Failure> {
    let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} WHERE api_key = ?"))?;
    let mut rows = statement.query([key.as_str()])?;
    rows.next()?.map(read).transpose()
}

pub(super) fn of_github(conn: &Connection, account: u64) -> Result<Option<User>, Failure> {
    let Ok(account) = i64::try_from(account) else {
        return Ok(None);
    };
    let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} WHERE github_id = ?"))?;
    let mut rows = statement.query([account])?;
    rows.next()?.map(read).transpose()
}

pub(super) fn expired(conn: &Connection, now: Timestamp, limit: u32) -> Result<Vec<User>, Failure> {
    let sql = format!("SELECT {COLUMNS} WHERE expires_at <= ? ORDER BY expires_at LIMIT ?");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params![now.as_millis(), page_limit(limit)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Result<User, Failure> {
    let tier = text(row, "tier")?;
    let github = match row.get::<_, Option<i64>>("github_id")? {
        Some(_) => Some(GithubAccount {
            id: number(row, "github_id")?,
            login: text(row, "login")?.to_owned(),
            avatar_url: optional_text(row, "avatar_url")?.map(str::to_owned),
        }),
        None => None,
    };
    Ok(User {
        id: id(row, "id", UserId::parse)?,
        workspace: id(row, "workspace", WorkspaceId::parse)?,
        key: id(row, "api_key", KeyId::parse)?,
        tier: Tier::parse(tier).ok_or_else(|| unreadable("tier", tier))?,
        created_at: Timestamp(row.get("created_at")?),
        expires_at: row.get::<_, Option<i64>>("expires_at")?.map(Timestamp),
        github,
    })
}

/// Removes a workspace with all that is in it, except the audit trail, which keeps what was done there. Its sessions
/// must be gone.
pub(super) fn remove_workspace(conn: &Connection, workspace: &WorkspaceId) -> Result<(), Failure> {
    let mut counted = conn.prepare_cached("SELECT count(*) AS n FROM sessions WHERE workspace = ?")?;
    let mut rows = counted.query([workspace.as_str()])?;
    let sessions: u64 = rows.next()?.map_or(Ok(0), |row| number(row, "n"))?;
    if sessions > 0 {
        return Err(Error::InUse(sessions).into());
    }
    // What refers to others goes before them.
    for table in [
        "webhook_outbox",
        "webhook_endpoints",
        "deployment_runs",
        "deployments",
        "credentials",
        "vaults",
        "agent_versions",
        "agents",
        "work",
        "environments",
        "agent_snapshots",
        "memory_copies",
        "memories",
        "memory_versions",
        "memory_stores",
        "skill_versions",
        "skills",
        "once",
        "usage",
        "users",
        "api_keys",
    ] {
        conn.prepare_cached(&format!("DELETE FROM {table} WHERE workspace = ?"))?
            .execute([workspace.as_str()])?;
    }
    conn.prepare_cached("DELETE FROM workspaces WHERE id = ?")?
        .execute([workspace.as_str()])?;
    Ok(())
}
