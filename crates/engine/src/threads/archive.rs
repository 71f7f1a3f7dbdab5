//! The archive of threads.

use oma_domain::session::Rejection;
use oma_domain::{Session, SessionId, WorkspaceId};

use crate::Engine;
use crate::actor::Command;
use crate::error::Error;

impl Engine {
    /// Archives a thread of a session for good, unless it works.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::Rejected`] while it works, or when it is no thread of the session.
    pub async fn archive_thread(
        &self,
        workspace: &WorkspaceId,
        root: &SessionId,
        thread: &SessionId,
    ) -> crate::Result<Session> {
        let found = self.session(workspace, thread).await?;
        if found.state.archived_at.is_none() {
            self.ask(workspace, root, |reply| Command::ArchiveThread {
                thread: thread.clone(),
                reply,
            })
            .await?;
            self.close_thread(workspace, root, thread).await?;
        }
        self.session(workspace, thread).await
    }

    /// Archives the session of a thread that was archived, and lets its coordinator forget it.
    pub(crate) async fn close_thread(
        &self,
        workspace: &WorkspaceId,
        root: &SessionId,
        thread: &SessionId,
    ) -> crate::Result<()> {
        let archive = || self.ask(workspace, thread, |reply| Command::Archive { reply });
        match archive().await {
            Err(Error::Rejected(Rejection::Busy)) => {
                self.cancel_session(workspace, thread).await?;
                archive().await?;
            }
            Ok(()) | Err(Error::SessionNotFound) => {}
            Err(error) => return Err(error),
        }
        let asked = self.ask(workspace, root, |reply| Command::CloseThread {
            thread: thread.clone(),
            reply,
        });
        match asked.await {
            Ok(()) | Err(Error::Rejected(Rejection::Stale) | Error::SessionNotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
