//! Saved states of sessions' workspaces: made, listed, put back, into the same session or another one.
//!
//! What is being made is noted before its archive is written, and seen when that is whole; whatever a crash or a failure
//! leaves of it goes by itself. A checkpoint goes with the session that it was made of.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use oma_checkpoint::{Digest, Error as ArchiveError};
use oma_domain::session::{Phase, Rejection};
use oma_domain::{Checkpoint, CheckpointId, Session, SessionId, WorkspaceId};
use oma_sandbox::Error as SandboxError;
use oma_sandbox::files::archive::{self, Bounds};

use crate::error::Result;
use crate::{Engine, Error, now};

/// The most checkpoints of one session.
const MAX_CHECKPOINTS: u32 = 100;
/// How long packing or unpacking a workspace may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long an archive may be under way to a store of objects, or back.
const TRANSFER: Duration = Duration::from_secs(1800);
/// How long a call waits for archives to be removed; what is left by then is removed later.
const REMOVAL: Duration = Duration::from_secs(5);
/// How many archives one step removes. Where that takes long, what earlier steps have done is not done again.
const STEP: u32 = 50;

/// What can go wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// No such checkpoint in this workspace, or none of that session.
    #[error("no checkpoint has this id")]
    NotFound,
    /// The session has as many as it may have.
    #[error("the session has {0} checkpoints; more are not possible")]
    TooMany(u32),
    /// The workspace has more than a checkpoint may have, or than the session may.
    #[error("{0}")]
    TooLarge(String),
    /// What was saved is not what is there now.
    #[error("the checkpoint is damaged: {0}")]
    Damaged(String),
    /// The store of objects that has the archives does not answer, or refuses; nothing was done.
    #[error("{0}")]
    Store(String),
}

/// The archive that could not be removed last. The next attempt begins behind it.
#[derive(Default)]
pub(crate) struct KeptArchive(Mutex<Option<CheckpointId>>);

impl KeptArchive {
    fn get(&self) -> Option<CheckpointId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, id: Option<CheckpointId>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = id;
    }
}

impl Engine {
    /// Saves the workspace of a session in which no turn is at work. Its sandbox ends for that, like an idle one.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::Rejected`] when a turn is at work, or something runs in the sandbox;
    /// [`CheckpointError::TooMany`], [`CheckpointError::TooLarge`]; [`CheckpointError::Store`]; [`Error::DiskFull`];
    /// [`Error::Unavailable`].
    pub async fn create_checkpoint(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
    ) -> Result<Checkpoint> {
        self.accepting()?;
        let session = self.with_workspace(workspace, session).await?;
        if matches!(session.state.phase, Phase::Running { .. }) {
            return Err(Rejection::Busy.into());
        }
        let engine = self.clone();
        // To the end, also when the caller goes away: half of one is of no use.
        let task = self.inner.tasks.spawn(async move { engine.save(&session).await });
        task.await
            .map_err(|error| Error::Internal(format!("saving a workspace did not end: {error}")))?
    }

    async fn save(&self, session: &Session) -> Result<Checkpoint> {
        let mut checkpoint = Checkpoint {
            id: CheckpointId::generate(),
            workspace: session.workspace.clone(),
            session: session.id.clone(),
            size: 0,
            sha256: String::new(),
            bytes: 0,
            entries: 0,
            skipped: 0,
            created_at: now(),
        };
        let store = &self.inner.store;
        match store.begin_checkpoint(&checkpoint, MAX_CHECKPOINTS).await {
            Err(oma_store::Error::NotFound) => return Err(Error::SessionNotFound),
            Err(oma_store::Error::TooMany(most)) => return Err(CheckpointError::TooMany(most).into()),
            begun => begun?,
        }
        let saved = self.write_archive(&mut checkpoint).await;
        if saved.is_err() {
            // Where the session has gone meanwhile it is among the released ones already, and nobody has forgotten it there
            // while its archive was being written.
            store
                .delete_checkpoint(&checkpoint.workspace, &checkpoint.id)
                .await?;
            self.release_within(REMOVAL).await;
        }
        saved.map(|()| checkpoint)
    }

    async fn write_archive(&self, checkpoint: &mut Checkpoint) -> Result<()> {
        let (partial, writer) = self.inner.archives.begin(&checkpoint.id).map_err(lost)?;
        let runtime = &self.inner.runtime;
        let contents = runtime
            .save(&checkpoint.session, Box::new(writer), bounds())
            .await
            .map_err(refused)?;
        let digest = self.transfer(partial.finish()).await?;
        checkpoint.size = digest.size;
        checkpoint.sha256 = digest.sha256;
        checkpoint.bytes = contents.bytes;
        checkpoint.entries = contents.entries;
        checkpoint.skipped = contents.skipped;
        match self.inner.store.finish_checkpoint(checkpoint).await {
            Err(oma_store::Error::NotFound) => Err(Error::SessionNotFound),
            finished => Ok(finished?),
        }
    }

    /// A checkpoint of a session.
    ///
    /// # Errors
    /// [`CheckpointError::NotFound`].
    pub async fn checkpoint(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        id: &CheckpointId,
    ) -> Result<Checkpoint> {
        let found = self.inner.store.checkpoint(workspace, id).await?;
        found
            .filter(|checkpoint| checkpoint.session == *session)
            .ok_or_else(|| CheckpointError::NotFound.into())
    }

    /// The checkpoints of a session, the newest first.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub async fn checkpoints(&self, workspace: &WorkspaceId, session: &SessionId) -> Result<Vec<Checkpoint>> {
        let found = self.inner.store.checkpoints(workspace, session).await?;
        if found.is_empty() {
            self.session(workspace, session).await?;
        }
        Ok(found)
    }

    /// Removes a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError::NotFound`].
    pub async fn delete_checkpoint(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        id: &CheckpointId,
    ) -> Result<()> {
        self.checkpoint(workspace, session, id).await?;
        if !self.inner.store.delete_checkpoint(workspace, id).await? {
            return Err(CheckpointError::NotFound.into());
        }
        self.release_within(REMOVAL).await;
        Ok(())
    }

    /// Puts what was saved, of this session or another one of its workspace, in the place of what the session's workspace
    /// has. Its sandbox ends for that, with whatever runs in it. All of it is as it was when this fails.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`CheckpointError::NotFound`]; [`Error::Rejected`] when the session does not rest;
    /// [`CheckpointError::TooLarge`], [`CheckpointError::Damaged`]; [`CheckpointError::Store`]; [`Error::DiskFull`];
    /// [`Error::Unavailable`].
    pub async fn restore_checkpoint(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        id: &CheckpointId,
    ) -> Result<Checkpoint> {
        self.accepting()?;
        let session = self.with_workspace(workspace, session).await?;
        let found = self.inner.store.checkpoint(workspace, id).await?;
        let checkpoint = found.ok_or(CheckpointError::NotFound)?;
        if !matches!(session.state.phase, Phase::Idle { .. }) {
            return Err(Rejection::Busy.into());
        }
        let engine = self.clone();
        let task = self.inner.tasks.spawn(async move {
            let expected = Digest {
                size: checkpoint.size,
                sha256: checkpoint.sha256.clone(),
            };
            let archive = engine.inner.archives.read(&checkpoint.id, expected);
            let archive = engine.transfer(archive).await?;
            let runtime = &engine.inner.runtime;
            runtime
                .restore(&session.id, Box::new(archive), bounds())
                .await
                .map_err(refused)?;
            Ok(checkpoint)
        });
        task.await
            .map_err(|error| Error::Internal(format!("restoring a workspace did not end: {error}")))?
    }

    /// Gives up what was being made when the last server ended. Only for a start, before calls are taken. What there is of
    /// it is removed later, for a start waits for no store of objects.
    ///
    /// # Errors
    /// A failure of the store.
    pub async fn give_up_checkpoints(&self) -> Result<()> {
        let given_up = self.inner.store.give_up_checkpoints().await?;
        if !given_up.is_empty() {
            tracing::info!(
                count = given_up.len(),
                "checkpoints that were being made are given up"
            );
        }
        Ok(())
    }

    /// Removes the archives of checkpoints that are gone, but for those that are still being written. A store of objects that
    /// fails is left alone; the next time begins behind the archive that it failed with, so that those which it never removes
    /// keep no others.
    async fn release_checkpoints(&self) -> Result<()> {
        let first = self.inner.kept_archive.get();
        self.release_from(first.clone()).await?;
        if first.is_some() {
            // Those before it.
            self.release_from(None).await?;
        }
        Ok(())
    }

    async fn release_from(&self, mut after: Option<CheckpointId>) -> Result<()> {
        let crate::Inner { store, archives, .. } = &*self.inner;
        loop {
            let released = store.released_checkpoints(after.as_ref(), STEP).await?;
            after = released.last().cloned();
            if after.is_none() {
                self.inner.kept_archive.set(None);
                return Ok(());
            }
            let (removed, done) = archives.remove(&released).await;
            store.forget_released_checkpoints(&removed).await?;
            if let Err(kept) = done {
                self.inner.kept_archive.set(Some(kept.id));
                return Err(lost(kept.error));
            }
        }
    }

    /// The same, for a bounded time: what fails, or takes longer, is done later.
    pub(crate) async fn release_within(&self, time: Duration) {
        let released = tokio::select! {
            released = tokio::time::timeout(time, self.release_checkpoints()) => released,
            () = self.inner.closed.cancelled() => return,
        };
        match released {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "archives of checkpoints could not be removed yet"),
            Err(_) => tracing::warn!("archives of checkpoints are removed later, for it takes long"),
        }
    }

    /// Waits for an archive, as long as the server lives and no longer than it may take.
    async fn transfer<T>(&self, work: impl Future<Output = oma_checkpoint::Result<T>>) -> Result<T> {
        tokio::select! {
            done = tokio::time::timeout(TRANSFER, work) => match done {
                Ok(done) => done.map_err(lost),
                Err(_) => {
                    let late = "the store of checkpoints takes too long".to_owned();
                    Err(CheckpointError::Store(late).into())
                }
            },
            () = self.inner.closed.cancelled() => Err(Error::Unavailable("the server is stopping".to_owned())),
        }
    }

    /// A session that has a workspace of its own here.
    async fn with_workspace(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Session> {
        let session = self.session(workspace, id).await?;
        let lacks = |message: &str| Error::Unsupported {
            field: "session",
            message: message.to_owned(),
        };
        if session.sandbox() != &session.id {
            return Err(lacks(
                "a thread works in the workspace of its session; name that one",
            ));
        }
        let environment = session.environment.as_deref();
        if environment.is_some_and(|environment| !environment.spec.hosting.is_cloud()) {
            return Err(lacks(
                "the workspace of a self-hosted environment is with its developer",
            ));
        }
        Ok(session)
    }
}

fn bounds() -> Bounds {
    Bounds {
        // The sandboxes have bounds of their own.
        bytes: u64::MAX,
        entries: u64::MAX,
        deadline: Instant::now() + PATIENCE,
    }
}

fn broken(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull,
        _ => Error::Internal(format!("the archives of checkpoints: {error}")),
    }
}

fn lost(error: ArchiveError) -> Error {
    match error {
        ArchiveError::Gone | ArchiveError::Damaged => CheckpointError::Damaged(error.to_string()).into(),
        ArchiveError::Full => Error::DiskFull,
        ArchiveError::Store(_) | ArchiveError::Refused(_) => CheckpointError::Store(error.to_string()).into(),
        ArchiveError::Io(error) => broken(error),
    }
}

fn refused(error: SandboxError) -> Error {
    match error {
        SandboxError::Busy => Rejection::Busy.into(),
        SandboxError::Exhausted(_) | SandboxError::Engine(_) => Error::Unavailable(error.to_string()),
        SandboxError::Archive(error) => match error {
            archive::Error::TooMuch(_) | archive::Error::Late => {
                CheckpointError::TooLarge(error.to_string()).into()
            }
            archive::Error::Damaged(reason) => CheckpointError::Damaged(reason).into(),
            archive::Error::Io { source, .. } => broken(source),
        },
        SandboxError::Io { source, .. } => broken(source),
        error => Error::Internal(error.to_string()),
    }
}
