//! From the configuration to the files that clients upload and sessions make.

use std::sync::Arc;

use oma_files::{Access, Files, Limits};
use oma_sandbox::Provider;
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
