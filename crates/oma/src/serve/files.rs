//! From the configuration to the files that clients upload and sessions make.

use std::sync::Arc;

use oma_engine::Archives;
use oma_files::{Access, Files, Limits};
use oma_sandbox::{Provider, local};
use oma_store::sqlite::Sqlite;

use crate::config::Config;
use crate::print::Failure;

/// Opens them, and clears away what a crash has left.
///
/// # Errors
/// What is wrong with the data folder.
pub(crate) async fn open(
    config: &Config,
    store: &Arc<Sqlite>,
    provider: &Arc<dyn Provider>,
    access: Access,
) -> Result<Files, Failure> {
    let limits = Limits {
        max_file: config.server.max_upload.0,
        room: config.server.max_stored.0,
        disk_floor: config.sandbox.disk_floor.0,
    };
    let store = Arc::<Sqlite>::clone(store) as Arc<dyn oma_store::Store>;
    let wrong =
        |error: String| Failure::Other(format!("the files in {}: {error}", config.data_dir.display()));
    let files = Files::open(
        &config.data_dir,
        limits,
        store,
        Some(Arc::clone(provider)),
        Some(access),
    )
    .map_err(|error| wrong(error.to_string()))?;
    files.recover().await.map_err(|error| wrong(error.to_string()))?;
    Ok(files)
}

/// Opens the folder of checkpoints.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn archives(config: &Config) -> Result<Archives, Failure> {
    let folder = config
        .sandbox
        .checkpoints
        .clone()
        .unwrap_or_else(|| config.data_dir.join("checkpoints"));
    if let Some(shown) = local::exposed(&folder, &config.sandbox.readable.0) {
        return Err(Failure::Other(format!(
            "every sandbox can read {}, and the checkpoints in {} lie there; put them somewhere else",
            shown.display(),
            folder.display()
        )));
    }
    Archives::open(&folder, config.sandbox.disk_floor.0)
        .map_err(|error| Failure::Other(format!("the checkpoints in {}: {error}", folder.display())))
}
