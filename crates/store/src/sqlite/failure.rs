//! Failures inside the SQLite store, and what they are to the caller.

use rusqlite::ErrorCode;

use super::folder::Folder;
use crate::Error;

/// Why a piece of work on a connection failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The store's own verdict, for example a conflict.
    Refused(Error),
    /// The database failed.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl Failure {
    /// What the caller is told. For a bare I/O error the folder is asked what is wrong with it, because SQLite
    /// does not say.
    pub(super) fn into_error(self, folder: &Folder) -> Error {
        let error = match self {
            Self::Refused(error) => return error,
            Self::Database(error) => error,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Error::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Error::ReadOnly(error.to_string())
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Error::Unavailable(error.to_string())
            }
            Some(ErrorCode::SystemIoFailure) => folder
                .diagnose()
                .unwrap_or_else(|| Error::Internal(describe(&error))),
            _ => Error::Internal(describe(&error)),
        }
    }
}

/// The message with SQLite's extended code, by which an operator finds out more.
fn describe(error: &rusqlite::Error) -> String {
    match error.sqlite_error() {
        Some(code) => format!("{error} (SQLite code {})", code.extended_code),
        None => error.to_string(),
    }
}

/// A stored row that can't be read back.
pub(super) fn unreadable(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::Refused(Error::Internal(format!("a stored {what} can't be read: {error}")))
}

/// Serialises a value for a column.
pub(super) fn to_json(what: &str, value: &impl serde::Serialize) -> crate::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Error::Internal(format!("a {what} can't be stored: {error}")))
}

/// Reads a value from a column.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| unreadable(what, error))
}
