//! What is known of files and of what sessions' sandboxes are given. The bytes are elsewhere, under the files' ids.
//!
//! Invariant: a file whose row goes, in whatever way, is among the released ones from that moment on, until whoever
//! has the bytes says that they are gone too.

use async_trait::async_trait;
use oma_domain::page::{Order, Page};
use oma_domain::{File, FileId, Resource, ResourceId, SessionId, Timestamp, WorkspaceId};

use crate::{Once, Result};

/// Which files to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileFilter {
    /// Only those of this session.
    pub session: Option<SessionId>,
    /// Only those that have not expired by then.
    pub now: Timestamp,
}

/// A file that a session has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its path among the outputs.
    pub path: String,
    /// What tells whether it has changed since.
    pub stamp: String,
    /// The file that it is.
    pub file: FileId,
}

/// Files and resources in the durable record.
#[async_trait]
pub trait Files: Send + Sync + 'static {
    /// Adds a file that belongs to no session. `room` is what all files of the workspace may have in all, in bytes.
    ///
    /// # Errors
    /// [`Error::AlreadyDone`](crate::Error::AlreadyDone) when the key is taken; [`Error::NoRoom`](crate::Error::NoRoom).
    async fn add_file(&self, file: &File, room: u64, once: Option<&Once>) -> Result<()>;
    /// A file.
    async fn file(&self, workspace: &WorkspaceId, id: &FileId) -> Result<Option<File>>;
    /// Files by creation; `after` is the last id of the page before.
    async fn files(
        &self,
        workspace: &WorkspaceId,
        filter: &FileFilter,
        order: Order,
        after: Option<&FileId>,
        limit: u32,
    ) -> Result<Page<File, FileId>>;
    /// Removes a file. Returns whether it was there.
    async fn delete_file(&self, workspace: &WorkspaceId, id: &FileId) -> Result<bool>;
    /// Removes files of all workspaces that have expired by `now`, at most `limit`, and remembers that they had been
    /// there. Returns how many.
    async fn expire_files(&self, now: Timestamp, limit: u32) -> Result<u64>;
    /// Whether there was a file that has expired.
    async fn has_expired(&self, workspace: &WorkspaceId, id: &FileId) -> Result<bool>;
    /// Forgets files that expired before `before`.
    async fn forget_expired(&self, before: Timestamp) -> Result<u64>;
    /// Files of all workspaces whose rows are gone and whose bytes have yet to go.
    async fn released_files(&self, limit: u32) -> Result<Vec<FileId>>;
    /// The bytes of these are gone.
    async fn forget_released(&self, ids: &[FileId]) -> Result<()>;
    /// Which of these files exist, for recovery (bytes without a row are an orphan's).
    async fn existing_files(&self, ids: &[FileId]) -> Result<Vec<FileId>>;

    /// The files that a session has made, by path.
    async fn outputs(&self, workspace: &WorkspaceId, session: &SessionId) -> Result<Vec<Output>>;
    /// Adds a file that a session has made, in the place of the one that had its path.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) when there is no such session;
    /// [`Error::NoRoom`](crate::Error::NoRoom).
    async fn put_output(
        &self,
        file: &File,
        session: &SessionId,
        path: &str,
        stamp: &str,
        room: u64,
    ) -> Result<()>;

    /// Gives a session something more, with its own copy of a file. `most` is how many resources it may have.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) when there is no such session;
    /// [`Error::NoRoom`](crate::Error::NoRoom); [`Error::TooMany`](crate::Error::TooMany).
    async fn add_resource(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        resource: &Resource,
        copy: &File,
        most: u32,
        room: u64,
    ) -> Result<()>;
    /// What a session has been given, in that order. Empty when there is no such session.
    async fn resources(&self, workspace: &WorkspaceId, session: &SessionId) -> Result<Vec<Resource>>;
    /// Writes a resource over the one with its id. Returns whether the session has it.
    async fn update_resource(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        resource: &Resource,
    ) -> Result<bool>;
    /// Takes something away from a session, with its copy of a file. Returns what it was.
    async fn remove_resource(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        id: &ResourceId,
    ) -> Result<Option<Resource>>;
}
