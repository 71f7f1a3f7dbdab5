//! The conversations of sessions that have just rested, so that the next turn does not read their logs again.
//!
//! A log only grows, so what was folded from it stays true: a conversation that is taken up again is only
//! behind. Bounded in bytes; those not taken up for the longest are forgotten first.

use std::sync::{Mutex, MutexGuard, PoisonError};

use oma_domain::{SessionId, Timestamp};
use oma_runtime::SessionInfo;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use crate::conversation::Conversation;

/// How many conversations the bound is expected to hold.
const EXPECTED: usize = 1024;

/// A client may choose the id of a session that it has deleted for a new one; the time tells them apart.
type Key = (SessionId, Timestamp);

#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Conversation> for Bytes {
    fn weight(&self, _: &Key, conversation: &Conversation) -> u64 {
        conversation.bytes()
    }
}

/// Conversations at rest.
pub(crate) struct Recent {
    cache: Mutex<Cache<Key, Conversation, Bytes>>,
}

impl Recent {
    /// Keeps at most about so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        Self {
            cache: Mutex::new(Cache::with_weighter(EXPECTED, bytes, Bytes)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Cache<Key, Conversation, Bytes>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a session's conversation out: whoever goes on with it puts it back.
    pub(crate) fn take(&self, session: &SessionInfo) -> Option<Conversation> {
        let found = self.lock().remove(&key(session));
        found.map(|(_, conversation)| conversation)
    }

    pub(crate) fn put(&self, session: &SessionInfo, conversation: Conversation) {
        self.lock().insert(key(session), conversation);
    }
}

fn key(session: &SessionInfo) -> Key {
    (session.id.clone(), session.created_at)
}
