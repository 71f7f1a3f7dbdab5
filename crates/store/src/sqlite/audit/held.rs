//! Notes of calls that have begun and changed nothing yet. They go to the disk with the next change, whosever it is:
//! a call that is refused costs no note, and no call waits for the disk because of its own.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use oma_domain::AuditId;
use oma_domain::audit::Entry;

/// The notes, as many as calls are under way.
#[derive(Debug, Default)]
pub(in crate::sqlite) struct Held(Mutex<HashMap<AuditId, Entry>>);

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashMap<AuditId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a note until it is taken or let go.
    pub(super) fn hold(&self, entry: Entry) {
        self.lock().insert(entry.id.clone(), entry);
    }

    /// The call is over.
    pub(super) fn let_go(&self, id: &AuditId) {
        self.lock().remove(id);
    }

    /// All notes, to be written.
    pub(in crate::sqlite) fn take(&self) -> Vec<Entry> {
        let mut held = self.lock();
        // Mostly there is nothing, or one.
        if held.is_empty() {
            return Vec::new();
        }
        held.drain().map(|(_, entry)| entry).collect()
    }

    /// Notes that could not be written.
    pub(in crate::sqlite) fn give_back(&self, entries: Vec<Entry>) {
        let mut held = self.lock();
        held.extend(entries.into_iter().map(|entry| (entry.id.clone(), entry)));
    }
}
