//! The one writer: a thread that owns the writing connection and commits what waits in groups.
//!
//! Invariants:
//! - a caller gets its answer only after the transaction with its work is on the disk;
//! - each piece of work stands in a savepoint of its own: one that is refused or fails takes nothing with it;
//! - work is never lost silently: it is carried out, or its caller gets an error that says why not;
//! - what changes something is in one transaction with the notes of the audit trail that were held before it came.
//!
//! A caller that goes away (drops its future) before its work has begun takes the work with it; after that the
//! work is carried out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use oma_domain::audit::Entry;
use rusqlite::Connection;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use super::audit::{self, Held};
use super::checkpointer::Checkpointer;
use super::failure::Failure;
use super::folder::{Folder, Lock};
use super::webhooks;
use crate::{Error, Result};

/// How many pieces of work may wait.
const WAITING: usize = 1024;

/// The most pieces of work in one transaction.
const GROUP: usize = 512;

/// The way to the writer thread. Dropping it waits until all accepted work is on the disk.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) sender: Option<mpsc::Sender<Message>>,
    /// Notes of calls, which go with the next change.
    pub(super) held: Arc<Held>,
    thread: Mutex<Option<JoinHandle<()>>>,
    patience: Duration,
}

pub(super) enum Message {
    Work(Box<dyn Work>),
    Close(oneshot::Sender<()>),
}

/// A piece of work in the queue.
pub(super) trait Work: Send {
    /// Whether somebody still waits for it. From here on it is going to be carried out.
    fn claim(&self) -> bool;
    /// Whether it is more than an entry of the audit trail, so that the notes that are held go with it.
    fn is_change(&self) -> bool;
    /// Carries it out. May be called again after a rollback.
    fn run(&mut self, conn: &Connection, folder: &Folder) -> Verdict;
    /// Answers the caller: with what `run` found, or with the `failure` of the whole transaction.
    fn answer(self: Box<Self>, failure: Option<Error>);
}

/// What became of a piece of work inside its transaction.
pub(super) enum Verdict {
    Done,
    Failed(Error),
}

struct Task<T, F> {
    work: F,
    is_change: bool,
    claimed: Arc<AtomicBool>,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Work for Task<T, F>
where
    T: Send,
    F: FnMut(&Connection) -> Result<T, Failure> + Send,
{
    fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel) && !self.reply.is_closed()
    }

    fn is_change(&self) -> bool {
        self.is_change
    }

    fn run(&mut self, conn: &Connection, folder: &Folder) -> Verdict {
        // A panic is a fault of ours; it must not take the writer of all other sessions with it. The closure
        // is not used again, and what it wrote is rolled back.
        let work = &mut self.work;
        let outcome = match catch_unwind(AssertUnwindSafe(|| work(conn))) {
            Ok(outcome) => outcome.map_err(|failure| failure.into_error(folder)),
            Err(_) => {
                tracing::error!("a piece of work of the store panicked");
                Err(Error::Internal("a write panicked".into()))
            }
        };
        let verdict = match &outcome {
            Ok(_) => Verdict::Done,
            Err(error) => Verdict::Failed(error.clone()),
        };
        self.outcome = Some(outcome);
        verdict
    }

    fn answer(self: Box<Self>, failure: Option<Error>) {
        let Self { outcome, reply, .. } = *self;
        let outcome = match (failure, outcome) {
            (Some(failure), _) => Err(failure),
            (None, Some(outcome)) => outcome,
            (None, None) => Err(Error::Internal("a write was not carried out".into())),
        };
        // A caller that has gone away meanwhile doesn't want to know.
        drop(reply.send(outcome));
    }
}

/// A piece of work that nobody waits for.
struct Behind<F> {
    work: F,
    failure: Option<Error>,
}

impl<F> Work for Behind<F>
where
    F: FnMut(&Connection) -> Result<(), Failure> + Send,
{
    fn claim(&self) -> bool {
        true
    }

    fn is_change(&self) -> bool {
        true
    }

    fn run(&mut self, conn: &Connection, folder: &Folder) -> Verdict {
        let work = &mut self.work;
        let outcome = catch_unwind(AssertUnwindSafe(|| work(conn)));
        self.failure = match outcome {
            Ok(outcome) => outcome.map_err(|failure| failure.into_error(folder)).err(),
            Err(_) => Some(Error::Internal("a write panicked".into())),
        };
        self.failure.clone().map_or(Verdict::Done, Verdict::Failed)
    }

    fn answer(self: Box<Self>, failure: Option<Error>) {
        if let Some(error) = failure.or(self.failure) {
            tracing::error!(%error, "a write that nobody waits for failed");
        }
    }
}

impl Writer {
    /// Starts the thread. `patience` is how long work may wait before it is begun.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no thread can be started.
    pub(super) fn start(
        conn: Connection,
        checkpointer: Checkpointer,
        folder: Arc<Folder>,
        lock: Lock,
        outbox: Arc<Notify>,
        patience: Duration,
    ) -> Result<Self> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let held = Arc::new(Held::default());
        let desk = Desk {
            conn,
            held: Arc::clone(&held),
            checkpointer,
            folder,
            lock,
            outbox,
            newest_notice: 0,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || desk.serve(receiver))
            .map_err(|error| Error::Unavailable(format!("the writer thread can't be started: {error}")))?;
        Ok(Self {
            sender: Some(sender),
            held,
            thread: Mutex::new(Some(thread)),
            patience,
        })
    }

    /// Carries out `work` in a transaction and returns once it is durable.
    ///
    /// # Errors
    /// What `work` says; [`Error::Unavailable`] when it was not begun in time or the store is closed, and
    /// nothing has changed then; the transaction's own failure.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        self.carry_out(work, true).await
    }

    /// The same for an entry of the audit trail: it changes nothing that a note would have to be there for.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(super) async fn run_entry<F>(&self, work: F) -> Result<()>
    where
        F: FnMut(&Connection) -> Result<(), Failure> + Send + 'static,
    {
        self.carry_out(work, false).await
    }

    async fn carry_out<T, F>(&self, work: F, is_change: bool) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        let closed = || Error::Unavailable("the store is closed".into());
        let sender = self.sender.as_ref().ok_or_else(closed)?;
        let (reply, mut answer) = oneshot::channel();
        let claimed = Arc::new(AtomicBool::new(false));
        let task = Task {
            work,
            is_change,
            claimed: Arc::clone(&claimed),
            outcome: None,
            reply,
        };

        let permit = timeout(self.patience, sender.reserve())
            .await
            .map_err(|_| Error::Unavailable("too many writes are waiting".into()))?
            .map_err(|_| closed())?;
        permit.send(Message::Work(Box::new(task)));

        let Ok(answer) = timeout(self.patience, &mut answer).await else {
            if !claimed.swap(true, Ordering::AcqRel) {
                return Err(Error::Unavailable("the write was not begun in time".into()));
            }
            // It has begun, so only its true outcome will do, however long the disk takes.
            return answer.await.unwrap_or_else(|_| Err(closed()));
        };
        answer.unwrap_or_else(|_| Err(closed()))
    }

    /// Accepts `work` and does not wait for it. What is accepted later is in the same transaction or a later one.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when too much waits, or the store is closed.
    pub(super) async fn accept<F>(&self, work: F) -> Result<()>
    where
        F: FnMut(&Connection) -> Result<(), Failure> + Send + 'static,
    {
        let closed = || Error::Unavailable("the store is closed".into());
        let sender = self.sender.as_ref().ok_or_else(closed)?;
        let permit = timeout(self.patience, sender.reserve())
            .await
            .map_err(|_| Error::Unavailable("too many writes are waiting".into()))?
            .map_err(|_| closed())?;
        permit.send(Message::Work(Box::new(Behind { work, failure: None })));
        Ok(())
    }

    /// Carries out what was accepted, and closes the database.
    pub(super) async fn close(&self) {
        let Some(sender) = &self.sender else { return };
        let (done, closed) = oneshot::channel();
        if sender.send(Message::Close(done)).await.is_ok() {
            // An error means that the thread ended on its own; it is closed then, too.
            drop(closed.await);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.sender.take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's writer thread panicked");
        }
    }
}

/// What the writer thread owns.
struct Desk {
    conn: Connection,
    held: Arc<Held>,
    checkpointer: Checkpointer,
    folder: Arc<Folder>,
    lock: Lock,
    outbox: Arc<Notify>,
    /// The newest notice in the outbox, as far as this has looked.
    newest_notice: i64,
}

impl Desk {
    fn serve(mut self, mut receiver: mpsc::Receiver<Message>) {
        let mut messages = Vec::with_capacity(GROUP);
        let mut closers = Vec::new();
        loop {
            if receiver.blocking_recv_many(&mut messages, GROUP) == 0 {
                break;
            }
            let mut group: Vec<Box<dyn Work>> = Vec::with_capacity(messages.len());
            for message in messages.drain(..) {
                match message {
                    Message::Work(work) if work.claim() => group.push(work),
                    Message::Work(_) => {}
                    Message::Close(done) => {
                        // What was accepted before this is still carried out; nothing more is accepted.
                        receiver.close();
                        closers.push(done);
                    }
                }
            }
            self.commit(group);
            self.look_into_outbox();
            self.checkpointer.after_commit(&self.conn);
        }
        // Calls that are under way still, of which nobody else will tell.
        if let Err(error) = self.transact(&mut [], true) {
            tracing::error!(%error, "the notes of calls that did not end could not be written");
        }
        let Self {
            conn,
            checkpointer,
            lock,
            ..
        } = self;
        checkpointer.close();
        if let Err((_, error)) = conn.close() {
            tracing::warn!(%error, "the database was not closed cleanly");
        }
        drop(lock);
        for done in closers {
            // Whoever asked may have gone away.
            let _ = done.send(());
        }
    }

    /// Tells whoever empties the outbox when something has come into it. Whoever does that looks into it once by
    /// themselves, so a look that fails costs time and no notice.
    fn look_into_outbox(&mut self) {
        match webhooks::newest(&self.conn) {
            Ok(newest) if newest > self.newest_notice => {
                self.newest_notice = newest;
                self.outbox.notify_one();
            }
            Ok(_) => {}
            Err(failure) => {
                let error = failure.into_error(&self.folder);
                tracing::warn!(%error, "the outbox of webhooks could not be looked into");
                self.outbox.notify_one();
            }
        }
    }

    /// Commits a group. When it does not fit on the disk, each piece is tried alone, so that only those fail
    /// that are too large.
    fn commit(&self, mut group: Vec<Box<dyn Work>>) {
        if group.is_empty() {
            return;
        }
        let is_change = group.iter().any(|work| work.is_change());
        match self.transact(&mut group, is_change) {
            Ok(()) => group.into_iter().for_each(|work| work.answer(None)),
            Err(Error::Full) if group.len() > 1 => {
                for work in group {
                    let is_change = work.is_change();
                    let mut alone = vec![work];
                    let failure = self.transact(&mut alone, is_change).err();
                    alone.into_iter().for_each(|work| work.answer(failure.clone()));
                }
            }
            Err(failure) => {
                tracing::error!(error = %failure, writes = group.len(), "a transaction failed");
                group
                    .into_iter()
                    .for_each(|work| work.answer(Some(failure.clone())));
            }
        }
    }

    /// One transaction around the whole group, and around the notes that are held when it is a change.
    ///
    /// # Errors
    /// The transaction's failure: nothing of the group has changed anything then.
    fn transact(&self, group: &mut [Box<dyn Work>], is_change: bool) -> Result<()> {
        let notes = match is_change {
            true => self.held.take(),
            false => Vec::new(),
        };
        if notes.is_empty() && group.is_empty() {
            return Ok(());
        }
        let result = self.transact_with(&notes, group);
        if result.is_err() {
            self.held.give_back(notes);
        }
        result
    }

    fn transact_with(&self, notes: &[Entry], group: &mut [Box<dyn Work>]) -> Result<()> {
        let begun = Instant::now();
        self.execute("BEGIN IMMEDIATE")?;
        let written = notes
            .iter()
            .try_for_each(|note| audit::open(&self.conn, note))
            .map_err(|failure| failure.into_error(&self.folder));
        let result = written
            .and_then(|()| self.run_all(group))
            .and_then(|()| self.execute("COMMIT"));
        if result.is_err() && !self.conn.is_autocommit() {
            self.execute("ROLLBACK")?;
        }
        if result.is_ok() {
            metrics::histogram!("store_commit_duration_seconds").record(begun.elapsed());
            #[expect(clippy::cast_precision_loss, reason = "a group is small")]
            metrics::histogram!("store_commit_batch_size").record(group.len() as f64);
        }
        result
    }

    fn run_all(&self, group: &mut [Box<dyn Work>]) -> Result<()> {
        for work in group {
            self.execute("SAVEPOINT work")?;
            let verdict = work.run(&self.conn, &self.folder);
            match verdict {
                // After some failures (a full disk, an I/O error) SQLite has rolled everything back itself.
                Verdict::Failed(error) if self.conn.is_autocommit() => return Err(error),
                Verdict::Failed(_) => self.execute("ROLLBACK TO work")?,
                Verdict::Done => {}
            }
            self.execute("RELEASE work")?;
        }
        Ok(())
    }

    fn execute(&self, sql: &'static str) -> Result<()> {
        self.conn
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([]))
            .map(drop)
            .map_err(|error| Failure::from(error).into_error(&self.folder))
    }
}
