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
//! Invariant: a sandbox with a lease is never stopped from here.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use oma_domain::SessionId;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{Attached, Error, Hand, Origin, Provider, Spec};

/// How much later than others a sandbox of an earlier server gives way: its session may be about to ask for the
/// command that it left there.
const ADOPTED_GRACE: Duration = Duration::from_secs(30);

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

struct Inner {
    provider: Arc<dyn Provider>,
    config: PoolConfig,
    runtime: Handle,
    /// One permit per place; its queue is first come, first served.
    places: Arc<Semaphore>,
    state: Mutex<State>,
    /// Something became idle, or the pool is gone: the sleeper looks again.
    idled: Arc<Notify>,
}

#[derive(Default)]
struct State {
    entries: HashMap<SessionId, Entry>,
    counts: Counts,
}

/// A sandbox with a place, or a place that a sandbox is being started in.
struct Entry {
    users: usize,
    /// May lie ahead, for one that gives way later than others.
    idle_since: Instant,
    stage: Stage,
    /// One at a time asks the provider; holds how the sandbox came to be until somebody who uses it has heard.
    origin: Arc<tokio::sync::Mutex<Option<Origin>>>,
    /// Goes back when the entry goes. A sandbox that was there before the pool may have none, when there are more
    /// of them than places.
    place: Option<OwnedSemaphorePermit>,
}

enum Stage {
    Up,
    /// On its way down; the channel closes when it is gone.
    Stopping(watch::Receiver<()>),
}

/// Why there is no hold at once.
enum Blocked {
    /// The session's sandbox is on its way down.
    Stopping(watch::Receiver<()>),
    /// All places are taken.
    Full,
}

/// A sandbox that stays as long as this is held. Several may hold the same one.
#[derive(Clone)]
pub struct Lease {
    hand: Arc<dyn Hand>,
    origin: Origin,
    boot: Duration,
    _hold: Arc<Hold>,
}

/// Counts as a user of a sandbox until dropped.
struct Hold {
    inner: Arc<Inner>,
    session: SessionId,
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

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        if let Some(entry) = state.entries.get_mut(&self.session) {
            entry.users -= 1;
            if entry.users == 0 {
                entry.idle_since = entry.idle_since.max(Instant::now());
                self.inner.make_room(&mut state);
                self.inner.idled.notify_one();
            }
        }
    }
}

/// Counts as waiting until dropped.
struct Wait<'a>(&'a Inner);

impl<'a> Wait<'a> {
    fn new(inner: &'a Arc<Inner>) -> Self {
        let mut state = inner.lock();
        state.counts.waiting += 1;
        inner.make_room(&mut state);
        drop(state);
        Self(inner)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.0.lock().counts.waiting -= 1;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.idled.notify_one();
    }
}

impl Pool {
    /// A pool over `provider`. Must be called in a runtime.
    #[must_use]
    pub fn new(provider: Arc<dyn Provider>, config: PoolConfig) -> Self {
        let places = Arc::new(Semaphore::new(max_live(&config)));
        let (runtime, idled) = (Handle::current(), Arc::new(Notify::new()));
        let state = Mutex::new(State::adopt(provider.survivors(), &places));
        let inner = Arc::new(Inner {
            provider,
            config,
            runtime,
            places,
            state,
            idled: Arc::clone(&idled),
        });
        tokio::spawn(stop_idle(Arc::downgrade(&inner), idled));
        Self { inner }
    }

    /// The session's sandbox, started when there is none. Waits for a place when all are taken.
    ///
    /// # Errors
    /// [`Error::Exhausted`] when no place became free in time, and what [`Provider::attach`] gives.
    pub async fn acquire(&self, spec: &Spec) -> Result<Lease, Error> {
        self.acquire_as(spec, true).await
    }

    async fn acquire_as(&self, spec: &Spec, used: bool) -> Result<Lease, Error> {
        let inner = &self.inner;
        let hold = match inner.hold(&spec.session) {
            Ok(hold) => hold,
            Err(blocked) => match timeout(inner.config.wait, inner.wait(&spec.session, blocked)).await {
                Ok(hold) => hold,
                Err(_) => {
                    inner.lock().counts.refused += 1;
                    return Err(Error::Exhausted(inner.config.max_live));
                }
            },
        };
        if let Some(entry) = inner.lock().entries.get_mut(&spec.session) {
            // Its session has come for it, so from now on it gives way like any other.
            entry.idle_since = Instant::now();
        }
        inner.lease(hold, spec, used).await
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
        let (hold, origin) = {
            let mut state = self.inner.lock();
            let hold = self.inner.join(&mut state, session).ok().flatten()?;
            (
                hold,
                state
                    .entries
                    .get(session)
                    .map(|entry| Arc::clone(&entry.origin))?,
            )
        };
        // Whoever starts it now is waited for.
        let _turn = origin.lock().await;
        match self.inner.provider.reattach(session).await {
            Ok(Some(attached)) => return Some(Lease::new(attached, hold)),
            Ok(None) => tracing::info!(%session, "a sandbox has ended by itself"),
            Err(error) => tracing::warn!(%session, %error, "a sandbox that has a place can't be reached"),
        }
        self.inner.give_up(hold);
        None
    }

    /// Starts the session's sandbox in the background if there is a place for it at once; does nothing
    /// otherwise. For use while something else takes its time: [`Pool::acquire`] then finds it, or joins its
    /// start.
    pub fn try_warm(&self, spec: &Spec) {
        let Ok(hold) = self.inner.hold(&spec.session) else {
            return;
        };
        let (inner, spec) = (Arc::clone(&self.inner), spec.clone());
        self.inner.runtime.spawn(async move {
            if let Err(error) = inner.lease(hold, &spec, false).await {
                // Whoever needs the sandbox will try again, and be told.
                tracing::debug!(session = %spec.session, %error, "no sandbox in advance");
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

    /// Stops the session's sandbox, whoever holds it, and removes the workspace.
    ///
    /// # Errors
    /// [`Error`] when something could not be removed.
    pub async fn destroy(&self, session: &SessionId) -> Result<(), Error> {
        self.inner.stopped_if_idle(session).await;
        self.inner.provider.destroy(session).await
    }

    /// What is there now, and what has been done.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let state = self.inner.lock();
        let leased = state.entries.values().filter(|entry| entry.users > 0).count();
        Counts {
            live: state.entries.len(),
            leased,
            ..state.counts
        }
    }

    /// The provider below, for what needs no place: the workspaces.
    #[must_use]
    pub fn provider(&self) -> &Arc<dyn Provider> {
        &self.inner.provider
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A hold on the session's place, if there is one or one is free.
    fn hold(self: &Arc<Self>, session: &SessionId) -> Result<Hold, Blocked> {
        let mut state = self.lock();
        if let Some(hold) = self.join(&mut state, session)? {
            return Ok(hold);
        }
        // This fails too when others wait, so nobody jumps the queue.
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => Ok(self.settle(&mut state, session, place)),
            Err(_) => Err(Blocked::Full),
        }
    }

    /// A hold on the place that the session has already.
    fn join(self: &Arc<Self>, state: &mut State, session: &SessionId) -> Result<Option<Hold>, Blocked> {
        let Some(entry) = state.entries.get_mut(session) else {
            return Ok(None);
        };
        match &entry.stage {
            Stage::Stopping(gone) => Err(Blocked::Stopping(gone.clone())),
            Stage::Up => {
                entry.users += 1;
                Ok(Some(Hold {
                    inner: Arc::clone(self),
                    session: session.clone(),
                }))
            }
        }
    }

    fn settle(self: &Arc<Self>, state: &mut State, session: &SessionId, place: OwnedSemaphorePermit) -> Hold {
        let entry = Entry {
            users: 1,
            idle_since: Instant::now(),
            stage: Stage::Up,
            origin: Arc::default(),
            place: Some(place),
        };
        state.entries.insert(session.clone(), entry);
        Hold {
            inner: Arc::clone(self),
            session: session.clone(),
        }
    }

    async fn wait(self: &Arc<Self>, session: &SessionId, mut blocked: Blocked) -> Hold {
        loop {
            match blocked {
                // The sender says nothing; that it goes is the word.
                Blocked::Stopping(mut gone) => while gone.changed().await.is_ok() {},
                Blocked::Full => {
                    let waiting = Wait::new(self);
                    // The semaphore is never closed.
                    let place = Arc::clone(&self.places).acquire_owned().await;
                    drop(waiting);
                    let mut state = self.lock();
                    match (self.join(&mut state, session), place) {
                        // Somebody else has come for the same session meanwhile.
                        (Ok(Some(hold)), _) => return hold,
                        (Ok(None), Ok(place)) => return self.settle(&mut state, session, place),
                        _ => {}
                    }
                }
            }
            blocked = match self.hold(session) {
                Ok(hold) => return hold,
                Err(blocked) => blocked,
            };
        }
    }

    /// Gets the sandbox for the place that is held. `used` says whether the lease goes to somebody who acts on
    /// how the sandbox came to be.
    async fn lease(self: &Arc<Self>, hold: Hold, spec: &Spec, used: bool) -> Result<Lease, Error> {
        let origin = self
            .lock()
            .entries
            .get(&spec.session)
            .map(|entry| Arc::clone(&entry.origin));
        let origin = origin.unwrap_or_default();
        let mut unheard = origin.lock().await;
        match self.provider.attach(spec).await {
            Ok(attached) => {
                let origin = match attached.origin {
                    Origin::Running => unheard.unwrap_or(Origin::Running),
                    fresh => {
                        self.lock().counts.started += 1;
                        fresh
                    }
                };
                *unheard = if used || origin == Origin::Running {
                    None
                } else {
                    Some(origin)
                };
                Ok(Lease::new(Attached { origin, ..attached }, hold))
            }
            Err(error) => {
                self.give_up(hold);
                Err(error)
            }
        }
    }

    /// Lets go of a place that turned out to have no sandbox: it is of no use to anybody.
    fn give_up(self: &Arc<Self>, hold: Hold) {
        let session = hold.session.clone();
        drop(hold);
        let mut state = self.lock();
        self.begin_stop(&mut state, &session);
    }

    /// Begins to stop idle sandboxes, the longest idle first, for those who wait.
    fn make_room(self: &Arc<Self>, state: &mut State) {
        let stays = |entry: &&Entry| matches!(entry.stage, Stage::Up);
        let mut staying = state.entries.values().filter(stays).count();
        while state.counts.waiting > 0 && staying + state.counts.waiting > max_live(&self.config) {
            let idle = state.entries.iter().filter(|(_, entry)| entry.is_idle());
            let Some(session) = idle
                .min_by_key(|(_, entry)| entry.idle_since)
                .map(|(key, _)| key.clone())
            else {
                return;
            };
            self.begin_stop(state, &session);
            state.counts.evicted += 1;
            staying -= 1;
        }
    }

    /// Begins to stop the session's sandbox if nobody holds it.
    fn begin_stop(self: &Arc<Self>, state: &mut State, session: &SessionId) {
        let Some(entry) = state.entries.get_mut(session).filter(|entry| entry.is_idle()) else {
            return;
        };
        let (gone, going) = watch::channel(());
        entry.stage = Stage::Stopping(going);
        let (inner, session) = (Arc::clone(self), session.clone());
        self.runtime.spawn(async move {
            if let Err(error) = inner.provider.stop(&session).await {
                // The next start of this session's sandbox cleans up, or fails and tells.
                tracing::warn!(%session, %error, "a sandbox could not be stopped");
            }
            inner.lock().forget(&session);
            drop(gone);
        });
    }

    /// If nobody holds the session's sandbox, stops it and returns when it is gone.
    async fn stopped_if_idle(self: &Arc<Self>, session: &SessionId) {
        let going = {
            let mut state = self.lock();
            self.begin_stop(&mut state, session);
            match state.entries.get(session).map(|entry| &entry.stage) {
                Some(Stage::Stopping(going)) => Some(going.clone()),
                _ => None,
            }
        };
        if let Some(mut going) = going {
            while going.changed().await.is_ok() {}
        }
    }

    /// Stops what has been idle for too long; when the next one will have been.
    fn stop_idle(self: &Arc<Self>) -> Option<Instant> {
        let mut state = self.lock();
        let (now, patience) = (Instant::now(), self.config.idle_timeout);
        let deadline = |entry: &Entry| entry.idle_since + patience;
        let idle = state.entries.iter().filter(|(_, entry)| entry.is_idle());
        let (due, later): (Vec<_>, Vec<_>) = idle.partition(|(_, entry)| deadline(entry) <= now);
        let next = later.iter().map(|(_, entry)| deadline(entry)).min();
        for session in due
            .into_iter()
            .map(|(session, _)| session.clone())
            .collect::<Vec<_>>()
        {
            self.begin_stop(&mut state, &session);
            state.counts.idled += 1;
        }
        next
    }
}

impl State {
    /// Gives places to sandboxes that are there already.
    fn adopt(sessions: Vec<SessionId>, places: &Arc<Semaphore>) -> Self {
        let entry = |session| {
            let entry = Entry {
                users: 0,
                idle_since: Instant::now() + ADOPTED_GRACE,
                stage: Stage::Up,
                origin: Arc::default(),
                place: Arc::clone(places).try_acquire_owned().ok(),
            };
            (session, entry)
        };
        Self {
            entries: sessions.into_iter().map(entry).collect(),
            counts: Counts::default(),
        }
    }

    /// Forgets a sandbox that is gone. Its place goes to one that has none, if there is one.
    fn forget(&mut self, session: &SessionId) {
        let place = self.entries.remove(session).and_then(|entry| entry.place);
        let heir = self.entries.values_mut().find(|entry| entry.place.is_none());
        if let (Some(heir), Some(place)) = (heir, place) {
            heir.place = Some(place);
        }
    }
}

fn max_live(config: &PoolConfig) -> usize {
    config.max_live.clamp(1, Semaphore::MAX_PERMITS)
}

impl Entry {
    fn is_idle(&self) -> bool {
        self.users == 0 && matches!(self.stage, Stage::Up)
    }
}

/// Stops what is idle for too long, as long as the pool lives.
async fn stop_idle(inner: Weak<Inner>, idled: Arc<Notify>) {
    loop {
        let next = match inner.upgrade() {
            Some(inner) => inner.stop_idle(),
            None => return,
        };
        match next {
            Some(next) => {
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = idled.notified() => {}
                }
            }
            None => idled.notified().await,
        }
    }
}

#[cfg(test)]
mod tests;
