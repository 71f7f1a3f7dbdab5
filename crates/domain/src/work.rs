//! Work for those who carry out the tools of self-hosted environments: one item for a session that needs hands.
//!
//! An item is handed out to one worker at a time, which acknowledges it and then keeps it by heartbeats. Whoever stays
//! away for longer than its lease has lost it: the item is handed out again.
//!
//! Invariant: a worker that has lost an item can neither extend it nor stop it. It is told apart by the number of times
//! that the item was handed out, and by the last heartbeat that it knows of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{EnvironmentId, SessionId, WorkId, WorkspaceId};
use crate::time::Timestamp;

/// How long an item belongs to a worker that does not say how long, in milliseconds.
pub const LEASE_MS: u64 = 300_000;
/// The shortest and the longest lease, in milliseconds.
pub const LEASES_MS: std::ops::RangeInclusive<u64> = 5_000..=3_600_000;
/// How long an item may go without being acknowledged when the worker that asks does not say, in milliseconds.
pub const RECLAIM_MS: u64 = 5_000;

/// Where an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for a worker.
    Queued,
    /// A worker got it, and has sent no heartbeat yet.
    Starting,
    /// A worker carries it out.
    Active,
    /// Its worker is to stop.
    Stopping,
    /// It is over.
    Stopped,
}

impl State {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Active => "active",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

/// An item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Its id.
    pub id: WorkId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// The environment whose workers may have it.
    pub environment: EnvironmentId,
    /// The session that needs hands.
    pub session: SessionId,
    /// Where it stands.
    pub state: State,
    /// How often it was handed out.
    pub attempt: u32,
    /// While it is queued: from when on it may be handed out. Later: until when it belongs to its worker.
    pub due: Timestamp,
    /// How long a lease is, in milliseconds.
    pub lease_ms: u64,
    /// Whatever the client wants to remember with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last handed out.
    pub polled_at: Option<Timestamp>,
    /// When its worker acknowledged it.
    pub acknowledged_at: Option<Timestamp>,
    /// When its worker first sent a heartbeat.
    pub started_at: Option<Timestamp>,
    /// The newest heartbeat. Each is later than the one before.
    pub heartbeat_at: Option<Timestamp>,
    /// When somebody asked for its end.
    pub stop_requested_at: Option<Timestamp>,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
}

/// What a worker says of the last heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Anything,
    /// That there was none.
    None,
    /// That it was this one.
    At(Timestamp),
}

/// Why something can't be done to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody has it.
    #[error("the work item is not held by a worker")]
    NotHeld,
    /// It is over.
    #[error("the work item has stopped")]
    Stopped,
    /// The last heartbeat is another one: the lease is somebody else's.
    #[error("the last heartbeat is not the expected one: the lease is lost")]
    OtherHeartbeat,
}

impl Work {
    /// An item for a session, to be handed out from `due` on.
    #[must_use]
    pub fn new(
        workspace: WorkspaceId,
        environment: EnvironmentId,
        session: SessionId,
        now: Timestamp,
        due: Timestamp,
    ) -> Self {
        Self {
            id: WorkId::generate(),
            workspace,
            environment,
            session,
            state: State::Queued,
            attempt: 0,
            due,
            lease_ms: LEASE_MS,
            metadata: BTreeMap::new(),
            created_at: now,
            polled_at: None,
            acknowledged_at: None,
            started_at: None,
            heartbeat_at: None,
            stop_requested_at: None,
            stopped_at: None,
        }
    }

    /// Gives it to a worker; whoever had it before has it no more.
    #[must_use]
    pub fn handed_out(&self, now: Timestamp) -> Self {
        Self {
            state: State::Starting,
            attempt: self.attempt.saturating_add(1),
            due: now.plus_millis(LEASE_MS),
            lease_ms: LEASE_MS,
            polled_at: Some(now),
            acknowledged_at: None,
            started_at: None,
            heartbeat_at: None,
            ..self.clone()
        }
    }

    /// Its worker has got it. Saying so again changes nothing.
    ///
    /// # Errors
    /// [`Refusal::NotHeld`], [`Refusal::Stopped`].
    pub fn acknowledged(&self, now: Timestamp) -> Result<Self, Refusal> {
        match self.state {
            State::Queued => Err(Refusal::NotHeld),
            State::Stopping | State::Stopped => Err(Refusal::Stopped),
            State::Starting | State::Active if self.acknowledged_at.is_some() => Ok(self.clone()),
            State::Starting | State::Active => Ok(Self {
                acknowledged_at: Some(now),
                due: now.plus_millis(self.lease_ms),
                ..self.clone()
            }),
        }
    }

    /// Its worker is alive, and asks for this lease. The item says in its state whether it goes on.
    ///
    /// # Errors
    /// [`Refusal::NotHeld`], [`Refusal::OtherHeartbeat`].
    pub fn heartbeat(
        &self,
        expected: Expected,
        lease_ms: Option<u64>,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        match self.state {
            State::Queued => return Err(Refusal::NotHeld),
            // Nothing is extended any more, so nothing has to be compared.
            State::Stopping | State::Stopped => return Ok(self.clone()),
            State::Starting | State::Active => {}
        }
        let as_expected = match expected {
            Expected::Anything => true,
            Expected::None => self.heartbeat_at.is_none(),
            Expected::At(at) => self.heartbeat_at == Some(at),
        };
        if !as_expected {
            return Err(Refusal::OtherHeartbeat);
        }
        let lease_ms = lease_ms.map_or(self.lease_ms, |asked| {
            asked.clamp(*LEASES_MS.start(), *LEASES_MS.end())
        });
        let at = self.heartbeat_at.map_or(now, |last| now.max(last.plus_millis(1)));
        Ok(Self {
            state: State::Active,
            started_at: self.started_at.or(Some(at)),
            acknowledged_at: self.acknowledged_at.or(Some(at)),
            heartbeat_at: Some(at),
            lease_ms,
            due: at.plus_millis(lease_ms),
            ..self.clone()
        })
    }

    /// Ends it: at once with `force` or when nobody has it, otherwise by telling its worker.
    ///
    /// # Errors
    /// [`Refusal::Stopped`].
    pub fn stopped(&self, force: bool, now: Timestamp) -> Result<Self, Refusal> {
        let is_held = matches!(self.state, State::Active | State::Starting) && now < self.due;
        let state = match self.state {
            State::Stopped => return Err(Refusal::Stopped),
            State::Stopping if !force && now < self.due => State::Stopping,
            _ if !force && is_held => State::Stopping,
            _ => State::Stopped,
        };
        Ok(Self {
            state,
            stop_requested_at: self.stop_requested_at.or(Some(now)),
            stopped_at: (state == State::Stopped).then_some(now),
            ..self.clone()
        })
    }

    /// Whether it may be handed out, to a worker that takes what was not acknowledged for so many milliseconds.
    #[must_use]
    pub fn is_due(&self, reclaim_ms: u64, now: Timestamp) -> bool {
        match self.state {
            State::Queued | State::Active => self.due <= now,
            State::Starting => {
                let forgotten = |at: Timestamp| at.plus_millis(reclaim_ms) <= now;
                self.due <= now || (self.acknowledged_at.is_none() && self.polled_at.is_some_and(forgotten))
            }
            State::Stopping | State::Stopped => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: fn(i64) -> Timestamp = Timestamp;

    fn work() -> Work {
        let (environment, session) = (EnvironmentId::generate(), SessionId::generate());
        Work::new(WorkspaceId::default_workspace(), environment, session, T(0), T(0))
    }

    #[test]
    fn a_worker_takes_an_item_keeps_it_and_ends_it() {
        let queued = work();
        assert!(queued.is_due(RECLAIM_MS, T(0)));
        assert_eq!(queued.acknowledged(T(1)), Err(Refusal::NotHeld));
        assert_eq!(
            queued.heartbeat(Expected::None, None, T(1)),
            Err(Refusal::NotHeld)
        );
        let taken = queued.handed_out(T(10));
        assert_eq!((taken.state, taken.attempt), (State::Starting, 1));
        let known = taken.acknowledged(T(11)).unwrap();
        assert_eq!(known.acknowledged(T(12)), Ok(known.clone()));
        let first = known.heartbeat(Expected::None, Some(20_000), T(20)).unwrap();
        assert_eq!(
            (first.state, first.started_at, first.due),
            (State::Active, Some(T(20)), T(20_020))
        );
        assert_eq!(
            first.heartbeat(Expected::None, None, T(30)),
            Err(Refusal::OtherHeartbeat)
        );
        // Two in one millisecond are told apart.
        let second = first.heartbeat(Expected::At(T(20)), None, T(20)).unwrap();
        assert_eq!((second.heartbeat_at, second.lease_ms), (Some(T(21)), 20_000));
        let asked = second.stopped(false, T(30)).unwrap();
        assert_eq!((asked.state, asked.stopped_at), (State::Stopping, None));
        assert_eq!(asked.heartbeat(Expected::None, None, T(31)).unwrap(), asked);
        let over = asked.stopped(true, T(32)).unwrap();
        assert_eq!(
            (over.state, over.stop_requested_at, over.stopped_at),
            (State::Stopped, Some(T(30)), Some(T(32)))
        );
        assert_eq!(over.stopped(true, T(33)), Err(Refusal::Stopped));
        assert_eq!(over.acknowledged(T(33)), Err(Refusal::Stopped));
    }

    #[test]
    fn what_nobody_keeps_is_handed_out_again() {
        let taken = work().handed_out(T(0));
        for (item, reclaim, now, due) in [
            (&taken, 5_000, 4_999, false),
            (&taken, 5_000, 5_000, true),
            (&taken, 1_000, 1_000, true),
            (&taken.acknowledged(T(1)).unwrap(), 1_000, 200_000, false),
            (&taken.acknowledged(T(1)).unwrap(), 1_000, 300_001, true),
            (
                &taken.heartbeat(Expected::None, Some(1), T(1)).unwrap(),
                0,
                5_000,
                false,
            ),
            (
                &taken.heartbeat(Expected::None, Some(1), T(1)).unwrap(),
                0,
                5_001,
                true,
            ),
            (&taken.stopped(false, T(1)).unwrap(), 0, i64::MAX, false),
        ] {
            assert_eq!(item.is_due(reclaim, T(now)), due, "{item:?} at {now}");
        }
        let active = taken.heartbeat(Expected::None, None, T(1)).unwrap();
        let again = active.handed_out(T(400_000));
        assert_eq!((again.attempt, again.heartbeat_at), (2, None));
        assert_eq!(
            again.heartbeat(Expected::At(T(1)), None, T(400_001)),
            Err(Refusal::OtherHeartbeat)
        );
        assert_eq!(
            work().stopped(false, T(0)).unwrap().state,
            State::Stopped,
            "nobody has to be told"
        );
    }
}
