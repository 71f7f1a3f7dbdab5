//! What can go wrong with a model request.

use std::time::Duration;

use oma_domain::event::{Failure, FailureKind};

/// A failed model request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", .failure.kind.as_str(), .failure.message)]
pub struct Error {
    /// The kind and the provider's message; goes into the event.
    pub failure: Failure,
    /// The HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// How long the provider asks to wait.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// A failure that no retry mends.
    #[must_use]
    pub fn fatal(kind: FailureKind, message: impl Into<String>) -> Self {
        let failure = Failure {
            kind,
            message: message.into(),
        };
        Self {
            failure,
            status: None,
            retryable: false,
            retry_after: None,
        }
    }

    /// A failure that may pass.
    #[must_use]
    pub fn passing(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            retryable: true,
            ..Self::fatal(kind, message)
        }
    }
}
