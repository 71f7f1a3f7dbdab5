//! Files: what clients upload and sessions make, and what sessions are given of them.
//!
//! What is known of a file is a row of the store; its bytes lie in the data folder (`blobs`). A session that is
//! given a file gets a copy of its own (another name of the same bytes), mounted read-only into its sandbox; what it
//! writes to `/mnt/session/outputs` becomes files that clients can download (`outputs`). A git repository that it is
//! given is cloned into its workspace (`repositories`).
//!
//! Invariant: a row is there only once its bytes are on the disk, and bytes without a row go: at the next start, if a
//! crash came between the two.
//! Invariant: a session's files, its copies and what it made, go with it.
//! Invariant: nothing is read from or put into a session's folders but beneath their root (I12).
//!
//! Where it sits: above the store, the vaults and the sandboxes, below the engine.

mod blobs;
mod error;
mod mount_path;
mod outputs;
mod repositories;
mod resources;
mod upkeep;
mod uploads;

pub use error::{Error, Result};
pub use repositories::{Access, NewRepository};
pub use resources::{NewResource, Prepared};

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::path::Path;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use bytes::Bytes;
use oma_domain::page::{Order, Page};
use oma_domain::{File, FileId, SessionId, Timestamp, WorkspaceId};
use oma_sandbox::Provider;
use oma_sandbox::files::Workspace;
use oma_sandbox::mounts::Place;
use oma_store::{FileFilter, Once, Store};
use tokio::sync::Mutex;

use blobs::{Blobs, Partial};
use repositories::{Hosts, Seen};

/// The longest name of a file, in bytes.
const MAX_FILENAME: usize = 255;
/// How many sessions are worked on side by side without waiting for each other.
const TURNS: usize = 64;

/// How much files may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file.
    pub max_file: u64,
    /// Bytes of all files of a workspace.
    pub room: u64,
    /// Bytes of the disk that stay free.
    pub disk_floor: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_file: 500 << 20,
            room: 10 << 30,
            disk_floor: 1 << 30,
        }
    }
}

/// All files. Cheap to clone.
#[derive(Clone)]
pub struct Files {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    /// What repositories are reached with; without it, none are.
    hosts: Option<Arc<Hosts>>,
    /// Without sandboxes sessions have no folders.
    provider: Option<Arc<dyn Provider>>,
    blobs: Blobs,
    limits: Limits,
    /// What is done to a session's folders is done one thing at a time.
    turns: [Mutex<()>; TURNS],
    /// Sessions whose uploads are in place, as far as this process has seen to it.
    furnished: StdMutex<HashSet<SessionId>>,
    /// Sessions whose repositories this process has seen to.
    seen: StdMutex<HashMap<SessionId, Seen>>,
}

/// A file to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// What its maker calls it; of a path only the last component counts.
    pub filename: String,
    /// MIME type; guessed by the name when it is absent or says nothing.
    pub mime_type: Option<String>,
    /// How long it stays; for ever without this.
    pub expires_in: Option<Duration>,
}

/// Bytes of a new file that are arriving. They go when this is dropped.
pub struct Upload {
    partial: Partial,
    most: u64,
}

impl Upload {
    /// Adds some.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::DiskFull`].
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if self.partial.size().saturating_add(bytes.len() as u64) > self.most {
            return Err(Error::TooLarge(self.most));
        }
        self.partial
            .write(bytes)
            .await
            .map_err(Error::io("writing a file that is uploaded"))
    }
}

impl Files {
    /// Files over a store and the sandboxes of `provider`, if there are any, their bytes in the data folder.
    /// Repositories are reached with `access`.
    ///
    /// # Errors
    /// When the folder can't be used.
    pub fn open(
        data: &Path,
        limits: Limits,
        store: Arc<dyn Store>,
        provider: Option<Arc<dyn Provider>>,
        access: Option<Access>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            inner: Arc::new(Inner {
                hosts: access.map(|access| Hosts::new(Arc::clone(&store), access)),
                store,
                provider,
                blobs: Blobs::open(data, limits.disk_floor)?,
                limits,
                turns: std::array::from_fn(|_| Mutex::default()),
                furnished: StdMutex::default(),
                seen: StdMutex::default(),
            }),
        })
    }

    /// How much files may have.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Begins to take the bytes of a new file.
    ///
    /// # Errors
    /// [`Error::DiskFull`].
    pub async fn begin(&self) -> Result<Upload> {
        let partial = self.inner.blobs.begin().await;
        Ok(Upload {
            partial: partial.map_err(Error::io("beginning a file"))?,
            most: self.inner.limits.max_file,
        })
    }

    /// Makes a file of bytes that have arrived, under this id. It is durable when this returns.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NoRoom`], [`Error::DiskFull`]; in [`Error::Store`] that the idempotency key is taken.
    pub async fn create(
        &self,
        workspace: &WorkspaceId,
        id: FileId,
        upload: Upload,
        new: NewFile,
        now: Timestamp,
        once: Option<&Once>,
    ) -> Result<File> {
        let filename = filename(&new.filename)?;
        let file = File {
            id,
            workspace: workspace.clone(),
            mime_type: mime_type(new.mime_type.as_deref(), &filename),
            filename,
            size: upload.partial.size(),
            downloadable: false,
            created_at: now,
            expires_at: new.expires_in.map(|stay| later(now, stay)),
            session: None,
        };
        let (store, room) = (&self.inner.store, self.inner.limits.room);
        self.keep(upload.partial, &file, store.add_file(&file, room, once))
            .await?;
        Ok(file)
    }

    /// Puts bytes in place and then the row; without the row the bytes go again.
    async fn keep(
        &self,
        partial: Partial,
        file: &File,
        add: impl Future<Output = oma_store::Result<()>>,
    ) -> Result<()> {
        partial
            .finish(&file.id)
            .await
            .map_err(Error::io("putting a file in place"))?;
        if let Err(error) = add.await {
            self.forget_bytes(vec![file.id.clone()]).await;
            return Err(error.into());
        }
        Ok(())
    }

    /// Removes bytes that have no row. What can't be removed goes at the next start.
    async fn forget_bytes(&self, ids: Vec<FileId>) {
        if let Err(error) = self.inner.blobs.remove(ids).await {
            tracing::warn!(%error, "the bytes of a file that was refused could not be removed");
        }
    }

    /// A file.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Expired`].
    pub async fn get(&self, workspace: &WorkspaceId, id: &FileId, now: Timestamp) -> Result<File> {
        match self.inner.store.file(workspace, id).await? {
            Some(file) if file.is_expired(now) => Err(Error::Expired),
            Some(file) => Ok(file),
            None if self.inner.store.has_expired(workspace, id).await? => Err(Error::Expired),
            None => Err(Error::NotFound),
        }
    }

    /// Files by creation. Of a session that rests, what it has made by now is among them.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the cursor is unknown.
    pub async fn list(
        &self,
        workspace: &WorkspaceId,
        filter: &FileFilter,
        order: Order,
        after: Option<&FileId>,
        limit: u32,
    ) -> Result<Page<File, FileId>> {
        let page = self
            .inner
            .store
            .files(workspace, filter, order, after, limit)
            .await;
        page.map_err(|error| match error {
            oma_store::Error::NotFound => Error::NotFound,
            error => error.into(),
        })
    }

    /// A file with its bytes, for whoever may have them.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Expired`], [`Error::NotDownloadable`].
    pub async fn download(
        &self,
        workspace: &WorkspaceId,
        id: &FileId,
        now: Timestamp,
    ) -> Result<(File, std::fs::File)> {
        let file = self.get(workspace, id, now).await?;
        if !file.downloadable {
            return Err(Error::NotDownloadable);
        }
        let bytes = self.bytes(&file).await?;
        Ok((file, bytes))
    }

    /// All bytes of a file, for a model. There are `most` at most.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Expired`], [`Error::TooLarge`].
    pub async fn read(
        &self,
        workspace: &WorkspaceId,
        id: &FileId,
        now: Timestamp,
        most: u64,
    ) -> Result<(File, Vec<u8>)> {
        let file = self.get(workspace, id, now).await?;
        if file.size > most {
            return Err(Error::TooLarge(most));
        }
        let mut source = self.bytes(&file).await?;
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut source, &mut bytes).map(|_| bytes)
        });
        let read = read.await.map_err(|error| Error::Internal(error.to_string()))?;
        Ok((file, read.map_err(Error::io("reading a file"))?))
    }

    async fn bytes(&self, file: &File) -> Result<std::fs::File> {
        match self.inner.blobs.read(&file.id).await {
            // It was deleted just now.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::NotFound),
            read => read.map_err(Error::io("opening a file")),
        }
    }

    /// Deletes a file. Copies of it that sessions have stay.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, workspace: &WorkspaceId, id: &FileId) -> Result<()> {
        if !self.inner.store.delete_file(workspace, id).await? {
            return Err(Error::NotFound);
        }
        self.release().await
    }

    /// Whether the session has folders that its sandbox shows.
    async fn has_folders(&self, session: &SessionId) -> Result<bool> {
        match &self.inner.provider {
            Some(provider) => Ok(provider.has_mounts(session).await?),
            None => Ok(false),
        }
    }

    /// One of the folders that the session's sandbox shows.
    async fn folder(&self, session: &SessionId, place: &Place) -> Result<Arc<dyn Workspace>> {
        match &self.inner.provider {
            Some(provider) => Ok(provider.mount(session, place).await?),
            None => Err(Error::Internal("there are no sandboxes".to_owned())),
        }
    }

    async fn turn(&self, session: &SessionId) -> tokio::sync::MutexGuard<'_, ()> {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let place = hasher.hash_one(session.as_str()) % TURNS as u64;
        let place = usize::try_from(place).unwrap_or(0);
        self.inner.turns[place].lock().await
    }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    Timestamp(now.0.saturating_add(by))
}

/// The last component of a name that somebody gave a file.
///
/// # Errors
/// [`Error::Invalid`] when that is no name.
fn filename(given: &str) -> Result<String> {
    let name = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let is_plain = !matches!(name, "" | "." | "..") && !name.chars().any(char::is_control);
    if !is_plain || name.len() > MAX_FILENAME {
        let message =
            format!("the file needs a name of 1 to {MAX_FILENAME} bytes without control characters");
        return Err(Error::invalid("file", message));
    }
    Ok(name.to_owned())
}

/// What clients say when they don't know.
const UNKNOWN_TYPE: &str = "application/octet-stream";

fn mime_type(given: Option<&str>, filename: &str) -> String {
    let is_told = |kind: &&str| kind.len() <= 200 && !kind.is_empty() && *kind != UNKNOWN_TYPE;
    match given.map(str::trim).filter(is_told) {
        Some(kind) => kind.to_ascii_lowercase(),
        None => mime_guess::from_path(filename)
            .first_raw()
            .unwrap_or(UNKNOWN_TYPE)
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_component() {
        for (given, expected) in [
            ("data.csv", Some("data.csv")),
            ("a/b/data.csv", Some("data.csv")),
            ("C:\\x\\data.csv", Some("data.csv")),
            ("größe.txt", Some("größe.txt")),
            ("..hidden", Some("..hidden")),
            ("", None),
            ("a/", None),
            ("..", None),
            ("a\r\nb", None),
        ] {
            assert_eq!(filename(given).ok().as_deref(), expected, "{given:?}");
        }
        assert!(filename(&"x".repeat(256)).is_err());
    }

    #[test]
    fn types_are_guessed_where_nobody_says() {
        for (given, name, expected) in [
            (Some("Text/CSV"), "x", "text/csv"),
            (Some("application/octet-stream"), "x.pdf", "application/pdf"),
            (None, "x.png", "image/png"),
            (Some(""), "x", "application/octet-stream"),
        ] {
            assert_eq!(mime_type(given, name), expected);
        }
    }
}
