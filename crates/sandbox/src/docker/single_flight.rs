//! What takes a while to open, opened once for all who need it at the same time.
//!
//! Invariant: whoever joins an attempt waits no longer than it lasts, and gets what came of it, success or failure; the next
//! one after a failure begins another.
//! Invariant: an attempt that nobody waits for any more is dropped, and so is what it has opened.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};

use crate::Error;

type Outcome<T> = Result<Arc<T>, Arc<Error>>;
type Attempt<T> = BoxFuture<'static, Outcome<T>>;

/// Something that is opened when it is needed.
pub(super) struct SingleFlight<T>(Mutex<State<T>>);

enum State<T> {
    Shut,
    /// It is being opened, as long as somebody waits for that.
    Opening(WeakShared<Attempt<T>>),
    Open(Arc<T>),
}

impl<T: Send + Sync + 'static> SingleFlight<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State::Shut))
    }

    /// What is open and `is_good`, or else what comes of opening it: by somebody else's attempt, if there is one.
    ///
    /// # Errors
    /// What the attempt failed with, for everyone who waited for it.
    pub(super) async fn get<F>(
        &self,
        is_good: impl Fn(&T) -> bool,
        open: impl FnOnce() -> F,
    ) -> Result<Arc<T>, Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let attempt = match self.found(is_good) {
            Found::Open(open) => return Ok(open),
            Found::Joined(attempt) => attempt,
            Found::Nothing(mut state) => {
                let opened = open().map(|opened| opened.map(Arc::new).map_err(Arc::new));
                let attempt = opened.boxed().shared();
                *state = attempt.downgrade().map_or(State::Shut, State::Opening);
                attempt
            }
        };
        let outcome = attempt.clone().await;
        let opened = outcome.map_err(|error| error.repeated())?;
        let mut state = self.lock();
        // Somebody may have found it no good meanwhile, and begun anew.
        let is_current = |of: &WeakShared<_>| of.upgrade().is_some_and(|current| current.ptr_eq(&attempt));
        if matches!(&*state, State::Opening(current) if is_current(current)) {
            *state = State::Open(Arc::clone(&opened));
        }
        Ok(opened)
    }

    fn found(&self, is_good: impl Fn(&T) -> bool) -> Found<'_, T> {
        let state = self.lock();
        match &*state {
            State::Open(open) if is_good(open) => Found::Open(Arc::clone(open)),
            State::Opening(attempt) => match attempt.upgrade() {
                // One that has just failed is no news to whoever comes now.
                Some(attempt) if !matches!(attempt.peek(), Some(Err(_))) => Found::Joined(attempt),
                _ => Found::Nothing(state),
            },
            State::Open(_) | State::Shut => Found::Nothing(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Found<'a, T> {
    Open(Arc<T>),
    Joined(Shared<Attempt<T>>),
    /// The state is held until an attempt stands in it.
    Nothing(MutexGuard<'a, State<T>>),
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use futures_util::future::join_all;
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    const LASTS: Duration = Duration::from_secs(30);

    /// A way that is opened after a while, or not, and the number of attempts.
    struct Fixture {
        flight: SingleFlight<u32>,
        attempts: Arc<AtomicU32>,
        /// The attempts from this one on succeed, and give their number.
        good: u32,
    }

    impl Fixture {
        fn new(good: u32) -> Self {
            Self {
                flight: SingleFlight::new(),
                attempts: Arc::default(),
                good,
            }
        }

        async fn get(&self, is_good: impl Fn(&u32) -> bool) -> Result<u32, Error> {
            let (attempts, good) = (Arc::clone(&self.attempts), self.good);
            let open = || async move {
                let number = attempts.fetch_add(1, Ordering::Relaxed);
                sleep(LASTS).await;
                match number >= good {
                    true => Ok(number),
                    false => Err(Error::Engine(format!("failed {number}"))),
                }
            };
            self.flight.get(is_good, open).await.map(|opened| *opened)
        }

        fn attempts(&self) -> u32 {
            self.attempts.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_share_one_attempt_and_its_failure() {
        let fixture = Fixture::new(2);
        for round in 0..2_u32 {
            let begun = Instant::now();
            let late = async {
                sleep(LASTS / 2).await;
                fixture.get(|_| true).await
            };
            let (outcomes, late) = tokio::join!(join_all((0..20).map(|_| fixture.get(|_| true))), late);
            for outcome in outcomes.into_iter().chain([late]) {
                let error = outcome.unwrap_err();
                assert!(
                    matches!(&error, Error::Engine(why) if *why == format!("failed {round}")),
                    "{error}"
                );
            }
            assert_eq!(begun.elapsed(), LASTS);
            assert_eq!(fixture.attempts(), round + 1);
        }
        let outcomes = join_all((0..20).map(|_| fixture.get(|_| true))).await;
        assert!(outcomes.into_iter().all(|outcome| outcome.unwrap() == 2));
        let begun = Instant::now();
        assert_eq!(fixture.get(|_| true).await.unwrap(), 2);
        assert!(begun.elapsed().is_zero(), "it is open");
        assert_eq!(
            fixture.get(|number| *number > 2).await.unwrap(),
            3,
            "it was no good"
        );
        assert_eq!(fixture.attempts(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_goes_on_while_one_waits_and_no_longer() {
        let fixture = Fixture::new(0);
        let begun = Instant::now();
        let brief = timeout(LASTS / 3, fixture.get(|_| true));
        let (brief, patient) = tokio::join!(brief, fixture.get(|_| true));
        assert!(brief.is_err(), "the one that began it has gone");
        assert_eq!(patient.unwrap(), 0);
        assert_eq!(begun.elapsed(), LASTS);

        let fixture = Fixture::new(0);
        assert!(timeout(LASTS / 3, fixture.get(|_| true)).await.is_err());
        let begun = Instant::now();
        assert_eq!(fixture.get(|_| true).await.unwrap(), 1, "another one");
        assert_eq!(begun.elapsed(), LASTS);
    }
}
