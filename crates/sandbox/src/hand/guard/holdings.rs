//! What the session's processes hold of the disk that it may write to without a name there: a deleted file takes its
//! space for as long as anybody has it open.
//!
//! Every process of the sandbox is looked at: each of its descriptor tables (threads may have their own), its
//! working folders, its program, and its mappings. What is held in ways that can be seen to exist but not be
//! measured is reported as [`Unseen`]: a mapped file that no descriptor leads to has an unknown length, and so
//! has one whose descriptor is on its way through a socket. A process that moves a file about while it is being
//! looked for may be missed once, but not for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Statx, StatxFlags};

use crate::hand::process::{Table, has_ended, parse_stat};

/// Descriptors that are looked at. Whoever has more hides something.
const MAX_DESCRIPTORS: usize = 1 << 18;

/// Bytes of lists of mappings that are read, for the same reason.
const MAX_MAPPINGS: u64 = 16 << 20;

/// The longest description of a socket, in bytes.
const MAX_INFO: u64 = 4_096;

/// What follows the name of a deleted file in a list of mappings.
const DELETED: &str = " (deleted)";

/// Space that is held in a way that can be seen, but not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unseen {
    /// A mapped file that was deleted and closed.
    Mapped,
    /// A descriptor that is on its way to another process.
    Sent,
    /// A process does not let itself be looked at.
    Process,
    /// There is too much to look at.
    Amount,
}

/// What processes hold, and have written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    /// Bytes on the disk of files that have no name.
    pub(super) bytes: u64,
    /// How many such files there are.
    pub(super) inodes: u64,
    /// There may be more than that.
    pub(super) unseen: Option<Unseen>,
    /// Bytes that the session's processes have written to disks since it began. May fall, since those that
    /// nobody waits for take their count with them.
    pub(super) written: u64,
}

/// The mounts whose files are meant.
#[derive(Debug)]
pub(super) struct Workspace {
    /// As paths in a list of mappings begin.
    prefixes: Vec<String>,
    /// How the kernel tells them from others.
    mounts: Mounts,
}

/// How mounts are told from each other.
#[derive(Debug)]
enum Mounts {
    /// By their numbers.
    Numbered(Vec<u64>),
    /// By their devices, major and minor: gVisor does not tell their numbers. It has a device for each, and counts a name
    /// of a file that was deleted on as one that is there, so that what is deleted is told by where links of `/proc`
    /// lead. A file that had more than one name counts with the first of them that goes.
    Devices(Vec<(u32, u32)>),
}

impl Mounts {
    fn of(stats: &[Statx]) -> Self {
        let is_numbered = |stat: &Statx| stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        if stats.iter().all(is_numbered) {
            Self::Numbered(stats.iter().map(|stat| stat.stx_mnt_id).collect())
        } else {
            Self::Devices(stats.iter().map(device).collect())
        }
    }

    /// Whether the file lies on one of them and has no name. `target` is where a link leads to it.
    fn has_nameless(&self, stat: &Statx, target: impl FnOnce() -> Option<Vec<u8>>) -> bool {
        match self {
            Self::Numbered(mounts) => stat.stx_nlink == 0 && mounts.contains(&stat.stx_mnt_id),
            Self::Devices(devices) => {
                let is_deleted = || target().is_some_and(|target| target.ends_with(DELETED.as_bytes()));
                devices.contains(&device(stat)) && (stat.stx_nlink == 0 || is_deleted())
            }
        }
    }
}

fn device(stat: &Statx) -> (u32, u32) {
    (stat.stx_dev_major, stat.stx_dev_minor)
}

impl Workspace {
    /// The mounts that the folders are on.
    ///
    /// # Errors
    /// When that can't be told.
    pub(super) fn of(folders: &[PathBuf]) -> io::Result<Self> {
        let (mut prefixes, mut stats) = (Vec::new(), Vec::new());
        for path in folders {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = rustix::fs::open(path, flags, Mode::empty())?;
            let stat = rustix::fs::statx(folder, "", AtFlags::EMPTY_PATH, WANTED)?;
            stats.push(stat);
            prefixes.push(format!("{}/", path.display()));
        }
        let mounts = Mounts::of(&stats);
        Ok(Self { prefixes, mounts })
    }

    /// Looks at every process of the sandbox but the hand.
    ///
    /// # Errors
    /// When they can't be listed, or this process lacks the means to look at them.
    pub(super) fn holdings(&self) -> io::Result<Holdings> {
        let table = Table::read()?;
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let living = table
            .rows
            .values()
            .filter(|stat| !stat.is_dead() && stat.process.pid != own);
        let mut found = self.of_processes(living.map(|stat| stat.process.pid))?;
        found.written += written_by_the_dead();
        Ok(found)
    }

    /// What the session's processes have written to disks, as in [`Holdings::written`].
    ///
    /// # Errors
    /// When they can't be listed.
    pub(super) fn written() -> io::Result<u64> {
        let table = Table::read()?;
        let living: u64 = table.rows.keys().map(|pid| written_by(*pid)).sum();
        Ok(living + written_by_the_dead())
    }

    fn of_processes(&self, pids: impl Iterator<Item = i32>) -> io::Result<Holdings> {
        let mut look = Look {
            workspace: self,
            found: Holdings::default(),
            held: BTreeSet::new(),
            mapped: BTreeMap::new(),
            sockets: BTreeSet::new(),
            descriptors: 0,
            mappings: 0,
        };
        for pid in pids {
            look.process(pid)?;
        }
        Ok(look.done())
    }
}

/// What is asked of a file.
const WANTED: StatxFlags = StatxFlags::TYPE
    .union(StatxFlags::NLINK)
    .union(StatxFlags::INO)
    .union(StatxFlags::BLOCKS)
    .union(StatxFlags::MNT_ID);

struct Look<'a> {
    workspace: &'a Workspace,
    found: Holdings,
    /// Nameless files that have been counted, by device and inode.
    held: BTreeSet<(u32, u32, u64)>,
    /// Mapped nameless files, by inode: how far into the file the mappings reach.
    mapped: BTreeMap<u64, u64>,
    /// Sockets that have been looked at.
    sockets: BTreeSet<u64>,
    descriptors: usize,
    mappings: u64,
}

impl Look<'_> {
    fn process(&mut self, pid: i32) -> io::Result<()> {
        let folder = match open_folder(format!("/proc/{pid}/task")) {
            Ok(folder) => folder,
            Err(error) if has_ended(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        // One thread for each table of descriptors; nearly always there is one table for all.
        let mut tables: Vec<i32> = Vec::new();
        for thread in numbers(&folder)? {
            let thread = match thread {
                Ok(thread) => thread,
                Err(error) if has_ended(&error) => break,
                Err(error) => return Err(error),
            };
            let path = format!("/proc/{pid}/task/{thread}");
            if !tables.iter().any(|known| have_same_descriptors(*known, thread)) {
                tables.push(thread);
                self.descriptors(&path)?;
            }
            self.link(&format!("{path}/cwd"));
        }
        // Memory is the same for all threads; the first one may have ended before the others.
        if let Some(thread) = tables.last() {
            self.mappings(&format!("/proc/{pid}/task/{thread}"))?;
        }
        self.link(&format!("/proc/{pid}/exe"));
        self.found.written += written_by(pid);
        Ok(())
    }

    /// Looks at the descriptors of the thread that has this folder in `/proc`.
    fn descriptors(&mut self, path: &str) -> io::Result<()> {
        let folder = match open_folder(format!("{path}/fd")) {
            Ok(folder) => folder,
            Err(error) => return self.refused(path, error),
        };
        for number in numbers(&folder)? {
            let number = match number {
                Ok(number) => number,
                Err(error) => return self.refused(path, error),
            };
            self.descriptors += 1;
            if self.descriptors > MAX_DESCRIPTORS {
                self.found.unseen = Some(Unseen::Amount);
                return Ok(());
            }
            // What has been closed meanwhile leads nowhere.
            match rustix::fs::statx(&folder, number.to_string(), AtFlags::empty(), WANTED) {
                Ok(stat) => {
                    self.file(&stat, || target(&folder, &number.to_string()));
                    self.socket(&stat, &format!("{path}/fdinfo/{number}"));
                }
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => self.refused(path, error.into())?,
            }
        }
        Ok(())
    }

    /// Looks at the file that a link of `/proc` leads to, if it leads anywhere. Who may not look here is
    /// stopped at the descriptors as well.
    fn link(&mut self, path: &str) {
        if let Ok(stat) = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::empty(), WANTED) {
            self.file(&stat, || target(rustix::fs::CWD, path));
        }
    }

    fn file(&mut self, stat: &Statx, target: impl FnOnce() -> Option<Vec<u8>>) {
        if !self.workspace.mounts.has_nameless(stat, target) {
            return;
        }
        let name = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        if self.held.insert(name) {
            self.found.inodes += 1;
            self.found.bytes += stat.stx_blocks * 512;
        }
    }

    /// Whether descriptors wait in a socket to be received.
    fn socket(&mut self, stat: &Statx, info: &str) {
        let is_socket = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Socket;
        if !is_socket || !self.sockets.insert(stat.stx_ino) {
            return;
        }
        let mut text = String::new();
        // A socket that has been closed meanwhile holds nothing any more.
        let read = File::open(info).and_then(|file| file.take(MAX_INFO).read_to_string(&mut text));
        let waiting = text
            .lines()
            .find_map(|line| line.strip_prefix("scm_fds:"))
            .is_some_and(|count| count.trim() != "0");
        if read.is_ok() && waiting {
            self.found.unseen.get_or_insert(Unseen::Sent);
        }
    }

    /// Looks for deleted files among the mappings of the thread that has this folder in `/proc`.
    fn mappings(&mut self, path: &str) -> io::Result<()> {
        let file = match File::open(format!("{path}/maps")) {
            Ok(file) => file,
            Err(error) => return self.refused(path, error),
        };
        let mut text = Vec::new();
        let left = MAX_MAPPINGS.saturating_sub(self.mappings);
        if let Err(error) = file.take(left).read_to_end(&mut text) {
            return self.refused(path, error);
        }
        self.mappings += text.len() as u64;
        if text.len() as u64 == left {
            self.found.unseen = Some(Unseen::Amount);
        }
        for line in text.split(|byte| *byte == b'\n') {
            let Some(mapping) = std::str::from_utf8(line).ok().and_then(Mapping::parse) else {
                continue;
            };
            let prefixes = &self.workspace.prefixes;
            let deleted = mapping.path.ends_with(DELETED)
                && prefixes.iter().any(|prefix| mapping.path.starts_with(prefix));
            // A file may be called like that.
            let is_named =
                || std::fs::symlink_metadata(mapping.path).is_ok_and(|meta| meta.ino() == mapping.inode);
            if deleted && !is_named() {
                let reach = self.mapped.entry(mapping.inode).or_default();
                *reach = mapping.end.max(*reach);
            }
        }
        Ok(())
    }

    /// Somebody does not let itself be looked at: one that is ending has nothing to hide.
    ///
    /// # Errors
    /// When the reason is here and not there.
    fn refused(&mut self, thread: &str, error: io::Error) -> io::Result<()> {
        if has_ended(&error) {
            return Ok(());
        }
        if error.kind() != io::ErrorKind::PermissionDenied {
            return Err(error);
        }
        let text = match std::fs::read(format!("{thread}/stat")) {
            Ok(text) => text,
            Err(error) if has_ended(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let stat = parse_stat(&text).ok_or(io::ErrorKind::InvalidData)?;
        if !stat.is_exiting() {
            self.found.unseen.get_or_insert(Unseen::Process);
        }
        Ok(())
    }

    fn done(mut self) -> Holdings {
        for (inode, reach) in self.mapped {
            // One that somebody has open as well is known by now.
            if !self.held.iter().any(|(_, _, known)| *known == inode) {
                self.found.inodes += 1;
                self.found.bytes += reach;
                self.found.unseen.get_or_insert(Unseen::Mapped);
            }
        }
        self.found
    }
}

/// Where a link of `/proc` leads, in words.
fn target(folder: impl AsFd, name: &str) -> Option<Vec<u8>> {
    let target = rustix::fs::readlinkat(folder, name, Vec::new()).ok()?;
    Some(target.into_bytes())
}

/// A line of a list of mappings.
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    /// Where in the file it ends.
    end: u64,
    inode: u64,
    path: &'a str,
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut rest = line;
        let mut field = || {
            let (field, after) = rest.split_once(' ')?;
            rest = after.trim_start();
            Some(field)
        };
        let (start, end) = field()?.split_once('-')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let length = hex(end)?.checked_sub(hex(start)?)?;
        let _access = field()?;
        let offset = hex(field()?)?;
        let _device = field()?;
        let inode = field()?.parse().ok()?;
        Some(Self {
            end: offset.saturating_add(length),
            inode,
            path: rest,
        })
    }
}

fn open_folder(path: String) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The entries of a folder that are numbers.
fn numbers(folder: impl AsFd) -> io::Result<impl Iterator<Item = io::Result<i32>>> {
    let entries = Dir::read_from(folder)?;
    Ok(entries.filter_map(|entry| match entry {
        Ok(entry) => Some(Ok(entry.file_name().to_str().ok()?.parse().ok()?)),
        Err(error) => Some(Err(error.into())),
    }))
}

/// Whether two threads have one table of descriptors. When that can't be told they are looked at one by one.
fn have_same_descriptors(one: i32, other: i32) -> bool {
    const FILES: libc::c_int = 2;
    // SAFETY: `kcmp` takes integers.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, FILES, 0, 0) == 0 }
}

/// What a living process has written to disks; 0 where the kernel does not count, or it can't be read.
fn written_by(pid: i32) -> u64 {
    std::fs::read_to_string(format!("/proc/{pid}/io"))
        .ok()
        .and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok())
        })
        .unwrap_or(0)
}

/// What the processes that ended below this one had written to disks.
fn written_by_the_dead() -> u64 {
    // SAFETY: `rusage` is plain data, for which zeroes are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a valid `rusage`, which the call fills.
    let result = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    if result != 0 {
        return 0;
    }
    u64::try_from(usage.ru_oublock).unwrap_or(0) * 512
}

#[cfg(test)]
mod tests;
