//! The archives of saved workspaces, in a folder: written whole or not at all, and known by their digests.
//!
//! What an archive is of, and whose, is in the store; here are the bytes, under the checkpoints' ids.
//!
//! Invariant: an archive that has its name is on the disk with all its bytes.
//! Invariant: what is read back is what was written, or it is not given out.
//!
//! Where it sits: above the domain; the engine uses it.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use oma_domain::CheckpointId;
use sha2::{Digest as _, Sha256};

/// How an archive is named until it is whole.
const PARTIAL: &str = ".partial-";
/// How many bytes are written between two looks at what the disk has left.
const LOOK_EVERY: u64 = 16 << 20;

/// The archives. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Archives {
    folder: Arc<Path>,
    floor: u64,
}

/// What tells an archive from every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Bytes.
    pub size: u64,
    /// SHA-256, in hexadecimal.
    pub sha256: String,
}

impl Archives {
    /// Opens the folder, which is made if need be, and removes what a crash left half written. `floor` is what stays
    /// free of the disk, in bytes.
    ///
    /// # Errors
    /// When it can't be used.
    pub fn open(folder: &Path, floor: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(PARTIAL.as_bytes()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self {
            folder: folder.into(),
            floor,
        })
    }

    fn path(&self, id: &CheckpointId) -> PathBuf {
        self.folder.join(id.as_str())
    }

    /// Begins an archive. What is written to the second one goes into it.
    ///
    /// # Errors
    /// When it can't be made, also for want of space.
    pub fn begin(&self) -> io::Result<(Partial, Writer)> {
        self.check_floor()?;
        let path = self.folder.join(format!("{PARTIAL}{}", ulid::Ulid::generate()));
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let state = Arc::new(Mutex::new(State {
            file,
            hash: Sha256::new(),
            size: 0,
            looked_at: 0,
        }));
        let partial = Partial {
            archives: self.clone(),
            path,
            state: Arc::clone(&state),
        };
        let writer = Writer {
            archives: self.clone(),
            state,
        };
        Ok((partial, writer))
    }

    /// Opens an archive, after all of it has been compared with what was written.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it is gone; [`io::ErrorKind::InvalidData`] when it is another one.
    pub async fn read(&self, id: &CheckpointId, expected: Digest) -> io::Result<File> {
        let path = self.path(id);
        blocking(move || {
            let mut file = File::open(path)?;
            let (mut hash, mut size) = (Sha256::new(), 0);
            let mut buffer = vec![0; 256 << 10];
            loop {
                let got = file.read(&mut buffer)?;
                if got == 0 {
                    break;
                }
                hash.update(&buffer[..got]);
                size += got as u64;
            }
            if (Digest {
                size,
                sha256: hex(hash),
            }) != expected
            {
                let reason = "its bytes are not those that were saved";
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            file.rewind()?;
            Ok(file)
        })
        .await
    }

    /// Removes archives. Those that are gone already are no failure.
    ///
    /// # Errors
    /// When one is still there.
    pub async fn remove(&self, ids: &[CheckpointId]) -> io::Result<()> {
        let paths: Vec<PathBuf> = ids.iter().map(|id| self.path(id)).collect();
        blocking(move || {
            for path in paths {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    fn check_floor(&self) -> io::Result<()> {
        let free = rustix::fs::statvfs(&*self.folder)?;
        if free.f_bavail * free.f_frsize < self.floor.saturating_add(LOOK_EVERY) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

#[derive(Debug)]
struct State {
    file: File,
    hash: Sha256,
    size: u64,
    looked_at: u64,
}

/// An archive that is being written. It goes when this is dropped.
#[derive(Debug)]
pub struct Partial {
    archives: Archives,
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Partial {
    /// Gives it its name, once it is on the disk, and says what it is.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn finish(self, id: &CheckpointId) -> io::Result<Digest> {
        let to = self.archives.path(id);
        blocking(move || {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.file.sync_all()?;
            fs::rename(&self.path, to)?;
            File::open(&*self.archives.folder)?.sync_all()?;
            Ok(Digest {
                size: state.size,
                sha256: hex(state.hash.clone()),
            })
        })
        .await
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Once it has its name, nothing has this one. Where it can't be removed, the next start does it.
        let _ = fs::remove_file(&self.path);
    }
}

/// What is written to this goes into an archive, as long as the disk has room for it.
#[derive(Debug)]
pub struct Writer {
    archives: Archives,
    state: Arc<Mutex<State>>,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.size >= state.looked_at + LOOK_EVERY {
            self.archives.check_floor()?;
            state.looked_at = state.size;
        }
        let written = state.file.write(bytes)?;
        state.hash.update(&bytes[..written]);
        state.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.file.flush()
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_archive_is_what_was_written_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let archives = Archives::open(folder.path(), 0).unwrap();
        let id = CheckpointId::generate();
        let (partial, mut writer) = archives.begin().unwrap();
        writer.write_all(b"abc").unwrap();
        let digest = partial.finish(&id).await.unwrap();
        assert_eq!(digest.size, 3);
        assert_eq!(
            digest.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let mut text = String::new();
        let mut file = archives.read(&id, digest.clone()).await.unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        for forged in ["abd", "ab", "abcd"] {
            fs::write(folder.path().join(id.as_str()), forged).unwrap();
            let error = archives.read(&id, digest.clone()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{forged}");
        }
        archives.remove(std::slice::from_ref(&id)).await.unwrap();
        archives.remove(std::slice::from_ref(&id)).await.unwrap();
        let error = archives.read(&id, digest).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn what_is_not_finished_goes() {
        let folder = tempfile::tempdir().unwrap();
        let archives = Archives::open(folder.path(), 0).unwrap();
        let names = || fs::read_dir(folder.path()).unwrap().count();
        let (partial, mut writer) = archives.begin().unwrap();
        writer.write_all(b"abc").unwrap();
        assert_eq!(names(), 1);
        drop(partial);
        assert_eq!(names(), 0);
        // A crash leaves it to the next start.
        fs::write(folder.path().join(format!("{PARTIAL}x")), "y").unwrap();
        Archives::open(folder.path(), 0).unwrap();
        assert_eq!(names(), 0);
        let full = Archives::open(folder.path(), u64::MAX / 2).unwrap();
        let error = full.begin().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
