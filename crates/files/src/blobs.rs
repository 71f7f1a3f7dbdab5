//! The bytes of files: one file each, in the data folder's `files`, named after the id.
//!
//! Invariant: what has an id's name is whole and on the disk. It is never changed afterwards, because sandboxes may
//! show it under other names.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bytes::Bytes;
use oma_domain::FileId;
use oma_staging::Folder;

/// The bytes of all files. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    folder: Folder,
}

impl Blobs {
    /// Opens the folder, which is made if need be, and removes what a crash left half written. `floor` is what of the
    /// disk stays free, in bytes.
    ///
    /// # Errors
    /// When it can't be used.
    pub(crate) fn open(data: &Path, floor: u64) -> io::Result<Self> {
        let folder = Folder::open(&data.join("files"), floor)?;
        Ok(Self { folder })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let folder = self.folder.clone();
        match tokio::task::spawn_blocking(move || work(&folder)).await {
            Ok(done) => done,
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Begins a new one.
    pub(crate) async fn begin(&self) -> io::Result<Partial> {
        let blobs = self.clone();
        self.blocking(move |folder| {
            Ok(Partial {
                file: Some(folder.begin()?),
                size: 0,
                blobs,
            })
        })
        .await
    }

    /// Gives the bytes of a file to another one as well.
    pub(crate) async fn link(&self, from: &FileId, to: &FileId) -> io::Result<()> {
        let (from, to) = (from.clone(), to.clone());
        self.blocking(move |folder| {
            match folder.link(from.as_str(), to.as_str()) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
                // A file system without links, or with no more of them.
                Err(_) => {}
            }
            let mut copy = folder.begin()?;
            copy.fill(File::open(folder.file(from.as_str()))?, u64::MAX)?;
            show(&copy)?;
            copy.finish(to.as_str())
        })
        .await
    }

    /// Opens one for reading.
    pub(crate) async fn read(&self, id: &FileId) -> io::Result<File> {
        let id = id.clone();
        self.blocking(move |folder| File::open(folder.file(id.as_str())))
            .await
    }

    /// Removes some; those that are gone already are fine.
    pub(crate) async fn remove(&self, ids: Vec<FileId>) -> io::Result<()> {
        self.blocking(move |folder| ids.iter().try_for_each(|id| folder.remove(id.as_str())))
            .await
    }

    /// All that are there.
    pub(crate) async fn ids(&self) -> io::Result<Vec<FileId>> {
        self.blocking(|folder| {
            let names = folder.names()?;
            Ok(names.iter().filter_map(|name| FileId::parse(name).ok()).collect())
        })
        .await
    }
}

/// Sandboxes show it to users that the server's folder keeps out otherwise.
fn show(partial: &oma_staging::Partial) -> io::Result<()> {
    partial.file().set_permissions(fs::Permissions::from_mode(0o644))
}

/// Bytes that are arriving. They go when this is dropped.
#[derive(Debug)]
pub(crate) struct Partial {
    blobs: Blobs,
    /// `None` only while a thread has it, and after one has failed.
    file: Option<oma_staging::Partial>,
    size: u64,
}

impl Partial {
    /// How many there are.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Adds some.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.on_file(move |file| file.write_all(&bytes)).await
    }

    /// Adds all of a file, unless it has more than `most` bytes; says whether it had not.
    pub(crate) async fn fill(&mut self, source: File, most: u64) -> io::Result<bool> {
        self.on_file(move |file| file.fill(source, most)).await
    }

    async fn on_file<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut oma_staging::Partial) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let mut file = self.file.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (file, done) = self
            .blobs
            .blocking(move |_| {
                let done = work(&mut file);
                Ok((file, done))
            })
            .await?;
        self.size = file.size();
        self.file = Some(file);
        done
    }

    /// Gives them their name, once they are on the disk.
    pub(crate) async fn finish(mut self, id: &FileId) -> io::Result<()> {
        let file = self.file.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let id = id.clone();
        self.blobs
            .blocking(move |_| {
                show(&file)?;
                file.finish(id.as_str())
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(blobs: &Blobs, id: &FileId) -> Option<String> {
        fs::read_to_string(blobs.folder.file(id.as_str())).ok()
    }

    #[tokio::test]
    async fn bytes_are_there_whole_or_not_at_all() {
        let data = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(data.path(), 0).unwrap();
        let (one, two) = (FileId::generate(), FileId::generate());
        let mut partial = blobs.begin().await.unwrap();
        partial.write(Bytes::from_static(b"one ")).await.unwrap();
        partial.write(Bytes::from_static(b"two")).await.unwrap();
        assert_eq!(blobs.ids().await.unwrap(), []);
        partial.finish(&one).await.unwrap();
        assert_eq!(text(&blobs, &one).as_deref(), Some("one two"));

        blobs.link(&one, &two).await.unwrap();
        assert!(
            blobs
                .link(&FileId::generate(), &FileId::generate())
                .await
                .is_err()
        );
        let mut ids = blobs.ids().await.unwrap();
        ids.sort();
        assert_eq!(ids, {
            let mut both = [one.clone(), two.clone()];
            both.sort();
            both
        });
        blobs.remove(vec![one.clone(), FileId::generate()]).await.unwrap();
        assert_eq!(
            (text(&blobs, &one), text(&blobs, &two).as_deref()),
            (None, Some("one two"))
        );

        let mut given_up = blobs.begin().await.unwrap();
        let source = blobs.read(&two).await.unwrap();
        assert!(!given_up.fill(source, 6).await.unwrap(), "one byte too many");
        drop(given_up);
        let mut filled = blobs.begin().await.unwrap();
        assert!(filled.fill(blobs.read(&two).await.unwrap(), 7).await.unwrap());
        assert_eq!(filled.size(), 7);
        std::mem::forget(filled);
        assert_eq!(fs::read_dir(data.path().join("files")).unwrap().count(), 2);
        let blobs = Blobs::open(data.path(), 0).unwrap();
        assert_eq!(blobs.ids().await.unwrap(), [two], "what a crash left goes");
        assert_eq!(fs::read_dir(data.path().join("files")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_disk_that_is_nearly_full_takes_nothing() {
        let data = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(data.path(), u64::MAX / 2).unwrap();
        let error = blobs.begin().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
