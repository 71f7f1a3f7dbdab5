//! Telling a session what becomes of the build that it waits for, each thing once.

use std::sync::Arc;

use oma_domain::SessionId;
use oma_domain::environment::build::Progress;
use tokio::sync::watch;

use super::job::Job;

/// A session that waits for a build.
pub struct Following {
    job: Arc<Job>,
    session: SessionId,
    progress: watch::Receiver<Vec<Progress>>,
}

impl Following {
    pub(super) fn new(job: Arc<Job>, session: &SessionId) -> Self {
        Self {
            progress: job.progress.subscribe(),
            job,
            session: session.clone(),
        }
    }

    /// Names what is built.
    #[must_use]
    pub fn layer(&self) -> &str {
        self.job.layer.as_str()
    }

    /// What has become of the build that the session has not been told yet.
    #[must_use]
    pub fn unsaid(&mut self) -> Vec<Progress> {
        let told = self.job.told(&self.session);
        let all = self.progress.borrow_and_update();
        all.get(told..).unwrap_or_default().to_vec()
    }

    /// The same once there is something; never returns when there will be nothing more.
    pub async fn news(&mut self) -> Vec<Progress> {
        loop {
            let news = self.unsaid();
            if !news.is_empty() {
                return news;
            }
            if self.progress.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The session has been told so much more.
    pub fn said(&self, count: usize) {
        self.job.said(&self.session, count);
    }
}
