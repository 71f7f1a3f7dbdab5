//! Workspaces: the tenants of an installation. Every agent, environment, session and key belongs to exactly one.

use crate::id::WorkspaceId;
use crate::quota::Monthly;
use crate::time::Timestamp;

/// A workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// A name for people.
    pub name: String,
    /// What may be consumed in it in a month.
    pub budget: Monthly,
    /// The most sessions that there may be in it.
    pub max_sessions: Option<u32>,
    /// When it was created; 0 for the default workspace, which was there before any other.
    pub created_at: Timestamp,
}
