//! The agents' own budgets as they are now.
//!
//! A session keeps the version of its agent that it was created with, but for the budgets: raising one is how a session
//! that has used it up goes on. So they are looked at with each message and each model request; the store is asked
//! only when an agent has been changed since somebody asked last.
//!
//! Invariant: what is known here was read after the last change of any agent that has ended; a change is counted when it
//! has ended, and before its caller is told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use oma_domain::quota::Quota;
use oma_domain::{AgentId, WorkspaceId};

/// Beyond so many agents all are forgotten; they are read again.
const MOST: usize = 4096;

/// Whose agent it is, and which.
pub(crate) type Key = (WorkspaceId, AgentId);

/// An agent's budgets, and the version that they belong to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Current {
    pub(crate) version: u32,
    pub(crate) quota: Option<Quota>,
}

#[derive(Debug, Default)]
pub(crate) struct Quotas {
    changes: AtomicU64,
    known: Mutex<HashMap<Key, (u64, Current)>>,
}

impl Quotas {
    fn known(&self) -> MutexGuard<'_, HashMap<Key, (u64, Current)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An agent has been changed.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// How many changes there were. Ask before reading from the store what is given to [`Self::learn`].
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// What is known of an agent as of so many changes.
    pub(crate) fn get(&self, agent: &Key, changes: u64) -> Option<Current> {
        let known = self.known();
        let (as_of, current) = known.get(agent)?;
        (*as_of == changes).then_some(*current)
    }

    /// Remembers what was read when there had been so many changes.
    pub(crate) fn learn(&self, agent: Key, changes: u64, current: Current) {
        let mut known = self.known();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(agent, (changes, current));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_makes_everything_known_old() {
        let quotas = Quotas::default();
        let agent = || (WorkspaceId::default_workspace(), AgentId::generate());
        let (one, other) = (agent(), agent());
        let current = Current {
            version: 3,
            quota: None,
        };
        let before = quotas.changes();
        quotas.learn(one.clone(), before, current);
        assert_eq!(quotas.get(&one, before), Some(current));
        assert_eq!(quotas.get(&other, before), None);
        quotas.changed();
        assert_eq!(quotas.get(&one, quotas.changes()), None);
        // Somebody who had read before the change, and comes late with it, teaches nobody.
        quotas.learn(one.clone(), before, current);
        assert_eq!(quotas.get(&one, quotas.changes()), None);
        for _ in 0..=MOST {
            quotas.learn(agent(), quotas.changes(), current);
        }
        assert!(quotas.known().len() <= MOST);
    }
}
