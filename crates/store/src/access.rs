//! Who may come in: workspaces and API keys.

use async_trait::async_trait;
use oma_domain::audit::Entry;
use oma_domain::page::Page;
use oma_domain::quota::Monthly;
use oma_domain::user::User;
use oma_domain::{ApiKey, KeyId, Timestamp, Workspace, WorkspaceId};

use crate::{Once, Result};

/// The SHA-256 of a key's secret. Secrets are random and long, so no slower hash is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest(pub [u8; 32]);

/// A key with what its secrets are recognised by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// The key.
    pub key: ApiKey,
    /// Its secret.
    pub digest: KeyDigest,
    /// The secret before that; it works until `key.previous_until`.
    pub previous: Option<KeyDigest>,
}

/// Workspaces and API keys in the durable record.
#[async_trait]
pub trait Access: Send + Sync + 'static {
    /// Adds a workspace. The idempotency key belongs to the default workspace, whose operator creates others.
    ///
    /// # Errors
    /// [`Error::AlreadyDone`](crate::Error::AlreadyDone) when the key is taken;
    /// [`Error::Conflict`](crate::Error::Conflict) when the id is taken.
    async fn create_workspace(&self, workspace: &Workspace, once: Option<&Once>) -> Result<()>;
    /// A workspace.
    async fn workspace(&self, id: &WorkspaceId) -> Result<Option<Workspace>>;
    /// Changes what may be consumed in a workspace in a month.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    async fn set_workspace_budget(&self, id: &WorkspaceId, budget: &Monthly) -> Result<Workspace>;
    /// Workspaces by creation, oldest first.
    async fn workspaces(
        &self,
        after: Option<&WorkspaceId>,
        limit: u32,
    ) -> Result<Page<Workspace, WorkspaceId>>;

    /// Adds a key, as long as its workspace has less than `most` that are not revoked.
    ///
    /// # Errors
    /// [`Error::AlreadyDone`](crate::Error::AlreadyDone) when the idempotency key is taken;
    /// [`Error::NotFound`](crate::Error::NotFound) when there is no such workspace;
    /// [`Error::Limit`](crate::Error::Limit) when it has that many keys;
    /// [`Error::Conflict`](crate::Error::Conflict) when the id or the secret is taken.
    async fn create_key(&self, key: &StoredKey, most: u32, once: Option<&Once>) -> Result<()>;
    /// A key.
    async fn key(&self, workspace: &WorkspaceId, id: &KeyId) -> Result<Option<ApiKey>>;
    /// Keys by creation, oldest first, those that no longer work included.
    async fn keys(
        &self,
        workspace: &WorkspaceId,
        after: Option<&KeyId>,
        limit: u32,
    ) -> Result<Page<ApiKey, KeyId>>;
    /// Gives a key another secret. The one that it has works until `previous_until`, or no more without it; one
    /// from before that one works no more.
    ///
    /// # Errors
    /// [`Error::AlreadyDone`](crate::Error::AlreadyDone) when the idempotency key is taken;
    /// [`Error::NotFound`](crate::Error::NotFound); [`Error::Conflict`](crate::Error::Conflict) when the key is
    /// revoked.
    async fn rotate_key(
        &self,
        workspace: &WorkspaceId,
        id: &KeyId,
        digest: &KeyDigest,
        previous_until: Option<Timestamp>,
        at: Timestamp,
        once: Option<&Once>,
    ) -> Result<StoredKey>;
    /// Changes what may be consumed with a key in a month.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    async fn set_key_budget(&self, workspace: &WorkspaceId, id: &KeyId, budget: &Monthly) -> Result<ApiKey>;
    /// Revokes a key and returns it; doing it again keeps the first time.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound).
    async fn revoke_key(&self, workspace: &WorkspaceId, id: &KeyId, at: Timestamp) -> Result<ApiKey>;
    /// The keys of all workspaces that are not revoked, for the start of a server.
    async fn live_keys(&self, after: Option<&KeyId>, limit: u32) -> Result<Page<StoredKey, KeyId>>;
    /// Forgets keys that were revoked before `before`. What was consumed with them stays in the report. Returns how many.
    async fn forget_keys(&self, before: Timestamp) -> Result<u64>;
    /// Adds somebody who signed up, with their workspace and key, as long as there are less than `most` of their tier
    /// whose time is not over. `audit` is what the audit trail is to say of it, in the same transaction.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit); [`Error::Conflict`](crate::Error::Conflict) when there is one with the
    /// same GitHub account.
    async fn create_user(
        &self,
        user: &User,
        workspace: &Workspace,
        key: &StoredKey,
        most: u32,
        audit: Option<&Entry>,
    ) -> Result<()>;
    /// Whose key it is.
    async fn user_of_key(&self, key: &KeyId) -> Result<Option<User>>;
    /// Who has this GitHub account.
    async fn user_of_github(&self, account: u64) -> Result<Option<User>>;
    /// Users whose time is over, the longest first.
    async fn expired_users(&self, now: Timestamp, limit: u32) -> Result<Vec<User>>;
    /// Removes a workspace with everything in it but the audit trail.
    ///
    /// # Errors
    /// [`Error::InUse`](crate::Error::InUse) while there are sessions in it.
    async fn remove_workspace(&self, id: &WorkspaceId) -> Result<()>;
    /// Notes when keys were last used; an earlier time than the one that is noted changes nothing.
    async fn touch_keys(&self, used: &[(KeyId, Timestamp)]) -> Result<()>;
}
