//! The work of self-hosted environments: sessions whose tools a worker of the developer's carries out.
//!
//! A session gets an item before each drive of a turn, unless it has one that is not over; so one that a crash cut off
//! gets its item when the turn goes on. An item that ends while its session still works is followed by another one in the
//! same transaction.
//!
//! Invariant: a session of a self-hosted environment that works or waits for answers has an item that is not over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oma_domain::audit::Entry;
use oma_domain::page::Page;
use oma_domain::work::{Expected, RECLAIM_MS, Refusal, State, Work};
use oma_domain::{Environment, EnvironmentId, SessionId, Timestamp, WorkId, WorkspaceId};
use oma_store::WorkStats;
use secrecy::SecretString;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::agents::not_found;
use crate::error::{Error, Result};
use crate::work_token::{Claims, LIFETIME_MS};
use crate::{Engine, Inner, now};

/// How often a change is tried again when others change the same item.
const ATTEMPTS: usize = 10;
/// How long a worker counts as one that polls, in milliseconds.
const PRESENT_MS: u64 = 30_000;
/// The most workers of an environment that are counted.
const WORKERS: usize = 1_000;
/// How long after an item was handed out the one that follows it may be, in milliseconds: a worker that fails at once
/// does not spin.
const PAUSE_MS: u64 = 5_000;
/// How long a turn waits before it tries again to have its item stored.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// An item that a worker gets, with the token that it is carried out with.
#[derive(Debug)]
pub struct HandedOut {
    /// The item.
    pub work: Work,
    /// What its calls are authorised with.
    pub token: SecretString,
}

/// How much waits, and who is there for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// How much waits.
    pub stats: WorkStats,
    /// How many workers have polled lately.
    pub workers: usize,
}

/// Who polls, and how they are told of work.
#[derive(Default)]
pub(crate) struct Polls(Mutex<HashMap<EnvironmentId, Polled>>);

#[derive(Default)]
struct Polled {
    told: Arc<Notify>,
    workers: HashMap<String, Timestamp>,
}

impl Polled {
    fn forget(&mut self, now: Timestamp) {
        self.workers.retain(|_, at| now.millis_since(*at) < PRESENT_MS);
    }
}

impl Polls {
    fn with<T>(&self, change: impl FnOnce(&mut HashMap<EnvironmentId, Polled>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A worker asks; what it is told through.
    fn arrive(&self, environment: &EnvironmentId, worker: Option<&str>, now: Timestamp) -> Arc<Notify> {
        self.with(|all| {
            // Nobody is told through a thing that nobody holds.
            all.retain(|_, polled| {
                polled.forget(now);
                Arc::strong_count(&polled.told) > 1 || !polled.workers.is_empty()
            });
            let polled = all.entry(environment.clone()).or_default();
            if let Some(worker) = worker
                && (polled.workers.len() < WORKERS || polled.workers.contains_key(worker))
            {
                polled.workers.insert(worker.to_owned(), now);
            }
            Arc::clone(&polled.told)
        })
    }

    fn tell(&self, environment: &EnvironmentId) {
        let told = self.with(|all| all.get(environment).map(|polled| Arc::clone(&polled.told)));
        if let Some(told) = told {
            told.notify_waiters();
        }
    }

    fn workers(&self, environment: &EnvironmentId, now: Timestamp) -> usize {
        self.with(|all| {
            all.get_mut(environment).map_or(0, |polled| {
                polled.forget(now);
                polled.workers.len()
            })
        })
    }
}

impl Inner {
    /// Sees to it that a session whose tools a worker carries out has an item. It takes as long as the store does.
    pub(crate) async fn want_hands(
        &self,
        workspace: &WorkspaceId,
        environment: Option<&Environment>,
        session: &SessionId,
    ) {
        let Some(environment) = environment.filter(|environment| !environment.spec.hosting.is_cloud()) else {
            return;
        };
        loop {
            let at = now();
            let work = Work::new(workspace.clone(), environment.id.clone(), session.clone(), at, at);
            match self.store.add_work(&work).await {
                Ok(true) => return self.polls.tell(&environment.id),
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(session_id = %session, %error, "a session's work could not be queued");
                    tokio::time::sleep(STORE_PAUSE).await;
                }
            }
        }
    }
}

impl Engine {
    /// An environment whose tools run with its developer.
    async fn self_hosted(&self, workspace: &WorkspaceId, id: &EnvironmentId) -> Result<()> {
        let environment = self.environment(workspace, id).await?;
        if environment.spec.hosting.is_cloud() {
            return Err(Error::NotSelfHosted);
        }
        Ok(())
    }

    /// The oldest item that nobody has, for a worker that is there for it. Waits for one as long as it is told to.
    /// `reclaim_ms` is how long another worker may take to acknowledge one. `audit` is what the audit trail is to say of
    /// an item that is handed out; its target is the item.
    ///
    /// # Errors
    /// [`Error::EnvironmentNotFound`], [`Error::NotSelfHosted`].
    pub async fn poll_work(
        &self,
        workspace: &WorkspaceId,
        environment: &EnvironmentId,
        worker: Option<&str>,
        reclaim_ms: Option<u64>,
        wait: Option<Duration>,
        audit: Option<Entry>,
    ) -> Result<Option<HandedOut>> {
        self.self_hosted(workspace, environment).await?;
        let told = self.inner.polls.arrive(environment, worker, now());
        let until = wait.map(|wait| Instant::now() + wait);
        let reclaim_ms = reclaim_ms.unwrap_or(RECLAIM_MS);
        loop {
            // From here on nothing is missed.
            let mut notified = std::pin::pin!(told.notified());
            notified.as_mut().enable();
            if let Some(found) = self
                .take_work(workspace, environment, reclaim_ms, audit.as_ref())
                .await?
            {
                return Ok(Some(found));
            }
            let Some(until) = until else {
                return Ok(None);
            };
            tokio::select! {
                () = self.inner.stopping.cancelled() => return Ok(None),
                () = tokio::time::sleep_until(until) => {
                    // A lease may have ended meanwhile.
                    return self.take_work(workspace, environment, reclaim_ms, audit.as_ref()).await;
                }
                () = notified => {}
            }
        }
    }

    async fn take_work(
        &self,
        workspace: &WorkspaceId,
        environment: &EnvironmentId,
        reclaim_ms: u64,
        audit: Option<&Entry>,
    ) -> Result<Option<HandedOut>> {
        let store = &self.inner.store;
        for _ in 0..ATTEMPTS {
            let at = now();
            let Some(found) = store.due_work(workspace, environment, reclaim_ms, at).await? else {
                return Ok(None);
            };
            let work = found.handed_out(at);
            let audit = audit.map(|entry| Entry {
                at,
                target: Some(work.id.to_string()),
                ..entry.clone()
            });
            match store.update_work(&found, &work, None, audit.as_ref()).await {
                Ok(()) => {
                    let claims = Claims {
                        work: work.id.clone(),
                        attempt: work.attempt,
                        environment: environment.clone(),
                        session: work.session.clone(),
                        workspace: workspace.clone(),
                        expires_at: at.plus_millis(LIFETIME_MS),
                    };
                    let token = claims.sign(self.parent_secret()?).map_err(Error::Internal)?;
                    return Ok(Some(HandedOut { work, token }));
                }
                // Another worker was faster.
                Err(oma_store::Error::Conflict | oma_store::Error::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// What a work token says.
    ///
    /// # Errors
    /// [`Error::InvalidWorkToken`] when it is not one of ours or has expired; [`Error::Unavailable`] before the server
    /// has started.
    pub fn verify_work_token(&self, token: &[u8]) -> Result<Claims> {
        Claims::verify(self.parent_secret()?, token, now()).ok_or(Error::InvalidWorkToken)
    }

    /// Whether the item of a work token is still its holder's; an item that is over can be looked at only.
    ///
    /// # Errors
    /// [`Error::InvalidWorkToken`] when it was handed out again, or is gone.
    pub async fn is_at_work(&self, claims: &Claims) -> Result<bool> {
        let Claims {
            work,
            environment,
            workspace,
            ..
        } = claims;
        let found = self.inner.store.work(workspace, environment, work).await?;
        let held = found.filter(|work| work.attempt == claims.attempt);
        Ok(held.ok_or(Error::InvalidWorkToken)?.state != State::Stopped)
    }

    /// An item.
    ///
    /// # Errors
    /// [`Error::WorkNotFound`].
    pub async fn work(
        &self,
        workspace: &WorkspaceId,
        environment: &EnvironmentId,
        id: &WorkId,
    ) -> Result<Work> {
        let found = self.inner.store.work(workspace, environment, id).await?;
        found.ok_or(Error::WorkNotFound)
    }

    /// Items of an environment, newest first.
    ///
    /// # Errors
    /// [`Error::EnvironmentNotFound`], [`Error::NotSelfHosted`]; [`Error::WorkNotFound`] when the cursor is unknown.
    pub async fn works(
        &self,
        workspace: &WorkspaceId,
        environment: &EnvironmentId,
        after: Option<&WorkId>,
        limit: u32,
    ) -> Result<Page<Work, WorkId>> {
        self.self_hosted(workspace, environment).await?;
        let page = self.inner.store.works(workspace, environment, after, limit);
        page.await.map_err(|error| not_found(error, Error::WorkNotFound))
    }

    /// How much waits in an environment, and who is there for it.
    ///
    /// # Errors
    /// [`Error::EnvironmentNotFound`], [`Error::NotSelfHosted`].
    pub async fn work_queue(&self, workspace: &WorkspaceId, environment: &EnvironmentId) -> Result<Queue> {
        self.self_hosted(workspace, environment).await?;
        Ok(Queue {
            stats: self.inner.store.work_stats(workspace, environment).await?,
            workers: self.inner.polls.workers(environment, now()),
        })
    }

    /// Its worker has got an item.
    ///
    /// # Errors
    /// [`Error::WorkNotFound`]; [`Error::Work`].
    pub async fn acknowledge_work(
        &self,
        workspace: &WorkspaceId,
        environment: &EnvironmentId,
        id: &WorkId,
    ) -> Result<Work> {
        self.change_work(workspace, environment, id, Work::acknowledged)
            .await
    }

    /// Its worker is alive, and asks for a lease of so many milliseconds.
    ///
    /// # Errors
    /// [`Error::WorkNotFound`]; [`Error::Work`]; [`Error::LeaseLost`] when the last heartbeat is not the expected one.
    pub async fn heartbeat_work(
        &self,
        workspace: &WorkspaceId,
        environment: &EnvironmentId,
        id: &WorkId,
        expected: Expected,
        lease_ms: Option<u64>,
    ) -> Result<Work> {
        self.change_work(workspace, environment, id, |work, at| {
            work.heartbeat(expected, lease_ms, at)
        })
        .await
    }

    /// Ends an item: at once, or by telling its worker. If its session still works, another item follows.
    ///
    /// # Errors
    /// [`Error::WorkNotFound`]; [`Error::Work`] when it is over.
    pub async fn stop_work(
        &self,
        workspace: &WorkspaceId,
        environment: &EnvironmentId,
        id: &WorkId,
        force: bool,
    ) -> Result<Work> {
        self.change_work(workspace, environment, id, |work, at| work.stopped(force, at))
            .await
    }

    /// Changes what the client remembers with an item.
    ///
    /// # Errors
    /// [`Error::WorkNotFound`]; whatever `change` gives.
    pub async fn update_work<E: From<Error>>(
        &self,
        workspace: &WorkspaceId,
        environment: &EnvironmentId,
        id: &WorkId,
        change: impl Fn(Work) -> std::result::Result<Work, E>,
    ) -> std::result::Result<Work, E> {
        for _ in 0..ATTEMPTS {
            let before = self.work(workspace, environment, id).await?;
            let after = change(before.clone())?;
            match self.inner.store.update_work(&before, &after, None, None).await {
                Ok(()) => return Ok(after),
                Err(oma_store::Error::Conflict) => {}
                Err(error) => return Err(not_found(error, Error::WorkNotFound).into()),
            }
        }
        Err(busy().into())
    }

    async fn change_work(
        &self,
        workspace: &WorkspaceId,
        environment: &EnvironmentId,
        id: &WorkId,
        change: impl Fn(&Work, Timestamp) -> std::result::Result<Work, Refusal>,
    ) -> Result<Work> {
        for _ in 0..ATTEMPTS {
            let (before, at) = (self.work(workspace, environment, id).await?, now());
            let after = match change(&before, at) {
                Ok(after) if after == before => return Ok(after),
                Ok(after) => after,
                Err(Refusal::OtherHeartbeat) => return Err(Error::LeaseLost(Box::new(before))),
                Err(refusal) => return Err(refusal.into()),
            };
            // Only looked at when the item is over and its session is not.
            let due = before
                .polled_at
                .map_or(at, |polled| at.max(polled.plus_millis(PAUSE_MS)));
            let session = before.session.clone();
            let next = Work::new(workspace.clone(), environment.clone(), session, at, due);
            match self
                .inner
                .store
                .update_work(&before, &after, Some(&next), None)
                .await
            {
                Ok(()) => {
                    if after.state == State::Stopped {
                        self.inner.polls.tell(environment);
                    }
                    return Ok(after);
                }
                Err(oma_store::Error::Conflict) => {}
                Err(error) => return Err(not_found(error, Error::WorkNotFound)),
            }
        }
        Err(busy())
    }
}

fn busy() -> Error {
    Error::Unavailable("others keep changing this work item".into())
}
