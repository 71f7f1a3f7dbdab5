//! Token buckets, one per caller. A bucket that has filled up again is as good as none, so it is dropped: what is
//! kept is who was busy within the last minute.
//!
//! Unlike the usual rate limiters these take a token back: an unproven credential holds one while it is looked at.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Below this many buckets nothing is swept.
const FEW: usize = 1024;
/// The most buckets. Beyond it, callers without one share what is left: they are refused together.
const MOST: usize = 100_000;

/// What a caller may still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Go on; so many more requests are possible right now.
    Granted(u32),
    /// Not before so much time has passed.
    Refused(Duration),
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

#[derive(Debug)]
struct Table<K> {
    buckets: HashMap<K, Bucket>,
    sweep_at: usize,
}

/// The buckets of all callers of a kind. Each holds as many tokens as fit into it in a minute.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    capacity: f64,
    per_second: f64,
    table: Mutex<Table<K>>,
}

impl<K: Eq + Hash> Buckets<K> {
    pub(crate) fn per_minute(requests: u32) -> Self {
        let capacity = f64::from(requests.max(1));
        Self {
            capacity,
            per_second: capacity / 60.0,
            table: Mutex::new(Table {
                buckets: HashMap::new(),
                sweep_at: FEW,
            }),
        }
    }

    /// Takes a token for one request.
    pub(crate) fn take(&self, caller: K, now: Instant) -> Taken {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.buckets.len() >= table.sweep_at && !table.buckets.contains_key(&caller) {
            table
                .buckets
                .retain(|_, bucket| self.level(bucket, now) < self.capacity);
            table.sweep_at = (table.buckets.len() * 2).clamp(FEW, MOST);
            if table.buckets.len() >= MOST {
                return Taken::Refused(Duration::from_secs(1));
            }
        }
        let full = Bucket {
            tokens: self.capacity,
            at: now,
        };
        let bucket = table.buckets.entry(caller).or_insert(full);
        let level = self.level(bucket, now);
        if level < 1.0 {
            return Taken::Refused(Duration::from_secs_f64((1.0 - level) / self.per_second));
        }
        *bucket = Bucket {
            tokens: level - 1.0,
            at: now,
        };
        Taken::Granted(whole(level - 1.0))
    }

    /// Puts a token back that was taken.
    pub(crate) fn give_back(&self, caller: &K) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = table.buckets.get_mut(caller) {
            bucket.tokens = (bucket.tokens + 1.0).min(self.capacity);
            if bucket.tokens >= self.capacity {
                table.buckets.remove(caller);
            }
        }
    }

    fn level(&self, bucket: &Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        passed.mul_add(self.per_second, bucket.tokens).min(self.capacity)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.table.lock().expect("no panic").buckets.len()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a level lies between 0 and a u32"
)]
fn whole(level: f64) -> u32 {
    level as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let (buckets, now) = (Buckets::per_minute(60), Instant::now());
        for left in (0..60).rev() {
            assert_eq!(buckets.take("a", now), Taken::Granted(left));
        }
        assert_eq!(buckets.take("a", now), Taken::Refused(Duration::from_secs(1)));
        assert_eq!(
            buckets.take("b", now),
            Taken::Granted(59),
            "others are not touched"
        );
        assert_eq!(buckets.take("a", second(now, 2)), Taken::Granted(1));
        assert_eq!(
            buckets.take("a", second(now, 1000)),
            Taken::Granted(59),
            "no more than full"
        );
    }

    #[test]
    fn what_is_given_back_counts_as_not_taken() {
        let (buckets, now) = (Buckets::per_minute(2), Instant::now());
        assert_eq!(buckets.take("a", now), Taken::Granted(1));
        buckets.give_back(&"a");
        assert_eq!(buckets.len(), 0, "a full bucket is none");
        for left in [1, 0] {
            assert_eq!(buckets.take("a", now), Taken::Granted(left));
        }
        buckets.give_back(&"a");
        assert_eq!(buckets.take("a", now), Taken::Granted(0));
        assert!(matches!(buckets.take("a", now), Taken::Refused(_)));
    }

    #[test]
    fn idle_buckets_are_dropped_and_their_number_is_bounded() {
        let (buckets, now) = (Buckets::per_minute(60), Instant::now());
        for caller in 0..FEW {
            buckets.take(caller, now);
        }
        assert_eq!(buckets.len(), FEW);
        buckets.take(FEW, second(now, 60));
        assert_eq!(buckets.len(), 1);
        for caller in 0..MOST + 10 {
            buckets.take(caller, second(now, 60));
        }
        assert_eq!(buckets.len(), MOST);
        assert!(matches!(
            buckets.take(MOST + 20, second(now, 60)),
            Taken::Refused(_)
        ));
        assert!(matches!(buckets.take(1, second(now, 60)), Taken::Granted(58)));
    }
}
