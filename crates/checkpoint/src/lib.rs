//! The archives of saved workspaces, in a folder or in a bucket of an S3-compatible store: written whole or not at all, and
//! known by their digests.
//!
//! What an archive is of, and whose, is in the store; here are the bytes, under the checkpoints' ids. Either way an archive
//! is written to a file of the local disk first. In a folder it gets its name then; to a bucket it is sent ([`s3`]), and
//! what comes back from there is a file again before any of it is used.
//!
//! Invariant: an archive that has its name is there with all its bytes.
//! Invariant: what is read back is what was written, or it is not given out.
//! Invariant: an archive that is being written is not removed, so whoever removes it is told so and asks again. Neither is
//! one, for some minutes, of which a bucket has not said whether it was written: it may come after its removal else. The folder
//! remembers which those are, so the minutes begin anew with each server.
//!
//! Where it sits: above the domain; the engine uses it.

mod error;
pub mod s3;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek as _, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use oma_domain::CheckpointId;
use oma_staging::Folder;
use sha2::{Digest as _, Sha256};

pub use error::{Error, Result};
use s3::Bucket;

/// How many archives are removed at once.
const REMOVED_AT_ONCE: usize = 8;

/// The archives. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Archives {
    /// Where they are, or where they are written before they are sent.
    folder: Folder,
    bucket: Option<Arc<Bucket>>,
    busy: Written,
}

/// Those that are being written, and those that may still be until some time.
type Written = Arc<Mutex<BTreeMap<CheckpointId, Option<Instant>>>>;

/// What kept archives from being removed.
#[derive(Debug)]
pub struct Kept {
    /// The first one.
    pub id: CheckpointId,
    /// Why it is there still.
    pub error: Error,
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
    /// Archives in this folder, which is made if need be; what a crash left half written is removed. `floor` is what stays
    /// free of the disk, in bytes.
    ///
    /// # Errors
    /// When it can't be used.
    pub fn open(folder: &Path, floor: u64) -> io::Result<Self> {
        Ok(Self {
            folder: Folder::open(folder, floor)?,
            bucket: None,
            busy: Arc::default(),
        })
    }

    /// Archives in this bucket, of which the folder has only what is on its way. The bucket need not be there yet. Of what
    /// an earlier server has sent, and was not answered, nobody knows whether it is there yet.
    ///
    /// # Errors
    /// When the folder can't be used.
    pub fn in_bucket(bucket: Bucket, folder: &Path, floor: u64) -> io::Result<Self> {
        let archives = Self::open(folder, floor)?;
        let until = Instant::now() + bucket.doubt();
        for name in Bucket::unanswered(&archives.folder)? {
            // What has another name is not ours, and nobody will ask to have it removed.
            if let Ok(id) = CheckpointId::parse(&name) {
                locked(&archives.busy).insert(id, Some(until));
            }
        }
        Ok(Self {
            bucket: Some(Arc::new(bucket)),
            ..archives
        })
    }

    /// Begins an archive. What is written to the second one goes into it.
    ///
    /// # Errors
    /// When it can't be made, also for want of space.
    pub fn begin(&self, id: &CheckpointId) -> Result<(Partial, Writer)> {
        let busy = Busy::new(self, id);
        let state = Arc::new(Mutex::new(State {
            file: Some(self.folder.begin()?),
            hash: Sha256::new(),
        }));
        let partial = Partial {
            archives: self.clone(),
            state: Arc::clone(&state),
            busy,
        };
        Ok((partial, Writer { state }))
    }

    /// Opens an archive, after all of it has been compared with what was written.
    ///
    /// # Errors
    /// [`Error::Gone`], [`Error::Damaged`]; [`Error::Full`] when what comes from a bucket has no room; [`Error::Store`],
    /// [`Error::Refused`].
    pub async fn read(&self, id: &CheckpointId, expected: Digest) -> Result<File> {
        if let Some(bucket) = &self.bucket {
            return bucket.fetch(id.as_str(), &expected, &self.folder).await;
        }
        let path = self.folder.file(id.as_str());
        let compared = blocking(move || {
            let mut file = File::open(path)?;
            if digest(&mut file)? != expected {
                return Ok(None);
            }
            file.rewind()?;
            Ok(Some(file))
        });
        match compared.await {
            Ok(found) => found.ok_or(Error::Damaged),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Gone),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes archives; returns those that are gone now, whether or not they were there, and what keeps others. An archive
    /// that is being written, or may be, is left.
    pub async fn remove(&self, ids: &[CheckpointId]) -> (Vec<CheckpointId>, std::result::Result<(), Kept>) {
        let now = Instant::now();
        let quiet: Vec<CheckpointId> = ids.iter().filter(|id| !self.is_busy(id, now)).cloned().collect();
        let work = quiet.into_iter().map(|id| {
            let archives = self.clone();
            async move { (archives.remove_one(&id).await, id) }
        });
        let mut work = std::pin::pin!(stream::iter(work).buffer_unordered(REMOVED_AT_ONCE));
        let mut removed = Vec::new();
        while let Some((done, id)) = work.next().await {
            match done {
                Ok(()) => removed.push(id),
                // A store that fails is not asked for all the others as well.
                Err(error) => return (removed, Err(Kept { id, error })),
            }
        }
        (removed, Ok(()))
    }

    async fn remove_one(&self, id: &CheckpointId) -> Result<()> {
        if let Some(bucket) = &self.bucket {
            return bucket.remove(id.as_str(), &self.folder).await;
        }
        let (folder, id) = (self.folder.clone(), id.clone());
        Ok(blocking(move || folder.remove(id.as_str())).await?)
    }

    fn is_busy(&self, id: &CheckpointId, now: Instant) -> bool {
        let mut all = locked(&self.busy);
        if all
            .get(id)
            .is_some_and(|until| until.is_some_and(|until| until <= now))
        {
            all.remove(id);
        }
        all.contains_key(id)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps an archive from being removed while it is written.
#[derive(Debug)]
struct Busy {
    all: Written,
    id: CheckpointId,
    /// For how long after this it may still come to be there.
    doubt: Option<Duration>,
}

impl Busy {
    fn new(archives: &Archives, id: &CheckpointId) -> Self {
        let all = Arc::clone(&archives.busy);
        locked(&all).insert(id.clone(), None);
        Self {
            all,
            id: id.clone(),
            doubt: None,
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut all = locked(&self.all);
        match self.doubt {
            Some(doubt) => all.insert(self.id.clone(), Some(Instant::now() + doubt)),
            None => all.remove(&self.id),
        };
    }
}

#[derive(Debug)]
struct State {
    /// `None` once it was taken to be finished.
    file: Option<oma_staging::Partial>,
    hash: Sha256,
}

/// An archive that is being written. It goes when this is dropped.
#[derive(Debug)]
pub struct Partial {
    archives: Archives,
    state: Arc<Mutex<State>>,
    busy: Busy,
}

impl Partial {
    /// Gives it its name, once it is on the disk or in the bucket, and says what it is. What a failure leaves in a bucket
    /// goes when the archive is removed.
    ///
    /// # Errors
    /// When the disk fails; [`Error::Store`], [`Error::Refused`].
    pub async fn finish(mut self) -> Result<Digest> {
        let (file, hash) = {
            let mut state = locked(&self.state);
            (state.file.take(), state.hash.clone())
        };
        let file = file.ok_or_else(|| Error::Io(io::ErrorKind::BrokenPipe.into()))?;
        let digest = Digest {
            size: file.size(),
            sha256: hex(hash),
        };
        let id = self.busy.id.clone();
        if let Some(bucket) = &self.archives.bucket {
            // Also where nobody waits for the end of this.
            self.busy.doubt = Some(bucket.doubt());
            let (sent, is_known) = bucket
                .send(id.as_str(), file, &digest, &self.archives.folder)
                .await;
            if is_known {
                self.busy.doubt = None;
            }
            sent?;
        } else {
            blocking(move || file.finish(id.as_str())).await?;
        }
        Ok(digest)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Also where somebody still holds the writer.
        locked(&self.state).file = None;
    }
}

/// What is written to this goes into an archive, as long as the disk has room for it.
#[derive(Debug)]
pub struct Writer {
    state: Arc<Mutex<State>>,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = locked(&self.state);
        let State { file, hash } = &mut *state;
        let file = file.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let written = file.write(bytes)?;
        hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        locked(&self.state).file.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// What the rest of something is.
fn digest(from: &mut impl io::Read) -> io::Result<Digest> {
    let (mut hash, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let got = from.read(&mut buffer)?;
        if got == 0 {
            return Ok(Digest {
                size,
                sha256: hex(hash),
            });
        }
        hash.update(&buffer[..got]);
        size += got as u64;
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
    use std::fs;
    use std::io::Read as _;

    use super::*;

    #[tokio::test]
    async fn an_archive_is_what_was_written_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let archives = Archives::open(folder.path(), 0).unwrap();
        let id = CheckpointId::generate();
        let (partial, mut writer) = archives.begin(&id).unwrap();
        writer.write_all(b"abc").unwrap();
        let (removed, done) = archives.remove(std::slice::from_ref(&id)).await;
        assert!(removed.is_empty() && done.is_ok(), "it is being written");
        let digest = partial.finish().await.unwrap();
        assert!(writer.write_all(b"d").is_err(), "it is finished");
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
            assert!(matches!(error, Error::Damaged), "{forged}");
        }
        for _ in 0..2 {
            let (removed, done) = archives.remove(std::slice::from_ref(&id)).await;
            assert_eq!(removed, std::slice::from_ref(&id));
            done.unwrap();
        }
        let error = archives.read(&id, digest).await.unwrap_err();
        assert!(matches!(error, Error::Gone));
    }

    #[tokio::test]
    async fn what_is_not_finished_goes() {
        let folder = tempfile::tempdir().unwrap();
        let archives = Archives::open(folder.path(), 0).unwrap();
        let names = || fs::read_dir(folder.path()).unwrap().count();
        let id = CheckpointId::generate();
        let (partial, mut writer) = archives.begin(&id).unwrap();
        writer.write_all(b"abc").unwrap();
        assert_eq!(names(), 1);
        drop(partial);
        assert_eq!(names(), 0);
        assert!(writer.write_all(b"d").is_err());
        assert!(!archives.is_busy(&id, Instant::now()));
        let full = Archives::open(folder.path(), u64::MAX / 2).unwrap();
        assert!(matches!(full.begin(&id).unwrap_err(), Error::Full));
        assert!(!full.is_busy(&id, Instant::now()));
    }
}
