//! What can go wrong with files.

use oma_sandbox::files as mounted;

/// What can go wrong with files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file in this workspace.
    #[error("no file has this id")]
    NotFound,
    /// There was one, and its time is over.
    #[error("the file has expired")]
    Expired,
    /// Its bytes are not for clients.
    #[error("the file is not downloadable: only files that a session has made are")]
    NotDownloadable,
    /// It has more bytes than allowed.
    #[error("a file may have {0} bytes")]
    TooLarge(u64),
    /// The files of the workspace would have more bytes than allowed.
    #[error("the files of the workspace may have {0} bytes in all; delete some")]
    NoRoom(u64),
    /// Something that was asked for can't be.
    #[error("{field}: {message}")]
    Invalid {
        /// The field of the request.
        field: &'static str,
        /// Why.
        message: String,
    },
    /// There is no such session in this workspace.
    #[error("no session has this id")]
    SessionNotFound,
    /// The session has no such resource.
    #[error("no resource of the session has this id")]
    ResourceNotFound,
    /// The session has as many resources as it may have.
    #[error("the session has {0} resources, which is the most")]
    TooManyResources(u32),
    /// The machine's disk has no room.
    #[error("the server's disk is full")]
    DiskFull,
    /// The durable record.
    #[error(transparent)]
    Store(oma_store::Error),
    /// A fault of ours; the text is for the log.
    #[error("{0}")]
    Internal(String),
}

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            message: message.into(),
        }
    }

    /// For `map_err`: what was tried goes into the message.
    pub(crate) fn io(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |error| match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Internal(format!("{what}: {error}")),
        }
    }
}

impl From<oma_store::Error> for Error {
    fn from(error: oma_store::Error) -> Self {
        match error {
            oma_store::Error::NoRoom(most) => Self::NoRoom(most),
            oma_store::Error::TooMany(count) => Self::TooManyResources(count),
            oma_store::Error::Full => Self::DiskFull,
            error => Self::Store(error),
        }
    }
}

impl From<oma_vault::Error> for Error {
    fn from(error: oma_vault::Error) -> Self {
        match error {
            oma_vault::Error::Store(error) => error.into(),
            error => Self::Internal(error.to_string()),
        }
    }
}

impl From<oma_sandbox::Error> for Error {
    fn from(error: oma_sandbox::Error) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<mounted::Error> for Error {
    fn from(error: mounted::Error) -> Self {
        match error {
            mounted::Error::Full => Self::DiskFull,
            error => Self::Internal(error.to_string()),
        }
    }
}
