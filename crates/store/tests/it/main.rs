//! The SQLite store against the contract, and against crashes, full disks and foreign hands.

#![expect(clippy::unwrap_used, reason = "a failure is to end the test")]

mod again;
mod cases;
mod crash;
mod disk;
mod folder;
mod upgrade;

use std::sync::Arc;

use oma_store::Store;
use oma_store::sqlite::{Options, Sqlite};
use tempfile::TempDir;

/// A store in a folder of its own.
async fn open() -> (Arc<dyn Store>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("data"), &Options::default()).unwrap();
    (Arc::new(store), folder)
}

mod contract {
    use super::open;
    oma_store::contract_tests!(open);
}
