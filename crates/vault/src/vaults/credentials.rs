//! The credentials of vaults: added, read, changed in place, archived, removed.

use oma_domain::page::{Order, Page};
use oma_domain::vault::{Field, Kind, Secrets, Spec};
use oma_domain::{Credential, CredentialId, VaultId, WorkspaceId};
use oma_store::{Admission, Once, StoredCredential};
use secrecy::SecretString;

use super::{ATTEMPTS, Vaults, missing, no_randomness, now};
use crate::change::CredentialChange;
use crate::error::{Error, Result};
use crate::new::{NewCredential, take_apart};
use crate::oauth::is_token;
use crate::rule::Rule;
use crate::variables;

impl Vaults {
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
