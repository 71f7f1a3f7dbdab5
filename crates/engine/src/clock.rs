//! The clock that schedules go by. Tests set it; a server has the machine's.

use std::time::Duration;

use oma_domain::Timestamp;
use tokio::sync::watch;

/// The longest sleep: clocks are set, and machines sleep without counting it.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// A clock.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's.
    #[default]
    System,
    /// One that shows what it was set to last.
    Manual(watch::Sender<Timestamp>),
}

/// Sleeps for about so long, for ever without a time. May wake earlier, to look at the clock again.
pub(crate) async fn rest(left: Option<Duration>) {
    match left {
        Some(left) => tokio::time::sleep(left.min(LONGEST)).await,
        None => std::future::pending().await,
    }
}

impl Clock {
    /// A clock that stands still until it is set.
    #[must_use]
    pub fn manual(at: Timestamp) -> Self {
        Self::Manual(watch::Sender::new(at))
    }

    /// Sets a manual clock, also back. The machine's is not ours to set.
    pub fn set(&self, at: Timestamp) {
        if let Self::Manual(clock) = self {
            clock.send_replace(at);
        }
    }

    /// What it shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => crate::now(),
            Self::Manual(clock) => *clock.borrow(),
        }
    }

    /// Sleeps until about then, for ever without a time. May wake earlier: when the clock was set, or to look at it again.
    pub(crate) async fn sleep_until(&self, at: Option<Timestamp>) {
        match (self, at) {
            (Self::System, at) => {
                rest(at.map(|at| Duration::from_millis(at.millis_since(self.now())))).await;
            }
            (Self::Manual(clock), at) => {
                let mut clock = clock.subscribe();
                if at.is_some_and(|at| at <= *clock.borrow_and_update()) {
                    return;
                }
                // The sender is ours, so it is there.
                let _set = clock.changed().await;
            }
        }
    }
}
