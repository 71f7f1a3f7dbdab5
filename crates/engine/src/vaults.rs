//! Vaults and credentials: what the `vault` crate does, once for each idempotency key.

use oma_domain::page::{Order, Page};
use oma_domain::{Credential, CredentialId, Vault, VaultId, WorkspaceId};
use oma_vault::probe::Validation;
use oma_vault::{Admission, CredentialChange, MetadataChange, NewCredential, NewVault, VaultFilter};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::{Engine, IdempotencyKey, once};

const SCOPE: &str = "vault.create";

fn gone() -> Error {
    Error::Vault(oma_vault::Error::VaultNotFound)
}

fn credential_gone() -> Error {
    Error::Vault(oma_vault::Error::CredentialNotFound)
}

impl Engine {
    /// Creates a vault.
    ///
    /// # Errors
    /// [`Error::KeyReused`].
    pub async fn create_vault(
        &self,
        workspace: &WorkspaceId,
        new: NewVault,
        key: Option<IdempotencyKey>,
    ) -> Result<Vault> {
        let store = &*self.inner.store;
        if let Some(receipt) = once::lookup(store, workspace, SCOPE, key.as_ref()).await? {
            return self.replayed_vault(workspace, &receipt).await;
        }
        let id = VaultId::generate();
        let record = once::record(SCOPE, key.as_ref(), json!(id));
        let created = self.inner.vaults.create(workspace, id, new, record.as_ref());
        match (created.await, key) {
            (Err(oma_vault::Error::AlreadyDone(record)), Some(key)) => {
                self.replayed_vault(workspace, &once::replay(record, &key)?).await
            }
            (created, _) => Ok(created?),
        }
    }

    async fn replayed_vault(&self, workspace: &WorkspaceId, receipt: &Value) -> Result<Vault> {
        let id = receipt.as_str().and_then(|id| VaultId::parse(id).ok());
        self.vault(workspace, &id.ok_or_else(gone)?).await
    }

    /// A vault.
    ///
    /// # Errors
    /// [`Error::Vault`].
    pub async fn vault(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<Vault> {
        Ok(self.inner.vaults.get(workspace, id).await?)
    }

    /// A vault that new sessions may name.
    ///
    /// # Errors
    /// [`Error::Vault`], also when it is archived.
    pub(crate) async fn open_vault(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<Vault> {
        let vault = self.vault(workspace, id).await?;
        match vault.archived_at {
            Some(_) => Err(oma_vault::Error::VaultArchived.into()),
            None => Ok(vault),
        }
    }

    /// Vaults by creation.
    ///
    /// # Errors
    /// [`Error::Vault`] when the cursor is unknown.
    pub async fn vaults(
        &self,
        workspace: &WorkspaceId,
        filter: &VaultFilter,
        order: Order,
        after: Option<&VaultId>,
        limit: u32,
    ) -> Result<Page<Vault, VaultId>> {
        Ok(self
            .inner
            .vaults
            .list(workspace, filter, order, after, limit)
            .await?)
    }

    /// Changes a vault's name, if one is given, and its metadata.
    ///
    /// # Errors
    /// [`Error::Vault`].
    pub async fn update_vault(
        &self,
        workspace: &WorkspaceId,
        id: &VaultId,
        name: Option<&str>,
        metadata: &MetadataChange,
    ) -> Result<Vault> {
        Ok(self.inner.vaults.update(workspace, id, name, metadata).await?)
    }

    /// Archives a vault with its credentials, whose secrets are gone then.
    ///
    /// # Errors
    /// [`Error::Vault`].
    pub async fn archive_vault(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<Vault> {
        Ok(self.inner.vaults.archive(workspace, id).await?)
    }

    /// Removes a vault with its credentials.
    ///
    /// # Errors
    /// [`Error::Vault`].
    pub async fn delete_vault(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<()> {
        Ok(self.inner.vaults.delete(workspace, id).await?)
    }

    /// Adds a credential to a vault.
    ///
    /// # Errors
    /// [`Error::Vault`], [`Error::KeyReused`].
    pub async fn add_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        new: NewCredential,
        admission: Admission,
        key: Option<IdempotencyKey>,
    ) -> Result<Credential> {
        let (store, vaults) = (&*self.inner.store, &self.inner.vaults);
        let scope = format!("credential.create:{vault}");
        // The request has a secret in it, and a plain digest would let whoever reads the database try guesses.
        let key = key.map(|key| IdempotencyKey {
            fingerprint: vaults.digest(&key.fingerprint),
            ..key
        });
        if let Some(receipt) = once::lookup(store, workspace, &scope, key.as_ref()).await? {
            return self.replayed_credential(workspace, vault, &receipt).await;
        }
        let id = CredentialId::generate();
        let record = once::record(&scope, key.as_ref(), json!(id));
        let added = vaults.add_credential(workspace, vault, id, new, admission, record.as_ref());
        match (added.await, key) {
            (Err(oma_vault::Error::AlreadyDone(record)), Some(key)) => {
                let receipt = once::replay(record, &key)?;
                self.replayed_credential(workspace, vault, &receipt).await
            }
            (added, _) => Ok(added?),
        }
    }

    async fn replayed_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        receipt: &Value,
    ) -> Result<Credential> {
        let id = receipt.as_str().and_then(|id| CredentialId::parse(id).ok());
        self.credential(workspace, vault, &id.ok_or_else(credential_gone)?)
            .await
    }

    /// A credential.
    ///
    /// # Errors
    /// [`Error::Vault`].
    pub async fn credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<Credential> {
        Ok(self.inner.vaults.credential(workspace, vault, id).await?)
    }

    /// Credentials of a vault by creation, if asked so without archived ones.
    ///
    /// # Errors
    /// [`Error::Vault`], also when the cursor is unknown.
    pub async fn credentials(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        only_active: bool,
        order: Order,
        after: Option<&CredentialId>,
        limit: u32,
    ) -> Result<Page<Credential, CredentialId>> {
        Ok(self
            .inner
            .vaults
            .credentials(workspace, vault, only_active, order, after, limit)
            .await?)
    }

    /// Changes a credential in place.
    ///
    /// # Errors
    /// [`Error::Vault`].
    pub async fn update_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
        change: &CredentialChange,
    ) -> Result<Credential> {
        let updated = self.inner.vaults.update_credential(workspace, vault, id, change);
        Ok(updated.await?)
    }

    /// Tries a credential against its MCP server.
    ///
    /// # Errors
    /// [`Error::Vault`].
    pub async fn validate_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<Validation> {
        Ok(self.inner.vaults.validate(workspace, vault, id).await?)
    }

    /// Archives a credential: its secrets are gone, and another one may be for the same place.
    ///
    /// # Errors
    /// [`Error::Vault`].
    pub async fn archive_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<Credential> {
        Ok(self.inner.vaults.archive_credential(workspace, vault, id).await?)
    }

    /// Removes a credential.
    ///
    /// # Errors
    /// [`Error::Vault`].
    pub async fn delete_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<()> {
        Ok(self.inner.vaults.delete_credential(workspace, vault, id).await?)
    }
}
