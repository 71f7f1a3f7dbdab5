//! [`Vaults`]: what the engine and the MCP client work with.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oma_domain::page::{Order, Page};
use oma_domain::vault::{Field, Kind, MAX_CREDENTIALS, Secrets, Spec, Vault};
use oma_domain::{Credential, CredentialId, Timestamp, VaultId, WorkspaceId};
use oma_egress::Guard;
use oma_store::{Once, Store, StoredCredential};
use secrecy::SecretString;
use tokio_util::task::TaskTracker;

use crate::change::CredentialChange;
use crate::error::{Error, RefreshFailure, Result};
use crate::master::MasterKey;
use crate::new::{NewCredential, NewVault, take_apart};
use crate::oauth::{self, is_token};
use crate::refresh::{Flights, KEEP_TIMEOUT};
use crate::rule::Rule;
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
            created_at: at,
            updated_at: at,
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

    /// Vaults by creation; with `user` only those of this user.
    ///
    /// # Errors
    /// [`Error::VaultNotFound`] when the cursor is unknown.
    pub async fn list(
        &self,
        workspace: &WorkspaceId,
        user: Option<&str>,
        order: Order,
        after: Option<&VaultId>,
        limit: u32,
    ) -> Result<Page<Vault, VaultId>> {
        let page = self
            .inner
            .store
            .vaults(workspace, user, order, after, limit)
            .await;
        page.map_err(missing(Error::VaultNotFound))
    }

    /// Renames a vault.
    ///
    /// # Errors
    /// [`Error::VaultNotFound`].
    pub async fn rename(&self, workspace: &WorkspaceId, id: &VaultId, name: &str) -> Result<Vault> {
        let renamed = self.inner.store.rename_vault(workspace, id, name, now()).await;
        renamed.map_err(missing(Error::VaultNotFound))
    }

    /// Removes a vault with its credentials. Sessions that name it go on without them.
    ///
    /// # Errors
    /// [`Error::VaultNotFound`].
    pub async fn delete(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<()> {
        match self.inner.store.delete_vault(workspace, id).await? {
            true => Ok(()),
            false => Err(Error::VaultNotFound),
        }
    }

    /// Adds a credential.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::VaultNotFound`], [`Error::TooManyCredentials`], [`Error::AlreadyDone`].
    pub async fn add_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: CredentialId,
        new: NewCredential,
        once: Option<&Once>,
    ) -> Result<Credential> {
        let (spec, plain) = take_apart(new);
        self.check(&spec)?;
        for (field, secret) in &plain {
            check_secret(&spec.kind, *field, secret)?;
        }
        let chamber = self.inner.chamber(workspace, vault).await?;
        let at = now();
        let mut secrets = Secrets::new();
        for (field, secret) in &plain {
            let sealed = chamber.seal(&id, &spec, *field, secret).map_err(no_randomness)?;
            secrets.insert(*field, sealed);
        }
        let stored = StoredCredential {
            credential: Credential {
                id,
                vault: vault.clone(),
                workspace: workspace.clone(),
                spec,
                created_at: at,
                updated_at: at,
            },
            secrets,
            revision: 1,
        };
        let added = self
            .inner
            .store
            .add_credential(&stored, MAX_CREDENTIALS, once)
            .await;
        added.map_err(missing(Error::VaultNotFound))?;
        Ok(stored.credential)
    }

    fn check(&self, spec: &Spec) -> Result<()> {
        let invalid = |field, message| Error::Invalid { field, message };
        let rule = Rule::parse(&spec.match_url).map_err(|error| invalid("matchUrl", error.to_string()))?;
        rule.admit(&self.inner.guard)
            .map_err(|error| invalid("matchUrl", error.to_string()))?;
        if let Kind::McpOauth {
            refresh: Some(refresh),
            ..
        } = &spec.kind
        {
            // The refresh token goes there, so the same holds as for the access token.
            let endpoint = refresh
                .token_endpoint
                .split(['?', '#'])
                .next()
                .unwrap_or_default();
            let rule = Rule::parse(endpoint).map_err(|error| invalid("tokenEndpoint", error.to_string()))?;
            rule.admit(&self.inner.guard)
                .map_err(|error| invalid("tokenEndpoint", error.to_string()))?;
        }
        Ok(())
    }

    /// A credential.
    ///
    /// # Errors
    /// [`Error::VaultNotFound`], [`Error::CredentialNotFound`].
    pub async fn credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<Credential> {
        match self.inner.stored(workspace, vault, id).await {
            Ok(stored) => Ok(stored.credential),
            Err(Error::CredentialNotFound) => {
                self.get(workspace, vault).await?;
                Err(Error::CredentialNotFound)
            }
            Err(error) => Err(error),
        }
    }

    /// Credentials of a vault by creation, oldest first.
    ///
    /// # Errors
    /// [`Error::VaultNotFound`]; [`Error::CredentialNotFound`] when the cursor is unknown.
    pub async fn credentials(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        after: Option<&CredentialId>,
        limit: u32,
    ) -> Result<Page<Credential, CredentialId>> {
        self.get(workspace, vault).await?;
        let page = self.inner.store.credentials(workspace, vault, after, limit).await;
        let page = page.map_err(missing(Error::CredentialNotFound))?;
        Ok(Page {
            rows: page.rows.into_iter().map(|stored| stored.credential).collect(),
            next: page.next,
        })
    }

    /// Changes a credential in place. Whoever presents it next presents the new one.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::VaultNotFound`], [`Error::CredentialNotFound`], [`Error::Conflict`].
    pub async fn update_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
        change: &CredentialChange,
    ) -> Result<Credential> {
        for _ in 0..ATTEMPTS {
            let mut stored = match self.inner.stored(workspace, vault, id).await {
                Err(Error::CredentialNotFound) => {
                    self.get(workspace, vault).await?;
                    return Err(Error::CredentialNotFound);
                }
                stored => stored?,
            };
            let plain = change.apply(&mut stored.credential.spec)?;
            let chamber = self.inner.chamber(workspace, vault).await?;
            for (field, secret) in plain {
                check_secret(&stored.credential.spec.kind, field, secret)?;
                let sealed = chamber
                    .seal(id, &stored.credential.spec, field, secret)
                    .map_err(no_randomness)?;
                stored.secrets.insert(field, sealed);
            }
            stored.revision += 1;
            stored.credential.updated_at = stored.credential.updated_at.max(now());
            match self.inner.store.update_credential(&stored).await {
                Ok(()) => return Ok(stored.credential),
                Err(oma_store::Error::Conflict) => {}
                Err(error) => return Err(missing(Error::CredentialNotFound)(error)),
            }
        }
        Err(Error::Conflict)
    }

    /// Removes a credential.
    ///
    /// # Errors
    /// [`Error::VaultNotFound`], [`Error::CredentialNotFound`].
    pub async fn delete_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<()> {
        if self
            .inner
            .store
            .delete_credential(workspace, vault, id, now())
            .await?
        {
            return Ok(());
        }
        self.get(workspace, vault).await?;
        Err(Error::CredentialNotFound)
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

/// A bearer token has to fit a header; the other secrets go into a form, which takes any text.
fn check_secret(kind: &Kind, field: Field, secret: &SecretString) -> Result<()> {
    if field != Field::Token || is_token(secrecy::ExposeSecret::expose_secret(secret)) {
        return Ok(());
    }
    Err(Error::Invalid {
        field: match kind {
            Kind::StaticBearer => "token",
            Kind::McpOauth { .. } => "accessToken",
        },
        message: "it has characters that a header can't carry, or is too long".to_owned(),
    })
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
