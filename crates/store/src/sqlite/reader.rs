//! The readers: a few threads that work beside the writer, each with a read-only connection of its own.
//!
//! They are threads of the store's, begun with it, and not those that the runtime begins when it needs them: on a
//! machine that has no threads left, reads go on, and so does the end of the server.
//!
//! Invariant: a read sees every commit that was acknowledged before it began, and nothing half-done: each one
//! is a transaction of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::failure::Failure;
use super::folder::Folder;
use crate::{Error, Result};

/// How many reads may wait.
const WAITING: usize = 1024;

/// A read, as a thread carries it out.
type Read = Box<dyn FnOnce(&Connection) + Send>;

/// The way to the readers' threads. Dropping it waits until all accepted reads have ended.
#[derive(Debug)]
pub(super) struct Readers {
    sender: Mutex<Option<mpsc::Sender<Read>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// How many threads still have their connection.
    open: watch::Receiver<usize>,
    folder: Arc<Folder>,
    patience: Duration,
}

impl Readers {
    /// Starts a thread for each connection. `patience` is how long a read may wait before it is begun.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no thread can be started.
    pub(super) fn start(conns: Vec<Connection>, folder: Arc<Folder>, patience: Duration) -> Result<Self> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let receiver = Arc::new(Mutex::new(receiver));
        let open = watch::Sender::new(conns.len());
        let mut threads = Vec::with_capacity(conns.len());
        for conn in conns {
            let (receiver, open) = (Arc::clone(&receiver), open.clone());
            let thread = std::thread::Builder::new()
                .name("store-reader".into())
                .spawn(move || {
                    serve(&conn, &receiver);
                    drop(conn);
                    open.send_modify(|open| *open -= 1);
                })
                .map_err(|error| {
                    Error::Unavailable(format!("a reader's thread can't be started: {error}"))
                })?;
            threads.push(thread);
        }
        Ok(Self {
            sender: Mutex::new(Some(sender)),
            threads: Mutex::new(threads),
            open: open.subscribe(),
            folder,
            patience,
        })
    }

    fn sender(&self) -> Option<mpsc::Sender<Read>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads in one transaction. A caller that goes away before the read has begun takes it with it.
    ///
    /// # Errors
    /// What `work` says; [`Error::Unavailable`] when it was not begun in time or the store is closed.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        let closed = || Error::Unavailable("the store is closed".into());
        let late = || Error::Unavailable("too many reads are waiting".into());
        let sender = self.sender().ok_or_else(closed)?;
        let (reply, mut answer) = oneshot::channel();
        let claimed = Arc::new(AtomicBool::new(false));
        let (begun, folder) = (Arc::clone(&claimed), Arc::clone(&self.folder));
        let read = move |conn: &Connection| {
            if begun.swap(true, Ordering::AcqRel) || reply.is_closed() {
                return;
            }
            // A panic is a fault of ours; it must not take the thread and its connection with it.
            let outcome = match catch_unwind(AssertUnwindSafe(|| transact(conn, work))) {
                Ok(outcome) => outcome.map_err(|failure| failure.into_error(&folder)),
                Err(_) => Err(Error::Internal("a read panicked".into())),
            };
            // A caller that has gone away meanwhile doesn't want to know.
            drop(reply.send(outcome));
        };
        timeout(self.patience, sender.send(Box::new(read)))
            .await
            .map_err(|_| late())?
            .map_err(|_| closed())?;
        drop(sender);
        let Ok(answer) = timeout(self.patience, &mut answer).await else {
            if !claimed.swap(true, Ordering::AcqRel) {
                return Err(late());
            }
            // It has begun, so it is worth waiting for.
            return answer.await.unwrap_or_else(|_| Err(closed()));
        };
        answer.unwrap_or_else(|_| Err(closed()))
    }

    /// Waits for the reads that were accepted and closes the connections.
    pub(super) async fn close(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        // An error means that all threads have ended, and their connections with them.
        let mut open = self.open.clone();
        let _ended = open.wait_for(|open| *open == 0).await;
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store's readers panicked");
            }
        }
    }
}

/// Carries out reads until nobody can send one any more.
fn serve(conn: &Connection, receiver: &Mutex<mpsc::Receiver<Read>>) {
    loop {
        // One thread waits for a read, the others for their turn to wait.
        let read = receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv();
        match read {
            Some(read) => read(conn),
            None => return,
        }
    }
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
