//! Signing up: each user gets a workspace and a key of their own. Those whose time is over are removed with all that is
//! theirs.

use std::time::Duration;

use oma_domain::audit::Entry;
use oma_domain::page::Order;
use oma_domain::quota::Monthly;
use oma_domain::user::{GithubAccount, Tier, User};
use oma_domain::{ApiKey, KeyId, Scope, UserId, Workspace, WorkspaceId};
use oma_store::{SessionFilter, StoredKey};
use secrecy::SecretString;

use crate::error::{Error, Result};
use crate::{Engine, keys, now};

/// How many rows one look brings.
const PAGE: u32 = 100;

/// What users of a tier get.
#[derive(Debug, Clone)]
pub struct Terms {
    /// How they sign up.
    pub tier: Tier,
    /// How long they stay; for ever without it.
    pub lifetime: Option<Duration>,
    /// The most users of this tier.
    pub max_users: u32,
    /// The most sessions of each.
    pub max_sessions: u32,
    /// What each may consume in a month.
    pub budget: Monthly,
}

/// A user whose token is told.
#[derive(Debug)]
pub struct SignedUp {
    /// The user.
    pub user: User,
    /// Their token.
    pub token: SecretString,
}

impl Engine {
    /// Makes a user. `audit` is what the audit trail is to say of them, in the same transaction.
    ///
    /// # Errors
    /// [`Error::TooManyUsers`]; [`Error::UserExists`] when there is one with that GitHub account.
    pub async fn sign_up(
        &self,
        terms: &Terms,
        github: Option<GithubAccount>,
        audit: impl FnOnce(&User) -> Option<Entry>,
    ) -> Result<SignedUp> {
        let (token, digest) = keys::secret()?;
        let at = now();
        let lifetime = terms
            .lifetime
            .map(|lifetime| u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX));
        let expires_at = lifetime.map(|millis| at.plus_millis(millis));
        let id = UserId::generate();
        let workspace = Workspace {
            id: WorkspaceId::generate(),
            name: id.to_string(),
            budget: terms.budget,
            max_sessions: Some(terms.max_sessions),
            created_at: at,
        };
        let key = ApiKey {
            id: KeyId::generate(),
            workspace: workspace.id.clone(),
            name: id.to_string(),
            environment: None,
            scope: Scope::Write,
            budget: Monthly::default(),
            created_at: at,
            rotated_at: None,
            previous_until: None,
            expires_at,
            revoked_at: None,
            last_used_at: None,
        };
        let user = User {
            id,
            workspace: workspace.id.clone(),
            key: key.id.clone(),
            tier: terms.tier,
            created_at: at,
            expires_at,
            github,
        };
        let stored = StoredKey {
            key,
            digest,
            previous: None,
        };
        let (made, most, audit) = (user.clone(), terms.max_users, audit(&user));
        self.change_keys(move |engine| async move {
            let store = &engine.inner.store;
            store
                .create_user(&made, &workspace, &stored, most, audit.as_ref())
                .await?;
            engine.inner.keys.index.put(&stored);
            Ok(())
        })
        .await?
        .map_err(|error| match error {
            oma_store::Error::Limit(most) => Error::TooManyUsers(most),
            oma_store::Error::Conflict => Error::UserExists,
            error => error.into(),
        })?;
        Ok(SignedUp { user, token })
    }

    /// The user with a GitHub account.
    ///
    /// # Errors
    /// A store failure.
    pub async fn user_of_github(&self, account: u64) -> Result<Option<User>> {
        Ok(self.inner.store.user_of_github(account).await?)
    }

    /// Gives a user a new token. The one before works no more.
    ///
    /// # Errors
    /// [`Error::KeyNotFound`] when their key was revoked.
    pub async fn sign_in(&self, user: User) -> Result<SignedUp> {
        let issued = self.rotate_key(&user.workspace, &user.key, None, None).await?;
        Ok(SignedUp {
            user,
            token: issued.secret,
        })
    }

    /// Whose key it is.
    ///
    /// # Errors
    /// [`Error::UserNotFound`] when it is nobody's who signed up.
    pub async fn user_of_key(&self, key: &KeyId) -> Result<User> {
        let user = self.inner.store.user_of_key(key).await?;
        user.ok_or(Error::UserNotFound)
    }

    /// Removes the users whose time is over, with their sessions, workspaces and keys.
    pub(crate) async fn remove_expired_users(&self) -> Result<()> {
        for user in self.inner.store.expired_users(now(), PAGE).await? {
            if let Err(error) = self.remove_user(&user).await {
                // One that can't be removed must not keep the others.
                tracing::error!(user = %user.id, %error, "an expired user could not be removed");
            }
        }
        Ok(())
    }

    async fn remove_user(&self, user: &User) -> Result<()> {
        let filter = SessionFilter::default();
        loop {
            let page = self
                .inner
                .store
                .sessions(&user.workspace, &filter, Order::Ascending, None, PAGE);
            let page = page.await?;
            if page.rows.is_empty() {
                break;
            }
            for session in page.rows {
                match self.delete_session(&user.workspace, &session.id).await {
                    Ok(()) | Err(Error::SessionNotFound) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let (workspace, key) = (user.workspace.clone(), user.key.clone());
        self.change_keys(move |engine| async move {
            engine.inner.store.remove_workspace(&workspace).await?;
            engine.inner.keys.index.remove(&key);
            Ok(())
        })
        .await??;
        tracing::info!(user = %user.id, "an expired user was removed with everything of theirs");
        Ok(())
    }
}
