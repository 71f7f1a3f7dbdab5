//! The server's end of a connection to a hand, for every backend: it only needs a byte stream.
//!
//! Many calls share one connection. When it breaks, every call that waits fails with [`Error::Lost`]; the
//! hand keeps their results, and a later connection collects them by the same keys.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use oma_domain::EventId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::protocol::{Call, Order, Reply, Report, VERSION};
use crate::{Error, Hand, wire};

/// How long a hand may take to answer what it can answer at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The span of a call's time in the sandbox.
const SPAN: &str = "hand.run";

/// Orders that may wait for the socket to take them.
const QUEUE: usize = 64;

/// A connection to a hand. Dropping the last clone closes it; the hand and its commands go on.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    orders: mpsc::Sender<Bytes>,
    waiting: Arc<Waiting>,
    next: AtomicU64,
    known: BTreeSet<EventId>,
    run_timeout: Duration,
    lost: watch::Receiver<bool>,
    tasks: [JoinHandle<()>; 2],
}

/// The requests that wait for their answer. `None` once the connection is gone.
struct Waiting(Mutex<Option<HashMap<u64, oneshot::Sender<Report>>>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Report>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Takes a request off the list when its caller goes away.
struct Place<'a> {
    waiting: &'a Waiting,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(map) = self.waiting.lock().as_mut() {
            map.remove(&self.id);
        }
    }
}

impl Client {
    /// Greets the hand at the other end of `stream`, within `hello_timeout`. A call may take `run_timeout`.
    ///
    /// # Errors
    /// [`Error::Protocol`] when it speaks another version, [`Error::Lost`] or [`Error::Timeout`] when it does
    /// not answer.
    pub async fn connect(
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        hello_timeout: Duration,
        run_timeout: Duration,
    ) -> Result<Self, Error> {
        let (read, write) = tokio::io::split(Box::pin(stream));
        let mut reader = wire::Reader::new(read);
        let mut writer = wire::Writer::new(write);
        let hello = wire::encode(&Order::Hello { version: VERSION })?;
        let greeting = async {
            writer.send(hello).await?;
            reader.next::<Report>().await
        };
        let known = match timeout(hello_timeout, greeting).await {
            Err(_) => return Err(Error::Timeout(hello_timeout)),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(Some(Report::Hello {
                version: VERSION,
                known,
            }))) => known.into_iter().collect(),
            Ok(Ok(Some(Report::Hello { version, .. }))) => {
                return Err(Error::Protocol(format!(
                    "it speaks version {version}, this is {VERSION}"
                )));
            }
            Ok(Ok(Some(_))) => return Err(Error::Protocol("it did not greet first".to_owned())),
            Ok(Ok(None)) => return Err(Error::Lost("it closed the connection".to_owned())),
        };

        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        let (lost_sender, lost) = watch::channel(false);
        let (orders, mut queue) = mpsc::channel::<Bytes>(QUEUE);
        let (at_read, at_write) = (Arc::clone(&waiting), Arc::clone(&waiting));
        let lost_sender = Arc::new(lost_sender);
        let lost_too = Arc::clone(&lost_sender);
        let reading = tokio::spawn(async move {
            loop {
                match reader.next::<Report>().await {
                    Ok(Some(report)) => deliver(&at_read, report),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "the connection to a sandbox broke");
                        break;
                    }
                }
            }
            at_read.lock().take();
            lost_sender.send_replace(true);
        });
        let writing = tokio::spawn(async move {
            while let Some(frame) = queue.recv().await {
                if writer.send(frame).await.is_err() {
                    break;
                }
            }
            at_write.lock().take();
            lost_too.send_replace(true);
        });
        let next = AtomicU64::new(1);
        let tasks = [reading, writing];
        Ok(Self {
            inner: Arc::new(Inner {
                orders,
                waiting,
                next,
                known,
                run_timeout,
                lost,
                tasks,
            }),
        })
    }

    /// The calls that the hand knew when the connection was made: running, or with a reply that waits.
    #[must_use]
    pub fn known(&self) -> &BTreeSet<EventId> {
        &self.inner.known
    }

    /// Whether the connection is gone.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        *self.inner.lost.borrow()
    }

    /// Returns once the connection is gone.
    pub async fn lost(&self) {
        let mut lost = self.inner.lost.clone();
        // An error means that both tasks are gone, and so is the connection.
        let _ = lost.wait_for(|lost| *lost).await;
    }

    /// Ends everything in the sandbox, and the hand.
    ///
    /// # Errors
    /// [`Error`] when the hand is gone or does not answer.
    pub async fn shut_down(&self) -> Result<(), Error> {
        match self.ask(|id| Order::Shutdown { id }, ANSWER_TIMEOUT).await? {
            Report::Ok { .. } => Ok(()),
            _ => Err(unexpected("shutdown")),
        }
    }

    /// Ends the hand unless something runs in its sandbox; tells whether it ends.
    ///
    /// # Errors
    /// [`Error`] when the hand is gone or does not answer, also when it is too old to know of this.
    pub async fn retire(&self) -> Result<bool, Error> {
        match self.ask(|id| Order::Retire { id }, ANSWER_TIMEOUT).await? {
            Report::Ok { .. } => Ok(true),
            Report::Busy { .. } => Ok(false),
            _ => Err(unexpected("retire")),
        }
    }

    async fn ask(&self, order: impl FnOnce(u64) -> Order, patience: Duration) -> Result<Report, Error> {
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let frame = wire::encode(&order(id))?;
        let (sender, answer) = oneshot::channel();
        match self.inner.waiting.lock().as_mut() {
            Some(map) => map.insert(id, sender),
            None => return Err(closed()),
        };
        let _place = Place {
            waiting: &self.inner.waiting,
            id,
        };
        let exchange = async {
            self.inner.orders.send(frame).await.map_err(|_| closed())?;
            answer.await.map_err(|_| closed())
        };
        timeout(patience, exchange)
            .await
            .map_err(|_| Error::Timeout(patience))?
    }
}

fn closed() -> Error {
    Error::Lost("the connection is closed".to_owned())
}

fn unexpected(order: &str) -> Error {
    Error::Protocol(format!("the answer to {order} is of another kind"))
}

fn deliver(waiting: &Waiting, report: Report) {
    let id = match &report {
        Report::Hello { .. }
        | Report::Listening
        | Report::Serving { .. }
        | Report::Doors { .. }
        | Report::Refused { .. } => return,
        Report::Done { id, .. }
        | Report::Unknown { id }
        | Report::Ok { id }
        | Report::Busy { id }
        | Report::Logs { id, .. } => *id,
    };
    // Nobody may be waiting: the caller gave up.
    let waiter = waiting.lock().as_mut().and_then(|map| map.remove(&id));
    if let Some(waiter) = waiter {
        let _ = waiter.send(report);
    }
}

#[async_trait]
impl Hand for Client {
    async fn run(&self, key: &EventId, call: Call) -> Result<Reply, Error> {
        let order_key = key.clone();
        let order = |id| Order::Run {
            id,
            key: order_key,
            call,
        };
        match self.ask(order, self.inner.run_timeout).await {
            Ok(Report::Done { reply, took_us, .. }) => {
                if let Some(took) = took_us {
                    // The hand has no way out, so the server tells of it; it may say what it likes, within bounds.
                    let took = Duration::from_micros(took).min(self.inner.run_timeout);
                    oma_trace::past(SPAN, took);
                }
                Ok(reply)
            }
            Ok(_) => Err(unexpected("run")),
            // Whoever asked is told that it failed, so it must not go on, or begin later.
            Err(late @ Error::Timeout(_)) => {
                self.cancel(key).await?;
                Err(late)
            }
            Err(error) => Err(error),
        }
    }

    async fn cancel(&self, key: &EventId) -> Result<Option<Reply>, Error> {
        let key = key.clone();
        match self.ask(|id| Order::Cancel { id, key }, ANSWER_TIMEOUT).await? {
            Report::Done { reply, .. } => Ok(Some(reply)),
            Report::Unknown { .. } => Ok(None),
            _ => Err(unexpected("cancel")),
        }
    }

    async fn forget_all_but(&self, keep: &[EventId]) -> Result<(), Error> {
        let keep = keep.to_vec();
        match self
            .ask(|id| Order::ForgetAllBut { id, keep }, ANSWER_TIMEOUT)
            .await?
        {
            Report::Ok { .. } => Ok(()),
            _ => Err(unexpected("forget_all_but")),
        }
    }

    async fn logs(&self, tail: usize) -> Result<String, Error> {
        match self.ask(|id| Order::Logs { id, tail }, ANSWER_TIMEOUT).await? {
            Report::Logs { text, .. } => Ok(text),
            _ => Err(unexpected("logs")),
        }
    }
}
