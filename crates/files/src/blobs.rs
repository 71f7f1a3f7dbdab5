//! The bytes of files: one file each, in the data folder's `files`, named after the id.
//!
//! Invariant: what has an id's name is whole and on the disk. It is never changed afterwards, because sandboxes may
//! show it under other names.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use oma_domain::FileId;

/// How files are named that are not whole yet.
const PARTIAL: &str = "partial-";

/// How much may be written between two looks at the free space, in bytes.
const LOOK_EVERY: u64 = 16 << 20;

/// The bytes of all files. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    folder: Arc<Path>,
    /// What of the disk stays free, in bytes.
    floor: u64,
}

impl Blobs {
    /// Opens the folder, which is made if need be, and removes what a crash left half written.
    ///
    /// # Errors
    /// When it can't be used.
    pub(crate) fn open(data: &Path, floor: u64) -> io::Result<Self> {
        let folder = data.join("files");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(PARTIAL.as_bytes())
            {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self {
            folder: folder.into(),
            floor,
        })
    }

    fn path(&self, id: &FileId) -> PathBuf {
        self.folder.join(id.as_str())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let blobs = self.clone();
        match tokio::task::spawn_blocking(move || work(&blobs)).await {
            Ok(done) => done,
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Begins a new one.
    pub(crate) async fn begin(&self) -> io::Result<Partial> {
        self.blocking(|blobs| {
            blobs.check_floor()?;
            let path = blobs.folder.join(format!("{PARTIAL}{}", ulid::Ulid::generate()));
            let file = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            Ok(Partial {
                blobs: blobs.clone(),
                file: Some(file),
                path,
                size: 0,
                looked_at: 0,
            })
        })
        .await
    }

    /// Gives the bytes of a file to another one as well.
    pub(crate) async fn link(&self, from: &FileId, to: &FileId) -> io::Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        self.blocking(move |blobs| {
            match fs::hard_link(&from, &to) {
                Ok(()) => return blobs.sync(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
                // A file system without links, or with no more of them.
                Err(_) => {}
            }
            blobs.check_floor()?;
            let path = blobs.folder.join(format!("{PARTIAL}{}", ulid::Ulid::generate()));
            let copied = fs::copy(&from, &path)
                .and_then(|_| File::open(&path)?.sync_all())
                .and_then(|()| fs::rename(&path, &to));
            if copied.is_err() {
                // What could not be copied whole is of no use.
                let _ = fs::remove_file(&path);
            }
            copied?;
            blobs.sync()
        })
        .await
    }

    /// Opens one for reading.
    pub(crate) async fn read(&self, id: &FileId) -> io::Result<File> {
        let path = self.path(id);
        self.blocking(move |_| File::open(path)).await
    }

    /// Removes some; those that are gone already are fine.
    pub(crate) async fn remove(&self, ids: Vec<FileId>) -> io::Result<()> {
        self.blocking(move |blobs| {
            for id in &ids {
                match fs::remove_file(blobs.path(id)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    /// All that are there.
    pub(crate) async fn ids(&self) -> io::Result<Vec<FileId>> {
        self.blocking(|blobs| {
            let mut found = Vec::new();
            for entry in fs::read_dir(&blobs.folder)? {
                let name = entry?.file_name();
                let id = name.to_str().filter(|name| !name.starts_with(PARTIAL));
                found.extend(id.and_then(|name| FileId::parse(name).ok()));
            }
            Ok(found)
        })
        .await
    }

    /// Makes new names last.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn check_floor(&self) -> io::Result<()> {
        let free = rustix::fs::statvfs(&*self.folder)?;
        if free.f_bavail * free.f_frsize < self.floor.saturating_add(LOOK_EVERY) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

/// Bytes that are arriving. They go when this is dropped.
#[derive(Debug)]
pub(crate) struct Partial {
    blobs: Blobs,
    /// `None` only while a thread has it.
    file: Option<File>,
    path: PathBuf,
    size: u64,
    looked_at: u64,
}

impl Partial {
    /// How many there are.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Adds some.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.size += bytes.len() as u64;
        let looks = self.size - self.looked_at >= LOOK_EVERY;
        if looks {
            self.looked_at = self.size;
        }
        self.on_file(move |blobs, file| {
            if looks {
                blobs.check_floor()?;
            }
            file.write_all(&bytes)
        })
        .await
    }

    /// Adds all of a file, unless it has more than `most` bytes; says whether it had not.
    pub(crate) async fn fill(&mut self, source: File, most: u64) -> io::Result<bool> {
        let copied = self
            .on_file(move |blobs, file| {
                let mut source = io::Read::take(source, most.saturating_add(1));
                let mut copied = 0;
                loop {
                    let mut piece = io::Read::take(&mut source, LOOK_EVERY);
                    let size = io::copy(&mut piece, file)?;
                    copied += size;
                    if size < LOOK_EVERY {
                        return Ok(copied);
                    }
                    blobs.check_floor()?;
                }
            })
            .await?;
        self.size += copied;
        Ok(copied <= most)
    }

    async fn on_file<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Blobs, &mut File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let mut file = self.file.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (file, done) = self
            .blobs
            .blocking(move |blobs| {
                let done = work(blobs, &mut file);
                Ok((file, done))
            })
            .await?;
        self.file = Some(file);
        done
    }

    /// Gives them their name, once they are on the disk.
    pub(crate) async fn finish(mut self, id: &FileId) -> io::Result<()> {
        let (from, to) = (self.path.clone(), self.blobs.path(id));
        self.on_file(move |blobs, file| {
            // Sandboxes show it to users that the server's folder keeps out otherwise.
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            file.sync_all()?;
            fs::rename(from, to)?;
            blobs.sync()
        })
        .await
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Once they have their name, nothing has this one. Where it can't be removed, the next start does it.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(blobs: &Blobs, id: &FileId) -> Option<String> {
        fs::read_to_string(blobs.path(id)).ok()
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
        assert_eq!(fs::read_dir(&*blobs.folder).unwrap().count(), 2);
        let blobs = Blobs::open(data.path(), 0).unwrap();
        assert_eq!(blobs.ids().await.unwrap(), [two], "what a crash left goes");
        assert_eq!(fs::read_dir(&*blobs.folder).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_disk_that_is_nearly_full_takes_nothing() {
        let data = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(data.path(), u64::MAX / 2).unwrap();
        let error = blobs.begin().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
