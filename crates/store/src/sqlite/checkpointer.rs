//! The checkpointer: a thread that copies the write-ahead log into the database beside the writer, so that no
//! commit waits for it.
//!
//! The log begins anew only when all of it has been copied at the moment of a write. When writing never pauses,
//! the thread can't reach that moment; the writer then copies the short rest itself between two commits.
//!
//! Invariant: the write-ahead log stays bounded.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::connection::BUSY_TIMEOUT;
use crate::{Error, Result};

/// This many pages that are not copied yet (4 MiB) are worth a checkpoint.
const WORTHWHILE: i64 = 1024;

/// From this many pages on (16 MiB) the writer copies the rest itself, as far as readers let it.
const LONG: i64 = 4 * 1024;

/// From this many pages on (64 MiB) it waits for the readers, too.
const TOO_LONG: i64 = 16 * 1024;

/// How long it waits for them. A read takes milliseconds.
const READERS_END: Duration = Duration::from_millis(100);

/// The writer's end of the thread.
#[derive(Debug)]
pub(super) struct Checkpointer {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Checkpointer {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no thread can be started.
    pub(super) fn start(conn: Connection) -> Result<Self> {
        let (wake, woken) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || serve(&conn, &woken))
            .map_err(|error| {
                Error::Unavailable(format!("the checkpoint thread can't be started: {error}"))
            })?;
        Ok(Self { wake, thread })
    }

    /// Looks at the length of the write-ahead log and has it checkpointed when that is worthwhile.
    pub(super) fn after_commit(&self, writer: &Connection) {
        let log = match checkpoint(writer, "PRAGMA wal_checkpoint(NOOP)") {
            Ok(log) => log,
            Err(error) => return tracing::warn!(%error, "the length of the write-ahead log is unknown"),
        };
        if log.written >= LONG {
            let copied = if log.written >= TOO_LONG {
                wait_for_readers(writer)
            } else {
                checkpoint(writer, "PRAGMA wal_checkpoint(PASSIVE)")
            };
            if let Err(error) = copied {
                tracing::warn!(%error, "the write-ahead log can't be checkpointed");
            }
        } else if log.open() >= WORTHWHILE {
            match self.wake.try_send(()) {
                // Full means that it has been woken already.
                Ok(()) | Err(TrySendError::Full(())) => {}
                Err(TrySendError::Disconnected(())) => tracing::error!("the checkpoint thread has ended"),
            }
        }
    }

    /// Ends the thread and closes its connection.
    pub(super) fn close(self) {
        drop(self.wake);
        if self.thread.join().is_err() {
            tracing::error!("the checkpoint thread panicked");
        }
    }
}

fn serve(conn: &Connection, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        if let Err(error) = checkpoint(conn, "PRAGMA wal_checkpoint(PASSIVE)") {
            tracing::warn!(%error, "the write-ahead log can't be checkpointed");
        }
    }
}

/// Copies everything and has the log begin anew. The wait is short, because it comes again after each commit
/// for as long as a reader keeps the log.
fn wait_for_readers(writer: &Connection) -> rusqlite::Result<Log> {
    writer.busy_timeout(READERS_END)?;
    let log = checkpoint(writer, "PRAGMA wal_checkpoint(RESTART)");
    writer.busy_timeout(BUSY_TIMEOUT)?;
    log
}

/// The write-ahead log, in pages.
#[derive(Debug, Clone, Copy)]
struct Log {
    written: i64,
    copied: i64,
}

impl Log {
    /// Pages that are not in the database yet.
    fn open(self) -> i64 {
        self.written - self.copied
    }
}

fn checkpoint(conn: &Connection, sql: &'static str) -> rusqlite::Result<Log> {
    conn.prepare_cached(sql)?.query_row([], |row| {
        Ok(Log {
            written: row.get(1)?,
            copied: row.get(2)?,
        })
    })
}
