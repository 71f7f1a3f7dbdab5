//! [`Vaults`]: what the engine and the MCP client work with.

mod credentials;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oma_domain::page::{Order, Page};
use oma_domain::vault::{Field, Vault};
use oma_domain::{Credential, CredentialId, Timestamp, VaultId, WorkspaceId};
use oma_egress::Guard;
use oma_store::{Once, Store, StoredCredential, VaultFilter};
use secrecy::SecretString;
use tokio_util::task::TaskTracker;

use crate::change::MetadataChange;
use crate::error::{Error, RefreshFailure, Result};
use crate::master::MasterKey;
use crate::new::NewVault;
use crate::oauth;
use crate::refresh::{Flights, KEEP_TIMEOUT};
use crate::seal::Chamber;

/// How often a change is tried again that another one overtook.
pub(crate) const ATTEMPTS: u32 = 4;

/// How long a stop waits for refreshes under way: for the issuer, and for the store as long as it is tried.
const CLOSE_TIMEOUT: Duration = oauth::TIMEOUT.saturating_add(KEEP_TIMEOUT);

/// Vaults and their credentials. Cheap to clone.
#[derive(Clone)]
pub struct Vaults {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) master: MasterKey,
    pub(crate) guard: Arc<Guard>,
    pub(crate) flights: Flights,
    pub(crate) tasks: TaskTracker,
    /// How often vaults and credentials have changed since the start.
    pub(crate) changes: AtomicU64,
}

impl std::fmt::Debug for Vaults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vaults")
            .field("master", &self.inner.master)
            .finish_non_exhaustive()
    }
}

impl Vaults {
    /// Vaults over a store whose master key in force is `master`; see [`crate::key_file::unlock`].
    #[must_use]
    pub fn new(store: Arc<dyn Store>, master: MasterKey, guard: Arc<Guard>) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                master,
                guard,
                flights: Flights::default(),
                tasks: TaskTracker::new(),
                changes: AtomicU64::new(0),
            }),
        }
    }

    /// A digest that tells nothing about what was digested to whoever has the database alone.
    #[must_use]
    pub fn digest(&self, text: &str) -> String {
        self.inner.master.digest(text)
    }

    /// Creates a vault.
    ///
    /// # Errors
    /// [`Error::AlreadyDone`].
    pub async fn create(
        &self,
        workspace: &WorkspaceId,
        id: VaultId,
        new: NewVault,
        once: Option<&Once>,
    ) -> Result<Vault> {
        let at = now();
        let vault = Vault {
            id,
            workspace: workspace.clone(),
            user: new.user,
            name: new.name,
            metadata: new.metadata,
            created_at: at,
            updated_at: at,
            archived_at: None,
        };
        let (_, key) = Chamber::create(&self.inner.master, workspace, &vault.id).map_err(no_randomness)?;
        self.inner.store.create_vault(&vault, &key, once).await?;
        Ok(vault)
    }

    /// A vault.
    ///
    /// # Errors
    /// [`Error::VaultNotFound`].
    pub async fn get(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<Vault> {
        let found = self.inner.store.vault(workspace, id).await?;
        found.ok_or(Error::VaultNotFound)
    }

    /// Vaults by creation.
    ///
    /// # Errors
    /// [`Error::VaultNotFound`] when the cursor is unknown.
    pub async fn list(
        &self,
        workspace: &WorkspaceId,
        filter: &VaultFilter,
        order: Order,
        after: Option<&VaultId>,
        limit: u32,
    ) -> Result<Page<Vault, VaultId>> {
        let page = self
            .inner
            .store
            .vaults(workspace, filter, order, after, limit)
            .await;
        page.map_err(missing(Error::VaultNotFound))
    }

    /// Changes a vault's name, if one is given, and its metadata. What changes nothing is no change.
    ///
    /// # Errors
    /// [`Error::VaultNotFound`], [`Error::VaultArchived`], [`Error::Conflict`].
    pub async fn update(
        &self,
        workspace: &WorkspaceId,
        id: &VaultId,
        name: Option<&str>,
        metadata: &MetadataChange,
    ) -> Result<Vault> {
        for _ in 0..ATTEMPTS {
            let current = self.get(workspace, id).await?;
            if current.archived_at.is_some() {
                return Err(Error::VaultArchived);
            }
            let mut next = current.clone();
            if let Some(name) = name {
                name.clone_into(&mut next.name);
            }
            metadata.apply(&mut next.metadata);
            if next == current {
                return Ok(current);
            }
            next.updated_at = next.updated_at.max(now());
            match self.inner.store.update_vault(&current, &next).await {
                Ok(()) => return Ok(next),
                // Somebody was faster: the change is made to what is there now.
                Err(oma_store::Error::Conflict) => {}
                Err(error) => return Err(missing(Error::VaultNotFound)(error)),
            }
        }
        Err(Error::Conflict)
    }

    /// Archives a vault with its credentials, whose secrets are gone then. Sessions that name it go on without them,
    /// no new one may name it. Archived again it keeps its first time.
    ///
    /// # Errors
    /// [`Error::VaultNotFound`].
    pub async fn archive(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<Vault> {
        let archived = self.inner.store.archive_vault(workspace, id, now()).await;
        self.inner.note_change();
        archived.map_err(missing(Error::VaultNotFound))
    }

    /// Removes a vault with its credentials. Sessions that name it go on without them.
    ///
    /// # Errors
    /// [`Error::VaultNotFound`].
    pub async fn delete(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<()> {
        let deleted = self.inner.store.delete_vault(workspace, id).await;
        self.inner.note_change();
        match deleted? {
            true => Ok(()),
            false => Err(Error::VaultNotFound),
        }
    }

    /// Begins no further refresh, and waits, for a bounded time, until those under way are stored: an issuer that
    /// has been asked may have replaced the refresh token.
    pub async fn close(&self) {
        self.inner.flights.close();
        self.inner.tasks.close();
        if tokio::time::timeout(CLOSE_TIMEOUT, self.inner.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("a refresh of an access token was cut off by the stop");
        }
    }
}

impl Inner {
    /// What was read of vaults before may be out of date. Also where it is not known whether something has changed.
    fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    pub(crate) async fn stored(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<StoredCredential> {
        let found = self.store.credential(workspace, vault, id).await?;
        found.ok_or(Error::CredentialNotFound)
    }

    /// The vault with its data key opened.
    pub(crate) async fn chamber(&self, workspace: &WorkspaceId, vault: &VaultId) -> Result<Chamber> {
        let key = self.store.vault_key(workspace, vault).await?;
        let key = key.ok_or(Error::VaultNotFound)?;
        Chamber::open(&self.master, workspace, vault, &key).map_err(|_| Error::Unreadable(vault.clone()))
    }
}

/// Opens a secret that the credential must have.
pub(crate) fn open(chamber: &Chamber, stored: &StoredCredential, field: Field) -> Result<SecretString> {
    let StoredCredential {
        credential, secrets, ..
    } = stored;
    let unreadable = || Error::Unreadable(credential.vault.clone());
    let sealed = secrets.get(&field).ok_or_else(unreadable)?;
    chamber
        .open_secret(&credential.id, &credential.spec, field, sealed)
        .map_err(|_| unreadable())
}

pub(crate) fn failed(credential: &Credential, reason: RefreshFailure) -> Error {
    Error::Refresh {
        vault: credential.vault.clone(),
        credential: credential.id.clone(),
        reason: Box::new(reason),
    }
}

pub(crate) fn no_randomness(error: crate::master::NoRandomness) -> Error {
    Error::Store(oma_store::Error::Unavailable(error.to_string()))
}

fn missing(what: Error) -> impl FnOnce(oma_store::Error) -> Error {
    move |error| match error {
        oma_store::Error::NotFound => what,
        error => error.into(),
    }
}

pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
