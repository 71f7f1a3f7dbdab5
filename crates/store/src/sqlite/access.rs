//! [`Access`] for [`Sqlite`].

use async_trait::async_trait;
use oma_domain::audit::Entry;
use oma_domain::page::Page;
use oma_domain::quota::Monthly;
use oma_domain::user::User;
use oma_domain::{ApiKey, KeyId, Timestamp, Workspace, WorkspaceId};

use super::audit::{self, EntryRow};
use super::{Sqlite, keys, once, users, workspaces};
use crate::{Access, KeyDigest, Once, Result, StoredKey};

#[async_trait]
impl Access for Sqlite {
    async fn create_workspace(&self, workspace: &Workspace, once: Option<&Once>) -> Result<()> {
        let once = once::Mark::of(&WorkspaceId::default_workspace(), once)?;
        let workspace = workspace.clone();
        self.writer
            .run(move |conn| workspaces::create(conn, &workspace, once.as_ref()))
            .await
    }

    async fn workspace(&self, id: &WorkspaceId) -> Result<Option<Workspace>> {
        let id = id.clone();
        self.readers.run(move |conn| workspaces::find(conn, &id)).await
    }

    async fn set_workspace_budget(&self, id: &WorkspaceId, budget: &Monthly) -> Result<Workspace> {
        let (id, budget) = (id.clone(), *budget);
        self.writer
            .run(move |conn| workspaces::set_budget(conn, &id, &budget))
            .await
    }

    async fn workspaces(
        &self,
        after: Option<&WorkspaceId>,
        limit: u32,
    ) -> Result<Page<Workspace, WorkspaceId>> {
        let after = after.cloned();
        self.readers
            .run(move |conn| workspaces::list(conn, after.as_ref(), limit))
            .await
    }

    async fn create_key(&self, key: &StoredKey, most: u32, once: Option<&Once>) -> Result<()> {
        let once = once::Mark::of(&key.key.workspace, once)?;
        let key = key.clone();
        self.writer
            .run(move |conn| keys::create(conn, &key, most, once.as_ref()))
            .await
    }

    async fn key(&self, workspace: &WorkspaceId, id: &KeyId) -> Result<Option<ApiKey>> {
        let (workspace, id) = (workspace.clone(), id.clone());
        let stored = self
            .readers
            .run(move |conn| keys::find(conn, &workspace, &id))
            .await?;
        Ok(stored.map(|stored| stored.key))
    }

    async fn keys(
        &self,
        workspace: &WorkspaceId,
        after: Option<&KeyId>,
        limit: u32,
    ) -> Result<Page<ApiKey, KeyId>> {
        let (workspace, after) = (workspace.clone(), after.cloned());
        self.readers
            .run(move |conn| keys::list(conn, &workspace, after.as_ref(), limit))
            .await
    }

    async fn rotate_key(
        &self,
        workspace: &WorkspaceId,
        id: &KeyId,
        digest: &KeyDigest,
        previous_until: Option<Timestamp>,
        at: Timestamp,
        once: Option<&Once>,
    ) -> Result<StoredKey> {
        let once = once::Mark::of(workspace, once)?;
        let rotation = keys::Rotation {
            workspace: workspace.clone(),
            id: id.clone(),
            digest: *digest,
            previous_until,
            at,
        };
        self.writer
            .run(move |conn| keys::rotate(conn, &rotation, once.as_ref()))
            .await
    }

    async fn set_key_budget(&self, workspace: &WorkspaceId, id: &KeyId, budget: &Monthly) -> Result<ApiKey> {
        let (workspace, id, budget) = (workspace.clone(), id.clone(), *budget);
        self.writer
            .run(move |conn| keys::set_budget(conn, &workspace, &id, &budget))
            .await
    }

    async fn revoke_key(&self, workspace: &WorkspaceId, id: &KeyId, at: Timestamp) -> Result<ApiKey> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.writer
            .run(move |conn| keys::revoke(conn, &workspace, &id, at))
            .await
    }

    async fn live_keys(&self, after: Option<&KeyId>, limit: u32) -> Result<Page<StoredKey, KeyId>> {
        let after = after.cloned();
        self.readers
            .run(move |conn| keys::live(conn, after.as_ref(), limit))
            .await
    }

    async fn forget_keys(&self, before: Timestamp) -> Result<u64> {
        self.writer.run(move |conn| keys::forget(conn, before)).await
    }

    async fn create_user(
        &self,
        user: &User,
        workspace: &Workspace,
        key: &StoredKey,
        most: u32,
        audit: Option<&Entry>,
    ) -> Result<()> {
        let (user, workspace, key) = (user.clone(), workspace.clone(), key.clone());
        let audit = audit.cloned().map(EntryRow::new).transpose()?;
        self.writer
            .run(move |conn| {
                users::create(conn, &user, &workspace, &key, most)?;
                audit.as_ref().map_or(Ok(()), |audit| audit::append(conn, audit))
            })
            .await
    }

    async fn user_of_key(&self, key: &KeyId) -> Result<Option<User>> {
        let key = key.clone();
        self.readers.run(move |conn| users::of_key(conn, &key)).await
    }

    async fn user_of_github(&self, account: u64) -> Result<Option<User>> {
        self.readers
            .run(move |conn| users::of_github(conn, account))
            .await
    }

    async fn expired_users(&self, now: Timestamp, limit: u32) -> Result<Vec<User>> {
        self.readers
            .run(move |conn| users::expired(conn, now, limit))
            .await
    }

    async fn remove_workspace(&self, id: &WorkspaceId) -> Result<()> {
        let id = id.clone();
        self.writer
            .run(move |conn| users::remove_workspace(conn, &id))
            .await
    }

    async fn touch_keys(&self, used: &[(KeyId, Timestamp)]) -> Result<()> {
        let used = used.to_vec();
        self.writer.run(move |conn| keys::touch(conn, &used)).await
    }
}
