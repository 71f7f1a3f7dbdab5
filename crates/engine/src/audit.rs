//! The audit trail: written for every call that changes something, and read by admins.
//!
//! Invariant: an entry that could not be written is an error in the log and in the metrics, whoever still waits.

use std::sync::Arc;
use std::time::Duration;

use oma_domain::audit::Entry;
use oma_domain::page::Page;
use oma_domain::{AuditId, Timestamp, WorkspaceId};
pub use oma_store::AuditFilter;
use oma_store::Store;

use crate::agents::not_found;
use crate::error::{Error, Result};
use crate::{Engine, now};

/// The outcome of a call that the end of the server cut off.
const CUT_OFF: &str = "cut_off";

impl Engine {
    /// Writes an entry, which is durable when this returns. It is written also when the caller goes away meanwhile.
    ///
    /// # Errors
    /// What keeps it from being written.
    pub async fn record(&self, entry: Entry) -> Result<()> {
        let written = self
            .inner
            .tasks
            .spawn(write(Arc::clone(&self.inner.store), entry));
        match written.await {
            Ok(written) => written.map_err(Error::from),
            Err(error) => Err(Error::Internal(format!(
                "an audit entry's write did not end: {error}"
            ))),
        }
    }

    /// Notes a call that is about to begin: should the server die before it ends, the next one tells of it. The note
    /// is durable when anything in the store is that the call changes, and soon when it `reaches_out` of it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store takes nothing.
    pub async fn record_beginning(&self, entry: &Entry, reaches_out: bool) -> Result<()> {
        Ok(self.inner.store.open_audit(entry, reaches_out).await?)
    }

    /// Records the calls that were under way when the last server died, whose outcome nobody knows. Call it once,
    /// before calls are taken. Returns how many.
    ///
    /// # Errors
    /// A store failure; calling it again is safe.
    pub async fn record_cut_off(&self) -> Result<u64> {
        let count = self.inner.store.close_audit(CUT_OFF).await?;
        if count > 0 {
            tracing::warn!(
                count,
                "calls were cut off by the end of the last server; the audit trail has them"
            );
        }
        Ok(count)
    }

    /// Writes an entry behind the back of a caller that can't wait. Call it within the runtime.
    pub fn record_behind(&self, entry: Entry) {
        let store = Arc::clone(&self.inner.store);
        drop(self.inner.tasks.spawn(write(store, entry)));
    }

    /// Entries of a workspace, newest first.
    ///
    /// # Errors
    /// [`Error::AuditNotFound`] when the cursor is unknown.
    pub async fn audit(
        &self,
        workspace: &WorkspaceId,
        filter: &AuditFilter,
        after: Option<&AuditId>,
        limit: u32,
    ) -> Result<Page<Entry, AuditId>> {
        let page = self.inner.store.audit(workspace, filter, after, limit).await;
        page.map_err(|error| not_found(error, Error::AuditNotFound))
    }

    /// Removes the entries that are older than they are to be kept, and the keys that were revoked as long ago.
    pub(crate) async fn forget_audit(&self, age: Option<Duration>) -> Result<()> {
        let Some(age) = age else { return Ok(()) };
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp(now().as_millis().saturating_sub(age));
        // A key is known for as long as the trail may name it.
        self.inner.store.forget_keys(before).await?;
        let removed = self.inner.store.forget_audit(before).await?;
        if removed > 0 {
            tracing::info!(removed, "old entries of the audit trail were removed");
        }
        Ok(())
    }
}

pub(crate) async fn write(store: Arc<dyn Store>, entry: Entry) -> oma_store::Result<()> {
    let written = store.append_audit(&entry).await;
    if let Err(error) = &written {
        metrics::counter!("audit_write_failures_total").increment(1);
        let Entry {
            actor,
            action,
            target,
            outcome,
            request_id,
            ..
        } = &entry;
        tracing::error!(%error, actor, action, target, outcome, request_id, "an audit entry could not be written");
    }
    written
}
