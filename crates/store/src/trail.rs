//! The audit trail in the durable record.

use async_trait::async_trait;
use oma_domain::audit::Entry;
use oma_domain::page::Page;
use oma_domain::{AuditId, Timestamp, WorkspaceId};

use crate::Result;

/// Which entries to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
    /// Only this action; a pattern when it contains `%`, which stands for any text.
    pub action: Option<String>,
    /// Only what was done to this.
    pub target: Option<String>,
}

/// The audit trail. Its rows are chained by hash over all workspaces, in the order in which they were added.
#[async_trait]
pub trait Trail: Send + Sync + 'static {
    /// Notes a call that is about to begin, with what is known of it; its outcome and metadata are not kept. Whatever
    /// is written after this has returned is durable only if the note is. When the call may change something elsewhere
    /// than in the store, it `reaches_out`, and the note is on its way to the disk at once.
    async fn open_audit(&self, entry: &Entry, reaches_out: bool) -> Result<()>;
    /// Adds the entries of all calls that are noted and did not end, oldest first, with this outcome. For a start, when
    /// none is under way. Returns how many.
    async fn close_audit(&self, outcome: &str) -> Result<u64>;
    /// Adds an entry at the end. If its call was noted, it has ended. An entry whose id is another's already gets one of
    /// its own.
    async fn append_audit(&self, entry: &Entry) -> Result<()>;
    /// Entries of a workspace, newest first; `after` is the last id of the page before.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) when the cursor names no entry of this workspace.
    async fn audit(
        &self,
        workspace: &WorkspaceId,
        filter: &AuditFilter,
        after: Option<&AuditId>,
        limit: u32,
    ) -> Result<Page<Entry, AuditId>>;
    /// Removes the oldest entries up to the first that is not from before `before`, and keeps what the rest can be
    /// verified against. Returns how many.
    async fn forget_audit(&self, before: Timestamp) -> Result<u64>;
}
