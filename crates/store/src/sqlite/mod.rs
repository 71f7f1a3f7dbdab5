//! The store on one machine: SQLite in a data folder.
//!
//! The folder has `store.db`, while it is open its write-ahead log and that one's index (`-wal`, `-shm`), and
//! `store.lock`. A backup of a running server is `sqlite3 store.db ".backup copy.db"`; a copy of the files is one
//! only while no server has them open.
//!
//! Three kinds of threads work on it. One writer (`writer`) takes everything that waits, carries out each piece
//! in a savepoint of its own, commits once and answers all: a commit alone costs one sync of the disk, and sixty
//! at the same time cost one as well. A few read-only connections (`reader`) read beside it, each a consistent
//! state. A checkpointer (`checkpointer`) copies the write-ahead log into the database, so that commits don't
//! wait for that. The tables have a file each; `store` says which call uses which.
//!
//! Invariants kept here:
//! - what was acknowledged is on the disk: `synchronous=FULL` (I1);
//! - one process has the data folder open, and nobody else can read it;
//! - no read or write parses more of a log than the page that was asked for, and no list scans or sorts;
//! - what a commit rewrites does not grow with the agent, the log or the number of sessions.
//!
//! Where it sits: below [`crate::Store`]; nothing else knows SQLite.

mod access;
mod agents;
mod audit;
mod checkpointer;
mod checkpoints;
mod commits;
mod connection;
mod credentials;
mod deployments;
mod environments;
mod events;
mod failure;
mod files;
mod folder;
mod kept;
mod keys;
mod memory;
mod migrations;
mod once;
mod queue;
mod reader;
mod resources;
mod rows;
mod runs;
mod sessions;
mod skills;
mod snapshots;
mod store;
mod usage;
mod users;
mod vault_keys;
mod vaults;
mod webhooks;
mod work;
mod workspaces;
mod writer;

#[cfg(test)]
mod tests;

pub use audit::verify::{Broken, Verified, verify as verify_audit};

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use checkpointer::Checkpointer;
use failure::Failure;
use folder::{Folder, Lock};
use reader::Readers;
use tokio::sync::Notify;
use writer::Writer;

use crate::Result;

/// How the store uses the machine. The defaults suit the smallest server.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many reads run at the same time; at least 1.
    pub readers: u32,
    /// The most memory for pages that the writer keeps, in KiB.
    pub writer_cache: u32,
    /// The most memory for pages that each reader keeps, in KiB.
    pub reader_cache: u32,
    /// How long a read or write may wait for its turn before it is refused.
    pub patience: Duration,
    /// The most bytes that the database may take, without the write-ahead log (128 MiB at most); no bound but
    /// the disk by default. Beyond it writes fail with [`crate::Error::Full`].
    pub max_bytes: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            readers: 4,
            writer_cache: 8 * 1024,
            reader_cache: 2 * 1024,
            patience: Duration::from_secs(10),
            max_bytes: None,
        }
    }
}

/// A [`crate::Store`] in a data folder. Dropping it waits until all accepted writes are on the disk;
/// [`Sqlite::close`] does the same without blocking the thread.
#[derive(Debug)]
pub struct Sqlite {
    // Dropped first: the writer's connection is then the last one, and leaves a folder without a write-ahead log.
    readers: Readers,
    writer: Writer,
    /// Told when notices may have been added to the outbox.
    outbox: Arc<Notify>,
}

impl Sqlite {
    /// Opens the store in `folder`, creates it where it is missing and brings its schema up to date. Blocks
    /// until that is done.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`] when another server has the folder open, [`crate::Error::ReadOnly`] when
    /// it can't be written, [`crate::Error::Full`] when the disk is full, [`crate::Error::Internal`] when a
    /// newer server or another program wrote what is there.
    pub fn open(folder: &Path, options: &Options) -> Result<Self> {
        let (folder, lock) = Folder::open(folder)?;
        let folder = Arc::new(folder);
        Self::start(&folder, lock, options).map_err(|failure| failure.into_error(&folder))
    }

    fn start(folder: &Arc<Folder>, lock: Lock, options: &Options) -> Result<Self, Failure> {
        let database = folder.database();
        let mut conn = connection::writer(&database, options)?;
        migrations::migrate(&mut conn)?;
        let conns = (0..options.readers.max(1))
            .map(|_| connection::reader(&database, options))
            .collect::<Result<Vec<_>, _>>()?;
        let checkpointer = Checkpointer::start(connection::checkpointer(&database)?)?;
        let outbox = Arc::new(Notify::new());
        let told = Arc::clone(&outbox);
        let writer = Writer::start(
            conn,
            checkpointer,
            Arc::clone(folder),
            lock,
            told,
            options.patience,
        )?;
        Ok(Self {
            readers: Readers::start(conns, Arc::clone(folder), options.patience)?,
            writer,
            outbox,
        })
    }

    /// Carries out the writes that were accepted, closes the database and unlocks the folder. Every later call
    /// fails with [`crate::Error::Unavailable`].
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
