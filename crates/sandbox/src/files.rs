//! The host's own access to a workspace, and to what is mounted beside it.

pub(crate) mod access;
pub mod archive;
pub(crate) mod beneath;
pub(crate) mod ownership;
pub(crate) mod removal;
pub(crate) mod resolution;
pub(crate) mod usage;

use async_trait::async_trait;
use bytes::Bytes;

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its path from the workspace's root.
    pub path: String,
    /// Whether it is a folder; links and special files are not listed.
    pub is_dir: bool,
    /// Bytes.
    pub size: u64,
    /// Last change, in milliseconds since the epoch.
    pub mtime_ms: f64,
}

/// What can go wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file (or folder, where one was asked for).
    #[error("no such file")]
    NotFound,
    /// The path is empty, leaves the workspace, crosses a link or names the wrong kind of thing.
    #[error("{0}")]
    InvalidPath(String),
    /// The file is larger than allowed.
    #[error("the file is larger than {0} bytes")]
    TooLarge(u64),
    /// The workspace or the disk is full.
    #[error("the workspace is full")]
    Full,
    /// Anything else.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Files of one workspace or mount. Paths are relative, `/`-separated; no path leads out of the workspace, through
/// `..` or any link (I12).
#[async_trait]
pub trait Workspace: Send + Sync {
    /// The entries of a folder, folders first, then by name; at most `limit`.
    ///
    /// # Errors
    /// [`Error`].
    async fn list(&self, path: &str, limit: usize) -> Result<Vec<Entry>, Error>;
    /// A file's bytes, at most `max`.
    ///
    /// # Errors
    /// [`Error`].
    async fn read(&self, path: &str, max: u64) -> Result<Bytes, Error>;
    /// Writes a file whole, making its parents. The file is there with all its bytes or as it was.
    ///
    /// # Errors
    /// [`Error`].
    async fn write(&self, path: &str, bytes: Bytes) -> Result<(), Error>;
    /// The same for a file that may be run.
    ///
    /// # Errors
    /// [`Error`].
    async fn write_program(&self, path: &str, bytes: Bytes) -> Result<(), Error>;
    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// [`Error`].
    async fn open(&self, path: &str) -> Result<std::fs::File, Error>;
    /// Puts a file of the host in place, whole, making its parents. Where the session may only read, that costs no
    /// space if the file systems are the same: the file then has one more name, is made readable for all, and must
    /// never be changed. The quota is not asked.
    ///
    /// # Errors
    /// [`Error`].
    async fn place(&self, path: &str, source: std::fs::File) -> Result<(), Error>;
    /// Removes a file.
    ///
    /// # Errors
    /// [`Error`].
    async fn remove(&self, path: &str) -> Result<(), Error>;
}
