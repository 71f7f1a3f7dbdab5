//! What a session's sandbox is given beside its workspace.

use serde::{Deserialize, Serialize};

use crate::id::{FileId, ResourceId};
use crate::time::Timestamp;

/// The most files of one session.
pub const MAX_FILES: u32 = 500;

/// Something that a session's sandbox is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its id.
    pub id: ResourceId,
    /// What it is.
    pub spec: Spec,
    /// When the session got it.
    pub created_at: Timestamp,
    /// When it was changed.
    pub updated_at: Timestamp,
}

/// What a resource is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Spec {
    /// A file that the session may read.
    File {
        /// The session's own copy.
        file: FileId,
        /// Its path in the sandbox.
        mount_path: String,
    },
}
