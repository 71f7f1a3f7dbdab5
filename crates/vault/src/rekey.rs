//! Changing the master key.

use oma_domain::page::MAX_LIMIT;
use oma_store::{Store, VaultKey};

use crate::error::{Error, Result};
use crate::master::MasterKey;
use crate::seal::Chamber;
use crate::vaults::no_randomness;

/// Seals every data key under `to` instead of `from`, in one transaction: afterwards `to` is in force, or nothing
/// has changed. Returns how many vaults there are. The secrets themselves are not touched.
///
/// # Errors
/// [`Error::Unreadable`] when a data key does not open under `from`; [`Error::Conflict`] when `from` is not in
/// force, or a vault was made meanwhile.
pub async fn rekey(store: &dyn Store, from: &MasterKey, to: &MasterKey) -> Result<usize> {
    let mut keys = Vec::new();
    let mut after = None;
    loop {
        let page = store.vault_keys(after.as_ref(), MAX_LIMIT).await?;
        for VaultKey {
            workspace,
            vault,
            key,
        } in page.rows
        {
            let chamber = Chamber::open(from, &workspace, &vault, &key)
                .map_err(|_| Error::Unreadable(vault.clone()))?;
            let key = chamber.wrap(to).map_err(no_randomness)?;
            keys.push(VaultKey {
                workspace,
                vault,
                key,
            });
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let count = keys.len();
    match store.change_master_key(from.id(), to.id(), keys).await {
        Ok(()) => Ok(count),
        Err(oma_store::Error::Conflict) => Err(Error::Conflict),
        Err(error) => Err(error.into()),
    }
}
