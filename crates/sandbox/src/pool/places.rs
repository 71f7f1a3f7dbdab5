//! The places of a pool: who has one, who waits, and which sandbox gives way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use oma_domain::SessionId;
use oma_domain::event::Failure;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use super::{Counts, Lease, PoolConfig};
use crate::fittings::{Fit, Fittings};
use crate::mounts::Furnish;
use crate::{Attached, Error, Origin, Provider, Spec};

/// How much later than others a sandbox of an earlier server gives way: its session may be about to ask for the
/// command that it left there.
const ADOPTED_GRACE: Duration = Duration::from_secs(30);

/// What all clones of a pool share.
pub(super) struct Inner {
    pub(super) provider: Arc<dyn Provider>,
    /// Asked, in this order, before a sandbox is used.
    pub(super) furnishers: Arc<[Arc<dyn Furnish>]>,
    pub(super) config: PoolConfig,
    pub(super) runtime: Handle,
    /// One permit per place; its queue is first come, first served.
    places: Arc<Semaphore>,
    state: Mutex<State>,
    /// Something became idle, or the pool is gone: the sleeper looks again.
    idled: Arc<Notify>,
}

#[derive(Default)]
pub(super) struct State {
    entries: HashMap<SessionId, Entry>,
    pub(super) counts: Counts,
    /// What went wrong with what belongs into sandboxes, until somebody has heard.
    pub(super) failures: HashMap<SessionId, Vec<Failure>>,
}

/// How a sandbox came to be, until somebody who uses it has heard.
type Heard = Arc<tokio::sync::Mutex<Option<Origin>>>;

/// A sandbox with a place, or a place that a sandbox is being started in.
struct Entry {
    users: usize,
    /// May lie ahead, for one that gives way later than others.
    idle_since: Instant,
    stage: Stage,
    claim: Claim,
    /// One at a time asks the provider; holds how the sandbox came to be until somebody who uses it has heard.
    origin: Heard,
    /// Goes back when the entry goes. A sandbox that was there before the pool may have none, when there are more
    /// of them than places.
    place: Option<OwnedSemaphorePermit>,
}

/// Whether a sandbox has been used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Not since this server has started; it is there from before.
    Adopted,
    /// Not yet; it was started in advance.
    Warm,
    /// It has been, or is being started for somebody who waits.
    Used,
}

enum Stage {
    Up,
    /// On its way down; the channel closes when it is gone.
    Stopping(watch::Receiver<()>),
}

/// Why there is no hold at once.
pub(super) enum Blocked {
    /// The session's sandbox is on its way down.
    Stopping(watch::Receiver<()>),
    /// All places are taken.
    Full,
}

/// Counts as a user of a sandbox until dropped.
pub(super) struct Hold {
    inner: Arc<Inner>,
    session: SessionId,
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

impl Inner {
    /// The places over a provider. Must be called in a runtime.
    pub(super) fn new(
        provider: Arc<dyn Provider>,
        config: PoolConfig,
        furnishers: Vec<Arc<dyn Furnish>>,
    ) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(max_live(&config)));
        let (runtime, idled) = (Handle::current(), Arc::new(Notify::new()));
        let state = Mutex::new(State::adopt(provider.survivors(), &places));
        let inner = Arc::new(Self {
            provider,
            furnishers: furnishers.into(),
            config,
            runtime,
            places,
            state,
            idled: Arc::clone(&idled),
        });
        tokio::spawn(stop_idle(Arc::downgrade(&inner), idled));
        inner
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A hold on the session's place, if there is one or one is free.
    pub(super) fn hold(self: &Arc<Self>, session: &SessionId, claim: Claim) -> Result<Hold, Blocked> {
        let mut state = self.lock();
        if let Some(hold) = self.join(&mut state, session)? {
            return Ok(hold);
        }
        // This fails too when others wait, so nobody jumps the queue.
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => Ok(self.settle(&mut state, session, place, claim)),
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

    fn settle(
        self: &Arc<Self>,
        state: &mut State,
        session: &SessionId,
        place: OwnedSemaphorePermit,
        claim: Claim,
    ) -> Hold {
        let entry = Entry {
            users: 1,
            idle_since: Instant::now(),
            stage: Stage::Up,
            claim,
            origin: Arc::default(),
            place: Some(place),
        };
        state.entries.insert(session.clone(), entry);
        Hold {
            inner: Arc::clone(self),
            session: session.clone(),
        }
    }

    /// Waits for a hold.
    pub(super) async fn wait(self: &Arc<Self>, session: &SessionId, mut blocked: Blocked) -> Hold {
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
                        (Ok(None), Ok(place)) => return self.settle(&mut state, session, place, Claim::Used),
                        _ => {}
                    }
                }
            }
            blocked = match self.hold(session, Claim::Used) {
                Ok(hold) => return hold,
                Err(blocked) => blocked,
            };
        }
    }

    /// A hold on the place that the session has already, and how its sandbox came to be.
    pub(super) fn peek(self: &Arc<Self>, session: &SessionId) -> Option<(Hold, Heard)> {
        let mut state = self.lock();
        let hold = self.join(&mut state, session).ok().flatten()?;
        let origin = state
            .entries
            .get(session)
            .map(|entry| Arc::clone(&entry.origin))?;
        Some((hold, origin))
    }

    /// The session has come for its sandbox, so from now on that gives way like any other. Tells whether it was
    /// the first to come.
    pub(super) fn claim(&self, session: &SessionId) -> Claim {
        match self.lock().entries.get_mut(session) {
            Some(entry) => {
                entry.idle_since = Instant::now();
                std::mem::replace(&mut entry.claim, Claim::Used)
            }
            None => Claim::Used,
        }
    }

    /// The sessions that have a place.
    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.lock().entries.keys().cloned().collect()
    }

    /// What is there now, and what has been done.
    pub(super) fn counts(&self) -> Counts {
        let state = self.lock();
        let count = |is_it: fn(&Entry) -> bool| state.entries.values().filter(|entry| is_it(entry)).count();
        Counts {
            live: state.entries.len(),
            leased: count(|entry| entry.users > 0),
            warm: count(|entry| entry.claim == Claim::Warm),
            ..state.counts
        }
    }

    /// Gets the sandbox for the place that is held, and tells whether it was started for that. `used` says whether
    /// the lease goes to somebody who acts on how the sandbox came to be.
    pub(super) async fn lease(
        self: &Arc<Self>,
        hold: Hold,
        spec: &Spec,
        used: bool,
    ) -> Result<(Lease, bool), Error> {
        let origin = self
            .lock()
            .entries
            .get(&spec.session)
            .map(|entry| Arc::clone(&entry.origin));
        let origin = origin.unwrap_or_default();
        let mut unheard = origin.lock().await;
        match self.attach(spec).await {
            Ok(attached) => {
                let is_new = attached.origin != Origin::Running;
                let origin = if is_new {
                    self.lock().counts.started += 1;
                    metrics::histogram!("container_boot_duration_seconds").record(attached.boot);
                    attached.origin
                } else {
                    unheard.unwrap_or(Origin::Running)
                };
                *unheard = if used || origin == Origin::Running {
                    None
                } else {
                    Some(origin)
                };
                Ok((Lease::new(Attached { origin, ..attached }, hold), is_new))
            }
            Err(error) => {
                self.give_up(hold);
                Err(error)
            }
        }
    }

    /// The sandbox, with what belongs into it.
    async fn attach(&self, spec: &Spec) -> Result<Attached, Error> {
        for furnisher in &*self.furnishers {
            furnisher.furnish(spec).await?;
        }
        let fit = Arc::new(Furnishers(Arc::clone(&self.furnishers)));
        let attached = self.provider.attach_fitted(spec, fit).await?;
        for furnisher in &*self.furnishers {
            let failures = furnisher.settle(spec, &attached).await;
            if !failures.is_empty() {
                let mut state = self.lock();
                state
                    .failures
                    .entry(spec.session.clone())
                    .or_default()
                    .extend(failures);
            }
        }
        Ok(attached)
    }

    /// Lets go of a place that turned out to have no sandbox: it is of no use to anybody.
    pub(super) fn give_up(self: &Arc<Self>, hold: Hold) {
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
                tracing::warn!(session_id = %session, %error, "a sandbox could not be stopped");
            }
            inner.lock().forget(&session);
            drop(gone);
        });
    }

    /// If nobody holds the session's sandbox, stops it and returns when it is gone.
    pub(super) async fn stopped_if_idle(self: &Arc<Self>, session: &SessionId) {
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
        metrics::counter!("startup_adoptions_total", "outcome" => "reattached")
            .increment(sessions.len() as u64);
        let entry = |session| {
            let entry = Entry {
                users: 0,
                idle_since: Instant::now() + ADOPTED_GRACE,
                stage: Stage::Up,
                claim: Claim::Adopted,
                origin: Arc::default(),
                place: Arc::clone(places).try_acquire_owned().ok(),
            };
            (session, entry)
        };
        Self {
            entries: sessions.into_iter().map(entry).collect(),
            counts: Counts::default(),
            failures: HashMap::new(),
        }
    }

    /// Forgets a sandbox that is gone. Its place goes to one that has none, if there is one.
    pub(super) fn forget(&mut self, session: &SessionId) {
        self.failures.remove(session);
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

/// Those who know what belongs into sandboxes.
struct Furnishers(Arc<[Arc<dyn Furnish>]>);

#[async_trait]
impl Fit for Furnishers {
    async fn fit(&self, spec: &Spec) -> Result<Fittings, Error> {
        let mut fittings = Fittings::default();
        for furnisher in &*self.0 {
            furnisher.fit(spec, &mut fittings).await?;
        }
        Ok(fittings)
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
