//! Why a server can't be used.

use oma_domain::event::{Failure, FailureKind};

/// Why a server can't be used. Messages are for the session's log: they hold no secret and are short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It can't be reached, or what is there does not speak the protocol.
    #[error("{0}")]
    Connection(String),
    /// It refused the credentials, or wants some.
    #[error("{0}")]
    Authentication(String),
}

/// The longest cause, in characters; a server may have written it.
const MAX_CAUSE: usize = 500;

impl Error {
    pub(crate) fn connection(cause: impl Into<String>) -> Self {
        Self::Connection(short(&cause.into()))
    }

    pub(crate) fn authentication(cause: impl Into<String>) -> Self {
        Self::Authentication(short(&cause.into()))
    }

    /// The failure that the session's log records of this server.
    #[must_use]
    pub fn failure(&self, server: &str) -> Failure {
        let kind = match self {
            Self::Connection(_) => FailureKind::McpConnection,
            Self::Authentication(_) => FailureKind::McpAuthentication,
        };
        Failure {
            kind,
            message: format!("The MCP server {server:?} can't be used now: {self}."),
        }
    }
}

/// One line of bounded length.
pub(crate) fn short(text: &str) -> String {
    let mut line: String = text
        .trim()
        .trim_end_matches('.')
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_CAUSE + 1)
        .collect();
    if line.chars().count() > MAX_CAUSE {
        line.pop();
        line.push('…');
    }
    line
}
