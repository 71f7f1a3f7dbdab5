//! A bounded number of live sandboxes over any [`Provider`].
//!
//! Whoever needs a sandbox takes a [`Lease`]; while one is held the sandbox stays. A sandbox that nobody holds
//! is kept for a while, in case the session goes on, and stops when it has been idle for too long or when
//! another session waits for its place. The workspace stays. Sandboxes that have outlived an earlier server
//! have their places from the start, and nobody holds them yet. Some may be started before anybody needs them
//! ([`Pool::warm`]): a session that has none yet takes the oldest that is like what would be made for it.
//!
//! Invariant: at most `max_live` sandboxes are there, those that are starting or stopping included. When more
//! than that have outlived an earlier server, none starts until enough of them are gone.
//! Invariant: places are given first come, first served, and nobody waits for ever.
//! Invariant: of these `max_warm` at the most were started in advance for no session in particular; they give way
//! before all others, and are never started in a place that somebody waits for.
//! Invariant: a sandbox with a lease is never stopped from here, but for the server's own stop.

mod lease;
mod places;
mod reserve;
mod still;
mod warm;

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use oma_domain::event::Failure;
use oma_domain::{SessionId, WorkspaceId};
use tokio::time::{Instant, timeout};

use crate::mounts::Furnish;
use crate::{Attached, Error, Hand, Origin, Provider, Spec};
use lease::Source;
use places::{Claim, Hold, Inner};
use warm::Ask;

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
    /// Sandboxes that may be there in advance, for no session in particular.
    pub max_warm: usize,
    /// How long such are kept after anybody has asked for one like them.
    pub warm_timeout: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max_live: 32,
            wait: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(600),
            max_warm: 0,
            warm_timeout: Duration::from_secs(1_800),
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
    /// Those of them that were started in advance, for a session or for none in particular, and have not been used yet.
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

/// Where a sandbox came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// It was started for its session, which took so long without the wait for a place.
    Started(Duration),
    /// It was started in advance, for no session in particular.
    Reserve,
    /// It was there before the pool.
    Survivor,
}

/// A sandbox that stays as long as this is held. Several may hold the same one.
#[derive(Clone)]
pub struct Lease {
    hand: Arc<dyn Hand>,
    origin: Origin,
    boot: Duration,
    provenance: Provenance,
    _hold: Arc<Hold>,
}

impl Lease {
    fn new(attached: Attached, provenance: Provenance, hold: Hold) -> Self {
        Self {
            hand: attached.hand,
            origin: attached.origin,
            boot: attached.boot,
            provenance,
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

    /// Where the sandbox came from, whoever was the first to use it.
    #[must_use]
    pub fn provenance(&self) -> Provenance {
        self.provenance
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
        let hold = match inner.spare(spec, Claim::Used).await {
            Some(hold) => hold,
            None => self.hold(spec).await?,
        };
        let claim = inner.claim(&spec.session);
        let (lease, source) = inner.lease(hold, spec, used).await?;
        let label = match (source, claim) {
            (Source::Start, _) => "spawn",
            (Source::Reserve, _) | (Source::Present, Claim::Warm) => "warm",
            (Source::Present, Claim::Adopted) => "adopt",
            (Source::Present, Claim::Used) => "active",
        };
        metrics::counter!("pool_acquire_total", "source" => label).increment(1);
        match source {
            Source::Start => {
                metrics::counter!("pool_cold_starts_total").increment(1);
                metrics::histogram!("pool_spawn_duration_seconds").record(begun.elapsed());
            }
            // The next one takes its place.
            Source::Reserve => self.warm(spec),
            Source::Present => {}
        }
        Ok(lease)
    }

    /// A place for the session, waited for when all are taken.
    async fn hold(&self, spec: &Spec) -> Result<Hold, Error> {
        let inner = &self.inner;
        match inner.hold(&spec.session, Claim::Used) {
            Ok(hold) => Ok(hold),
            Err(blocked) => match timeout(inner.config.wait, inner.wait(&spec.session, blocked)).await {
                Ok(hold) => Ok(hold),
                Err(_) => {
                    inner.lock().counts.refused += 1;
                    Err(Error::Exhausted(inner.config.max_live))
                }
            },
        }
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
            Ok(Some(attached)) => {
                let provenance = self.inner.came(session, None);
                return Some(Lease::new(attached, provenance, hold));
            }
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
        let has_spares = self.inner.lock().reserve.has_any(&spec.workspace);
        // At once where nothing has to be found out first, so that whoever comes next joins it.
        let at_once = if has_spares {
            None
        } else {
            match self.inner.hold(&spec.session, Claim::Warm) {
                Ok(hold) => Some(hold),
                Err(_) => return,
            }
        };
        let (pool, spec) = (self.clone(), spec.clone());
        self.inner.runtime.spawn(async move {
            let hold = match at_once {
                Some(hold) => Some(hold),
                None => pool.inner.spare(&spec, Claim::Warm).await,
            };
            let Some(hold) = hold.or_else(|| pool.inner.hold(&spec.session, Claim::Warm).ok()) else {
                return;
            };
            match pool.inner.lease(hold, &spec, false).await {
                Ok((_, Source::Reserve)) => pool.warm(&spec),
                Ok(_) => {}
                // Whoever needs the sandbox will try again, and be told.
                Err(error) => {
                    tracing::debug!(session_id = %spec.session, %error, "no sandbox in advance");
                }
            }
        });
    }

    /// Has sandboxes started in advance like the one that this session would have, for it or others. Does nothing where
    /// none are to be there in advance.
    pub fn warm(&self, like: &Spec) {
        self.inner.ask(Ask::Like(like.clone()));
    }

    /// The same for sessions of this workspace whose sandboxes have nothing special.
    pub fn warm_plain(&self, workspace: &WorkspaceId) {
        self.inner.ask(Ask::Plain(workspace.clone()));
    }

    /// What sandboxes are made with may have changed: those that were started in advance with something else go.
    pub fn refit(&self) {
        self.inner.refit();
    }

    /// How many sandboxes are there in advance, for no session in particular, and can be given to one.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.inner.lock().reserve.ready()
    }

    /// How many sandboxes may be there in advance, for no session in particular.
    #[must_use]
    pub fn max_warm(&self) -> usize {
        self.inner.config.max_warm
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
    /// those of `kept`, and all that belong to no session. The workspaces stay, and so do the sandboxes in which something runs, for the next server.
    pub async fn retire(&self, kept: &HashSet<SessionId>) {
        let sessions = self.inner.sessions();
        let retiring = sessions.into_iter().filter(|session| !kept.contains(session));
        let retiring = retiring.map(|session| {
            let inner = Arc::clone(&self.inner);
            async move { inner.retire(&session).await }
        });
        let retired = async {
            let retired = stream::iter(retiring).buffer_unordered(RETIRING);
            tokio::join!(retired.collect::<Vec<()>>(), self.inner.end_warm(RETIRING))
        };
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
        let since = self.inner.furnishers.0.iter();
        let since = since.flat_map(|furnisher| furnisher.take_failures(session));
        before.into_iter().flatten().chain(since).collect()
    }

    /// What the model has to know of what belongs into the session's sandbox.
    #[must_use]
    pub fn notes(&self, session: &SessionId) -> Vec<Arc<str>> {
        let furnishers = self.inner.furnishers.0.iter();
        furnishers
            .flat_map(|furnisher| furnisher.notes(session))
            .collect()
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
