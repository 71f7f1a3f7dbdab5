//! A workspace in a folder of this machine.
//!
//! The session writes to the folder while the server, with more rights, works in it. So every path is resolved
//! by the kernel beneath the root, crossing no link ([`rustix::fs::openat2`]), only regular files are touched,
//! and opening never waits (a named pipe would).

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use super::usage;
use super::{Entry, Error, Workspace};
use crate::limits::Limits;
use crate::mounts::Access;

/// The longest path, in bytes.
const MAX_PATH: usize = 4_096;

/// How a fresh file is named until it is whole.
const PARTIAL: &str = ".oma-partial-";

/// A workspace in a folder of this machine.
#[derive(Debug, Clone)]
pub(crate) struct Beneath {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: OwnedFd,
    path: PathBuf,
    /// Who new files belong to; `None` for this process's own user.
    owner: Option<(Uid, Gid)>,
    limits: Limits,
    /// What the session may do with it.
    access: Access,
}

impl Beneath {
    /// Opens the folder. New files go to the user `owner`.
    ///
    /// # Errors
    /// When it is no folder.
    pub(crate) fn open(
        path: &Path,
        owner: Option<u32>,
        access: Access,
        limits: Limits,
    ) -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        let owner = owner.map(|id| (Uid::from_raw(id), Gid::from_raw(id)));
        Ok(Self {
            inner: Arc::new(Inner {
                root,
                path: path.to_owned(),
                owner,
                limits,
                access,
            }),
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(error) => Err(Error::Io(std::io::Error::other(error))),
        }
    }
}

/// A path, taken apart: its folders and its last name.
#[derive(Debug, PartialEq)]
struct Steps<'a> {
    folders: Vec<&'a str>,
    last: &'a str,
}

fn invalid(why: &str) -> Error {
    Error::InvalidPath(why.to_owned())
}

/// Takes a path apart. `.` and doubled slashes are passed over; whatever could lead out is refused here
/// already, with a better word than the kernel's.
fn steps(path: &str) -> Result<Vec<&str>, Error> {
    if path.len() > MAX_PATH {
        return Err(invalid("the path is too long"));
    }
    if path.contains('\0') {
        return Err(invalid("the path has a NUL character"));
    }
    if path.starts_with('/') {
        return Err(invalid("the path must be relative"));
    }
    let steps: Vec<&str> = path
        .split('/')
        .filter(|step| !matches!(*step, "" | "."))
        .collect();
    if steps.contains(&"..") {
        return Err(invalid("the path leads out of the workspace"));
    }
    Ok(steps)
}

fn file_steps(path: &str) -> Result<Steps<'_>, Error> {
    let mut folders = steps(path)?;
    if path.ends_with('/') {
        return Err(invalid("the path names a folder"));
    }
    let last = folders.pop().ok_or_else(|| invalid("the path is empty"))?;
    Ok(Steps { folders, last })
}

fn failure(error: Errno) -> Error {
    match error {
        Errno::NOENT => Error::NotFound,
        Errno::LOOP => invalid("the path crosses a link"),
        Errno::XDEV => invalid("the path leads out of the workspace"),
        Errno::NOTDIR => invalid("the path goes through something that is no folder"),
        Errno::NAMETOOLONG => invalid("a name in the path is too long"),
        Errno::ISDIR => invalid("the path names a folder"),
        Errno::NOSPC | Errno::DQUOT => Error::Full,
        other => Error::Io(other.into()),
    }
}

fn io_failure(error: std::io::Error) -> Error {
    match error.raw_os_error() {
        Some(code) => failure(Errno::from_raw_os_error(code)),
        None => Error::Io(error),
    }
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn mtime_ms(stat: &Stat) -> f64 {
    // Milliseconds since the epoch need 41 bits, and a float has 53.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let (seconds, nanoseconds) = (stat.st_mtime as f64, stat.st_mtime_nsec as f64);
    (seconds * 1e3 + nanoseconds / 1e6).trunc()
}

impl Inner {
    fn open_at(&self, at: &OwnedFd, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        loop {
            match rustix::fs::openat2(at, path, flags, mode, resolve) {
                // The session is moving folders about: the kernel could not be sure.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    fn folder(&self, steps: &[&str]) -> Result<OwnedFd, Error> {
        let path = if steps.is_empty() {
            ".".to_owned()
        } else {
            steps.join("/")
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        self.open_at(&self.root, &path, flags, Mode::empty())
            .map_err(failure)
    }

    fn list(&self, path: &str, limit: usize) -> Result<Vec<Entry>, Error> {
        let steps = steps(path)?;
        let folder = self.folder(&steps)?;
        let mut found = Vec::new();
        let mut entries = Dir::read_from(&folder).map_err(failure)?;
        // The bound holds for what is looked at, not only for what is given.
        let mut budget = usize::try_from(self.limits.inodes)
            .unwrap_or(usize::MAX)
            .saturating_mul(2);
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(failure)?;
            budget = budget.saturating_sub(1);
            if budget == 0 {
                break;
            }
            // A name that is no text can't be named by a client either.
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if matches!(name, "." | "..") || name.starts_with(PARTIAL) {
                continue;
            }
            let Ok(stat) = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let is_dir = match kind(&stat) {
                FileType::Directory => true,
                FileType::RegularFile => false,
                _ => continue,
            };
            let path = steps.iter().copied().chain([name]).collect::<Vec<_>>().join("/");
            let size = if is_dir {
                0
            } else {
                u64::try_from(stat.st_size).unwrap_or(0)
            };
            found.push(Entry {
                name: name.to_owned(),
                path,
                is_dir,
                size,
                mtime_ms: mtime_ms(&stat),
            });
        }
        found.sort_by(|a, b| b.is_dir.cmp(&a.is_dir).then_with(|| a.name.cmp(&b.name)));
        found.truncate(limit);
        Ok(found)
    }

    fn open(&self, path: &str) -> Result<(File, Stat), Error> {
        let steps = file_steps(path)?;
        let path = steps
            .folders
            .iter()
            .copied()
            .chain([steps.last])
            .collect::<Vec<_>>()
            .join("/");
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self
            .open_at(&self.root, &path, flags, Mode::empty())
            .map_err(|error| match error {
                // What opening a socket or a device without a driver gives.
                Errno::NXIO | Errno::NODEV => invalid("not a regular file"),
                other => failure(other),
            })?;
        let stat = rustix::fs::fstat(&file).map_err(failure)?;
        match kind(&stat) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(invalid("the path names a folder")),
            _ => return Err(invalid("not a regular file")),
        }
        Ok((File::from(file), stat))
    }

    fn read(&self, path: &str, max: u64) -> Result<Bytes, Error> {
        let (file, stat) = self.open(path)?;
        if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > max {
            return Err(Error::TooLarge(max));
        }
        // It may be growing, so the bound is kept while reading too.
        let mut bytes = Vec::new();
        file.take(max.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(io_failure)?;
        if bytes.len() as u64 > max {
            return Err(Error::TooLarge(max));
        }
        Ok(Bytes::from(bytes))
    }

    /// Opens the folder, making what is missing.
    fn folder_made(&self, steps: &[&str]) -> Result<OwnedFd, Error> {
        let mut at = self.folder(&[])?;
        for step in steps {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            at = match self.open_at(&at, step, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&at, *step, Mode::from_raw_mode(0o755)) {
                        // Somebody was faster.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(failure(error)),
                    }
                    let made = self.open_at(&at, step, flags, Mode::empty()).map_err(failure)?;
                    self.give(&made)?;
                    if self.access == Access::ReadOnly {
                        // It belongs to the server, whose umask may keep the session out.
                        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755)).map_err(failure)?;
                    }
                    made
                }
                other => other.map_err(failure)?,
            };
        }
        Ok(at)
    }

    /// Gives a new file or folder to the session.
    fn give(&self, file: &OwnedFd) -> Result<(), Error> {
        match self.owner {
            Some((uid, gid)) => rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(failure),
            None => Ok(()),
        }
    }

    fn write(&self, path: &str, bytes: &Bytes, more: Mode) -> Result<(), Error> {
        let steps = file_steps(path)?;
        self.check_room(bytes.len() as u64)?;
        self.put(&steps, |folder, partial, mode| {
            let file = self.fresh(folder, partial)?;
            self.give(&file)?;
            let mut file = File::from(file);
            file.write_all(bytes).map_err(io_failure)?;
            rustix::fs::fchmod(&file, mode | more).map_err(failure)?;
            file.sync_data().map_err(io_failure)
        })
    }

    fn place(&self, path: &str, source: &mut File) -> Result<(), Error> {
        let steps = file_steps(path)?;
        let size = source.metadata()?.len();
        self.check_floor(size)?;
        self.put(&steps, |folder, partial, mode| {
            if self.access == Access::ReadOnly && self.link(folder, partial, source)? {
                return Ok(());
            }
            let file = self.fresh(folder, partial)?;
            self.give(&file)?;
            let mut file = File::from(file);
            source.rewind().map_err(io_failure)?;
            std::io::copy(source, &mut file).map_err(io_failure)?;
            rustix::fs::fchmod(&file, mode).map_err(failure)?;
            file.sync_data().map_err(io_failure)
        })
    }

    /// Gives an open file one more name; says whether that can be done here.
    fn link(&self, folder: &OwnedFd, name: &str, source: &File) -> Result<bool, Error> {
        let opened = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(source));
        match rustix::fs::linkat(rustix::fs::CWD, opened, folder, name, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => {
                rustix::fs::fchmod(source, Mode::from_raw_mode(0o644)).map_err(failure)?;
                Ok(true)
            }
            // Another file system, one without links, as many as it can have, or nobody's to link.
            Err(Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK | Errno::NOENT) => Ok(false),
            Err(error) => Err(failure(error)),
        }
    }

    fn fresh(&self, folder: &OwnedFd, name: &str) -> Result<OwnedFd, Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        self.open_at(folder, name, flags, Mode::from_raw_mode(0o600))
            .map_err(failure)
    }

    /// Has a file made under another name, for the mode that it should have, and gives it its own once it is whole.
    fn put(
        &self,
        steps: &Steps<'_>,
        make: impl FnOnce(&OwnedFd, &str, Mode) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let folder = self.folder_made(&steps.folders)?;
        // What stands there may only be replaced if it is a regular file.
        let mode = match rustix::fs::statat(&folder, steps.last, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match kind(&stat) {
                FileType::RegularFile => Mode::from_raw_mode(stat.st_mode & 0o777),
                FileType::Directory => return Err(invalid("the path names a folder")),
                FileType::Symlink => return Err(invalid("the path crosses a link")),
                _ => return Err(invalid("not a regular file")),
            },
            Err(Errno::NOENT) => Mode::from_raw_mode(0o644),
            Err(error) => return Err(failure(error)),
        };
        let partial = format!("{PARTIAL}{}", ulid::Ulid::generate());
        let outcome = make(&folder, &partial, mode).and_then(|()| {
            rustix::fs::renameat(&folder, partial.as_str(), &folder, steps.last).map_err(failure)
        });
        // What could not be put in place must not stay, and what was there already as another name of the same file
        // is left where it was; that it can't be removed changes nothing.
        let _ = rustix::fs::unlinkat(&folder, partial.as_str(), AtFlags::empty());
        outcome
    }

    /// Whether the machine's disk has that many bytes more.
    fn check_floor(&self, more: u64) -> Result<(), Error> {
        let free = rustix::fs::fstatvfs(&self.root).map_err(failure)?;
        if (free.f_bavail * free.f_frsize).saturating_sub(more) < self.limits.disk_floor {
            return Err(Error::Full);
        }
        Ok(())
    }

    /// Whether the workspace may hold that many bytes more.
    fn check_room(&self, more: u64) -> Result<(), Error> {
        self.check_floor(more)?;
        let usage = usage::measure(&self.path, self.limits.inodes)?;
        if usage.bytes.saturating_add(more) > self.limits.disk || usage.inodes >= self.limits.inodes {
            return Err(Error::Full);
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<(), Error> {
        let steps = file_steps(path)?;
        let folder = self.folder(&steps.folders)?;
        let stat = rustix::fs::statat(&folder, steps.last, AtFlags::SYMLINK_NOFOLLOW).map_err(failure)?;
        match kind(&stat) {
            FileType::Directory => Err(invalid("the path names a folder")),
            // Removing takes the link or the pipe itself, and opens nothing.
            _ => rustix::fs::unlinkat(&folder, steps.last, AtFlags::empty()).map_err(failure),
        }
    }
}

#[async_trait]
impl Workspace for Beneath {
    async fn list(&self, path: &str, limit: usize) -> Result<Vec<Entry>, Error> {
        let path = path.to_owned();
        self.blocking(move |inner| inner.list(&path, limit)).await
    }

    async fn read(&self, path: &str, max: u64) -> Result<Bytes, Error> {
        let path = path.to_owned();
        self.blocking(move |inner| inner.read(&path, max)).await
    }

    async fn write(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        let path = path.to_owned();
        self.blocking(move |inner| inner.write(&path, &bytes, Mode::empty()))
            .await
    }

    async fn write_program(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        let path = path.to_owned();
        let run = Mode::XUSR | Mode::XGRP | Mode::XOTH;
        self.blocking(move |inner| inner.write(&path, &bytes, run)).await
    }

    async fn open(&self, path: &str) -> Result<File, Error> {
        let path = path.to_owned();
        self.blocking(move |inner| Ok(inner.open(&path)?.0)).await
    }

    async fn place(&self, path: &str, mut source: File) -> Result<(), Error> {
        let path = path.to_owned();
        self.blocking(move |inner| inner.place(&path, &mut source)).await
    }

    async fn remove(&self, path: &str) -> Result<(), Error> {
        let path = path.to_owned();
        self.blocking(move |inner| inner.remove(&path)).await
    }
}
