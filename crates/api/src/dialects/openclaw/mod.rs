//! The openclaw dialect: the reference system's REST API and SSE, as its published clients use them.
//!
//! Requests use camelCase names, responses snake_case; times are milliseconds since the epoch; success is
//! always 200. Where the reference is wrong, this does what a correct server does.

pub mod agents;
pub mod audit;
pub mod budget;
pub mod checkpoints;
pub mod environments;
pub mod error;
pub mod events;
pub mod files;
pub mod keys;
pub mod models;
pub mod sessions;
pub mod usage;
pub mod vaults;
pub mod workspaces;

use serde::Serialize;
use utoipa::ToSchema;

/// What was asked to be deleted is gone.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct Deleted {
    /// Always true.
    pub deleted: bool,
}
