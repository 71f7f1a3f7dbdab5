//! Secrets that belong to no vault of a client: the signing secrets of webhooks, the tokens of repositories. They are
//! sealed under the data key of a vault in a workspace that nobody has, so that a change of the master key takes them
//! along.

use oma_domain::vault::{Sealed, Vault};
use oma_domain::{Timestamp, VaultId, WorkspaceId};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::master::KEY_BYTES;
use crate::seal::Chamber;
use crate::vaults::{Vaults, no_randomness};

/// The workspace of that vault. No key opens it: ids of workspaces are made by the server.
const WORKSPACE: &str = "wrk_server";
/// That vault.
const VAULT: &str = "vlt_server";

impl Vaults {
    /// Seals a secret of the server's. It opens only for the same `place`.
    ///
    /// # Errors
    /// A store failure; [`Error::Unreadable`] when the data key does not open.
    pub async fn seal_own(&self, place: &[&str], secret: &SecretString) -> Result<Sealed> {
        let chamber = self.own_chamber().await?;
        chamber.seal_own(place, secret).map_err(no_randomness)
    }

    /// Opens what [`Vaults::seal_own`] sealed.
    ///
    /// # Errors
    /// [`Error::Unreadable`]; a store failure.
    pub async fn open_own(&self, place: &[&str], sealed: &Sealed) -> Result<SecretString> {
        let chamber = self.own_chamber().await?;
        let (_, vault) = own()?;
        chamber
            .open_own(place, sealed)
            .map_err(|_| Error::Unreadable(vault))
    }

    /// Bytes that stand for a place: the same each time, also under another master key, and told by nobody who has the
    /// database alone.
    ///
    /// # Errors
    /// A store failure; [`Error::Unreadable`] when the data key does not open.
    pub async fn derive(&self, place: &[&str]) -> Result<Zeroizing<[u8; KEY_BYTES]>> {
        Ok(self.own_chamber().await?.derive(place))
    }

    /// The vault's data key, which is made when it is needed for the first time.
    async fn own_chamber(&self) -> Result<Chamber> {
        let inner = &self.inner;
        let (workspace, id) = own()?;
        if inner.store.vault_key(&workspace, &id).await?.is_none() {
            let vault = Vault {
                id: id.clone(),
                workspace: workspace.clone(),
                user: None,
                name: "server".to_owned(),
                metadata: std::collections::BTreeMap::new(),
                archived_at: None,
                created_at: Timestamp(0),
                updated_at: Timestamp(0),
            };
            let (_, key) = Chamber::create(&inner.master, &workspace, &id).map_err(no_randomness)?;
            match inner.store.create_vault(&vault, &key, None).await {
                // Somebody else was faster.
                Ok(()) | Err(oma_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let key = inner.store.vault_key(&workspace, &id).await?;
        let key = key.ok_or_else(|| Error::Unreadable(id.clone()))?;
        Chamber::open(&inner.master, &workspace, &id, &key).map_err(|_| Error::Unreadable(id))
    }
}

fn own() -> Result<(WorkspaceId, VaultId)> {
    let unreadable = |_| Error::VaultNotFound;
    let workspace = WorkspaceId::parse(WORKSPACE).map_err(unreadable)?;
    Ok((workspace, VaultId::parse(VAULT).map_err(unreadable)?))
}
