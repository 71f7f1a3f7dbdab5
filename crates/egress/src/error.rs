//! Why something was not dialled or fetched.

use std::time::Duration;

/// Why something was not dialled or fetched. Messages are for whoever named the target: they don't say which
/// address a name has, since that may be a secret of the operator's network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// What was named is no address that anything could be fetched from.
    #[error("not a usable URL: {0}")]
    InvalidUrl(String),
    /// The policy forbids it.
    #[error("{host} may not be reached: {reason}")]
    Refused {
        /// The canonical host, with its port.
        host: String,
        /// Why.
        reason: &'static str,
    },
    /// The name could not be resolved.
    #[error("the name {host} could not be resolved: {reason}")]
    Unresolved {
        /// The name.
        host: String,
        /// Why.
        reason: String,
    },
    /// It was not done in time.
    #[error("there was no complete answer within {0:?}")]
    Timeout(Duration),
    /// The body is longer than allowed.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(u64),
    /// Whoever asked for it may not read it.
    #[error("{0} is not among the addresses that may be read")]
    NotAdmitted(String),
    /// It redirects on and on.
    #[error("more than {0} redirects")]
    TooManyRedirects(u32),
    /// A redirect leads nowhere.
    #[error("it redirects to something that is not a usable URL: {0}")]
    BadRedirect(String),
    /// The connection or the protocol failed.
    #[error("the request failed: {0}")]
    Failed(String),
}
