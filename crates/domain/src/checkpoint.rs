//! Saved states of sessions' workspaces. What is in them is not here.

use crate::id::{CheckpointId, SessionId, WorkspaceId};
use crate::time::Timestamp;

/// A saved state of a session's workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its id.
    pub id: CheckpointId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// The session that it was made of, and goes with.
    pub session: SessionId,
    /// Bytes of the archive.
    pub size: u64,
    /// The archive's SHA-256, in hexadecimal.
    pub sha256: String,
    /// Bytes of all files, unpacked.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
    /// What is not in it, for it is none of these: pipes, sockets, devices.
    pub skipped: u64,
    /// When it was made.
    pub created_at: Timestamp,
}
