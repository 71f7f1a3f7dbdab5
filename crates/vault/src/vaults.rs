//! [`Vaults`]: what the engine and the MCP client work with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oma_domain::page::{Order, Page};
use oma_domain::vault::{Field, Kind, Secrets, Spec, Vault};
use oma_domain::{Credential, CredentialId, Timestamp, VaultId, WorkspaceId};
use oma_egress::Guard;
use oma_store::{Admission, Once, Store, StoredCredential, VaultFilter};
use secrecy::SecretString;
use tokio_util::task::TaskTracker;

use crate::change::{CredentialChange, MetadataChange};
use crate::error::{Error, RefreshFailure, Result};
use crate::master::MasterKey;
use crate::new::{NewCredential, NewVault, take_apart};
use crate::oauth::{self, is_token};
use crate::refresh::{Flights, KEEP_TIMEOUT};
use crate::rule::Rule;
use crate::seal::Chamber;
use crate::variables;

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

    /// Adds a credential.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::VaultNotFound`], [`Error::VaultArchived`], [`Error::TooManyCredentials`] and
    /// [`Error::CredentialExists`] by `admission`, [`Error::AlreadyDone`].
    pub async fn add_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: CredentialId,
        new: NewCredential,
        admission: Admission,
        once: Option<&Once>,
    ) -> Result<Credential> {
        let NewCredential {
            name,
            match_url,
            secret,
            metadata,
        } = new;
        let (kind, plain) = take_apart(secret);
        let spec = Spec {
            name,
            match_url,
            kind,
        };
        let place = self.check(&spec)?;
        for (field, secret) in &plain {
            check_secret(&spec.kind, *field, secret)?;
        }
        let chamber = self.inner.chamber(workspace, vault).await?;
        if admission.unique {
            // The store compares what is new; those of before are spelled as their clients did.
            let others = self.inner.store.credential_specs(workspace, vault).await?;
            let same = |other: &Credential| place_of(&other.spec).is_ok_and(|other| other == place);
            if others.iter().any(same) {
                return Err(Error::CredentialExists);
            }
        }
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
                metadata,
                created_at: at,
                updated_at: at,
                archived_at: None,
            },
            secrets,
            revision: 1,
        };
        let added = self
            .inner
            .store
            .add_credential(&stored, &place, admission, once)
            .await;
        self.inner.note_change();
        added.map_err(missing(Error::VaultNotFound))?;
        Ok(stored.credential)
    }

    /// Whether a credential may be for what it says, and the place that this is.
    fn check(&self, spec: &Spec) -> Result<String> {
        let invalid = |field, message| Error::Invalid { field, message };
        if let Kind::EnvironmentVariable { .. } = &spec.kind {
            variables::check(&spec.kind)?;
            return place_of(spec);
        }
        let rule = Rule::parse(&spec.match_url).map_err(|error| invalid("matchUrl", error.to_string()))?;
        rule.admit(&self.inner.guard)
            .map_err(|error| invalid("matchUrl", error.to_string()))?;
        let place = rule.place();
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
        Ok(place)
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
        Ok(self.found(workspace, vault, id).await?.credential)
    }

    /// A credential as it is stored, or which of the two there is not.
    pub(crate) async fn found(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<StoredCredential> {
        match self.inner.stored(workspace, vault, id).await {
            Err(Error::CredentialNotFound) => {
                self.get(workspace, vault).await?;
                Err(Error::CredentialNotFound)
            }
            found => found,
        }
    }

    /// Credentials of a vault by creation, if asked so without archived ones.
    ///
    /// # Errors
    /// [`Error::VaultNotFound`]; [`Error::CredentialNotFound`] when the cursor is unknown.
    pub async fn credentials(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        only_active: bool,
        order: Order,
        after: Option<&CredentialId>,
        limit: u32,
    ) -> Result<Page<Credential, CredentialId>> {
        self.get(workspace, vault).await?;
        let store = &self.inner.store;
        let page = store
            .credentials(workspace, vault, only_active, order, after, limit)
            .await;
        let page = page.map_err(missing(Error::CredentialNotFound))?;
        Ok(Page {
            rows: page.rows.into_iter().map(|stored| stored.credential).collect(),
            next: page.next,
        })
    }

    /// Changes a credential in place. Whoever presents it next presents the new one.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::VaultNotFound`], [`Error::CredentialNotFound`], [`Error::CredentialArchived`],
    /// [`Error::Conflict`].
    pub async fn update_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
        change: &CredentialChange,
    ) -> Result<Credential> {
        for _ in 0..ATTEMPTS {
            let mut stored = self.found(workspace, vault, id).await?;
            if stored.credential.archived_at.is_some() {
                return Err(Error::CredentialArchived);
            }
            let before = stored.credential.spec.clone();
            let plain = change.apply(&mut stored.credential)?;
            variables::check(&stored.credential.spec.kind)?;
            let chamber = self.inner.chamber(workspace, vault).await?;
            let rebound = variables::rebind(&chamber, &before, &stored)?;
            stored.secrets.extend(rebound);
            for (field, secret) in plain {
                check_secret(&stored.credential.spec.kind, field, secret)?;
                let sealed = chamber
                    .seal(id, &stored.credential.spec, field, secret)
                    .map_err(no_randomness)?;
                stored.secrets.insert(field, sealed);
            }
            stored.revision += 1;
            stored.credential.updated_at = stored.credential.updated_at.max(now());
            let updated = self.inner.store.update_credential(&stored).await;
            self.inner.note_change();
            match updated {
                Ok(()) => return Ok(stored.credential),
                Err(oma_store::Error::Conflict) => {}
                Err(error) => return Err(missing(Error::CredentialNotFound)(error)),
            }
        }
        Err(Error::Conflict)
    }

    /// Archives a credential: its secrets are gone, and another one may be for the same place. Archived again it keeps
    /// its first time.
    ///
    /// # Errors
    /// [`Error::VaultNotFound`], [`Error::CredentialNotFound`].
    pub async fn archive_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<Credential> {
        let store = &self.inner.store;
        let archived = store.archive_credential(workspace, vault, id, now()).await;
        self.inner.note_change();
        if let Some(archived) = archived? {
            return Ok(archived);
        }
        self.get(workspace, vault).await?;
        Err(Error::CredentialNotFound)
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
        let store = &self.inner.store;
        let deleted = store.delete_credential(workspace, vault, id, now()).await;
        self.inner.note_change();
        if deleted? {
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

/// The place that a credential is for, spelled in one way only.
fn place_of(spec: &Spec) -> Result<String> {
    match &spec.kind {
        Kind::EnvironmentVariable { secret_name, .. } => Ok(format!("env:{secret_name}")),
        Kind::StaticBearer | Kind::McpOauth { .. } => {
            let rule = Rule::parse(&spec.match_url).map_err(|error| Error::Invalid {
                field: "matchUrl",
                message: error.to_string(),
            })?;
            Ok(rule.place())
        }
    }
}

/// A bearer token has to fit a header, and so has what stands behind a variable; the other secrets go into a form,
/// which takes any text.
fn check_secret(kind: &Kind, field: Field, secret: &SecretString) -> Result<()> {
    if field == Field::Value {
        return variables::check_value(secret);
    }
    if field != Field::Token || is_token(secrecy::ExposeSecret::expose_secret(secret)) {
        return Ok(());
    }
    Err(Error::Invalid {
        field: match kind {
            Kind::McpOauth { .. } => "accessToken",
            Kind::StaticBearer | Kind::EnvironmentVariable { .. } => "token",
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
