//! Where a session's sandbox came from.

use serde::{Deserialize, Serialize};

/// Where the sandbox came from that a tool of the session ran in last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum SandboxSource {
    /// It was started for the session.
    Cold {
        /// How long that took, in milliseconds, without the wait for a place.
        boot_ms: u64,
    },
    /// It was started for the session, and reaches only what its environment allows.
    Limited {
        /// How long that took, in milliseconds, without the wait for a place.
        boot_ms: u64,
    },
    /// It was started in advance for nobody in particular, so nobody waited for it.
    Warm,
    /// It was there already when the server started.
    Adopt,
}

impl SandboxSource {
    /// The source as clients know it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cold { .. } => "cold",
            Self::Limited { .. } => "limited",
            Self::Warm => "warm",
            Self::Adopt => "adopt",
        }
    }

    /// How long the session's tool waited for the start, in milliseconds; unknown of one that was there already.
    #[must_use]
    pub fn boot_ms(self) -> Option<u64> {
        match self {
            Self::Cold { boot_ms } | Self::Limited { boot_ms } => Some(boot_ms),
            Self::Warm => Some(0),
            Self::Adopt => None,
        }
    }
}
