//! Starting, tidying and stopping: what was under way goes on, what is orphaned goes away, what can end ends.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use oma_domain::SessionId;

use crate::actor::Command;
use crate::error::{Error, Result};
use crate::{Engine, now};

/// How many rows one read brings.
const PAGE: u32 = 500;
/// How many sessions are loaded at the same time.
const WAKES: usize = 32;
/// How often expired rows are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

impl Engine {
    /// Wakes every session whose turn a stop or crash cut off, and removes sandboxes and workspaces whose
    /// session is gone. Returns how many sessions were woken.
    ///
    /// # Errors
    /// A store failure; calling it again is safe.
    pub async fn recover(&self) -> Result<usize> {
        let mut woken = 0;
        let mut after = None;
        loop {
            let page = self.inner.store.unfinished(after.as_ref(), PAGE).await?;
            // Owned rows: with borrowed ones this future is `Send` for one lifetime only, and can't be spawned.
            let wakes = stream::iter(page.rows).map(|(workspace, session)| async move {
                self.ask(&workspace, &session, |reply| Command::Wake { reply })
                    .await
            });
            let mut answers = wakes.buffer_unordered(WAKES);
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(()) => woken += 1,
                    // It was deleted meanwhile.
                    Err(Error::SessionNotFound) => {}
                    Err(error) => return Err(error),
                }
            }
            drop(answers);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        self.remove_orphans().await?;
        Ok(woken)
    }

    /// The sessions whose turns go on after the next start.
    async fn unfinished(&self) -> Result<HashSet<SessionId>> {
        let mut all = HashSet::new();
        let mut after = None;
        loop {
            let page = self.inner.store.unfinished(after.as_ref(), PAGE).await?;
            all.extend(page.rows.into_iter().map(|(_, session)| session));
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    async fn remove_orphans(&self) -> Result<()> {
        let present = match self.inner.runtime.inventory().await {
            Ok(present) => present,
            Err(reason) => {
                tracing::error!(%reason, "sandboxes could not be listed; orphans may stay");
                return Ok(());
            }
        };
        for ids in present.chunks(PAGE as usize) {
            let existing = self.inner.store.existing(ids).await?;
            for orphan in ids.iter().filter(|id| !existing.contains(id)) {
                match self.inner.runtime.discard(orphan).await {
                    Ok(()) => {
                        metrics::counter!("startup_adoptions_total", "outcome" => "stopped_orphan")
                            .increment(1);
                        tracing::info!(session_id = %orphan, "removed what a deleted session had left");
                    }
                    Err(reason) => {
                        tracing::error!(session_id = %orphan, %reason, "an orphan could not be removed")
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes expired ephemeral sessions and idempotency keys, for as long as the engine runs.
    pub async fn sweep(&self) {
        let mut timer = tokio::time::interval(SWEEP_EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = timer.tick() => {}
                () = self.inner.stopping.cancelled() => return,
            }
            if let Err(error) = self.sweep_once().await {
                tracing::error!(%error, "expired rows could not be removed");
            }
            // By itself, because whom it asks may be far away.
            self.release_within(SWEEP_EVERY).await;
        }
    }

    async fn sweep_once(&self) -> Result<()> {
        self.note_key_use().await?;
        self.remove_expired_users().await?;
        self.inner.files.tidy(now()).await?;
        let config = &self.inner.config;
        self.forget_audit(config.audit_age).await?;
        let at = now();
        let before = |age: Duration| {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            oma_domain::Timestamp(at.0.saturating_sub(age))
        };
        let before_then = before(config.ephemeral_age);
        loop {
            let expired = self.inner.store.expired(before_then, PAGE).await?;
            let mut removed = 0;
            for (workspace, session) in &expired {
                let expire = |reply| Command::Expire {
                    before: before_then,
                    reply,
                };
                match self.ask(workspace, session, expire).await {
                    Ok(()) | Err(Error::SessionNotFound) => removed += 1,
                    // One that can't be removed must not keep the others.
                    Err(error) => {
                        tracing::error!(session_id = %session, %error, "an expired session could not be removed")
                    }
                }
            }
            if expired.len() < PAGE as usize || removed == 0 {
                break;
            }
        }
        self.inner
            .store
            .forget_done(before(config.idempotency_age))
            .await?;
        let superseded = before(crate::memories::VERSIONS_KEPT);
        self.inner.store.forget_memory_versions(superseded).await?;
        Ok(())
    }

    /// Takes no new work, gives the turns at work a bounded time to end, and leaves the rest to the next
    /// start: the log has everything that they need. Until that time is over sessions can be read, followed, cancelled
    /// and deleted, and tool uses confirmed. Sandboxes end, but for those of turns that go on and those in which
    /// something runs.
    pub async fn stop(&self) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        let drained = tokio::time::timeout(self.inner.config.drain_timeout, self.inner.tasks.wait()).await;
        if drained.is_err() {
            tracing::info!("turns are still at work; they go on after the next start");
        }
        self.inner.closed.cancel();
        self.inner.tasks.wait().await;
        match self.unfinished().await {
            Ok(unfinished) => self.inner.runtime.retire(&unfinished).await,
            Err(error) => tracing::warn!(%error, "sandboxes that are idle stay for a while"),
        }
        if let Err(error) = self.note_key_use().await {
            tracing::warn!(%error, "the last uses of API keys were not noted");
        }
    }
}
