//! A bounded number of live sandboxes over any [`Provider`].
//!
//! Whoever needs a sandbox takes a [`Lease`]; while one is held the sandbox stays. A sandbox that nobody holds
//! is kept for a while, in case the session goes on, and stops when it has been idle for too long or when
//! another session waits for its place. The workspace stays. Sandboxes that have outlived an earlier server
//! have their places from the start, and nobody holds them yet.
//!
//! Invariant: at most `max_live` sandboxes are there, those that are starting or stopping included. When more
//! than that have outlived an earlier server, none starts until enough of them are gone.
//! Invariant: places are given first come, first served, and nobody waits for ever.
//! Invariant: a sandbox with a lease is never stopped from here, but for the server's own stop.

mod places;

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use oma_domain::SessionId;
use oma_domain::event::Failure;
use tokio::time::{Instant, timeout};

use crate::mounts::Furnish;
use crate::{Attached, Error, Hand, Origin, Provider, Spec};
use places::{Claim, Hold, Inner};

/// How many sandboxes end at once when the server stops, and how long all of them may take.
const RETIRING: usize = 16;
const RETIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bounds of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// Sandboxes that may live at once.
    pub max_live: usize,
    /// How long one waits for a place.
    pub wait: Duration,
    /// How long a sandbox that nobody holds is kept.
    pub idle_timeout: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max_live: 32,
            wait: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(600),
        }
    }
}

/// What a pool holds now and has done, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sandboxes that are there, in any state.
    pub live: usize,
    /// Those of them that somebody holds.
    pub leased: usize,
    /// Those of them that were started in advance and have not been used yet.
    pub warm: usize,
    /// Who waits for a place.
    pub waiting: usize,
    /// Sandboxes started since the pool was made.
    pub started: u64,
    /// Sandboxes stopped to make room.
    pub evicted: u64,
    /// Sandboxes stopped because they were idle for too long.
    pub idled: u64,
    /// Waits for a place that were in vain.
    pub refused: u64,
}

/// A bounded number of live sandboxes. Cheap to clone. When the last clone and the last lease are gone, the
/// sandboxes go on by themselves.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

/// A sandbox that stays as long as this is held. Several may hold the same one.
#[derive(Clone)]
pub struct Lease {
    hand: Arc<dyn Hand>,
    origin: Origin,
    boot: Duration,
    _hold: Arc<Hold>,
}

impl Lease {
    fn new(attached: Attached, hold: Hold) -> Self {
        Self {
            hand: attached.hand,
            origin: attached.origin,
            boot: attached.boot,
            _hold: Arc::new(hold),
        }
    }

    /// How the sandbox came to be. Only the first one to use it hears [`Origin::Started`].
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// How long it took to get it, without the wait for a place.
    #[must_use]
    pub fn boot(&self) -> Duration {
        self.boot
    }
}

impl Deref for Lease {
    type Target = dyn Hand;

    fn deref(&self) -> &Self::Target {
        &*self.hand
    }
}

impl Pool {
    /// A pool over `provider`. Must be called in a runtime.
    #[must_use]
    pub fn new(provider: Arc<dyn Provider>, config: PoolConfig) -> Self {
        Self::furnished(provider, config, Vec::new())
    }

    /// A pool over `provider` in which these are asked, in this order, before a sandbox is used. Must be called in a
    /// runtime.
    #[must_use]
    pub fn furnished(
        provider: Arc<dyn Provider>,
        config: PoolConfig,
        furnishers: Vec<Arc<dyn Furnish>>,
    ) -> Self {
        Self {
            inner: Inner::new(provider, config, furnishers),
        }
    }

    /// The session's sandbox, started when there is none. Waits for a place when all are taken.
    ///
    /// # Errors
    /// [`Error::Exhausted`] when no place became free in time, and what [`Provider::attach`] gives.
    pub async fn acquire(&self, spec: &Spec) -> Result<Lease, Error> {
        self.acquire_as(spec, true).await
    }

    async fn acquire_as(&self, spec: &Spec, used: bool) -> Result<Lease, Error> {
        let begun = Instant::now();
        let inner = &self.inner;
        let hold = match inner.hold(&spec.session, Claim::Used) {
            Ok(hold) => hold,
            Err(blocked) => match timeout(inner.config.wait, inner.wait(&spec.session, blocked)).await {
                Ok(hold) => hold,
                Err(_) => {
                    inner.lock().counts.refused += 1;
                    return Err(Error::Exhausted(inner.config.max_live));
                }
            },
        };
        let claim = inner.claim(&spec.session);
        let (lease, is_new) = inner.lease(hold, spec, used).await?;
        let source = match claim {
            _ if is_new => "spawn",
            Claim::Adopted => "adopt",
            Claim::Warm => "warm",
            Claim::Used => "active",
        };
        metrics::counter!("pool_acquire_total", "source" => source).increment(1);
        if is_new {
            metrics::counter!("pool_cold_starts_total").increment(1);
            metrics::histogram!("pool_spawn_duration_seconds").record(begun.elapsed());
        }
        Ok(lease)
    }

    /// Like [`Pool::acquire`], for what does not act on how the sandbox came to be: whoever acquires it next
    /// still hears of it.
    ///
    /// # Errors
    /// As [`Pool::acquire`].
    pub async fn acquire_beside(&self, spec: &Spec) -> Result<Lease, Error> {
        self.acquire_as(spec, false).await
    }

    /// The session's sandbox if it has one that runs, or is being started; never starts one. What it tells of
    /// the sandbox's origin is for nobody to act on.
    pub async fn peek(&self, session: &SessionId) -> Option<Lease> {
        let (hold, origin) = self.inner.peek(session)?;
        // Whoever starts it now is waited for.
        let _turn = origin.lock().await;
        match self.inner.provider.reattach(session).await {
            Ok(Some(attached)) => return Some(Lease::new(attached, hold)),
            Ok(None) => tracing::info!(session_id = %session, "a sandbox has ended by itself"),
            Err(error) => {
                tracing::warn!(session_id = %session, %error, "a sandbox that has a place can't be reached");
            }
        }
        self.inner.give_up(hold);
        None
    }

    /// Starts the session's sandbox in the background if there is a place for it at once; does nothing
    /// otherwise. For use while something else takes its time: [`Pool::acquire`] then finds it, or joins its
    /// start.
    pub fn try_warm(&self, spec: &Spec) {
        let Ok(hold) = self.inner.hold(&spec.session, Claim::Warm) else {
            return;
        };
        let (inner, spec) = (Arc::clone(&self.inner), spec.clone());
        self.inner.runtime.spawn(async move {
            if let Err(error) = inner.lease(hold, &spec, false).await {
                // Whoever needs the sandbox will try again, and be told.
                tracing::debug!(session_id = %spec.session, %error, "no sandbox in advance");
            }
        });
    }

    /// Stops the session's sandbox, whoever holds it; the workspace stays.
    ///
    /// # Errors
    /// [`Error`] when something could not be removed.
    pub async fn stop(&self, session: &SessionId) -> Result<(), Error> {
        self.inner.stopped_if_idle(session).await;
        self.inner.provider.stop(session).await
    }

    /// Ends what nobody needs before the server stops: every sandbox in which nothing runs, whoever holds it, but for
    /// those of `kept`. The workspaces stay, and so do the sandboxes in which something runs, for the next server.
    pub async fn retire(&self, kept: &HashSet<SessionId>) {
        let sessions = self.inner.sessions();
        let retiring = sessions.into_iter().filter(|session| !kept.contains(session));
        let retired = stream::iter(retiring).for_each_concurrent(RETIRING, |session| async move {
            match self.inner.provider.retire(&session).await {
                Ok(true) => self.inner.lock().forget(&session),
                Ok(false) => tracing::info!(session_id = %session, "a sandbox stays: something runs in it"),
                // It ends by itself when no server comes back to it.
                Err(error) => tracing::warn!(session_id = %session, %error, "a sandbox could not be ended"),
            }
        });
        if timeout(RETIRE_TIMEOUT, retired).await.is_err() {
            tracing::warn!("some sandboxes did not end in time");
        }
    }

    /// Stops the session's sandbox, whoever holds it, and removes the workspace.
    ///
    /// # Errors
    /// [`Error`] when something could not be removed.
    pub async fn destroy(&self, session: &SessionId) -> Result<(), Error> {
        self.inner.stopped_if_idle(session).await;
        self.inner.provider.destroy(session).await
    }

    /// What went wrong with what belongs into the session's sandbox, since somebody asked last.
    #[must_use]
    pub fn take_failures(&self, session: &SessionId) -> Vec<Failure> {
        let before = self.inner.lock().failures.remove(session);
        let since = self.inner.furnishers.iter();
        let since = since.flat_map(|furnisher| furnisher.take_failures(session));
        before.into_iter().flatten().chain(since).collect()
    }

    /// What is there now, and what has been done.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.counts()
    }

    /// The provider below, for what needs no place: the workspaces.
    #[must_use]
    pub fn provider(&self) -> &Arc<dyn Provider> {
        &self.inner.provider
    }
}

#[cfg(test)]
mod tests;
