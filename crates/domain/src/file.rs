//! Files that clients upload and sessions make. What is in them is not here.

use crate::id::{FileId, SessionId, WorkspaceId};
use crate::time::Timestamp;

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its id.
    pub id: FileId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// What its maker calls it: one component of a path.
    pub filename: String,
    /// MIME type.
    pub mime_type: String,
    /// Bytes.
    pub size: u64,
    /// Whether clients may have its bytes. What they have uploaded they have already.
    pub downloadable: bool,
    /// When it was uploaded or made.
    pub created_at: Timestamp,
    /// When it goes away by itself.
    pub expires_at: Option<Timestamp>,
    /// The session that it belongs to and goes with.
    pub session: Option<SessionId>,
}

impl File {
    /// Whether its time is over.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}
