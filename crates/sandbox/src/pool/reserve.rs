//! Which sandboxes there are in advance, and which there should be. Knows nothing of how they come and go.
//!
//! A kind of sandbox is wanted from the time that somebody asked for one until nobody has for a while. All kinds that
//! are wanted share the reserve evenly, those that were asked for last first.

use std::sync::Arc;
use std::time::Duration;

use oma_domain::WorkspaceId;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::fittings::Fittings;
use crate::{Spec, WarmId};

/// What sandboxes must have in common so that any of them will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    /// Nobody is given one that was made for another tenant.
    pub(super) workspace: WorkspaceId,
    pub(super) fittings: Arc<Fittings>,
}

/// One that is there and waits for a session. Holds a place like any other sandbox.
pub(super) struct Spare {
    pub(super) id: WarmId,
    pub(super) kind: Kind,
    pub(super) place: OwnedSemaphorePermit,
}

/// That there should be some of a kind.
struct Wish {
    kind: Kind,
    /// A session that would have one of this kind; `None` for those without anything special.
    like: Option<Spec>,
    asked: Instant,
}

/// The sandboxes that there are in advance.
pub(super) struct Reserve {
    most: usize,
    patience: Duration,
    /// The oldest first.
    ready: Vec<Spare>,
    booting: Vec<Kind>,
    stopping: usize,
    /// The one that was asked for last first.
    wishes: Vec<Wish>,
}

impl Reserve {
    /// Of so many at the most, for kinds that somebody asked for within this time.
    pub(super) fn new(most: usize, patience: Duration) -> Self {
        Self {
            most,
            patience,
            ready: Vec::new(),
            booting: Vec::new(),
            stopping: 0,
            wishes: Vec::new(),
        }
    }

    pub(super) fn is_off(&self) -> bool {
        self.most == 0
    }

    /// From now on nothing is wanted.
    pub(super) fn close(&mut self) {
        self.most = 0;
        self.wishes.clear();
    }

    /// Some of this kind are wanted.
    pub(super) fn ask(&mut self, kind: Kind, like: Option<Spec>, now: Instant) {
        self.wishes.retain(|wish| wish.kind != kind);
        let wish = Wish {
            kind,
            like,
            asked: now,
        };
        self.wishes.insert(0, wish);
        self.wishes.truncate(self.most);
    }

    /// None of this kind are wanted.
    pub(super) fn forget(&mut self, kind: &Kind) {
        self.wishes.retain(|wish| wish.kind != *kind);
    }

    /// What is wanted, with sessions like that.
    pub(super) fn wishes(&self) -> impl DoubleEndedIterator<Item = (&Kind, &Spec)> {
        let wishes = self.wishes.iter();
        wishes.filter_map(|wish| wish.like.as_ref().map(|like| (&wish.kind, like)))
    }

    /// Whether there is one for sessions of this tenant.
    pub(super) fn has_any(&self, workspace: &WorkspaceId) -> bool {
        self.ready.iter().any(|spare| spare.kind.workspace == *workspace)
    }

    /// The oldest one of this kind.
    pub(super) fn take(&mut self, kind: &Kind) -> Option<Spare> {
        let index = self.ready.iter().position(|spare| spare.kind == *kind)?;
        Some(self.ready.remove(index))
    }

    /// The oldest one of all, which has to go: it counts until [`Reserve::stopped`].
    pub(super) fn evict(&mut self) -> Option<Spare> {
        (!self.ready.is_empty()).then(|| self.stop(0))
    }

    fn stop(&mut self, index: usize) -> Spare {
        self.stopping += 1;
        self.ready.remove(index)
    }

    /// One that had to go is gone.
    pub(super) fn stopped(&mut self) {
        self.stopping -= 1;
    }

    /// Those that are not wanted, which have to go, the oldest of each kind first; and when there may be others.
    pub(super) fn surplus(&mut self, now: Instant) -> (Vec<Spare>, Option<Instant>) {
        let patience = self.patience;
        self.wishes.retain(|wish| wish.asked + patience > now);
        let mut surplus = Vec::new();
        let mut index = 0;
        while let Some(spare) = self.ready.get(index) {
            let is_wanted = self.wishes.iter().any(|wish| wish.kind == spare.kind);
            if is_wanted && self.count(&spare.kind) <= self.share() {
                index += 1;
            } else {
                surplus.push(self.stop(index));
            }
        }
        let next = self.wishes.iter().map(|wish| wish.asked + patience).min();
        (surplus, next)
    }

    /// The most of one kind.
    fn share(&self) -> usize {
        self.most.div_ceil(self.wishes.len().max(1))
    }

    fn count(&self, kind: &Kind) -> usize {
        let ready = self.ready.iter().filter(|spare| spare.kind == *kind).count();
        ready + self.booting.iter().filter(|booting| *booting == kind).count()
    }

    /// The kind of which there are the fewest, if more of it should be there.
    pub(super) fn lacking(&self) -> Option<&Kind> {
        if self.total() >= self.most {
            return None;
        }
        // Of several the first one, which was asked for last.
        let fewest = self.wishes.iter().min_by_key(|wish| self.count(&wish.kind))?;
        (self.count(&fewest.kind) < self.share()).then_some(&fewest.kind)
    }

    /// One of this kind is being started. It counts until [`Reserve::booted`].
    pub(super) fn boot(&mut self, kind: Kind) {
        self.booting.push(kind);
    }

    /// That start is over, with a sandbox or without.
    pub(super) fn booted(&mut self, kind: &Kind, spare: Option<Spare>) {
        if let Some(index) = self.booting.iter().position(|booting| booting == kind) {
            self.booting.swap_remove(index);
        }
        self.ready.extend(spare);
    }

    /// Those that a session can take.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Those that are being started.
    pub(super) fn booting(&self) -> usize {
        self.booting.len()
    }

    /// Those that are there or will be.
    pub(super) fn staying(&self) -> usize {
        self.ready.len() + self.booting.len()
    }

    /// All of them, in any state.
    pub(super) fn total(&self) -> usize {
        self.staying() + self.stopping
    }
}
