//! Fan-out of what happens to the followers of a session. A session that nobody follows costs nothing here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use oma_domain::{Event, Seq, SessionId};
use oma_runtime::Delta;
use tokio::sync::broadcast;

/// How many notes a slow follower may be behind before it has to catch up from the store.
const CAPACITY: usize = 256;

/// What followers are told.
#[derive(Debug, Clone)]
pub(crate) enum Note {
    /// An event was committed.
    Event(Event),
    /// A piece of an answer, while the log's head was `head`.
    Delta { head: Seq, delta: Delta },
    /// The session was deleted.
    Deleted,
}

#[derive(Default)]
pub(crate) struct Hub {
    channels: Mutex<HashMap<SessionId, broadcast::Sender<Note>>>,
}

/// A follower's end. Dropping the last one of a session removes the session's channel.
pub(crate) struct Subscription {
    hub: Arc<Hub>,
    session: SessionId,
    pub(crate) notes: broadcast::Receiver<Note>,
}

impl Hub {
    pub(crate) fn subscribe(self: &Arc<Self>, session: &SessionId) -> Subscription {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = channels
            .entry(session.clone())
            .or_insert_with(|| broadcast::Sender::new(CAPACITY));
        Subscription {
            hub: Arc::clone(self),
            session: session.clone(),
            notes: channel.subscribe(),
        }
    }

    /// Tells the session's followers; without any, the notes are not even made.
    pub(crate) fn publish<N: IntoIterator<Item = Note>>(
        &self,
        session: &SessionId,
        notes: impl FnOnce() -> N,
    ) {
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(channel) = channels.get(session) else {
            return;
        };
        for note in notes() {
            // An error only says that the last follower is just leaving.
            let _unheard = channel.send(note);
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut channels = self.hub.channels.lock().unwrap_or_else(PoisonError::into_inner);
        // This receiver still counts, so one means that it is the last.
        if channels
            .get(&self.session)
            .is_some_and(|channel| channel.receiver_count() <= 1)
        {
            channels.remove(&self.session);
        }
    }
}
