//! The bound on concurrent turns: a fair semaphore that can be counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) struct Turns {
    places: Arc<Semaphore>,
    max: usize,
    waiting: Arc<AtomicUsize>,
}

/// A place among the turns at work; dropping it gives it to the next in line.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Turns {
    pub(crate) fn new(max: usize) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(max)),
            max,
            waiting: Arc::default(),
        }
    }

    /// Waits for a place, first come first served; `None` when the engine has closed.
    pub(crate) async fn enter(&self) -> Option<Place> {
        let places = Arc::clone(&self.places);
        if let Ok(permit) = Arc::clone(&places).try_acquire_owned() {
            return Some(Place { _permit: permit });
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(Arc::clone(&self.waiting));
        places
            .acquire_owned()
            .await
            .ok()
            .map(|permit| Place { _permit: permit })
    }

    pub(crate) fn active(&self) -> usize {
        self.max - self.places.available_permits().min(self.max)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}
