//! When to make a failed model request again.
//!
//! A policy only computes delays: the caller sleeps, counts attempts and commits the failure of each. So a
//! retry survives a restart, and a cancel ends the wait.

use std::time::Duration;

use rand::Rng;

use crate::Error;

/// Exponential back-off with jitter that honours what the provider asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The most attempts, the first one included.
    pub max_attempts: u32,
    /// The delay after the first failure, before jitter; it doubles with each further one.
    pub base: Duration,
    /// The longest delay that back-off leads to.
    pub cap: Duration,
    /// The longest wait that a provider may ask for. A longer one is treated as "not in this turn".
    pub max_retry_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            max_retry_after: Duration::from_secs(120),
        }
    }
}

impl Policy {
    /// How long to wait before the next attempt; `None` when there should be none. `attempt` counts the
    /// attempts made so far, so it is 1 after the first failure.
    ///
    /// The delay is drawn between half and the whole of the back-off, so that sessions that failed together
    /// don't return together; a provider's own figure is never undercut.
    #[must_use]
    pub fn next_delay(&self, attempt: u32, error: &Error) -> Option<Duration> {
        if !error.retryable || attempt >= self.max_attempts {
            return None;
        }
        let doublings = attempt.saturating_sub(1).min(16);
        let ceiling = self.base.saturating_mul(1 << doublings).min(self.cap);
        let jittered = ceiling.mul_f64(rand::rng().random_range(0.5..=1.0));
        match error.retry_after {
            Some(asked) if asked > self.max_retry_after => None,
            Some(asked) => Some(asked.max(jittered)),
            None => Some(jittered),
        }
    }
}

#[cfg(test)]
mod tests {
    use oma_domain::event::FailureKind;

    use super::*;

    fn overloaded(retry_after: Option<u64>) -> Error {
        Error {
            retry_after: retry_after.map(Duration::from_secs),
            ..Error::passing(FailureKind::ModelOverloaded, "busy")
        }
    }

    #[test]
    fn the_delay_doubles_within_its_bounds() {
        let policy = Policy {
            max_attempts: 20,
            ..Policy::default()
        };
        for (attempt, low, high) in [
            (1, 250, 500),
            (2, 500, 1000),
            (3, 1000, 2000),
            (7, 15_000, 30_000),
            (19, 15_000, 30_000),
        ] {
            let delay = policy.next_delay(attempt, &overloaded(None)).expect("a delay");
            let bounds = Duration::from_millis(low)..=Duration::from_millis(high);
            assert!(
                bounds.contains(&delay),
                "attempt {attempt}: {delay:?} not in {bounds:?}"
            );
        }
    }

    #[test]
    fn what_the_provider_asks_for_is_never_undercut() {
        let policy = Policy::default();
        assert_eq!(
            policy.next_delay(1, &overloaded(Some(60))),
            Some(Duration::from_secs(60))
        );
        let short = policy.next_delay(4, &overloaded(Some(1))).expect("a delay");
        assert!(
            short >= Duration::from_secs(2),
            "back-off is the longer one: {short:?}"
        );
    }

    #[test]
    fn some_failures_are_final() {
        let policy = Policy::default();
        assert_eq!(
            policy.next_delay(5, &overloaded(None)),
            None,
            "attempts are used up"
        );
        assert_eq!(
            policy.next_delay(1, &overloaded(Some(3600))),
            None,
            "an hour is too long to wait"
        );
        let fatal = Error::fatal(FailureKind::ModelRequestFailed, "no");
        assert_eq!(policy.next_delay(1, &fatal), None, "not retryable");
    }
}
