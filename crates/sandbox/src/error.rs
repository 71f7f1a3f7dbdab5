//! What can go wrong with a sandbox.

/// What can go wrong with a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine can't give what the configuration demands; `oma doctor` tells more.
    #[error("this machine can't make a sandbox as strong as configured: {0}")]
    TooWeak(String),
    /// As many sandboxes as allowed are at work, and none became free in time.
    #[error("all {0} sandboxes are in use")]
    Exhausted(usize),
    /// The sandbox is gone.
    #[error("the sandbox is gone: {0}")]
    Lost(String),
    /// The hand said something that it may not say.
    #[error("the sandbox broke the protocol: {0}")]
    Protocol(String),
    /// It did not answer in time.
    #[error("the sandbox did not answer within {0:?}")]
    Timeout(std::time::Duration),
    /// The container engine does not answer, or does not do what it was asked.
    #[error("the container engine {0}")]
    Engine(String),
    /// What its environment needs could not be built; the rest is for the developer, mostly in an installer's words.
    #[error("the environment could not be built: {0}")]
    Build(String),
    /// What its environment needs is being built.
    #[error("its environment is not built yet")]
    Unbuilt,
    /// Somebody uses the sandbox, or something runs in it.
    #[error("the sandbox is in use")]
    Busy,
    /// The workspace could not be packed or unpacked.
    #[error(transparent)]
    Archive(#[from] crate::files::archive::Error),
    /// A process could not be started in it.
    #[error("{0}")]
    Refused(String),
    /// The machine failed us.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What came of it.
        source: std::io::Error,
    },
}

impl Error {
    /// The same for another one who waited for the same thing.
    #[cfg(feature = "docker")]
    pub(crate) fn repeated(&self) -> Self {
        match self {
            Self::TooWeak(why) => Self::TooWeak(why.clone()),
            Self::Exhausted(most) => Self::Exhausted(*most),
            Self::Lost(why) => Self::Lost(why.clone()),
            Self::Protocol(what) => Self::Protocol(what.clone()),
            Self::Timeout(patience) => Self::Timeout(*patience),
            Self::Engine(what) => Self::Engine(what.clone()),
            Self::Build(why) => Self::Build(why.clone()),
            Self::Unbuilt => Self::Unbuilt,
            Self::Busy => Self::Busy,
            Self::Refused(why) => Self::Refused(why.clone()),
            Self::Io { what, source } => Self::Io {
                what: what.clone(),
                source: repeated(source),
            },
            // In the same words.
            Self::Archive(error) => Self::Refused(error.to_string()),
        }
    }
}

#[cfg(feature = "docker")]
fn repeated(error: &std::io::Error) -> std::io::Error {
    error.raw_os_error().map_or_else(
        || std::io::Error::new(error.kind(), error.to_string()),
        std::io::Error::from_raw_os_error,
    )
}

/// For `map_err`: what was tried goes into the message.
pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Error {
    Error::Io {
        what: what.into(),
        source,
    }
}
