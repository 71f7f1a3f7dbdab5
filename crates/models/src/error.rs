//! What can go wrong with a model request.

use std::time::Duration;

use oma_domain::event::{Failure, FailureKind};
use oma_domain::usage::Spent;

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
    /// What the request consumed all the same.
    pub spent: Box<Spent>,
}

impl Error {
    /// A failure that no retry mends, of a request that consumed nothing.
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
            spent: Box::default(),
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

    /// The same failure, of a request that the provider may have worked on without saying how much.
    #[must_use]
    pub(crate) fn unaccounted(self) -> Self {
        Self {
            spent: Box::new(Spent::unknown()),
            ..self
        }
    }
}
