//! Skills in the durable record.

use std::sync::Arc;

use async_trait::async_trait;
use oma_domain::page::Page;
use oma_domain::skill::{Skill, SkillVersion, Which};
use oma_domain::{SkillId, SkillVersionId, Timestamp, WorkspaceId};

use crate::{Once, Result};

/// How many skills a workspace may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkillBounds {
    /// The skills.
    pub skills: u32,
    /// The versions of all of them.
    pub versions: u32,
}

/// Skills in the durable record.
#[async_trait]
pub trait Skills: Send + Sync + 'static {
    /// Adds a skill with its first version, whose files are `content`, a zip archive.
    ///
    /// # Errors
    /// [`Error::AlreadyDone`](crate::Error::AlreadyDone) when the key is taken;
    /// [`Error::Conflict`](crate::Error::Conflict) when an id is; [`Error::TooMany`](crate::Error::TooMany) when the
    /// workspace has as many skills as it may, [`Error::Limit`](crate::Error::Limit) when its skills have as many
    /// versions.
    async fn create_skill(
        &self,
        skill: &Skill,
        first: &SkillVersion,
        content: Arc<[u8]>,
        bounds: SkillBounds,
        once: Option<&Once>,
    ) -> Result<()>;
    /// A skill.
    async fn skill(&self, workspace: &WorkspaceId, id: &SkillId) -> Result<Option<Skill>>;
    /// Skills by creation, newest first.
    async fn skills(
        &self,
        workspace: &WorkspaceId,
        after: Option<&SkillId>,
        limit: u32,
    ) -> Result<Page<Skill, SkillId>>;
    /// Removes a skill. Returns whether it was there.
    ///
    /// # Errors
    /// [`Error::InUse`](crate::Error::InUse) while it has versions.
    async fn delete_skill(&self, workspace: &WorkspaceId, id: &SkillId) -> Result<bool>;

    /// Adds a version; the skill counts as changed. Should another version have its number or a higher one, it gets
    /// the next. It is returned as it was stored.
    ///
    /// # Errors
    /// [`Error::AlreadyDone`](crate::Error::AlreadyDone) when the key is taken;
    /// [`Error::NotFound`](crate::Error::NotFound) when there is no such skill;
    /// [`Error::Conflict`](crate::Error::Conflict) when the id is taken; [`Error::Limit`](crate::Error::Limit) when
    /// the workspace's skills have as many versions as they may.
    async fn add_skill_version(
        &self,
        version: &SkillVersion,
        content: Arc<[u8]>,
        bounds: SkillBounds,
        once: Option<&Once>,
    ) -> Result<SkillVersion>;
    /// A version.
    async fn skill_version(
        &self,
        workspace: &WorkspaceId,
        skill: &SkillId,
        which: &Which,
    ) -> Result<Option<SkillVersion>>;
    /// Versions of a skill, newest first. Empty when there is no such skill.
    async fn skill_versions(
        &self,
        workspace: &WorkspaceId,
        skill: &SkillId,
        after: Option<&SkillVersionId>,
        limit: u32,
    ) -> Result<Page<SkillVersion, SkillVersionId>>;
    /// The files of a version, as a zip archive.
    async fn skill_content(
        &self,
        workspace: &WorkspaceId,
        skill: &SkillId,
        version: &SkillVersionId,
    ) -> Result<Option<Vec<u8>>>;
    /// Removes a version; the skill counts as changed. Returns the one that was removed.
    async fn delete_skill_version(
        &self,
        workspace: &WorkspaceId,
        skill: &SkillId,
        which: &Which,
        at: Timestamp,
    ) -> Result<Option<SkillVersion>>;
}
