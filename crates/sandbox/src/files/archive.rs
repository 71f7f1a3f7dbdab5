//! A whole workspace as one stream of bytes, and back: a tar archive, compressed with zstd.
//!
//! Files, folders and links are in it, by the order of their names, with their permissions and the times of their last
//! change; owners are not, and nothing special (pipes, sockets, devices) is. A file with several names is in it once.
//! What is read may be whatever a session has left there, and what is unpacked whatever somebody has stored: no link is
//! followed in either direction, no path leads out, and all of it is bounded.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid};
use tar::{EntryType, Header};

use super::access;

/// The deepest nesting that is kept.
const MAX_DEPTH: usize = 256;
/// Of all levels the one that costs least for what it saves.
const LEVEL: i32 = 3;
/// The largest window that is unpacked, as a power of two of bytes: more than what is packed here ever has.
const MAX_WINDOW: u32 = 27;
/// What a file of the session's may have of permissions.
const PERMISSIONS: u32 = 0o777;

/// How much there may be, and until when.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of all files, unpacked; a file with holes counts with them.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
    /// When it has to be done.
    pub deadline: Instant,
}

/// What was packed or unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// Bytes of all files, unpacked.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
    /// What was left out because it is none of these.
    pub skipped: u64,
}

/// Why a workspace could not be packed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is more than is allowed.
    #[error("the workspace has more than {0}")]
    TooMuch(String),
    /// It takes longer than is allowed.
    #[error("it takes too long")]
    Late,
    /// The archive is none that was made here.
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    /// The machine failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
}

impl Error {
    fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            path: path.clone(),
            source,
        }
    }
}

/// Keeps to bounds.
struct Meter {
    bounds: Bounds,
    contents: Contents,
}

impl Meter {
    fn check_time(&self) -> Result<(), Error> {
        if Instant::now() > self.bounds.deadline {
            return Err(Error::Late);
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<(), Error> {
        self.check_time()?;
        self.contents.entries += 1;
        self.contents.bytes = self.contents.bytes.saturating_add(bytes);
        if self.contents.entries > self.bounds.entries {
            return Err(Error::TooMuch(format!("{} entries", self.bounds.entries)));
        }
        if self.contents.bytes > self.bounds.bytes {
            return Err(Error::TooMuch(format!("{} bytes", self.bounds.bytes)));
        }
        Ok(())
    }
}

/// Copies so many bytes and no fewer.
fn copy(from: &mut impl Read, to: &mut impl Write, size: u64, meter: &Meter) -> io::Result<()> {
    let mut left = size;
    let mut buffer = vec![0; 128 << 10];
    while left > 0 {
        meter.check_time().map_err(io::Error::other)?;
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let got = from.read(&mut buffer[..most])?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&buffer[..got])?;
        left -= got as u64;
    }
    Ok(())
}

/// Packs the folder's contents. Nobody may be writing to it.
///
/// # Errors
/// [`Error`]; what was written until then is of no use.
pub(crate) fn pack<W: Write>(folder: &Path, to: W, bounds: Bounds) -> Result<(Contents, W), Error> {
    let failed = Error::io(folder);
    let root = access::open_folder(rustix::fs::CWD, folder).map_err(&failed)?;
    let device = rustix::fs::fstat(&root)
        .map_err(|error| failed(error.into()))?
        .st_dev;
    let mut packer = Packer {
        archive: tar::Builder::new(zstd::Encoder::new(to, LEVEL).map_err(&failed)?),
        meter: Meter {
            bounds,
            contents: Contents::default(),
        },
        device,
        names: HashMap::new(),
    };
    packer.folder(&root, Path::new(""), 0)?;
    let encoder = packer.archive.into_inner().map_err(&failed)?;
    let to = encoder.finish().map_err(&failed)?;
    Ok((packer.meter.contents, to))
}

struct Packer<W: Write> {
    archive: tar::Builder<zstd::Encoder<'static, W>>,
    meter: Meter,
    device: u64,
    /// The first name of each file that has several.
    names: HashMap<u64, PathBuf>,
}

impl<W: Write> Packer<W> {
    fn folder(&mut self, folder: &OwnedFd, path: &Path, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::TooMuch(format!("{MAX_DEPTH} folders in each other")));
        }
        let failed = Error::io(path);
        let mut names: Vec<CString> = Vec::new();
        let mut entries = Dir::read_from(folder).map_err(|error| failed(error.into()))?;
        while let Some(entry) = entries.read() {
            let name = entry
                .map_err(|error| failed(error.into()))?
                .file_name()
                .to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
            if names.len() as u64 > self.meter.bounds.entries {
                return Err(Error::TooMuch(format!("{} entries", self.meter.bounds.entries)));
            }
        }
        names.sort();
        for name in names {
            self.entry(
                folder,
                &name,
                &path.join(OsStr::from_bytes(name.to_bytes())),
                depth,
            )?;
        }
        Ok(())
    }

    fn entry(&mut self, at: &OwnedFd, name: &CString, path: &Path, depth: usize) -> Result<(), Error> {
        let failed = Error::io(path);
        let stat = rustix::fs::statat(at, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| failed(error.into()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if stat.st_dev == self.device => {
                let inner = access::open_folder(at, name.as_c_str()).map_err(&failed)?;
                self.meter.count(0)?;
                let mut header = header(&stat, EntryType::Directory, 0);
                self.archive
                    .append_data(&mut header, path, io::empty())
                    .map_err(&failed)?;
                self.folder(&inner, path, depth + 1)
            }
            FileType::RegularFile => self.file(at, name, path, &stat),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(at, name.as_c_str(), Vec::new())
                    .map_err(|error| failed(error.into()))?;
                self.meter.count(0)?;
                let mut header = header(&stat, EntryType::Symlink, 0);
                let target = OsStr::from_bytes(target.to_bytes());
                self.archive
                    .append_link(&mut header, path, target)
                    .map_err(&failed)
            }
            _ => {
                self.meter.contents.skipped += 1;
                Ok(())
            }
        }
    }

    fn file(&mut self, at: &OwnedFd, name: &CString, path: &Path, stat: &Stat) -> Result<(), Error> {
        let failed = Error::io(path);
        if stat.st_nlink > 1 {
            if let Some(first) = self.names.get(&stat.st_ino) {
                self.meter.count(0)?;
                let mut header = header(stat, EntryType::Link, 0);
                return self
                    .archive
                    .append_link(&mut header, path, first)
                    .map_err(&failed);
            }
            self.names.insert(stat.st_ino, path.to_owned());
        }
        // What stands there by now may be something else, and must not be waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(at, name.as_c_str(), flags, Mode::empty())
            .map_err(|error| failed(error.into()))?;
        let opened = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?;
        if FileType::from_raw_mode(opened.st_mode) != FileType::RegularFile {
            return Err(failed(io::Error::other("it has been replaced meanwhile")));
        }
        let size = u64::try_from(opened.st_size).unwrap_or(0);
        self.meter.count(size)?;
        let mut header = header(&opened, EntryType::Regular, size);
        let exact = Exact {
            file: File::from(file),
            left: size,
            deadline: self.meter.bounds.deadline,
        };
        let appended = self.archive.append_data(&mut header, path, exact);
        self.meter.check_time()?;
        appended.map_err(&failed)
    }
}

/// So many bytes of a file, and no fewer: the archive says beforehand how many come.
struct Exact {
    file: File,
    left: u64,
    deadline: Instant,
}

impl Read for Exact {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if Instant::now() > self.deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(to.len());
        let got = self.file.read(&mut to[..most])?;
        if got == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= got as u64;
        Ok(got)
    }
}

fn header(stat: &Stat, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & PERMISSIONS);
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}

/// Unpacks an archive into an empty folder that nobody else uses; what is in it then belongs to `owner`, if one is
/// named, and outlasts a loss of power.
///
/// # Errors
/// [`Error`]; what is in the folder then is of no use.
pub(crate) fn unpack(
    from: impl Read,
    folder: &Path,
    owner: Option<u32>,
    bounds: Bounds,
) -> Result<Contents, Error> {
    let failed = Error::io(folder);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(folder, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let mut decoder = zstd::Decoder::new(from).map_err(&failed)?;
    decoder.window_log_max(MAX_WINDOW).map_err(&failed)?;
    let mut archive = tar::Archive::new(decoder);
    let mut unpacker = Unpacker {
        root,
        owner: owner.map(|id| (Uid::from_raw(id), Gid::from_raw(id))),
        meter: Meter {
            bounds,
            contents: Contents::default(),
        },
        folders: Vec::new(),
    };
    let damaged = |error: io::Error| Error::Damaged(error.to_string());
    for entry in archive.entries().map_err(damaged)? {
        unpacker.entry(&mut entry.map_err(damaged)?)?;
    }
    unpacker.finish().map_err(|error| failed(error.into()))?;
    Ok(unpacker.meter.contents)
}

struct Unpacker {
    root: OwnedFd,
    owner: Option<(Uid, Gid)>,
    meter: Meter,
    /// They get their permissions and times when everything is in them.
    folders: Vec<(PathBuf, u32, u64)>,
}

impl Unpacker {
    fn entry(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<(), Error> {
        let header = entry.header();
        let kind = header.entry_type();
        let damaged = |error: io::Error| Error::Damaged(error.to_string());
        let mode = header.mode().map_err(damaged)? & PERMISSIONS;
        let mtime = header.mtime().map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        let size = if kind == EntryType::Regular {
            entry.size()
        } else {
            0
        };
        self.meter.count(size)?;
        let (parent, name) = self.place(&path)?;
        let failed = Error::io(&path);
        let made = match kind {
            EntryType::Directory => {
                self.folders.push((path.clone(), mode, mtime));
                rustix::fs::mkdirat(&parent, name, Mode::RWXU)
                    .map_err(io::Error::from)
                    .and_then(|()| self.own(&parent, name))
            }
            EntryType::Regular => self.file(entry, (&parent, name), size, (mode, mtime)),
            EntryType::Symlink => {
                let target = entry.link_name_bytes();
                let target = target.ok_or_else(|| Error::Damaged("a link to nowhere".to_owned()))?;
                rustix::fs::symlinkat(&*target, &parent, name)
                    .map_err(io::Error::from)
                    .and_then(|()| self.own(&parent, name))
                    .and_then(|()| {
                        let flags = AtFlags::SYMLINK_NOFOLLOW;
                        Ok(rustix::fs::utimensat(&parent, name, &times(mtime), flags)?)
                    })
            }
            EntryType::Link => {
                let target = entry.link_name().map_err(damaged)?;
                let target = target.ok_or_else(|| Error::Damaged("a link to nowhere".to_owned()))?;
                let (from, other) = self.place(&target)?;
                rustix::fs::linkat(&from, other, &parent, name, AtFlags::empty()).map_err(io::Error::from)
            }
            other => return Err(Error::Damaged(format!("an entry of the type {other:?}"))),
        };
        self.meter.check_time()?;
        made.map_err(&failed)
    }

    fn file(
        &self,
        from: &mut impl Read,
        (parent, name): (&OwnedFd, &OsStr),
        size: u64,
        (mode, mtime): (u32, u64),
    ) -> io::Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(file);
        copy(from, &mut file, size, &self.meter)?;
        if let Some((uid, gid)) = self.owner {
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        Ok(rustix::fs::futimens(&file, &times(mtime))?)
    }

    fn own(&self, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner {
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// The folder that a path lies in, reached through no link, and its last name.
    fn place<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), Error> {
        let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let depth = path.components().count();
        let name = path.file_name().filter(|_| is_plain && depth <= MAX_DEPTH + 1);
        let name = name.ok_or_else(|| Error::Damaged(format!("a path like {}", path.display())))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = beneath(&self.root, parent.unwrap_or(Path::new(".")));
        Ok((parent.map_err(Error::io(path))?, name))
    }

    fn finish(&mut self) -> rustix::io::Result<()> {
        // The inner ones first, for the outer ones may be shut then.
        for (path, mode, mtime) in self.folders.drain(..).rev() {
            let folder = beneath(&self.root, &path).map_err(errno)?;
            rustix::fs::utimensat(&folder, ".", &times(mtime), AtFlags::empty())?;
            rustix::fs::chmodat(&folder, ".", Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        rustix::fs::syncfs(&self.root)
    }
}

fn errno(error: io::Error) -> rustix::io::Errno {
    error
        .raw_os_error()
        .map_or(rustix::io::Errno::IO, rustix::io::Errno::from_raw_os_error)
}

/// A folder below the root, reached through no link.
fn beneath(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(
        root.as_fd(),
        path,
        flags,
        Mode::empty(),
        resolve,
    )?)
}

fn times(mtime: u64) -> Timestamps {
    let time = Timespec {
        tv_sec: i64::try_from(mtime).unwrap_or(0),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Puts one folder in the place of another in one step, which then is where the first one was.
///
/// # Errors
/// When the file system can't, or something is missing.
pub(crate) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags};
    rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?;
    for path in [one, other] {
        if let Some(parent) = path.parent() {
            fs::File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
