//! What a session's sandbox is given beside its workspace.

use serde::{Deserialize, Serialize};

use crate::id::{FileId, ResourceId};
use crate::time::Timestamp;
use crate::vault::Sealed;

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
    /// A git repository, cloned into the workspace.
    Repository {
        /// Where it is from.
        url: String,
        /// What its host asks for, sealed for this session, this resource and this URL.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Sealed>,
        /// What of it; its default branch without this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        checkout: Option<Checkout>,
        /// Its path in the sandbox.
        mount_path: String,
    },
}

impl Spec {
    /// Its path in the sandbox.
    #[must_use]
    pub fn mount_path(&self) -> &str {
        match self {
            Self::File { mount_path, .. } | Self::Repository { mount_path, .. } => mount_path,
        }
    }
}

/// What of a repository is checked out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Checkout {
    /// A branch.
    Branch {
        /// Its name.
        name: String,
    },
    /// A commit.
    Commit {
        /// Its id.
        sha: String,
    },
}
