//! API keys: issue, rotate, revoke, recognise.
//!
//! A key's text is `omk_` and 256 random bits in hexadecimal. It is told once, when it is made; what is kept is
//! its SHA-256. A slow hash would protect guessable secrets; these can't be guessed, and every request would pay.
//!
//! Invariant: when a call that changes a key has returned, [`Engine::authenticate`] follows the change.

pub(crate) mod index;

use oma_domain::page::Page;
use oma_domain::quota::Monthly;
use oma_domain::{ApiKey, EnvironmentId, KeyId, Scope, Timestamp, WorkspaceId};
use oma_store::{KeyDigest, StoredKey};
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::agents::not_found;
use crate::error::{Error, Result};
use crate::ledger::Account;
use crate::{Engine, IdempotencyKey, now, once};
pub use index::Credential;

/// What every key begins with, so that people and scanners recognise one.
pub const PREFIX: &str = "omk_";
/// The most keys of one workspace that are not revoked.
pub const MAX_KEYS: u32 = 1000;

const CREATE: &str = "key.create";
const PAGE: u32 = 1000;

/// A key to make.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// The workspace that it opens.
    pub workspace: WorkspaceId,
    /// A name for people.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// The self-hosted environment whose workers are to hold it, and which it is good for alone.
    pub environment: Option<EnvironmentId>,
    /// What may be consumed with it in a month.
    pub budget: Monthly,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
}

/// A key whose secret is told for the first and last time.
#[derive(Debug)]
pub struct IssuedKey {
    /// The key.
    pub key: ApiKey,
    /// Its text.
    pub secret: SecretString,
}

impl Engine {
    /// Loads the keys, and what parent tokens are signed with. Call it once before requests are served.
    ///
    /// # Errors
    /// A store failure; nobody but the operator gets in before this has succeeded.
    pub async fn load_keys(&self) -> Result<usize> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = self.inner.store.live_keys(after.as_ref(), PAGE).await?;
            all.extend(page.rows);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        self.load_parent_secret().await?;
        self.inner.keys.index.fill(&all);
        Ok(all.len())
    }

    /// What the key with this SHA-256 opens; nothing when there is none, or none that works now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while the keys are not loaded.
    pub fn authenticate(&self, digest: [u8; 32]) -> Result<Option<Credential>> {
        let found = self.inner.keys.index.find(&KeyDigest(digest), now());
        found.map_err(|_| Error::Unavailable("the API keys are not loaded yet".into()))
    }

    /// Makes a key.
    ///
    /// # Errors
    /// [`Error::WorkspaceNotFound`], [`Error::TooManyKeys`]; [`Error::SecretShown`] when the call was carried out
    /// before under the same idempotency key, [`Error::KeyReused`].
    pub async fn create_key(&self, new: NewKey, key: Option<IdempotencyKey>) -> Result<IssuedKey> {
        self.not_shown_yet(&new.workspace, CREATE, key.as_ref()).await?;
        let (secret, digest) = secret()?;
        let issued = ApiKey {
            id: KeyId::generate(),
            workspace: new.workspace,
            name: new.name,
            scope: new.scope,
            environment: new.environment,
            budget: new.budget,
            created_at: now(),
            rotated_at: None,
            previous_until: None,
            expires_at: new.expires_at,
            revoked_at: None,
            last_used_at: None,
        };
        let record = once::record(CREATE, key.as_ref(), json!(issued.id));
        let stored = StoredKey {
            key: issued,
            digest,
            previous: None,
        };
        let key = self
            .change(key, Error::WorkspaceNotFound, move |engine| async move {
                let store = &engine.inner.store;
                store.create_key(&stored, MAX_KEYS, record.as_ref()).await?;
                engine.inner.keys.index.put(&stored);
                Ok(stored.key)
            })
            .await?;
        Ok(IssuedKey { key, secret })
    }

    /// A key.
    ///
    /// # Errors
    /// [`Error::ApiKeyNotFound`].
    pub async fn key(&self, workspace: &WorkspaceId, id: &KeyId) -> Result<ApiKey> {
        let key = self.inner.store.key(workspace, id).await?;
        key.map(|key| self.with_use(key)).ok_or(Error::ApiKeyNotFound)
    }

    /// Keys by creation, oldest first, those that no longer work included.
    ///
    /// # Errors
    /// [`Error::ApiKeyNotFound`] when the cursor is unknown.
    pub async fn keys(
        &self,
        workspace: &WorkspaceId,
        after: Option<&KeyId>,
        limit: u32,
    ) -> Result<Page<ApiKey, KeyId>> {
        let page = self.inner.store.keys(workspace, after, limit).await;
        let page = page.map_err(|error| not_found(error, Error::ApiKeyNotFound))?;
        Ok(Page {
            rows: page.rows.into_iter().map(|key| self.with_use(key)).collect(),
            next: page.next,
        })
    }

    /// Gives a key another secret. The one before works until `previous_until`, or no more without it.
    ///
    /// # Errors
    /// [`Error::ApiKeyNotFound`], [`Error::ApiKeyRevoked`]; [`Error::SecretShown`] when the call was carried out
    /// before under the same idempotency key, [`Error::KeyReused`].
    pub async fn rotate_key(
        &self,
        workspace: &WorkspaceId,
        id: &KeyId,
        previous_until: Option<Timestamp>,
        key: Option<IdempotencyKey>,
    ) -> Result<IssuedKey> {
        let scope = format!("key.rotate:{id}");
        self.not_shown_yet(workspace, &scope, key.as_ref()).await?;
        let (secret, digest) = secret()?;
        let record = once::record(&scope, key.as_ref(), json!(id));
        let (workspace, id) = (workspace.clone(), id.clone());
        let rotated = self
            .change(key, Error::ApiKeyNotFound, move |engine| async move {
                let store = &engine.inner.store;
                let stored = store
                    .rotate_key(&workspace, &id, &digest, previous_until, now(), record.as_ref())
                    .await?;
                engine.inner.keys.index.put(&stored);
                Ok(stored.key)
            })
            .await?;
        Ok(IssuedKey {
            key: self.with_use(rotated),
            secret,
        })
    }

    /// Changes what may be consumed with a key in a month. It holds for the next model request.
    ///
    /// # Errors
    /// [`Error::ApiKeyNotFound`].
    pub async fn set_key_budget(
        &self,
        workspace: &WorkspaceId,
        id: &KeyId,
        budget: Monthly,
    ) -> Result<ApiKey> {
        let (workspace, id) = (workspace.clone(), id.clone());
        let changed = self.change(None, Error::ApiKeyNotFound, move |engine| async move {
            let account = Account::Key(workspace.clone(), id.clone());
            let change = engine.inner.store.set_key_budget(&workspace, &id, &budget);
            engine.inner.ledger.change(&account, &budget, change).await
        });
        Ok(self.with_use(changed.await?))
    }

    /// Revokes a key, for good and at once; revoking it again changes nothing.
    ///
    /// # Errors
    /// [`Error::ApiKeyNotFound`].
    pub async fn revoke_key(&self, workspace: &WorkspaceId, id: &KeyId) -> Result<ApiKey> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.change(None, Error::ApiKeyNotFound, move |engine| async move {
            let revoked = engine.inner.store.revoke_key(&workspace, &id, now()).await?;
            engine.inner.keys.index.remove(&id);
            Ok(revoked)
        })
        .await
    }

    /// Writes down when keys were used, all uses of a while together.
    pub(crate) async fn note_key_use(&self) -> Result<()> {
        let uses = self.inner.keys.index.unnoted();
        for some in uses.chunks(PAGE as usize) {
            self.inner.store.touch_keys(some).await?;
            self.inner.keys.index.noted(some);
        }
        Ok(())
    }

    /// Carries a change out to its end, also when the caller goes away in the middle of it: a key that the store
    /// has changed and the index has not would go on as it was. Changes come one after the other, so that the
    /// index follows the store's order; each is one write, which the store bounds in time.
    async fn change<F, Fut>(&self, key: Option<IdempotencyKey>, missing: Error, work: F) -> Result<ApiKey>
    where
        F: FnOnce(Engine) -> Fut + Send + 'static,
        Fut: Future<Output = oma_store::Result<ApiKey>> + Send + 'static,
    {
        let outcome = self.change_keys(work).await?;
        outcome.map_err(|error| match (error, key) {
            (oma_store::Error::AlreadyDone(record), Some(key)) => match once::replay(record, &key) {
                Ok(_) => Error::SecretShown,
                Err(error) => error,
            },
            (oma_store::Error::NotFound, _) => missing,
            (oma_store::Error::Conflict, _) => Error::ApiKeyRevoked,
            (error, _) => error.into(),
        })
    }

    /// The same for whatever changes keys along with other things.
    pub(crate) async fn change_keys<T, F, Fut>(&self, work: F) -> Result<oma_store::Result<T>>
    where
        T: Send + 'static,
        F: FnOnce(Engine) -> Fut + Send + 'static,
        Fut: Future<Output = oma_store::Result<T>> + Send + 'static,
    {
        let engine = self.clone();
        let task = self.inner.tasks.spawn(async move {
            let _turn = engine.inner.keys.changes.lock().await;
            work(engine.clone()).await
        });
        task.await
            .map_err(|error| Error::Internal(format!("the change of a key did not end: {error}")))
    }

    async fn not_shown_yet(
        &self,
        workspace: &WorkspaceId,
        scope: &str,
        key: Option<&IdempotencyKey>,
    ) -> Result<()> {
        match once::lookup(&*self.inner.store, workspace, scope, key).await? {
            Some(_) => Err(Error::SecretShown),
            None => Ok(()),
        }
    }

    fn with_use(&self, mut key: ApiKey) -> ApiKey {
        key.last_used_at = key.last_used_at.max(self.inner.keys.index.last_used(&key.id));
        key
    }
}

/// Random bits that nobody can guess.
///
/// # Errors
/// [`Error::Internal`] when the system gives none.
pub fn random() -> Result<[u8; 32]> {
    let mut bits = [0; 32];
    OsRng
        .try_fill_bytes(&mut bits)
        .map_err(|error| Error::Internal(format!("the system gives no random bits: {error}")))?;
    Ok(bits)
}

/// A fresh secret and its digest.
pub(crate) fn secret() -> Result<(SecretString, KeyDigest)> {
    let bits = random()?;
    let secret = SecretString::from(format!("{PREFIX}{}", hex::encode(bits)));
    let digest = Sha256::digest(secret.expose_secret().as_bytes());
    Ok((secret, KeyDigest(digest.into())))
}

/// The keys' part of the engine.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    pub(crate) index: index::Index,
    changes: tokio::sync::Mutex<()>,
}
