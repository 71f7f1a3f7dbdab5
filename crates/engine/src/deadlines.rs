//! Time-outs of confirmations. The store knows which session waits until when, so a restart forgets none, and
//! one task sleeps until the earliest of them.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use oma_domain::{SessionId, WorkspaceId};

use crate::actor::Command;
use crate::clock::rest;
use crate::error::{Error, Result};
use crate::{Engine, now};

/// How many sessions one look brings.
const PAGE: u32 = 100;
/// How many of them are seen to at the same time.
const AT_ONCE: usize = 16;
/// The rest after a failure.
const PAUSE: Duration = Duration::from_secs(1);

impl Engine {
    /// Denies tool uses that nobody confirmed in time, for as long as the engine runs.
    pub async fn keep_deadlines(&self) {
        loop {
            let next = match self.lapse_due().await {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!(%error, "time-outs of confirmations wait");
                    Some(PAUSE)
                }
            };
            tokio::select! {
                () = rest(next) => {}
                () = self.inner.deadline_set.notified() => {}
                () = self.inner.stopping.cancelled() => return,
            }
        }
    }

    /// Sees to the sessions whose time has come; returns how long the next one still has.
    async fn lapse_due(&self) -> Result<Option<Duration>> {
        loop {
            let waiting = self.inner.store.deadlines(PAGE).await?;
            let at = now();
            let next = waiting.iter().find(|(.., deadline)| *deadline > at);
            let next = next.map(|(.., deadline)| Duration::from_millis(deadline.millis_since(at)));
            let due = waiting.into_iter().filter(|(.., deadline)| *deadline <= at);
            let lapses = stream::iter(due)
                .map(|(workspace, session, _)| async move { self.lapse(workspace, session).await });
            let outcomes: Vec<Result<()>> = lapses.buffer_unordered(AT_ONCE).collect().await;
            let any = !outcomes.is_empty();
            outcomes.into_iter().collect::<Result<()>>()?;
            if next.is_some() || !any {
                return Ok(next);
            }
        }
    }

    async fn lapse(&self, workspace: WorkspaceId, session: SessionId) -> Result<()> {
        let lapsed = self.ask(&workspace, &session, |reply| Command::Lapse { reply });
        match lapsed.await {
            Ok(()) | Err(Error::SessionNotFound) => Ok(()),
            Err(error) => {
                tracing::error!(session_id = %session, %error, "a confirmation could not be given up");
                Err(error)
            }
        }
    }
}
