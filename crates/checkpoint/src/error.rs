//! What can go wrong with archives.

use std::io;

/// What can go wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error("its archive is gone")]
    Gone,
    /// It is another one.
    #[error("its bytes are not those that were saved")]
    Damaged,
    /// The disk has no room for it.
    #[error("the disk is full")]
    Full,
    /// The store of objects does not answer as it should, so nobody knows what it has done. The text names neither keys nor
    /// addresses.
    #[error("the store of checkpoints {0}")]
    Store(String),
    /// It refuses. The text names neither keys nor addresses.
    #[error("the store of checkpoints {0}")]
    Refused(String),
    /// The disk fails.
    #[error("{0}")]
    Io(io::Error),
}

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(error),
        }
    }
}
