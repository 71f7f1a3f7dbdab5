//! Which sessions have an actor. Sending to a session starts its actor when there is none; an actor leaves
//! under the same lock, so no command is ever sent to one that is gone.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use oma_domain::{SessionId, WorkspaceId};
use tokio::sync::mpsc;

use crate::actor::Command;

/// The most commands that wait for one actor; beyond that callers are told to come back later.
const MAILBOX: usize = 256;

#[derive(Default)]
pub(crate) struct Registry {
    actors: Mutex<HashMap<Key, mpsc::Sender<Command>>>,
}

/// What an actor goes by. The workspace is part of it, so that asking for another workspace's session never
/// meets that session's actor.
pub(crate) type Key = (WorkspaceId, SessionId);

/// What came of sending.
pub(crate) enum Sent {
    /// The command is in the actor's mailbox.
    Delivered,
    /// The command is in the mailbox of a new actor, which the caller has to start.
    Start(mpsc::Receiver<Command>),
    /// The mailbox is full.
    Full,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, mpsc::Sender<Command>>> {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn send(&self, workspace: &WorkspaceId, session: &SessionId, command: Command) -> Sent {
        let mut actors = self.lock();
        let key = (workspace.clone(), session.clone());
        let command = match actors.get(&key) {
            Some(mailbox) => match mailbox.try_send(command) {
                Ok(()) => return Sent::Delivered,
                Err(mpsc::error::TrySendError::Full(_)) => return Sent::Full,
                // Its actor died without leaving, which only a panic can do; a new one takes over.
                Err(mpsc::error::TrySendError::Closed(command)) => command,
            },
            None => command,
        };
        let (mailbox, receiver) = mpsc::channel(MAILBOX);
        if mailbox.try_send(command).is_err() {
            return Sent::Full;
        }
        actors.insert(key, mailbox);
        Sent::Start(receiver)
    }

    /// Lets an actor leave if nothing has been sent to it meanwhile.
    pub(crate) fn leave(&self, key: &Key, mailbox: &mpsc::Receiver<Command>) -> bool {
        let mut actors = self.lock();
        if !mailbox.is_empty() {
            return false;
        }
        actors.remove(key);
        true
    }

    /// Removes an actor that has to go at once; what is still in its mailbox is answered by being dropped.
    pub(crate) fn remove(&self, key: &Key) {
        self.lock().remove(key);
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}
