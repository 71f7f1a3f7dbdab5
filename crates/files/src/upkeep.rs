//! What goes by itself: files whose time is over, and bytes without a row.

use std::time::Duration;

use oma_domain::{FileId, Timestamp};

use crate::Files;
use crate::error::{Error, Result};

/// How many rows one step takes.
const STEP: u32 = 500;

/// How long clients are told that a file had been there and has expired.
const TOLD: Duration = Duration::from_secs(30 * 24 * 3_600);

impl Files {
    /// Removes bytes that a crash left without a row. Only for when nothing else is done to files yet.
    ///
    /// # Errors
    /// A failure of the store or of the folder.
    pub async fn recover(&self) -> Result<()> {
        let present = self.inner.blobs.ids().await.map_err(Error::io("listing files"))?;
        for ids in present.chunks(STEP as usize) {
            let existing = self.inner.store.existing_files(ids).await?;
            let orphans: Vec<FileId> = ids.iter().filter(|id| !existing.contains(id)).cloned().collect();
            if !orphans.is_empty() {
                tracing::info!(files = orphans.len(), "removed bytes that belong to no file");
            }
            self.inner
                .blobs
                .remove(orphans)
                .await
                .map_err(Error::io("removing bytes"))?;
        }
        self.release().await
    }

    /// Removes what has expired, with its bytes, and those of files that are gone.
    ///
    /// # Errors
    /// A failure of the store or of the folder.
    pub async fn tidy(&self, now: Timestamp) -> Result<()> {
        while self.inner.store.expire_files(now, STEP).await? >= u64::from(STEP) {}
        let told = i64::try_from(TOLD.as_millis()).unwrap_or(i64::MAX);
        self.inner
            .store
            .forget_expired(Timestamp(now.0.saturating_sub(told)))
            .await?;
        self.release().await
    }

    /// Removes the bytes of files whose rows are gone.
    ///
    /// # Errors
    /// A failure of the store or of the folder; calling it again is safe.
    pub async fn release(&self) -> Result<()> {
        loop {
            let released = self.inner.store.released_files(STEP).await?;
            if released.is_empty() {
                return Ok(());
            }
            self.inner
                .blobs
                .remove(released.clone())
                .await
                .map_err(Error::io("removing bytes"))?;
            self.inner.store.forget_released(&released).await?;
        }
    }
}
