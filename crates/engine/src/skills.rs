//! Skills and their versions.

use std::sync::Arc;

use oma_domain::page::Page;
use oma_domain::skill::{Pin, Skill, SkillVersion, Which};
use oma_domain::{SkillId, SkillVersionId, WorkspaceId};
use oma_store::{Error as Store, SkillBounds};
use serde_json::{Value, json};

use crate::agents::not_found;
use crate::error::{Error, Result};
use crate::{Config, Engine, IdempotencyKey, now, once};

const SCOPE: &str = "skill.create";
/// What a refusal of a session names when a skill of its agent is gone.
pub(crate) const FIELD: &str = "agent.skills";

/// What can go wrong with skills. The API maps each to a status and a code of its dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SkillError {
    /// No such skill in this workspace.
    #[error("no skill has this id")]
    NotFound,
    /// No such version of this skill.
    #[error("the skill has no such version")]
    VersionNotFound,
    /// It has versions.
    #[error("the skill has {0} versions; delete those first")]
    HasVersions(u64),
    /// The workspace has as many skills as it may have.
    #[error("a workspace may have {0} skills; delete some first")]
    TooMany(u32),
    /// The skills of the workspace have as many versions as they may have.
    #[error("the skills of a workspace may have {0} versions in all; delete some first")]
    TooManyVersions(u32),
}

/// What was uploaded, checked and packed.
#[derive(Debug, Clone)]
pub struct NewSkill {
    /// The name that it gives itself.
    pub name: String,
    /// What it does and when to use it, in its own words.
    pub description: String,
    /// The name of its folder.
    pub directory: String,
    /// Its files, as a zip archive.
    pub content: Arc<[u8]>,
}

impl NewSkill {
    fn version(&self, workspace: &WorkspaceId, skill: &SkillId) -> SkillVersion {
        let at = now();
        SkillVersion {
            id: SkillVersionId::generate(),
            skill: skill.clone(),
            workspace: workspace.clone(),
            number: at.as_millis().unsigned_abs().saturating_mul(1_000),
            name: self.name.clone(),
            description: self.description.clone(),
            directory: self.directory.clone(),
            created_at: at,
        }
    }
}

impl Engine {
    /// Creates a skill with its first version. Without a name for people it gets the one that it gives itself.
    ///
    /// # Errors
    /// [`SkillError::TooMany`], [`SkillError::TooManyVersions`], [`Error::KeyReused`].
    pub async fn create_skill(
        &self,
        workspace: &WorkspaceId,
        display_name: Option<String>,
        new: NewSkill,
        key: Option<IdempotencyKey>,
    ) -> Result<Skill> {
        let store = &*self.inner.store;
        if let Some(receipt) = once::lookup(store, workspace, SCOPE, key.as_ref()).await? {
            return self.replayed_skill(workspace, &receipt).await;
        }
        let id = SkillId::generate();
        let first = new.version(workspace, &id);
        let skill = Skill {
            id,
            workspace: workspace.clone(),
            display_name: display_name.unwrap_or_else(|| new.name.clone()),
            latest: Some((first.id.clone(), first.number)),
            created_at: first.created_at,
            updated_at: first.created_at,
        };
        let record = once::record(SCOPE, key.as_ref(), json!(skill.id));
        let bounds = self.skill_bounds();
        let created = store.create_skill(&skill, &first, new.content, bounds, record.as_ref());
        match (created.await, key) {
            (Ok(()), _) => Ok(skill),
            (Err(Store::AlreadyDone(record)), Some(key)) => {
                self.replayed_skill(workspace, &once::replay(record, &key)?).await
            }
            (Err(Store::TooMany(most)), _) => Err(SkillError::TooMany(most).into()),
            (Err(Store::Limit(most)), _) => Err(SkillError::TooManyVersions(most).into()),
            (Err(error), _) => Err(error.into()),
        }
    }

    fn skill_bounds(&self) -> SkillBounds {
        let Config {
            max_skills,
            max_skill_versions,
            ..
        } = &self.inner.config;
        SkillBounds {
            skills: *max_skills,
            versions: *max_skill_versions,
        }
    }

    async fn replayed_skill(&self, workspace: &WorkspaceId, receipt: &Value) -> Result<Skill> {
        let id = receipt.as_str().and_then(|id| SkillId::parse(id).ok());
        self.skill(workspace, &id.ok_or(SkillError::NotFound)?).await
    }

    /// A skill.
    ///
    /// # Errors
    /// [`SkillError::NotFound`].
    pub async fn skill(&self, workspace: &WorkspaceId, id: &SkillId) -> Result<Skill> {
        let found = self.inner.store.skill(workspace, id).await?;
        Ok(found.ok_or(SkillError::NotFound)?)
    }

    /// Skills by creation, newest first.
    ///
    /// # Errors
    /// [`SkillError::NotFound`] when the cursor is unknown.
    pub async fn skills(
        &self,
        workspace: &WorkspaceId,
        after: Option<&SkillId>,
        limit: u32,
    ) -> Result<Page<Skill, SkillId>> {
        let page = self.inner.store.skills(workspace, after, limit).await;
        page.map_err(|error| not_found(error, SkillError::NotFound.into()))
    }

    /// Removes a skill that has no versions any more.
    ///
    /// # Errors
    /// [`SkillError::NotFound`], [`SkillError::HasVersions`].
    pub async fn delete_skill(&self, workspace: &WorkspaceId, id: &SkillId) -> Result<()> {
        match self.inner.store.delete_skill(workspace, id).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(SkillError::NotFound.into()),
            Err(Store::InUse(versions)) => Err(SkillError::HasVersions(versions).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds a version to a skill.
    ///
    /// # Errors
    /// [`SkillError::NotFound`], [`SkillError::TooManyVersions`], [`Error::KeyReused`].
    pub async fn add_skill_version(
        &self,
        workspace: &WorkspaceId,
        skill: &SkillId,
        new: NewSkill,
        key: Option<IdempotencyKey>,
    ) -> Result<SkillVersion> {
        let store = &*self.inner.store;
        let scope = format!("skill_version.create:{skill}");
        if let Some(receipt) = once::lookup(store, workspace, &scope, key.as_ref()).await? {
            return self.replayed_skill_version(workspace, skill, &receipt).await;
        }
        let version = new.version(workspace, skill);
        let record = once::record(&scope, key.as_ref(), json!(version.id));
        let added = store.add_skill_version(&version, new.content, self.skill_bounds(), record.as_ref());
        match (added.await, key) {
            (Err(Store::AlreadyDone(record)), Some(key)) => {
                let receipt = once::replay(record, &key)?;
                self.replayed_skill_version(workspace, skill, &receipt).await
            }
            (Err(Store::Limit(most)), _) => Err(SkillError::TooManyVersions(most).into()),
            (added, _) => added.map_err(|error| not_found(error, SkillError::NotFound.into())),
        }
    }

    async fn replayed_skill_version(
        &self,
        workspace: &WorkspaceId,
        skill: &SkillId,
        receipt: &Value,
    ) -> Result<SkillVersion> {
        let id = receipt.as_str().and_then(|id| SkillVersionId::parse(id).ok());
        let id = id.ok_or(SkillError::VersionNotFound)?;
        self.skill_version(workspace, skill, &Which::Id(id)).await
    }

    /// A version of a skill.
    ///
    /// # Errors
    /// [`SkillError::NotFound`], [`SkillError::VersionNotFound`].
    pub async fn skill_version(
        &self,
        workspace: &WorkspaceId,
        skill: &SkillId,
        which: &Which,
    ) -> Result<SkillVersion> {
        match self.inner.store.skill_version(workspace, skill, which).await? {
            Some(found) => Ok(found),
            None => Err(self.no_version(workspace, skill).await),
        }
    }

    /// What is missing: the skill, or its version.
    async fn no_version(&self, workspace: &WorkspaceId, skill: &SkillId) -> Error {
        match self.skill(workspace, skill).await {
            Ok(_) => SkillError::VersionNotFound.into(),
            Err(error) => error,
        }
    }

    /// Versions of a skill, newest first.
    ///
    /// # Errors
    /// [`SkillError::NotFound`]; [`SkillError::VersionNotFound`] when the cursor is unknown.
    pub async fn skill_versions(
        &self,
        workspace: &WorkspaceId,
        skill: &SkillId,
        after: Option<&SkillVersionId>,
        limit: u32,
    ) -> Result<Page<SkillVersion, SkillVersionId>> {
        let store = &self.inner.store;
        let page = store.skill_versions(workspace, skill, after, limit).await;
        let page = page.map_err(|error| not_found(error, SkillError::VersionNotFound.into()))?;
        if page.rows.is_empty() {
            self.skill(workspace, skill).await?;
        }
        Ok(page)
    }

    /// The files of a version, as a zip archive, with the version.
    ///
    /// # Errors
    /// [`SkillError::NotFound`], [`SkillError::VersionNotFound`].
    pub async fn skill_content(
        &self,
        workspace: &WorkspaceId,
        skill: &SkillId,
        which: &Which,
    ) -> Result<(SkillVersion, Vec<u8>)> {
        let version = self.skill_version(workspace, skill, which).await?;
        let content = self.inner.store.skill_content(workspace, skill, &version.id);
        let content = content.await?.ok_or(SkillError::VersionNotFound)?;
        Ok((version, content))
    }

    /// Removes a version. Agents that have it can no longer open sessions; sessions that have read it go on.
    ///
    /// # Errors
    /// [`SkillError::NotFound`], [`SkillError::VersionNotFound`].
    pub async fn delete_skill_version(
        &self,
        workspace: &WorkspaceId,
        skill: &SkillId,
        which: &Which,
    ) -> Result<SkillVersion> {
        let store = &self.inner.store;
        match store.delete_skill_version(workspace, skill, which, now()).await? {
            Some(removed) => Ok(removed),
            None => Err(self.no_version(workspace, skill).await),
        }
    }

    /// What an agent keeps of a version of a skill.
    ///
    /// # Errors
    /// [`SkillError::NotFound`], [`SkillError::VersionNotFound`].
    pub async fn pin_skill(&self, workspace: &WorkspaceId, skill: &SkillId, which: &Which) -> Result<Pin> {
        let found = self.skill_version(workspace, skill, which).await?;
        Ok(Pin {
            skill: found.skill,
            version: found.id,
            name: found.name,
            description: found.description,
            directory: found.directory,
        })
    }

    /// Whether all of these are still there, for a session that is to have them.
    ///
    /// # Errors
    /// [`Error::Unsupported`] that names one that is not.
    pub(crate) async fn check_skills(&self, workspace: &WorkspaceId, pins: &[Pin]) -> Result<()> {
        for Pin { skill, version, .. } in pins {
            let which = Which::Id(version.clone());
            let found = self.inner.store.skill_version(workspace, skill, &which).await?;
            if found.is_none() {
                return Err(Error::Unsupported {
                    field: FIELD,
                    message: format!("the version {version} of the skill {skill} has been deleted"),
                });
            }
        }
        Ok(())
    }
}
