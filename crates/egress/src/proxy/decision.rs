//! What is decided about each thing that a session wants to reach, and who is told.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::secrets::Withheld;
use crate::Error;

/// How a session asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// A question for a name.
    Dns,
    /// A request in the clear.
    Http,
    /// A tunnel, asked for as one.
    Connect,
    /// A connection to the address that stands for a name.
    Direct,
    /// A request inside a TLS connection that was opened, because secrets are for its host.
    Https,
}

impl Protocol {
    /// Its name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Http => "http",
            Self::Connect => "connect",
            Self::Direct => "direct",
            Self::Https => "https",
        }
    }
}

/// Why something may not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denial {
    /// The environment's list does not have it.
    NotListed,
    /// The guard does not dial it: it is not public, or not on a port of the web.
    NotPublic,
    /// It is no host at all.
    NoHost,
    /// It was not asked for as the protocol demands.
    Malformed,
    /// What was said inside a connection was for another host than that of the connection, or for none.
    OtherHost,
    /// The placeholder of a secret is in it that must not go there.
    Secret(Withheld),
}

impl Denial {
    /// Its name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotListed => "not_listed",
            Self::NotPublic => "not_public",
            Self::NoHost => "no_host",
            Self::Malformed => "malformed",
            Self::OtherHost => "other_host",
            Self::Secret(Withheld::InTheClear) => "secret_in_clear",
            Self::Secret(Withheld::OtherHost) => "secret_other_host",
            Self::Secret(Withheld::Unknown) => "secret_unknown",
            Self::Secret(Withheld::InPath) => "secret_in_path",
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::NotListed => "the environment's networking does not allow this host",
            Self::NotPublic => "it is not a public host, or not port 80 or 443",
            Self::NoHost => "it is no host name and no address",
            Self::Malformed => "the request is malformed",
            Self::OtherHost => {
                "what was sent is for another host than the one that was asked for, or not TLS"
            }
            Self::Secret(Withheld::InTheClear) => "secrets are sent over https only",
            Self::Secret(Withheld::OtherHost) => "its credential is for other hosts",
            Self::Secret(Withheld::Unknown) => "the session has no credential for this placeholder any more",
            Self::Secret(Withheld::InPath) => {
                "secrets are put into headers, queries and bodies, not into paths"
            }
        })
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was reached.
    Allowed,
    /// It may not be.
    Denied(Denial),
    /// It may be, and could not.
    Failed(Error),
}

impl From<Error> for Verdict {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused { .. } => Self::Denied(Denial::NotPublic),
            other => Self::Failed(other),
        }
    }
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision<'a> {
    /// How it was asked.
    pub protocol: Protocol,
    /// The host, canonical where it is one; empty where none was understood.
    pub host: &'a str,
    /// The port; 0 for names, and where none was understood.
    pub port: u16,
    /// What became of it.
    pub verdict: &'a Verdict,
    /// The variables, with commas between them, whose secrets were put in or withheld. A body counts as having all that
    /// may be put into it.
    pub secrets: &'a str,
}

/// Is told of every decision.
pub trait Observe: Send + Sync + 'static {
    /// Must not block.
    fn decided(&self, decision: &Decision<'_>);
}
