//! The work queue of self-hosted environments in the durable record.

use async_trait::async_trait;
use oma_domain::audit::Entry;
use oma_domain::page::Page;
use oma_domain::work::Work;
use oma_domain::{EnvironmentId, SessionId, Timestamp, WorkId, WorkspaceId};

use crate::Result;

/// How many items of a session are kept that are over.
pub const KEPT: u32 = 20;

/// How much waits in an environment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkStats {
    /// Items that wait for a worker.
    pub queued: u64,
    /// Items that were handed out and not acknowledged.
    pub pending: u64,
    /// When the oldest of both was made.
    pub oldest: Option<Timestamp>,
}

/// The work queue.
#[async_trait]
pub trait WorkQueue: Send + Sync + 'static {
    /// Adds an item, unless its session has one that is not over; tells whether it did. One whose worker was told to
    /// stop and has stayed away for longer than its lease is over then.
    async fn add_work(&self, work: &Work) -> Result<bool>;
    /// An item.
    async fn work(
        &self,
        workspace: &WorkspaceId,
        environment: &EnvironmentId,
        id: &WorkId,
    ) -> Result<Option<Work>>;
    /// The item of a session that is not over.
    async fn work_of(&self, workspace: &WorkspaceId, session: &SessionId) -> Result<Option<Work>>;
    /// The oldest item that may be handed out, see [`Work::is_due`].
    async fn due_work(
        &self,
        workspace: &WorkspaceId,
        environment: &EnvironmentId,
        reclaim_ms: u64,
        now: Timestamp,
    ) -> Result<Option<Work>>;
    /// Changes an item from what it was to what it is. If it is over and its session still works or waits for answers,
    /// `next` follows it in the same transaction, so that the session is never without. `audit` is what the audit trail
    /// is to say of it, in the same transaction, too.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound); [`Error::Conflict`](crate::Error::Conflict) when it is not what it
    /// was any more.
    async fn update_work(
        &self,
        before: &Work,
        after: &Work,
        next: Option<&Work>,
        audit: Option<&Entry>,
    ) -> Result<()>;
    /// Items of an environment, newest first; `after` is the last id of the page before.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) when the cursor is unknown.
    async fn works(
        &self,
        workspace: &WorkspaceId,
        environment: &EnvironmentId,
        after: Option<&WorkId>,
        limit: u32,
    ) -> Result<Page<Work, WorkId>>;
    /// How much waits.
    async fn work_stats(&self, workspace: &WorkspaceId, environment: &EnvironmentId) -> Result<WorkStats>;
}
