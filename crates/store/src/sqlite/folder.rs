//! The data folder: its permissions, its lock and what is wrong with it when writing fails.
//!
//! Invariants: nobody else writes in the folder, and every file in it is `0600` whatever the umask is; at most one
//! process has the folder open; the permissions of a folder that was there before are never changed.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Error, Result};

pub(super) const DATABASE: &str = "store.db";
const LOG: &str = "store.db-wal";
const INDEX: &str = "store.db-shm";
const LOCK: &str = "store.lock";
const PROBE: &str = "store.probe";

/// How long a lock may outlast the process that had it. One that is killed while it starts another leaves its open
/// files to that for a moment, until the new program runs; the kernel gives no word of that.
const INHERITED: Duration = Duration::from_secs(1);
const INHERITED_PAUSE: Duration = Duration::from_millis(5);

/// An open data folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

/// Keeps every other process out of the folder until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Folder {
    /// Creates the folder where it is missing, locks it and makes its files private.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when another process has it open, or others than its owner may write there;
    /// [`Error::ReadOnly`] when it can't be written, [`Error::Full`] when the disk is full.
    pub(super) fn open(path: &Path) -> Result<(Self, Lock)> {
        if !create(path)? {
            refuse_shared(path)?;
        }
        let database = path.join(DATABASE);

        let lock_path = path.join(LOCK);
        let mut lock = private_file(&lock_path)?;
        let begun = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => match owner(&lock) {
                    Some(owner) if !is_alive(owner) && begun.elapsed() < INHERITED => {
                        std::thread::sleep(INHERITED_PAUSE);
                    }
                    owner => return Err(in_use(path, owner)),
                },
                Err(TryLockError::Error(error)) => return Err(verdict(&lock_path, &error)),
            }
        }
        note_owner(&mut lock).map_err(|error| verdict(&lock_path, &error))?;

        // SQLite gives its -wal and -shm files the mode of the database, so it has to be right beforehand. The
        // file is closed again before SQLite opens it: closing one later would drop SQLite's own locks.
        drop(private_file(&database)?);
        for side in [LOG, INDEX] {
            let side = path.join(side);
            match fs::set_permissions(&side, Permissions::from_mode(0o600)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(verdict(&side, &error)),
            }
        }
        Ok((
            Self {
                path: path.to_owned(),
            },
            Lock { _file: lock },
        ))
    }

    /// Where the database is.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Tries to write a page, as far into a file as the write-ahead log reaches, and says what stands in the
    /// way if it is something that has a name.
    pub(super) fn diagnose(&self) -> Option<Error> {
        let path = self.path.join(PROBE);
        // A log that is missing is as short as can be.
        let reach = fs::metadata(self.path.join(LOG)).map_or(0, |meta| meta.len());
        let attempt = private_file(&path).and_then(|file| {
            file.write_all_at(&[0; 4096], reach)
                .and_then(|()| file.sync_all())
                .map_err(|error| verdict(&path, &error))
        });
        // The probe file holds nothing; when it can't be removed, it is overwritten the next time.
        if let Err(error) = fs::remove_file(&path) {
            tracing::debug!(%error, "the probe file was not removed");
        }
        match attempt {
            Err(error @ (Error::Full | Error::ReadOnly(_))) => Some(error),
            Ok(()) | Err(_) => None,
        }
    }
}

/// Makes the folder, and says whether it was missing.
fn create(path: &Path) -> Result<bool> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => return Ok(false),
        Ok(_) => return Err(Error::ReadOnly(format!("{} is not a folder", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(verdict(path, &error)),
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        // The umask may have taken our own rights.
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o700)))
        // SQLite syncs what is in the folder; that the folder is there is ours to make durable.
        .and_then(|()| match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        })
        .map_err(|error| verdict(path, &error))?;
    Ok(true)
}

/// Refuses a folder that others than its owner may write in: they could put another database in the place of ours.
/// Taking it away from them is not ours to do, because it may be somebody else's, or shared on purpose. Who may only look
/// into it sees names: all that we make there is private.
fn refuse_shared(path: &Path) -> Result<()> {
    let mode = fs::metadata(path).map_err(|error| verdict(path, &error))?.mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let shown = path.display();
    if mode & 0o022 == 0 {
        tracing::warn!(
            path = %shown,
            mode = format!("{mode:04o}"),
            "the data folder's list of files is open to others; `chmod 700` closes it"
        );
        return Ok(());
    }
    Err(Error::Unavailable(format!(
        "the data folder {shown} can be written by others (its mode is {mode:04o}); run `chmod 700 {shown}`, or name a folder \
         that is not there yet, which is made private"
    )))
}

/// Opens or creates a file that only we may read, whatever the umask is.
fn private_file(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| verdict(path, &error))?;
    let mode = file.metadata().map_err(|error| verdict(path, &error))?.mode() & 0o777;
    if mode != 0o600 {
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(|error| verdict(path, &error))?;
    }
    Ok(file)
}

/// Leaves our process id in the lock file for the message of the next one who tries.
fn note_owner(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.write_all(std::process::id().to_string().as_bytes())
}

/// The process that has noted that it has the lock.
fn owner(lock: &File) -> Option<u32> {
    let mut text = [0; 16];
    let length = lock.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(text.get(..length)?).ok()?.parse().ok()
}

fn is_alive(process: u32) -> bool {
    Path::new("/proc").join(process.to_string()).exists()
}

fn in_use(path: &Path, owner: Option<u32>) -> Error {
    let owner = owner.map_or_else(String::new, |owner| format!(" (process {owner})"));
    Error::Unavailable(format!(
        "another server has the data folder {} open{owner}",
        path.display()
    ))
}

fn verdict(path: &Path, error: &io::Error) -> Error {
    let text = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Error::Full
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Error::ReadOnly(text),
        _ => Error::Internal(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lock of a data folder, held by a process with this number as it says.
    fn held(path: &Path, owner: u32) -> File {
        let mut lock = private_file(&path.join(LOCK)).unwrap();
        lock.try_lock().unwrap();
        lock.set_len(0).unwrap();
        lock.write_all(owner.to_string().as_bytes()).unwrap();
        lock
    }

    /// A number that no process has.
    const NOBODY: u32 = u32::MAX;

    #[test]
    fn a_lock_that_outlasts_its_owner_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        drop(Folder::open(&path).unwrap());

        let lock = held(&path, std::process::id());
        let begun = Instant::now();
        let refused = Folder::open(&path).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("(process {})", std::process::id())),
            "{refused}"
        );
        assert!(begun.elapsed() < INHERITED, "its owner lives");
        drop(lock);

        let lock = held(&path, NOBODY);
        let begun = Instant::now();
        Folder::open(&path).unwrap_err();
        assert!(begun.elapsed() >= INHERITED, "bounded, and not before");
        let opening = std::thread::spawn({
            let path = path.clone();
            move || Folder::open(&path).map(drop)
        });
        drop(lock);
        opening.join().unwrap().unwrap();
        let noted = fs::read_to_string(path.join(LOCK)).unwrap();
        assert_eq!(noted, std::process::id().to_string());
    }
}
