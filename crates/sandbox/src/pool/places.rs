//! The places of a pool: who has one, who waits, and which sandbox gives way.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use oma_domain::SessionId;
use oma_domain::event::Failure;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use super::lease::Furnishers;
use super::reserve::{Kind, Reserve};
use super::warm::{Ask, Bells};
use super::{Counts, PoolConfig, Provenance};
use crate::mounts::Furnish;
use crate::{Origin, Provider, Spec, WarmId};

/// How much later than others a sandbox of an earlier server gives way: its session may be about to ask for the
/// command that it left there.
const ADOPTED_GRACE: Duration = Duration::from_secs(30);

/// What all clones of a pool share.
pub(super) struct Inner {
    pub(super) provider: Arc<dyn Provider>,
    pub(super) furnishers: Arc<Furnishers>,
    pub(super) config: PoolConfig,
    pub(super) runtime: Handle,
    /// One permit per place; its queue is first come, first served.
    pub(super) places: Arc<Semaphore>,
    state: Mutex<State>,
    /// Something became idle, or the pool is gone: the sleeper looks again.
    idled: Arc<Notify>,
    pub(super) bells: Bells,
}

pub(super) struct State {
    entries: HashMap<SessionId, Entry>,
    pub(super) counts: Counts,
    /// How many are being started, or looked for, for somebody who needs them.
    pub(super) starting: usize,
    /// The sandboxes that are there in advance.
    pub(super) reserve: Reserve,
    /// Requests for such, until somebody has looked at them.
    pub(super) asks: VecDeque<Ask>,
    /// Those of them that are made again when what they need has been built.
    pub(super) deferred: Vec<Spec>,
    /// What sandboxes like those of these sessions were, until somebody has looked again.
    pub(super) refits: Vec<(Kind, Spec)>,
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
    /// One that was started in advance and is the session's as soon as somebody takes it.
    spare: Option<WarmId>,
    /// One at a time asks the provider; holds how the sandbox came to be until somebody who uses it has heard.
    origin: Heard,
    /// Where it came from, once that is known.
    came: Option<Provenance>,
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
        self.bells.all();
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
        let reserve = Reserve::new(config.max_warm.min(max_live(&config)), config.warm_timeout);
        let state = Mutex::new(State::adopt(provider.survivors(), &places, reserve));
        let inner = Arc::new(Self {
            provider,
            furnishers: Arc::new(Furnishers(furnishers)),
            config,
            runtime,
            places,
            state,
            idled: Arc::clone(&idled),
            bells: Bells::default(),
        });
        tokio::spawn(stop_idle(Arc::downgrade(&inner), idled));
        inner.keep_warm();
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
            Ok(place) => Ok(self.settle(&mut state, session, place, claim, None)),
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

    pub(super) fn settle(
        self: &Arc<Self>,
        state: &mut State,
        session: &SessionId,
        place: OwnedSemaphorePermit,
        claim: Claim,
        spare: Option<WarmId>,
    ) -> Hold {
        let entry = Entry {
            users: 1,
            idle_since: Instant::now(),
            stage: Stage::Up,
            claim,
            spare,
            origin: Arc::default(),
            came: None,
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
                        (Ok(None), Ok(place)) => {
                            return self.settle(&mut state, session, place, Claim::Used, None);
                        }
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
            live: state.entries.len() + state.reserve.total(),
            leased: count(|entry| entry.users > 0),
            warm: count(|entry| entry.claim == Claim::Warm) + state.reserve.total(),
            ..state.counts
        }
    }

    /// How the session's sandbox came to be, for whoever gets it.
    pub(super) fn heard(&self, session: &SessionId) -> Heard {
        let state = self.lock();
        let entry = state.entries.get(session);
        entry.map(|entry| Arc::clone(&entry.origin)).unwrap_or_default()
    }

    /// Where the session's sandbox came from: from here, if that is said. One that nobody has started since the pool was
    /// made was there before.
    pub(super) fn came(&self, session: &SessionId, from: Option<Provenance>) -> Provenance {
        let mut state = self.lock();
        let entry = state.entries.get_mut(session);
        let known = entry.and_then(|entry| {
            entry.came = from.or(entry.came);
            entry.came
        });
        known.or(from).unwrap_or(Provenance::Survivor)
    }

    /// How many hold the session's place.
    pub(super) fn users(&self, session: &SessionId) -> usize {
        self.lock().entries.get(session).map_or(0, |entry| entry.users)
    }

    /// The sandbox that was set aside for the session and is to be handed over now.
    pub(super) fn take_spare(&self, session: &SessionId) -> Option<WarmId> {
        self.lock().entries.get_mut(session)?.spare.take()
    }

    /// Lets go of a place that turned out to have no sandbox: it is of no use to anybody.
    pub(super) fn give_up(self: &Arc<Self>, hold: Hold) {
        let session = hold.session.clone();
        drop(hold);
        let mut state = self.lock();
        self.begin_stop(&mut state, &session);
    }

    /// Begins to stop sandboxes for those who wait: those that nobody has used yet, the oldest first, then those that
    /// are idle, the longest idle first.
    pub(super) fn make_room(self: &Arc<Self>, state: &mut State) {
        let stays = |entry: &&Entry| matches!(entry.stage, Stage::Up);
        let mut staying = state.entries.values().filter(stays).count() + state.reserve.staying();
        while state.counts.waiting > 0 && staying + state.counts.waiting > max_live(&self.config) {
            if let Some(spare) = state.reserve.evict() {
                self.discard(spare);
                state.counts.evicted += 1;
                staying -= 1;
                continue;
            }
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
        let spare = entry.spare.take();
        let (inner, session) = (Arc::clone(self), session.clone());
        self.runtime.spawn(async move {
            if let Some(spare) = spare {
                inner.end(&spare).await;
            }
            if let Err(error) = inner.provider.stop(&session).await {
                // The next start of this session's sandbox cleans up, or fails and tells.
                tracing::warn!(session_id = %session, %error, "a sandbox could not be stopped");
            }
            inner.lock().forget(&session);
            inner.bells.changed();
            drop(gone);
        });
    }

    /// Ends the session's sandbox unless something runs in it, because the server stops.
    pub(super) async fn retire(&self, session: &SessionId) {
        if let Some(spare) = self.take_spare(session) {
            self.end(&spare).await;
        }
        match self.provider.retire(session).await {
            Ok(true) => self.lock().forget(session),
            Ok(false) => tracing::info!(session_id = %session, "a sandbox stays: something runs in it"),
            // It ends by itself when no server comes back to it.
            Err(error) => tracing::warn!(session_id = %session, %error, "a sandbox could not be ended"),
        }
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
    fn adopt(sessions: Vec<SessionId>, places: &Arc<Semaphore>, reserve: Reserve) -> Self {
        metrics::counter!("startup_adoptions_total", "outcome" => "reattached")
            .increment(sessions.len() as u64);
        let entry = |session| {
            let entry = Entry {
                users: 0,
                idle_since: Instant::now() + ADOPTED_GRACE,
                stage: Stage::Up,
                claim: Claim::Adopted,
                spare: None,
                origin: Arc::default(),
                came: Some(Provenance::Survivor),
                place: Arc::clone(places).try_acquire_owned().ok(),
            };
            (session, entry)
        };
        Self {
            entries: sessions.into_iter().map(entry).collect(),
            counts: Counts::default(),
            starting: 0,
            reserve,
            asks: VecDeque::new(),
            deferred: Vec::new(),
            refits: Vec::new(),
            failures: HashMap::new(),
        }
    }

    /// Forgets a sandbox that is gone.
    pub(super) fn forget(&mut self, session: &SessionId) {
        self.failures.remove(session);
        if let Some(place) = self.entries.remove(session).and_then(|entry| entry.place) {
            self.give_back(place);
        }
    }

    /// Whether the session has a place.
    pub(super) fn has(&self, session: &SessionId) -> bool {
        self.entries.contains_key(session)
    }

    /// A place is free: it goes to a sandbox that has none, if there is one, or else to whoever waits.
    pub(super) fn give_back(&mut self, place: OwnedSemaphorePermit) {
        let heir = self.entries.values_mut().find(|entry| entry.place.is_none());
        if let Some(heir) = heir {
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
