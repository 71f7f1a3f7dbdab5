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

/// For `map_err`: what was tried goes into the message.
pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Error {
    Error::Io {
        what: what.into(),
        source,
    }
}
