//! What a workspace consumed.

use oma_domain::WorkspaceId;
use oma_domain::page::Page;
use oma_store::{UsageFilter, UsageRow};

use crate::Engine;
use crate::error::Result;

impl Engine {
    /// What was consumed by day, agent, model and key.
    ///
    /// # Errors
    /// A store failure.
    pub async fn usage(
        &self,
        workspace: &WorkspaceId,
        filter: &UsageFilter,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<UsageRow, i64>> {
        Ok(self.inner.store.usage(workspace, filter, after, limit).await?)
    }
}
