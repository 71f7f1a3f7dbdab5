//! The servers of one session, each with its connection or the wait for one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use oma_runtime::SessionInfo;
use oma_sandbox::Spec;
use oma_sandbox::pool::Lease;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::{Place, Server};
use crate::connection::Connection;
use crate::error::Error;
use crate::hub::Config;
use crate::link::Reach;
use crate::names;
use crate::tools::Tools;

/// The wait after the first failure; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait before another attempt.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How long a connection must have lasted to prove that the server works. One that breaks earlier counts as another
/// failure.
const PROOF: Duration = Duration::from_secs(60);

/// A server that is of no use now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Its name.
    pub server: String,
    /// Why.
    pub error: Error,
}

/// What there is before a model request.
#[derive(Clone, Default)]
pub struct Ready {
    /// What the servers that answer offer.
    pub tools: Tools,
    /// The servers that don't.
    pub troubles: Vec<Trouble>,
}

/// The servers of one session. Dropping it closes all connections.
pub(crate) struct Set {
    session: SessionInfo,
    spec: Spec,
    reach: Arc<Reach>,
    config: Config,
    slots: Vec<Arc<Slot>>,
    tasks: Mutex<JoinSet<()>>,
}

struct Slot {
    server: Server,
    /// The server's name within the names of its tools.
    label: String,
    state: watch::Sender<State>,
}

enum State {
    /// There is no connection; another attempt may be made at this time.
    Down {
        failures: u32,
        retry_at: Instant,
        cause: Option<Error>,
    },
    /// One is being made.
    Connecting { failures: u32 },
    Up {
        connection: Arc<Connection>,
        /// Failures before it was made.
        failures: u32,
        since: Instant,
    },
}

/// How long after this many failures another attempt may be made.
fn pause(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST_WAIT
            .saturating_mul(2_u32.saturating_pow(doublings))
            .min(MAX_WAIT),
    }
}

impl Set {
    pub(crate) fn new(
        session: SessionInfo,
        spec: Spec,
        servers: Vec<Server>,
        reach: Arc<Reach>,
        config: Config,
    ) -> Self {
        let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
        let labels = names::of_servers(&names);
        let slot = |(server, label)| {
            let down = State::Down {
                failures: 0,
                retry_at: Instant::now(),
                cause: None,
            };
            let state = watch::Sender::new(down);
            Arc::new(Slot { server, label, state })
        };
        Self {
            session,
            spec,
            reach,
            config,
            slots: servers.into_iter().zip(labels).map(slot).collect(),
            tasks: Mutex::default(),
        }
    }

    /// Lets servers that failed be tried again at once.
    pub(crate) fn forgive(&self) {
        for slot in &self.slots {
            slot.state.send_if_modified(|state| {
                state.notice_loss();
                if let State::Down { retry_at, .. } = state {
                    *retry_at = Instant::now();
                }
                false
            });
        }
    }

    /// Connects what is not connected and may be tried, refreshes what has changed, and says what there is. This
    /// takes no longer than the configured wait; a connection that takes longer goes on being made meanwhile.
    pub(crate) async fn ready(&self) -> Ready {
        for slot in &self.slots {
            self.wake(slot);
        }
        let patience = self.config.connect_wait;
        // What has not settled then is told of below.
        join_all(self.slots.iter().map(|slot| slot.settled(patience))).await;
        let mut ready = Ready::default();
        let mut connections = Vec::new();
        for slot in &self.slots {
            let trouble = match &*slot.state.borrow() {
                State::Up { connection, .. } if !connection.is_lost() => {
                    connections.push((slot.label.clone(), Arc::clone(connection)));
                    None
                }
                State::Up { .. } => Some(Error::connection("the connection is lost")),
                State::Down { cause, .. } => cause.clone(),
                State::Connecting { .. } => Some(Error::connection(format!(
                    "it has not finished its handshake within {:?}; the next model request may see its tools",
                    self.config.connect_wait
                ))),
            };
            ready.troubles.extend(trouble.map(|error| Trouble {
                server: slot.server.name.clone(),
                error,
            }));
        }
        ready.tools = Tools::gather(&connections, self.config.call_timeout);
        ready
    }

    /// A hold on the session's sandbox, if a server runs in it now.
    pub(crate) async fn hold(&self) -> Option<Lease> {
        let is_there = |slot: &Arc<Slot>| {
            matches!(slot.server.place, Place::Sandboxed(_))
                && matches!(&*slot.state.borrow(), State::Up { .. })
        };
        if !self.slots.iter().any(is_there) {
            return None;
        }
        self.reach.pool.peek(&self.session.id).await
    }

    /// Starts to connect if that is due.
    fn wake(&self, slot: &Arc<Slot>) {
        let is_due = slot.state.send_if_modified(|state| {
            state.notice_loss();
            match state {
                State::Down {
                    failures, retry_at, ..
                } if *retry_at <= Instant::now() => {
                    *state = State::Connecting { failures: *failures };
                    true
                }
                _ => false,
            }
        });
        if !is_due {
            return;
        }
        let (slot, reach) = (Arc::clone(slot), Arc::clone(&self.reach));
        let (session, spec) = (self.session.clone(), self.spec.clone());
        let patience = self.config.connect_timeout;
        let connect = async move {
            let connected = timeout(patience, Box::pin(reach.connect(&session, &spec, &slot.server))).await;
            let connected = connected.unwrap_or_else(|_| {
                Err(Error::connection(format!(
                    "it did not finish its handshake within {patience:?}"
                )))
            });
            slot.settle(connected);
        };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(connect);
    }
}

impl Slot {
    fn settle(&self, connected: Result<Connection, Error>) {
        match connected {
            Ok(connection) => self.state.send_modify(|state| {
                *state = State::Up {
                    connection: Arc::new(connection),
                    failures: state.failures(),
                    since: Instant::now(),
                };
            }),
            Err(error) => self.fail(error),
        }
    }

    fn fail(&self, error: Error) {
        tracing::warn!(server = self.server.name, %error, "an MCP server can't be used");
        self.state.send_modify(|state| {
            let failures = state.failures().saturating_add(1);
            *state = State::Down {
                failures,
                retry_at: Instant::now() + pause(failures),
                cause: Some(error),
            };
        });
    }

    /// Waits until no connection is being made, and has a changed list of tools fetched. A server that says that
    /// its list has changed and then does not give it for as long as this is asked once: its connection is given
    /// up, so that no other request waits for it.
    async fn settled(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = self.state.subscribe();
        let is_settled = |state: &State| !matches!(state, State::Connecting { .. });
        let was_up = is_settled(&state.borrow());
        let connection = match timeout_at(deadline, state.wait_for(is_settled)).await {
            Ok(Ok(settled)) => match &*settled {
                State::Up { connection, .. } => Arc::clone(connection),
                _ => return,
            },
            _ => return,
        };
        let Ok(refreshed) = timeout_at(deadline, connection.refresh()).await else {
            if was_up {
                self.fail(Error::connection(format!(
                    "it said that its tools have changed, and did not list them within {patience:?}"
                )));
            }
            return;
        };
        if let Err(error) = refreshed {
            self.fail(error);
        }
    }
}

impl State {
    /// Takes note of a connection that is lost.
    fn notice_loss(&mut self) {
        let Self::Up {
            connection,
            failures,
            since,
        } = self
        else {
            return;
        };
        if !connection.is_lost() {
            return;
        }
        // The first time it may be anything, and nobody has to wait.
        let (failures, wait) = match since.elapsed() >= PROOF {
            true => (0, Duration::ZERO),
            false => (failures.saturating_add(1), pause(*failures)),
        };
        *self = Self::Down {
            failures,
            retry_at: *since + wait,
            cause: Some(Error::connection(
                "its connections break soon after they were made",
            )),
        };
    }

    fn failures(&self) -> u32 {
        match self {
            Self::Down { failures, .. } | Self::Connecting { failures } | Self::Up { failures, .. } => {
                *failures
            }
        }
    }
}
