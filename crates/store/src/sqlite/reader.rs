//! The readers: a few read-only connections that work beside the writer, on tokio's blocking threads.
//!
//! Invariant: a read sees every commit that was acknowledged before it began, and nothing half-done: each one
//! is a transaction of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::failure::Failure;
use super::folder::Folder;
use crate::{Error, Result};

/// The readers' connections.
#[derive(Debug)]
pub(super) struct Readers {
    free: Arc<Free>,
    permits: Arc<Semaphore>,
    count: u32,
    folder: Arc<Folder>,
    patience: Duration,
}

#[derive(Debug, Default)]
struct Free(Mutex<Vec<Connection>>);

impl Free {
    fn take(&self) -> Option<Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, conn: Connection) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
    }
}

/// Brings a connection back whatever becomes of the read.
struct Lent {
    conn: Option<Connection>,
    free: Arc<Free>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.free.put(conn);
        }
    }
}

impl Readers {
    /// `patience` is how long a read may wait for a free connection.
    pub(super) fn new(conns: Vec<Connection>, folder: Arc<Folder>, patience: Duration) -> Self {
        let count = u32::try_from(conns.len()).unwrap_or(u32::MAX);
        Self {
            permits: Arc::new(Semaphore::new(conns.len())),
            free: Arc::new(Free(Mutex::new(conns))),
            count,
            folder,
            patience,
        }
    }

    /// Reads in one transaction.
    ///
    /// # Errors
    /// What `work` says; [`Error::Unavailable`] when no connection came free in time or the store is closed.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        let (free, folder) = (Arc::clone(&self.free), Arc::clone(&self.folder));
        let blocking = move |permit: OwnedSemaphorePermit| {
            tokio::task::spawn_blocking(move || {
                // Dropped in reverse order: the connection is back before the permit is.
                let _permit = permit;
                let lent = Lent {
                    conn: free.take(),
                    free,
                };
                let Some(conn) = &lent.conn else {
                    return Err(Error::Internal("a reader's connection is missing".into()));
                };
                transact(conn, work).map_err(|failure| failure.into_error(&folder))
            })
        };
        let read = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => blocking(permit).await,
            // A read that waits has a task of its own: were its turn to come while its caller looks after
            // something else, it would keep a connection from everybody and not use it.
            Err(TryAcquireError::NoPermits) => {
                let turn = timeout(self.patience, Arc::clone(&self.permits).acquire_owned());
                let mut waiting = JoinSet::new();
                waiting.spawn(async move {
                    let permit = turn
                        .await
                        .map_err(|_| Error::Unavailable("too many reads are waiting".into()))?
                        .map_err(|_| closed())?;
                    Ok(blocking(permit).await)
                });
                match waiting.join_next().await {
                    Some(Ok(read)) => read?,
                    Some(Err(error)) => Err(error),
                    None => return Err(Error::Internal("a read was lost".into())),
                }
            }
            Err(TryAcquireError::Closed) => return Err(closed()),
        };
        match read {
            Ok(result) => result,
            Err(error) => Err(Error::Internal(format!("a read did not end: {error}"))),
        }
    }

    /// How many connections are free.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.permits.available_permits()
    }

    /// Waits for the reads under way and closes the connections.
    pub(super) async fn close(&self) {
        // An error means that it is closed already.
        if let Ok(_all) = self.permits.acquire_many(self.count).await {
            self.permits.close();
            while let Some(conn) = self.free.take() {
                drop(conn);
            }
        }
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".into())
}

fn transact<T>(
    conn: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let transaction = conn.unchecked_transaction()?;
    let value = work(&transaction)?;
    transaction.commit()?;
    Ok(value)
}
