//! What is known of saved states of workspaces. The archives are elsewhere, under the checkpoints' ids.
//!
//! Invariant: a checkpoint whose row goes, in whatever way, is among the released ones from that moment on, until whoever
//! has the archives says that its one is gone too.

use async_trait::async_trait;
use oma_domain::{Checkpoint, CheckpointId, SessionId, WorkspaceId};

use crate::Result;

/// Checkpoints in the durable record.
#[async_trait]
pub trait Checkpoints: Send + Sync + 'static {
    /// Notes that a checkpoint is being made, as long as its session has less than `most`. Nobody sees it yet.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) when there is no such session;
    /// [`Error::TooMany`](crate::Error::TooMany).
    async fn begin_checkpoint(&self, checkpoint: &Checkpoint, most: u32) -> Result<()>;
    /// Notes what it has become: its archive is there.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) when it has been given up, or its session has gone.
    async fn finish_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()>;
    /// A checkpoint.
    async fn checkpoint(&self, workspace: &WorkspaceId, id: &CheckpointId) -> Result<Option<Checkpoint>>;
    /// All checkpoints of a session, the newest first. Their number is bounded when they are begun.
    async fn checkpoints(&self, workspace: &WorkspaceId, session: &SessionId) -> Result<Vec<Checkpoint>>;
    /// Removes a checkpoint, also one that is being made. Returns whether it was there.
    async fn delete_checkpoint(&self, workspace: &WorkspaceId, id: &CheckpointId) -> Result<bool>;
    /// Removes those that were being made when a server ended, and names them. Only for its next start.
    async fn give_up_checkpoints(&self) -> Result<Vec<CheckpointId>>;
    /// Those whose archives have yet to go, by id, behind `after`, and at most `limit`.
    async fn released_checkpoints(
        &self,
        after: Option<&CheckpointId>,
        limit: u32,
    ) -> Result<Vec<CheckpointId>>;
    /// The archives of these are gone.
    async fn forget_released_checkpoints(&self, ids: &[CheckpointId]) -> Result<()>;
}
