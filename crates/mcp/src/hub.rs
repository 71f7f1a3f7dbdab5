//! The connections of all sessions that are at work or were a moment ago.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use oma_domain::{SessionId, Timestamp};
use oma_egress::Guard;
use oma_runtime::SessionInfo;
use oma_sandbox::pool::Lease;
use oma_sandbox::{Pool, Spec};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::{Invalid, Server};
use crate::link::Reach;
use crate::set::{Ready, Set};
use crate::token::TokenSource;

/// Bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How long a model request waits for the servers' handshakes, all at once.
    pub connect_wait: Duration,
    /// How long one handshake may take; it goes on beside the model request.
    pub connect_timeout: Duration,
    /// How long one call may take.
    pub call_timeout: Duration,
    /// How long connections of a session without work are kept.
    pub idle_timeout: Duration,
    /// How many sessions without work may keep connections.
    pub max_idle: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_wait: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(60),
            call_timeout: Duration::from_secs(300),
            idle_timeout: Duration::from_secs(300),
            max_idle: 128,
        }
    }
}

/// A session, told apart from a deleted one whose id a client chose again, and its agent's version.
type Key = (SessionId, Timestamp, u32);

/// The connections of all sessions that are at work or were a moment ago. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    reach: Arc<Reach>,
    config: Config,
    entries: Mutex<HashMap<Key, Entry>>,
    /// Told when a session has no work any more.
    idle: Arc<Notify>,
    /// Ends with the hub.
    _reaper: JoinSet<()>,
}

struct Entry {
    set: Arc<Set>,
    users: usize,
    idle_since: Instant,
}

/// A session's servers, kept while this is held.
pub struct Handle {
    hub: Arc<Inner>,
    key: Key,
    set: Arc<Set>,
    /// Keeps the sandbox while servers in it may be called.
    lease: tokio::sync::Mutex<Option<Lease>>,
}

impl Hub {
    /// Servers are dialled through `guard`, with the tokens that `tokens` supplies, or run in sandboxes of `pool`.
    /// Must be called in a runtime.
    #[must_use]
    pub fn new(guard: Arc<Guard>, tokens: Arc<dyn TokenSource>, pool: Pool, config: Config) -> Self {
        let inner = Arc::new_cyclic(|hub| {
            let idle = Arc::new(Notify::new());
            let mut reaper = JoinSet::new();
            reaper.spawn(reap(Weak::clone(hub), Arc::clone(&idle)));
            Inner {
                reach: Arc::new(Reach { guard, tokens, pool }),
                config,
                entries: Mutex::default(),
                idle,
                _reaper: reaper,
            }
        });
        Self { inner }
    }

    /// The session's servers, of which some may run in its sandbox, which is like `spec`; `None` when its agent
    /// names none. Nothing is dialled before [`Handle::ready`].
    ///
    /// # Errors
    /// When what the agent says of them can't be read.
    pub fn open(&self, session: &SessionInfo, spec: Spec) -> Result<Option<Handle>, Invalid> {
        let servers = &session.agent.spec.mcp_servers;
        if servers.is_empty() {
            return Ok(None);
        }
        let hub = &self.inner;
        let key = (session.id.clone(), session.created_at, session.agent.version);
        let mut entries = hub.lock();
        let entry = match entries.get_mut(&key) {
            Some(entry) => entry,
            None => {
                let servers = Server::all(servers)?;
                let set = Set::new(
                    session.clone(),
                    spec,
                    servers,
                    Arc::clone(&hub.reach),
                    hub.config.clone(),
                );
                entries.entry(key.clone()).or_insert(Entry {
                    set: Arc::new(set),
                    users: 0,
                    idle_since: Instant::now(),
                })
            }
        };
        entry.users += 1;
        entry.set.forgive();
        Ok(Some(Handle {
            hub: Arc::clone(hub),
            key,
            set: Arc::clone(&entry.set),
            lease: tokio::sync::Mutex::default(),
        }))
    }

    /// Closes the session's connections, because it is deleted.
    pub fn discard(&self, session: &SessionId) {
        let mut entries = self.inner.lock();
        let gone: Vec<Key> = entries.keys().filter(|key| key.0 == *session).cloned().collect();
        let gone: Vec<Entry> = gone.iter().filter_map(|key| entries.remove(key)).collect();
        drop(entries);
        drop(gone);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the connections that have been idle for long enough, and says when the next ones will have been.
    fn expire(&self) -> Option<Instant> {
        let (now, timeout) = (Instant::now(), self.config.idle_timeout);
        let mut entries = self.lock();
        let gone: Vec<Entry> = entries
            .extract_if(|_, entry| entry.users == 0 && entry.idle_since + timeout <= now)
            .map(|(_, entry)| entry)
            .collect();
        let idle = entries.values().filter(|entry| entry.users == 0);
        let next = idle.map(|entry| entry.idle_since + timeout).min();
        drop(entries);
        drop(gone);
        next
    }

    /// Drops the connections that have been idle for the longest, as far as there are too many.
    fn make_room(&self) -> Vec<Entry> {
        let mut entries = self.lock();
        let mut gone = Vec::new();
        loop {
            let idle = entries.iter().filter(|(_, entry)| entry.users == 0);
            if idle.clone().count() <= self.config.max_idle {
                return gone;
            }
            let oldest = idle
                .min_by_key(|(_, entry)| entry.idle_since)
                .map(|(key, _)| key.clone());
            gone.extend(oldest.and_then(|key| entries.remove(&key)));
        }
    }
}

/// Drops connections that have been idle for long enough, as long as there is a hub.
async fn reap(hub: Weak<Inner>, idle: Arc<Notify>) {
    loop {
        let next = match hub.upgrade() {
            Some(hub) => hub.expire(),
            // It is being made, or gone; whoever ends it ends this, too.
            None => None,
        };
        match next {
            // Whatever becomes idle meanwhile is due later.
            Some(at) => tokio::time::sleep_until(at).await,
            None => idle.notified().await,
        }
    }
}

impl Handle {
    /// Connects what is not connected and says what there is, within a bounded time.
    pub async fn ready(&self) -> Ready {
        let ready = self.set.ready().await;
        *self.lease.lock().await = self.set.hold().await;
        ready
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        {
            let mut entries = self.hub.lock();
            match entries.get_mut(&self.key) {
                Some(entry) if Arc::ptr_eq(&entry.set, &self.set) => {
                    entry.users -= 1;
                    entry.idle_since = Instant::now();
                    if entry.users > 0 {
                        return;
                    }
                }
                _ => return,
            }
        }
        drop(self.hub.make_room());
        self.hub.idle.notify_one();
    }
}
