//! From the configuration to the vaults, and the change of their master key.

use std::path::Path;
use std::sync::Arc;

use oma_egress::Guard;
use oma_store::sqlite::{Options, Sqlite};
use oma_store::{Error as StoreError, Store};
use oma_vault::key_file::{self, Source};
use oma_vault::{MasterKey, Vaults};
use serde_json::{Value, json};

use crate::config::Config;
use crate::print::Failure;

/// The file of a generated key, in the data folder.
const GENERATED: &str = "vault.key";

/// Where the master key is.
fn source(config: &Config) -> Source {
    match (&config.vault.key, &config.vault.key_file) {
        (Some(key), _) => Source::Given(key.clone()),
        (None, Some(path)) => Source::File(path.clone()),
        (None, None) => Source::Generated(config.data_dir.join(GENERATED)),
    }
}

/// Unlocks the vaults.
///
/// # Errors
/// What is wrong with the master key.
pub(crate) async fn open(config: &Config, store: &Arc<Sqlite>, guard: Arc<Guard>) -> Result<Vaults, Failure> {
    let source = source(config);
    let unlocked = key_file::unlock(&**store, &source).await.map_err(refused)?;
    if let (true, Some(path)) = (unlocked.is_new, source.path()) {
        tracing::warn!(
            path = %path.display(),
            "NO VAULT KEY IS SET: one was generated into this file. Whoever has the data folder, or a backup of it, \
             can read every credential in it; without the file nobody can. Keep a copy elsewhere, and better set \
             OPENCLAW_VAULT_KEY_FILE to a file outside of the data folder"
        );
    }
    if let Some(path) = unlocked.exposed {
        tracing::warn!(path = %path.display(), "others may read the vaults' master key; run chmod 600 on it");
    }
    let store = Arc::clone(store) as Arc<dyn Store>;
    Ok(Vaults::new(store, unlocked.master, guard))
}

fn refused(error: key_file::Error) -> Failure {
    Failure::Other(format!("the vaults can't be unlocked: {error}"))
}

/// Changes the master key of a data folder that no server has open: to the key in `new`, or to a generated one
/// that takes the place of the one in force in its file.
///
/// # Errors
/// What stands in the way. The old key is in force then, or the change is complete.
pub(crate) async fn rekey(config: &Config, new: Option<&Path>) -> Result<Value, Failure> {
    let store = open_alone(config).await?;
    let outcome = change(config, &store, new).await;
    store.close().await;
    outcome
}

async fn open_alone(config: &Config) -> Result<Sqlite, Failure> {
    let folder = config.data_dir.clone();
    if !folder.join("store.db").exists() {
        return Err(Failure::Other(format!(
            "{}: there is no database here",
            folder.display()
        )));
    }
    let opened = tokio::task::spawn_blocking({
        let folder = folder.clone();
        move || Sqlite::open(&folder, &Options::default())
    });
    match opened.await {
        Ok(Ok(store)) => Ok(store),
        Ok(Err(StoreError::Unavailable(reason))) => Err(Failure::Other(format!(
            "{}: {reason}; stop the server first: a master key is changed while no server runs",
            folder.display()
        ))),
        Ok(Err(error)) => Err(Failure::Other(format!("{}: {error}", folder.display()))),
        Err(error) => Err(Failure::Other(format!("opening the store broke down: {error}"))),
    }
}

async fn change(config: &Config, store: &Sqlite, new: Option<&Path>) -> Result<Value, Failure> {
    let source = source(config);
    let failed = |error: oma_vault::Error| Failure::Other(format!("the master key was not changed: {error}"));
    if let Some(path) = new {
        let to = key_file::read(path).map_err(refused)?;
        // Asked again after a crash, with the old key still configured: there is nothing left to do.
        let in_force = store
            .master_key()
            .await
            .map_err(|error| Failure::Other(error.to_string()))?;
        if in_force.as_ref() == Some(to.id()) {
            return Ok(
                json!({"key_id": to.id().as_str(), "key_file": path, "vaults": null, "changed": false}),
            );
        }
        let from = key_file::unlock(store, &source).await.map_err(refused)?.master;
        let vaults = oma_vault::rekey(store, &from, &to).await.map_err(failed)?;
        return Ok(json!({"key_id": to.id().as_str(), "key_file": path, "vaults": vaults, "changed": true}));
    }
    let Some(path) = source.path() else {
        return Err(Failure::Usage(
            "the key in force is given by OPENCLAW_VAULT_KEY: write the next one to a file, name it with \
             --new-key-file, and set the variable to it afterwards"
                .to_owned(),
        ));
    };
    let from = key_file::unlock(store, &source).await.map_err(refused)?.master;
    let to = MasterKey::generate().map_err(|error| Failure::Other(error.to_string()))?;
    key_file::stage(path, &to).map_err(refused)?;
    let vaults = oma_vault::rekey(store, &from, &to).await.map_err(failed)?;
    key_file::promote(path).map_err(refused)?;
    Ok(json!({"key_id": to.id().as_str(), "key_file": path, "vaults": vaults, "changed": true}))
}
