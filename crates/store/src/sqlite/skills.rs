//! Skills and their versions. The files of a version are one archive, which is read only where it is asked for.

use std::sync::Arc;

use async_trait::async_trait;
use oma_domain::page::{Order, Page};
use oma_domain::skill::{Skill, SkillVersion, Which};
use oma_domain::{SkillId, SkillVersionId, Timestamp, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::Sqlite;
use super::failure::Failure;
use super::once::{self, Mark};
use super::rows::{id, number, optional_id, page, page_limit, start, text, unknown_cursor};
use crate::{Error, Once, Result as StoreResult, SkillBounds, Skills};

fn create(
    conn: &Connection,
    skill: &Skill,
    first: &SkillVersion,
    content: &[u8],
    bounds: SkillBounds,
    once: Option<&Mark>,
) -> Result<(), Failure> {
    once::check(conn, once)?;
    let skills: u32 = conn
        .prepare_cached("SELECT count(*) FROM skills WHERE workspace = ?")?
        .query_row([skill.workspace.as_str()], |row| row.get(0))?;
    if skills >= bounds.skills {
        return Err(Error::TooMany(bounds.skills).into());
    }
    check_versions(conn, &skill.workspace, bounds)?;
    if conn
        .prepare_cached("SELECT 1 FROM skills WHERE id = ?")?
        .exists([skill.id.as_str()])?
    {
        return Err(Error::Conflict.into());
    }
    conn.prepare_cached(
        "INSERT INTO skills (workspace, id, display_name, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
    )?
    .execute(params![
        skill.workspace.as_str(),
        skill.id.as_str(),
        skill.display_name,
        skill.created_at.as_millis(),
        skill.updated_at.as_millis(),
    ])?;
    insert(conn, conn.last_insert_rowid(), first, first.number, content)?;
    once::remember(conn, once)
}

/// Refuses another version when the skills of a workspace have as many as they may.
fn check_versions(conn: &Connection, workspace: &WorkspaceId, bounds: SkillBounds) -> Result<(), Failure> {
    let versions: u32 = conn
        .prepare_cached(
            "SELECT count(*) FROM skills s JOIN skill_versions v ON v.skill = s.key WHERE s.workspace = ?",
        )?
        .query_row([workspace.as_str()], |row| row.get(0))?;
    match versions >= bounds.versions {
        true => Err(Error::Limit(bounds.versions).into()),
        false => Ok(()),
    }
}

fn insert(
    conn: &Connection,
    skill: i64,
    version: &SkillVersion,
    number: u64,
    content: &[u8],
) -> Result<(), Failure> {
    if conn
        .prepare_cached("SELECT 1 FROM skill_versions WHERE id = ?")?
        .exists([version.id.as_str()])?
    {
        return Err(Error::Conflict.into());
    }
    let number = i64::try_from(number).map_err(|error| Error::Internal(error.to_string()))?;
    conn.prepare_cached(
        "INSERT INTO skill_versions
             (workspace, skill, id, number, name, description, directory, created_at, content)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        version.workspace.as_str(),
        skill,
        version.id.as_str(),
        number,
        version.name,
        version.description,
        version.directory,
        version.created_at.as_millis(),
        content,
    ])?;
    Ok(())
}

const SKILL: &str = "SELECT s.id, s.display_name, s.created_at, s.updated_at, v.id AS latest, v.number
     FROM skills s LEFT JOIN skill_versions v
         ON v.key = (SELECT max(key) FROM skill_versions WHERE skill = s.key)";

fn read(row: &Row<'_>, workspace: &WorkspaceId) -> Result<(Skill, usize), Failure> {
    let latest = match optional_id(row, "latest", SkillVersionId::parse)? {
        Some(latest) => Some((latest, number(row, "number")?)),
        None => None,
    };
    let skill = Skill {
        id: id(row, "id", SkillId::parse)?,
        workspace: workspace.clone(),
        display_name: text(row, "display_name")?.to_owned(),
        latest,
        created_at: Timestamp(row.get("created_at")?),
        updated_at: Timestamp(row.get("updated_at")?),
    };
    let size = skill.display_name.len();
    Ok((skill, size))
}

fn find(conn: &Connection, workspace: &WorkspaceId, id: &SkillId) -> Result<Option<Skill>, Failure> {
    let mut statement = conn.prepare_cached(&format!("{SKILL} WHERE s.workspace = ? AND s.id = ?"))?;
    let mut rows = statement.query(params![workspace.as_str(), id.as_str()])?;
    rows.next()?
        .map(|row| read(row, workspace).map(|(skill, _)| skill))
        .transpose()
}

fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    after: Option<&SkillId>,
    limit: u32,
) -> Result<Page<Skill, SkillId>, Failure> {
    let limit = page_limit(limit);
    let after = match after {
        Some(id) => Some(key(conn, workspace, id)?.ok_or_else(unknown_cursor)?),
        None => None,
    };
    let sql = format!("{SKILL} WHERE s.workspace = ? AND s.key < ? ORDER BY s.key DESC LIMIT ?");
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query(params![
        workspace.as_str(),
        start(after, Order::Descending),
        limit + 1
    ])?;
    page(rows, limit, |row| read(row, workspace), |skill| skill.id.clone())
}

fn delete(conn: &Connection, workspace: &WorkspaceId, id: &SkillId) -> Result<bool, Failure> {
    let Some(key) = key(conn, workspace, id)? else {
        return Ok(false);
    };
    let versions: i64 = conn
        .prepare_cached("SELECT count(*) FROM skill_versions WHERE skill = ?")?
        .query_row([key], |row| row.get(0))?;
    if versions > 0 {
        return Err(Error::InUse(versions.unsigned_abs()).into());
    }
    conn.prepare_cached("DELETE FROM once WHERE workspace = ? AND subject = ?")?
        .execute(params![workspace.as_str(), id.as_str()])?;
    conn.prepare_cached("DELETE FROM skills WHERE key = ?")?
        .execute([key])?;
    Ok(true)
}

/// The row's key, by which versions refer to it.
fn key(conn: &Connection, workspace: &WorkspaceId, id: &SkillId) -> Result<Option<i64>, Failure> {
    Ok(conn
        .prepare_cached("SELECT key FROM skills WHERE workspace = ? AND id = ?")?
        .query_row(params![workspace.as_str(), id.as_str()], |row| row.get(0))
        .optional()?)
}

/// The skill counts as changed. Its time never goes back, whatever the clock does.
fn touch(conn: &Connection, key: i64, at: Timestamp) -> Result<(), Failure> {
    conn.prepare_cached("UPDATE skills SET updated_at = max(updated_at, ?) WHERE key = ?")?
        .execute(params![at.as_millis(), key])?;
    Ok(())
}

fn add(
    conn: &Connection,
    version: &SkillVersion,
    content: &[u8],
    bounds: SkillBounds,
    once: Option<&Mark>,
) -> Result<SkillVersion, Failure> {
    once::check(conn, once)?;
    let skill = key(conn, &version.workspace, &version.skill)?.ok_or(Error::NotFound)?;
    check_versions(conn, &version.workspace, bounds)?;
    let highest: Option<i64> = conn
        .prepare_cached("SELECT max(number) FROM skill_versions WHERE skill = ?")?
        .query_row([skill], |row| row.get(0))?;
    let next = highest.map_or(0, |highest| highest.unsigned_abs() + 1);
    let number = version.number.max(next);
    insert(conn, skill, version, number, content)?;
    touch(conn, skill, version.created_at)?;
    once::remember(conn, once)?;
    Ok(SkillVersion {
        number,
        ..version.clone()
    })
}

const VERSION: &str = "SELECT id, number, name, description, directory, created_at FROM skill_versions";

fn read_version(
    row: &Row<'_>,
    workspace: &WorkspaceId,
    skill: &SkillId,
) -> Result<(SkillVersion, usize), Failure> {
    let version = SkillVersion {
        id: id(row, "id", SkillVersionId::parse)?,
        skill: skill.clone(),
        workspace: workspace.clone(),
        number: number(row, "number")?,
        name: text(row, "name")?.to_owned(),
        description: text(row, "description")?.to_owned(),
        directory: text(row, "directory")?.to_owned(),
        created_at: Timestamp(row.get("created_at")?),
    };
    let size = version.description.len() + version.directory.len();
    Ok((version, size))
}

fn version(
    conn: &Connection,
    workspace: &WorkspaceId,
    skill: &SkillId,
    which: &Which,
) -> Result<Option<SkillVersion>, Failure> {
    let Some(key) = key(conn, workspace, skill)? else {
        return Ok(None);
    };
    let (condition, value) = match which {
        Which::Latest => (
            "?1 IS NULL ORDER BY key DESC LIMIT 1",
            rusqlite::types::Value::Null,
        ),
        Which::Id(id) => ("id = ?1", id.as_str().to_owned().into()),
        Which::Number(number) => match i64::try_from(*number) {
            Ok(number) => ("number = ?1", number.into()),
            Err(_) => return Ok(None),
        },
    };
    let mut statement = conn.prepare_cached(&format!("{VERSION} WHERE skill = ?2 AND {condition}"))?;
    let mut rows = statement.query(params![value, key])?;
    rows.next()?
        .map(|row| read_version(row, workspace, skill).map(|(version, _)| version))
        .transpose()
}

fn versions(
    conn: &Connection,
    workspace: &WorkspaceId,
    skill: &SkillId,
    after: Option<&SkillVersionId>,
    limit: u32,
) -> Result<Page<SkillVersion, SkillVersionId>, Failure> {
    let limit = page_limit(limit);
    let skill_key = key(conn, workspace, skill)?;
    let after = match after {
        Some(id) => {
            let found: Option<i64> = conn
                .prepare_cached("SELECT key FROM skill_versions WHERE skill = ? AND id = ?")?
                .query_row(params![skill_key, id.as_str()], |row| row.get(0))
                .optional()?;
            Some(found.ok_or_else(unknown_cursor)?)
        }
        None => None,
    };
    let sql = format!("{VERSION} WHERE skill = ? AND key < ? ORDER BY key DESC LIMIT ?");
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query(params![skill_key, start(after, Order::Descending), limit + 1])?;
    let read = |row: &Row<'_>| read_version(row, workspace, skill);
    page(rows, limit, read, |version| version.id.clone())
}

fn remove_version(
    conn: &Connection,
    workspace: &WorkspaceId,
    skill: &SkillId,
    which: &Which,
    at: Timestamp,
) -> Result<Option<SkillVersion>, Failure> {
    let (Some(key), Some(found)) = (
        key(conn, workspace, skill)?,
        version(conn, workspace, skill, which)?,
    ) else {
        return Ok(None);
    };
    conn.prepare_cached("DELETE FROM skill_versions WHERE skill = ? AND id = ?")?
        .execute(params![key, found.id.as_str()])?;
    touch(conn, key, at)?;
    Ok(Some(found))
}

fn content(
    conn: &Connection,
    workspace: &WorkspaceId,
    skill: &SkillId,
    version: &SkillVersionId,
) -> Result<Option<Vec<u8>>, Failure> {
    let sql = "SELECT v.content FROM skill_versions v JOIN skills s ON s.key = v.skill
               WHERE s.workspace = ? AND s.id = ? AND v.id = ?";
    let found = conn.prepare_cached(sql)?.query_row(
        params![workspace.as_str(), skill.as_str(), version.as_str()],
        |row| row.get(0),
    );
    Ok(found.optional()?)
}

#[async_trait]
impl Skills for Sqlite {
    async fn create_skill(
        &self,
        skill: &Skill,
        first: &SkillVersion,
        content: Arc<[u8]>,
        bounds: SkillBounds,
        once: Option<&Once>,
    ) -> StoreResult<()> {
        let once = Mark::of(&skill.workspace, once)?;
        let (skill, first) = (skill.clone(), first.clone());
        self.writer
            .run(move |conn| create(conn, &skill, &first, &content, bounds, once.as_ref()))
            .await
    }

    async fn skill(&self, workspace: &WorkspaceId, id: &SkillId) -> StoreResult<Option<Skill>> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers.run(move |conn| find(conn, &workspace, &id)).await
    }

    async fn skills(
        &self,
        workspace: &WorkspaceId,
        after: Option<&SkillId>,
        limit: u32,
    ) -> StoreResult<Page<Skill, SkillId>> {
        let (workspace, after) = (workspace.clone(), after.cloned());
        self.readers
            .run(move |conn| list(conn, &workspace, after.as_ref(), limit))
            .await
    }

    async fn delete_skill(&self, workspace: &WorkspaceId, id: &SkillId) -> StoreResult<bool> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.writer.run(move |conn| delete(conn, &workspace, &id)).await
    }

    async fn add_skill_version(
        &self,
        version: &SkillVersion,
        content: Arc<[u8]>,
        bounds: SkillBounds,
        once: Option<&Once>,
    ) -> StoreResult<SkillVersion> {
        let once = Mark::of(&version.workspace, once)?;
        let version = version.clone();
        self.writer
            .run(move |conn| add(conn, &version, &content, bounds, once.as_ref()))
            .await
    }

    async fn skill_version(
        &self,
        workspace: &WorkspaceId,
        skill: &SkillId,
        which: &Which,
    ) -> StoreResult<Option<SkillVersion>> {
        let (workspace, skill, which) = (workspace.clone(), skill.clone(), which.clone());
        self.readers
            .run(move |conn| version(conn, &workspace, &skill, &which))
            .await
    }

    async fn skill_versions(
        &self,
        workspace: &WorkspaceId,
        skill: &SkillId,
        after: Option<&SkillVersionId>,
        limit: u32,
    ) -> StoreResult<Page<SkillVersion, SkillVersionId>> {
        let (workspace, skill, after) = (workspace.clone(), skill.clone(), after.cloned());
        self.readers
            .run(move |conn| versions(conn, &workspace, &skill, after.as_ref(), limit))
            .await
    }

    async fn skill_content(
        &self,
        workspace: &WorkspaceId,
        skill: &SkillId,
        version: &SkillVersionId,
    ) -> StoreResult<Option<Vec<u8>>> {
        let (workspace, skill, version) = (workspace.clone(), skill.clone(), version.clone());
        self.readers
            .run(move |conn| content(conn, &workspace, &skill, &version))
            .await
    }

    async fn delete_skill_version(
        &self,
        workspace: &WorkspaceId,
        skill: &SkillId,
        which: &Which,
        at: Timestamp,
    ) -> StoreResult<Option<SkillVersion>> {
        let (workspace, skill, which) = (workspace.clone(), skill.clone(), which.clone());
        self.writer
            .run(move |conn| remove_version(conn, &workspace, &skill, &which, at))
            .await
    }
}
