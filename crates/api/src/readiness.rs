//! Whether the server can take work, for probes that anybody may send as often as they like.
//!
//! Finding out writes to the store, so it is done at most once in a while, and once for all who ask meanwhile.

use std::time::Duration;

use axum::http::StatusCode;
use oma_engine::Engine;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::fault::{Fault, Result};

/// How long the engine may take to say whether it is ready.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer holds.
const MAX_AGE: Duration = Duration::from_secs(1);

/// What was found out last.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    last: Mutex<Option<(Instant, Result<()>)>>,
}

impl Readiness {
    /// Whether the server can take work, as of a moment ago. That it stops is told at once.
    pub(crate) async fn ask(&self, engine: &Engine) -> Result<()> {
        engine.accepting()?;
        self.answer(engine.ready()).await
    }

    /// The latest answer, or that of `check`. Who asks while a check is under way waits for it.
    async fn answer(&self, check: impl Future<Output = oma_engine::Result<()>>) -> Result<()> {
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < MAX_AGE
        {
            return answer.clone();
        }
        let answer = match tokio::time::timeout(TIMEOUT, check).await {
            Ok(ready) => ready.map_err(Fault::from),
            Err(_) => {
                let message = format!("The store did not answer within {TIMEOUT:?}");
                Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message).with_retry_after(1))
            }
        };
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use oma_engine::Error;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_probes_are_one_check_and_its_answer_grows_old() {
        let readiness = Readiness::default();
        let checks = AtomicUsize::new(0);
        let check = |outcome: oma_engine::Result<()>| async {
            checks.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
            outcome
        };
        let probes = (0..50).map(|_| readiness.answer(check(Ok(()))));
        let answers = futures_util::future::join_all(probes).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(checks.load(Ordering::Relaxed), 1);
        tokio::time::advance(MAX_AGE).await;
        for _ in 0..3 {
            let fault = readiness
                .answer(check(Err(Error::DiskFull)))
                .await
                .expect_err("full");
            assert_eq!(fault.code(), "disk_full");
        }
        assert_eq!(checks.load(Ordering::Relaxed), 2);
        tokio::time::advance(MAX_AGE).await;
        let fault = readiness.answer(std::future::pending()).await.expect_err("hangs");
        assert_eq!(fault.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
