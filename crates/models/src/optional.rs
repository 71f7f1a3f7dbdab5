//! Parameters that not every model takes, where its name does not tell.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::Error;
use crate::request::ModelStream;

/// A parameter that is sent until a model refuses it, and left out from that moment on.
pub(crate) struct Optional {
    is_sent: AtomicBool,
    /// Whether an error is the refusal of this parameter.
    is_refusal: fn(&Error) -> bool,
}

impl Optional {
    pub(crate) fn new(is_refusal: fn(&Error) -> bool) -> Self {
        Self {
            is_sent: AtomicBool::new(true),
            is_refusal,
        }
    }

    /// Makes a request with the parameter or without it, and once more without it when that is the trouble.
    pub(crate) async fn ask<F: Future<Output = Result<ModelStream, Error>> + Send>(
        &self,
        model: &str,
        attempt: impl Fn(bool) -> F + Send,
    ) -> Result<ModelStream, Error> {
        let with = self.is_sent.load(Ordering::Relaxed);
        match attempt(with).await {
            Err(error) if with && (self.is_refusal)(&error) => {
                let reason = error.failure.message;
                tracing::info!(model, reason, "a parameter is refused and left out from now on");
                self.is_sent.store(false, Ordering::Relaxed);
                attempt(false).await
            }
            result => result,
        }
    }
}
