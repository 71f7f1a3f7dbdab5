//! Files and sessions' resources: what the `files` crate does, for sessions that are there.

use oma_domain::page::{Order, Page};
use oma_domain::{File, FileId, Resource, ResourceId, SessionId, WorkspaceId};
pub use oma_files::{Access, Error, Files, Limits, NewFile, NewRepository, NewResource, Upload};
use oma_store::{Error as Store, FileFilter};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::error::Result;
use crate::{Engine, IdempotencyKey, now, once};

const SCOPE: &str = "file.create";

impl Engine {
    /// How much files may have.
    #[must_use]
    pub fn file_limits(&self) -> &Limits {
        self.inner.files.limits()
    }

    /// Begins to take the bytes of a new file.
    ///
    /// # Errors
    /// [`Error::DiskFull`] in [`crate::Error::Files`].
    pub async fn begin_file(&self) -> Result<Upload> {
        Ok(self.inner.files.begin().await?)
    }

    /// Makes a file of bytes that have arrived. It is durable when this returns.
    ///
    /// # Errors
    /// [`crate::Error::KeyReused`]; [`crate::Error::Files`].
    pub async fn create_file(
        &self,
        workspace: &WorkspaceId,
        upload: Upload,
        new: NewFile,
        key: Option<IdempotencyKey>,
    ) -> Result<File> {
        let known = once::lookup(&*self.inner.store, workspace, SCOPE, key.as_ref()).await?;
        if let Some(receipt) = known {
            return self.replayed_file(workspace, &receipt).await;
        }
        let id = FileId::generate();
        let record = once::record(SCOPE, key.as_ref(), json!(id));
        let files = &self.inner.files;
        let created = files.create(workspace, id, upload, new, now(), record.as_ref());
        match (created.await, key) {
            (Err(Error::Store(Store::AlreadyDone(record))), Some(key)) => {
                let receipt = once::replay(record, &key)?;
                self.replayed_file(workspace, &receipt).await
            }
            (created, _) => Ok(created?),
        }
    }

    async fn replayed_file(&self, workspace: &WorkspaceId, receipt: &Value) -> Result<File> {
        let id = receipt.as_str().and_then(|id| FileId::parse(id).ok());
        self.file(workspace, &id.ok_or(Error::NotFound)?).await
    }

    /// A file.
    ///
    /// # Errors
    /// [`Error::NotFound`] and [`Error::Expired`] in [`crate::Error::Files`].
    pub async fn file(&self, workspace: &WorkspaceId, id: &FileId) -> Result<File> {
        Ok(self.inner.files.get(workspace, id, now()).await?)
    }

    /// Files by creation. Of a session that rests, all that it has made by now is among them.
    ///
    /// # Errors
    /// [`Error::NotFound`] in [`crate::Error::Files`] when the cursor is unknown.
    pub async fn files(
        &self,
        workspace: &WorkspaceId,
        filter: &FileFilter,
        order: Order,
        after: Option<&FileId>,
        limit: u32,
    ) -> Result<Page<File, FileId>> {
        let files = &self.inner.files;
        if let Some(id) = &filter.session {
            let session = self.inner.store.session(workspace, id).await?;
            if session.is_some_and(|session| !session.state.is_running()) {
                files.collect(workspace, id, now()).await?;
            }
        }
        Ok(files.list(workspace, filter, order, after, limit).await?)
    }

    /// A file with its bytes, if clients may have them.
    ///
    /// # Errors
    /// As [`Engine::file`]; [`Error::NotDownloadable`] in [`crate::Error::Files`].
    pub async fn download_file(&self, workspace: &WorkspaceId, id: &FileId) -> Result<(File, std::fs::File)> {
        Ok(self.inner.files.download(workspace, id, now()).await?)
    }

    /// A file with all its bytes, for a message; `most` at most.
    ///
    /// # Errors
    /// As [`Engine::file`]; [`Error::TooLarge`] in [`crate::Error::Files`].
    pub async fn read_file(
        &self,
        workspace: &WorkspaceId,
        id: &FileId,
        most: u64,
    ) -> Result<(File, Vec<u8>)> {
        Ok(self.inner.files.read(workspace, id, now(), most).await?)
    }

    /// Deletes a file. Copies of it that sessions have stay.
    ///
    /// # Errors
    /// [`Error::NotFound`] in [`crate::Error::Files`].
    pub async fn delete_file(&self, workspace: &WorkspaceId, id: &FileId) -> Result<()> {
        Ok(self.inner.files.delete(workspace, id).await?)
    }

    /// Gives a session something more. A sandbox that runs already shows it when this returns.
    ///
    /// # Errors
    /// [`crate::Error::SessionNotFound`]; [`crate::Error::Rejected`] when it is archived; [`crate::Error::Files`].
    pub async fn add_resource(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        new: NewResource,
    ) -> Result<Resource> {
        self.unarchived(workspace, session).await?;
        Ok(self
            .inner
            .files
            .add_resource(workspace, session, new, now())
            .await?)
    }

    /// Takes something away from a session.
    ///
    /// # Errors
    /// [`crate::Error::SessionNotFound`]; [`crate::Error::Rejected`] when it is archived;
    /// [`Error::ResourceNotFound`] in [`crate::Error::Files`].
    pub async fn remove_resource(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        id: &ResourceId,
    ) -> Result<()> {
        self.unarchived(workspace, session).await?;
        Ok(self.inner.files.remove_resource(workspace, session, id).await?)
    }

    /// Gives a session's repository another token, which counts from now on.
    ///
    /// # Errors
    /// [`crate::Error::SessionNotFound`]; [`crate::Error::Rejected`] when it is archived;
    /// [`Error::ResourceNotFound`] and [`Error::Invalid`] in [`crate::Error::Files`].
    pub async fn rotate_repository_token(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        id: &ResourceId,
        token: &SecretString,
    ) -> Result<Resource> {
        self.unarchived(workspace, session).await?;
        let rotated = self
            .inner
            .files
            .rotate_token(workspace, session, id, token, now());
        Ok(rotated.await?)
    }

    async fn unarchived(&self, workspace: &WorkspaceId, session: &SessionId) -> Result<()> {
        let session = self.session(workspace, session).await?;
        if session.state.archived_at.is_some() {
            return Err(oma_domain::session::Rejection::Archived.into());
        }
        Ok(())
    }
}

impl crate::Inner {
    /// Makes files of what a session that has come to rest has written, beside whatever comes next.
    pub(crate) fn collect_outputs(self: &std::sync::Arc<Self>, workspace: WorkspaceId, session: SessionId) {
        let inner = std::sync::Arc::clone(self);
        let work = async move {
            let collected = inner.files.collect(&workspace, &session, now());
            tokio::select! {
                // Whoever lists them has them collected again.
                () = inner.closed.cancelled() => {}
                collected = collected => if let Err(error) = collected {
                    tracing::error!(session_id = %session, %error, "a session's outputs could not be kept");
                },
            }
        };
        self.tasks.spawn(work);
    }
}
