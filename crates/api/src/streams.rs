//! Places for open streams: a bound for all together, and one for each API key (and parent token), so that nobody takes them all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use oma_domain::Actor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::Caller;
use crate::fault::{Fault, Result};

/// The places of a server.
#[derive(Debug)]
pub(crate) struct Streams {
    places: Arc<Semaphore>,
    most: usize,
    most_of_a_key: usize,
    held: Mutex<HashMap<Actor, usize>>,
}

impl Streams {
    pub(crate) fn new(most: usize, most_of_a_key: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            most,
            most_of_a_key,
            held: Mutex::default(),
        }
    }

    /// Takes a place for as long as the stream lives.
    ///
    /// # Errors
    /// 503 when all are taken, 429 when the caller has its share.
    pub(crate) fn open(self: &Arc<Self>, caller: &Caller) -> Result<OpenStream> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let message = format!("{} streams are open, the most that may be", self.most);
            Fault::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", message).with_retry_after(5)
        })?;
        let key = Some(caller.actor().clone()).filter(|actor| !actor.is_operator());
        if let Some(key) = &key {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let held = held.entry(key.clone()).or_default();
            if *held >= self.most_of_a_key {
                let message = format!("{held} streams are open with this key, the most that may be");
                let fault = Fault::new(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", message);
                return Err(fault.with_retry_after(5));
            }
            *held += 1;
        }
        metrics::gauge!("http_streams_open").increment(1.0);
        Ok(OpenStream {
            streams: Arc::clone(self),
            key,
            _permit: permit,
        })
    }
}

/// A stream's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct OpenStream {
    streams: Arc<Streams>,
    key: Option<Actor>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        metrics::gauge!("http_streams_open").decrement(1.0);
        let Some(key) = &self.key else { return };
        let mut held = self.streams.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                held.remove(key);
            }
        }
    }
}
