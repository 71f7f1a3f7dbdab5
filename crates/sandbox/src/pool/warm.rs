//! Sandboxes that are started before anybody needs them, and given to sessions that have none yet.
//!
//! Whoever knows that a session may soon need a sandbox asks for more like it; so does whoever has just got one. What
//! they have in common is asked of those who furnish them, in the background. They are started in places that nobody
//! wants, a few at a time and while none is being started for somebody, and give way before all others.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use oma_domain::WorkspaceId;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::places::{Claim, Hold, Inner};
use super::reserve::{Kind, Spare};
use crate::fittings::{Fit as _, Fittings};
use crate::{Attached, Error, Spec, WarmId};

/// How many are started at once.
const BOOTING: usize = 2;
/// How many requests wait to be looked at; of more, the oldest are forgotten.
const MAX_ASKS: usize = 64;
/// How many of them are looked at at once, and how long one may take: what a sandbox is made with may have to be made
/// first.
const FITTING: usize = 4;
const FIT_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a request waits for a build. Builds wait for each other, and each may take long.
const BUILD_TIMEOUT: Duration = Duration::from_secs(4 * 3_600);

/// A request for sandboxes in advance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// Like that of this session.
    Like(Spec),
    /// Without anything special, for sessions of this workspace.
    Plain(WorkspaceId),
}

/// What wakes those who see to the sandboxes in advance.
#[derive(Clone, Default)]
pub(super) struct Bells {
    /// Somebody has asked for some.
    asked: Arc<Notify>,
    /// There may be too many or too few of them.
    changed: Arc<Notify>,
}

impl Bells {
    pub(super) fn changed(&self) {
        self.changed.notify_one();
    }

    /// The pool is gone.
    pub(super) fn all(&self) {
        self.asked.notify_one();
        self.changed.notify_one();
    }
}

impl Inner {
    /// Sees to them from now on. Must be called in a runtime.
    pub(super) fn keep_warm(self: &Arc<Self>) {
        if !self.lock().reserve.is_off() {
            let bells = self.bells.clone();
            self.runtime
                .spawn(answer(Arc::downgrade(self), bells.asked.clone()));
            self.runtime.spawn(keep(Arc::downgrade(self), bells.changed));
        }
    }

    /// More of such sandboxes should be there in advance.
    pub(super) fn ask(&self, ask: Ask) {
        let mut state = self.lock();
        if state.reserve.is_off() {
            return;
        }
        note(&mut state.asks, ask);
        drop(state);
        self.bells.asked.notify_one();
    }

    /// What sandboxes are made with may have changed.
    pub(super) fn refit(&self) {
        let mut state = self.lock();
        // Those that were asked for last are to be so again.
        let wishes: Vec<(Kind, Spec)> = state
            .reserve
            .wishes()
            .rev()
            .map(|(kind, like)| (kind.clone(), like.clone()))
            .collect();
        state.refits.extend(wishes);
        drop(state);
        self.bells.asked.notify_one();
    }

    /// One for the session, if there is one that it may have and that is like what would be made for it.
    pub(super) async fn spare(self: &Arc<Self>, spec: &Spec, claim: Claim) -> Option<Hold> {
        {
            let state = self.lock();
            if state.has(&spec.session) || !state.reserve.has_any(&spec.workspace) {
                return None;
            }
        }
        let is_untouched = self.provider.is_untouched(&spec.session).await;
        if !is_untouched.unwrap_or_else(|error| {
            tracing::warn!(session_id = %spec.session, %error, "no sandbox from those in advance");
            false
        }) {
            return None;
        }
        // Whoever starts one meets the same error, and tells it.
        let fittings = self.furnishers.fit(spec).await.ok()?;
        if fittings.is_personal() {
            return None;
        }
        let kind = Kind {
            workspace: spec.workspace.clone(),
            fittings: Arc::new(fittings),
        };
        let mut state = self.lock();
        if state.has(&spec.session) {
            return None;
        }
        let Spare { id, place, .. } = state.reserve.take(&kind)?;
        Some(self.settle(&mut state, &spec.session, place, claim, Some(id)))
    }

    /// Hands it over to the session that it was set aside for. When that can't be, it is gone, for its place is the
    /// session's.
    pub(super) async fn hand_over(self: &Arc<Self>, id: WarmId, spec: &Spec) -> Option<Attached> {
        let (inner, spec) = (Arc::clone(self), spec.clone());
        // To its end, whether or not somebody waits for it.
        let work = self.runtime.spawn(async move {
            match inner.provider.claim(&id, &spec).await {
                Ok(Some(attached)) => return Some(attached),
                Ok(None) => tracing::info!(session_id = %spec.session, warm = %id, "a sandbox in advance was of no use"),
                Err(error) => {
                    tracing::warn!(session_id = %spec.session, warm = %id, %error, "a sandbox in advance was of no use");
                }
            }
            inner.end(&id).await;
            None
        });
        work.await.ok().flatten()
    }

    /// Ends one, and says what stays of it.
    pub(super) async fn end(&self, id: &WarmId) {
        if let Err(error) = self.provider.stop_warm(id).await {
            tracing::warn!(warm = %id, %error, "a sandbox that was started in advance could not be stopped");
        }
    }

    /// Ends one whose place goes back.
    pub(super) fn discard(self: &Arc<Self>, spare: Spare) {
        let inner = Arc::clone(self);
        self.runtime.spawn(async move {
            inner.end(&spare.id).await;
            let mut state = inner.lock();
            state.reserve.stopped();
            state.give_back(spare.place);
            drop(state);
            inner.bells.changed();
        });
    }

    /// Ends all of them, and starts no others.
    pub(super) async fn end_warm(self: &Arc<Self>, at_once: usize) {
        let spares: Vec<Spare> = {
            let mut state = self.lock();
            state.reserve.close();
            std::iter::from_fn(|| state.reserve.evict()).collect()
        };
        let ends = spares.into_iter().map(|spare| {
            let inner = Arc::clone(self);
            async move {
                inner.end(&spare.id).await;
                inner.lock().reserve.stopped();
            }
        });
        stream::iter(ends)
            .buffer_unordered(at_once)
            .collect::<Vec<()>>()
            .await;
    }

    /// Ends those that are too many, and starts those that are missing; when there may be too many by then.
    fn balance(self: &Arc<Self>) -> Option<Instant> {
        let mut state = self.lock();
        let (surplus, next) = state.reserve.surplus(Instant::now());
        for spare in surplus {
            self.discard(spare);
        }
        // Whoever needs one now has the machine for itself.
        let is_calm = state.counts.waiting == 0 && state.starting == 0;
        while is_calm && state.reserve.booting() < BOOTING {
            let Some(kind) = state.reserve.lacking().cloned() else {
                break;
            };
            // This fails too when others wait, so nobody is kept from a place.
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                break;
            };
            state.reserve.boot(kind.clone());
            let inner = Arc::clone(self);
            self.runtime.spawn(async move {
                let Kind { workspace, fittings } = &kind;
                let started = inner
                    .provider
                    .start_warm(workspace, Fittings::clone(fittings))
                    .await;
                let mut state = inner.lock();
                match started {
                    Ok(id) => {
                        let spare = Spare {
                            id,
                            kind: kind.clone(),
                            place,
                        };
                        state.reserve.booted(&kind, Some(spare));
                        // Somebody may have begun to wait meanwhile.
                        inner.make_room(&mut state);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no sandbox could be started in advance");
                        state.reserve.booted(&kind, None);
                        // Whoever needs one is told why; until somebody does, this is not tried again.
                        state.reserve.forget(&kind);
                        state.give_back(place);
                    }
                }
                drop(state);
                inner.bells.changed();
            });
        }
        next
    }

    /// Makes a request again when what it needs has been built. There are no more of these than other requests.
    fn defer(self: &Arc<Self>, spec: &Spec) {
        {
            let mut state = self.lock();
            if state.deferred.len() >= MAX_ASKS || state.deferred.contains(spec) {
                return;
            }
            state.deferred.push(spec.clone());
        }
        let (furnishers, spec) = (Arc::clone(&self.furnishers), spec.clone());
        // The pool does not live on for this.
        let inner = Arc::downgrade(self);
        self.runtime.spawn(async move {
            let built = timeout(BUILD_TIMEOUT, furnishers.fits(&spec)).await;
            let Some(inner) = inner.upgrade() else { return };
            inner.lock().deferred.retain(|known| *known != spec);
            if built.is_ok() {
                inner.ask(Ask::Like(spec));
            }
        });
    }

    /// Finds out what is wanted, and notes it. `known` is what the same request meant before.
    async fn fit(self: &Arc<Self>, ask: Ask, known: Option<Kind>) {
        let (workspace, like) = match ask {
            Ask::Like(spec) => (spec.workspace.clone(), Some(spec)),
            Ask::Plain(workspace) => (workspace, None),
        };
        let fittings = match &like {
            Some(spec) => match timeout(FIT_TIMEOUT, self.furnishers.fit(spec)).await {
                Ok(Ok(fittings)) => (!fittings.is_personal()).then_some(fittings),
                Ok(Err(Error::Unbuilt)) => {
                    self.defer(spec);
                    None
                }
                Ok(Err(error)) => {
                    tracing::debug!(session_id = %spec.session, %error, "no sandboxes like this in advance");
                    None
                }
                Err(_) => {
                    tracing::warn!(session_id = %spec.session, "it takes too long to find out what a sandbox is made with");
                    None
                }
            },
            None => Some(Fittings::default()),
        };
        let kind = fittings.map(|fittings| Kind {
            workspace,
            fittings: Arc::new(fittings),
        });
        let mut state = self.lock();
        if known.is_some() && known == kind {
            return;
        }
        if let Some(known) = known {
            state.reserve.forget(&known);
        }
        if let Some(kind) = kind {
            state.reserve.ask(kind, like, Instant::now());
        }
        drop(state);
        self.bells.changed();
    }
}

/// Notes a request, unless it is noted already.
fn note(asks: &mut VecDeque<Ask>, ask: Ask) {
    if !asks.contains(&ask) {
        if asks.len() >= MAX_ASKS {
            asks.pop_front();
        }
        asks.push_back(ask);
    }
}

/// Finds out what is asked for, as long as the pool lives.
async fn answer(inner: Weak<Inner>, asked: Arc<Notify>) {
    loop {
        match inner.upgrade() {
            Some(inner) => {
                let (refits, asks) = {
                    let mut state = inner.lock();
                    (std::mem::take(&mut state.refits), std::mem::take(&mut state.asks))
                };
                let refits = refits
                    .into_iter()
                    .map(|(kind, like)| (Ask::Like(like), Some(kind)));
                let all = refits.chain(asks.into_iter().map(|ask| (ask, None)));
                stream::iter(all)
                    .for_each_concurrent(FITTING, |(ask, known)| inner.fit(ask, known))
                    .await;
            }
            None => return,
        }
        asked.notified().await;
    }
}

/// Has as many in advance as there should be, as long as the pool lives.
async fn keep(inner: Weak<Inner>, changed: Arc<Notify>) {
    loop {
        let next = match inner.upgrade() {
            Some(inner) => inner.balance(),
            None => return,
        };
        match next {
            Some(next) => {
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = changed.notified() => {}
                }
            }
            None => changed.notified().await,
        }
    }
}
