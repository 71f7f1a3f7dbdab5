//! Copies of the host's files in a build of an ordinary user.
//!
//! There the host's files belong to users that the build does not know, and an overlay copies no file up into the layer
//! whose owner the copy can't have. So a call that may change a file in place, link it or move it waits
//! ([`super::launch`]) until this has put a copy in its place that belongs to the build, which is what the overlay would
//! have done; then it goes on as it was made, and succeeds or fails by itself. What would give a file the rights of its
//! owner to whoever runs it (`chmod u+s`) is carried out here, without that: the owner is the server's own user.
//!
//! Invariant: nothing is done here that whoever asks could not do itself, for it may read such a file and replace it: a
//! path that leads elsewhere by the time that the call goes on gains nobody anything.
//! Invariant: no call waits for one that waits: the filters that have calls wait don't hold for these threads.
//! Invariant: only who needs a copy waits for one: they are made by a thread of their own, so that a build which has large
//! files copied over and over keeps neither the hand nor its other commands from opening what is there.

use std::ffi::{CStr, CString};
use std::fs::{File, Permissions};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};

use super::process;

/// `fchmodat2`, which the library has no name for everywhere. New calls have the same number on all machines.
pub(super) const FCHMODAT2: libc::c_long = 452;
/// `renameat`, which the library has no name for there.
#[cfg(target_arch = "aarch64")]
pub(super) const RENAMEAT: libc::c_long = 38;

/// The longest path, in bytes, with its end.
const MAX_PATH: usize = 4_096;

/// What copies are called until they are whole.
const TEMPORARY: &str = ".oma-copy-";

/// The rights of a file's owner and group for whoever runs it.
const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;

/// Requests for the descriptor at which waiting calls are heard of: `SECCOMP_IOCTL_NOTIF_RECV`, `…_SEND`, `…_ID_VALID`.
const RECEIVE: libc::Ioctl = 0xc050_2100;
const SEND: libc::Ioctl = 0xc018_2101;
const IS_THERE: libc::Ioctl = 0x4008_2102;

/// Calls that may wait for copies. While so many do, all others wait as well.
const MAX_WAITING: usize = 1_024;

/// How much is copied before it is looked whether anybody still waits for it, in bytes.
const PIECE: u64 = 16 << 20;

/// The stack of each thread, in bytes.
const STACK: usize = 256 << 10;

/// Starts the threads that let calls go on, and gives the way to hand them the descriptor at which calls are heard of.
/// They end when nobody is left who could make one. To be called before the filters hold, so that they hold for neither.
///
/// # Errors
/// When there can be no thread.
pub(super) fn start() -> io::Result<mpsc::SyncSender<OwnedFd>> {
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        let thread = thread::Builder::new().name(name.to_owned()).stack_size(STACK);
        thread.spawn(work).map(drop)
    };
    let (give, take) = mpsc::sync_channel::<OwnedFd>(1);
    let (copies, wanted) = mpsc::sync_channel(MAX_WAITING);
    spawn("copy-up", Box::new(move || copy_for(&wanted)))?;
    spawn(
        "waiting-calls",
        Box::new(move || {
            if let Ok(listener) = take.recv() {
                serve(&Arc::new(listener), &copies);
            }
        }),
    )?;
    Ok(give)
}

/// Lets calls go on at once that need no copy, and passes the others on.
fn serve(listener: &Arc<OwnedFd>, copies: &mpsc::SyncSender<Call>) {
    loop {
        // SAFETY: it is plain data, for which zeroes are valid; the kernel wants them.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the structure is the one that the request is for, and outlives the call.
        let received = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut call) };
        if received != 0 {
            match io::Error::last_os_error().raw_os_error() {
                // Whoever made it has ended, or a signal came.
                Some(libc::ENOENT | libc::EINTR) => continue,
                // From here on, calls that would have to wait fail.
                _ => return,
            }
        }
        let call = Call::of(listener, &call);
        if !call.needs_copy() {
            call.answer();
        } else if copies.send(call).is_err() {
            return;
        }
    }
}

/// Makes the copies that calls need, and lets them go on, one after the other.
fn copy_for(wanted: &mpsc::Receiver<Call>) {
    let mut count = 0;
    while let Ok(call) = wanted.recv() {
        call.copy(&mut count);
        call.answer();
    }
}

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
const CONTINUE: u32 = 1;

/// What becomes of a call.
enum Outcome {
    /// It is carried out by the kernel, as it was made.
    GoOn,
    /// It was carried out here.
    Done(io::Result<()>),
}

/// A file that a call is about.
enum Subject {
    /// The path at this address, from this folder.
    Path { from: i32, at: u64, follows: bool },
    /// What the process has open.
    Open(i32),
}

/// A call that waits.
struct Call {
    listener: Arc<OwnedFd>,
    id: u64,
    thread: u32,
    subjects: Vec<Subject>,
    /// The rights that it is to give.
    mode: Option<u32>,
}

/// A number of the kind that the kernel takes, which looks at the lower half of an argument only.
fn lower(argument: u64) -> u32 {
    u32::try_from(argument & u64::from(u32::MAX)).unwrap_or_default()
}

fn has(argument: u64, flag: libc::c_int) -> bool {
    lower(argument) & flag.cast_unsigned() != 0
}

impl Call {
    fn of(listener: &Arc<OwnedFd>, call: &libc::seccomp_notif) -> Self {
        let args = call.data.args;
        let path = |from: usize, at: usize, follows: bool| Subject::Path {
            from: lower(args[from]).cast_signed(),
            at: args[at],
            follows,
        };
        let here = |at: usize, follows: bool| Subject::Path {
            from: libc::AT_FDCWD,
            at: args[at],
            follows,
        };
        let mut mode = None;
        let subjects = match libc::c_long::from(call.data.nr) {
            libc::SYS_openat => vec![path(0, 1, !has(args[2], libc::O_NOFOLLOW))],
            libc::SYS_truncate => vec![here(0, true)],
            libc::SYS_linkat => vec![path(0, 1, has(args[4], libc::AT_SYMLINK_FOLLOW))],
            libc::SYS_renameat2 => vec![path(0, 1, false), path(2, 3, false)],
            libc::SYS_utimensat => vec![path(0, 1, !has(args[3], libc::AT_SYMLINK_NOFOLLOW))],
            libc::SYS_fchmod => {
                mode = Some(lower(args[1]));
                vec![Subject::Open(lower(args[0]).cast_signed())]
            }
            libc::SYS_fchmodat => {
                mode = Some(lower(args[2]));
                vec![path(0, 1, true)]
            }
            FCHMODAT2 => {
                mode = Some(lower(args[2]));
                vec![path(0, 1, !has(args[3], libc::AT_SYMLINK_NOFOLLOW))]
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => vec![here(0, !has(args[1], libc::O_NOFOLLOW))],
            #[cfg(target_arch = "x86_64")]
            libc::SYS_creat | libc::SYS_utime | libc::SYS_utimes => vec![here(0, true)],
            #[cfg(target_arch = "x86_64")]
            libc::SYS_link | libc::SYS_rename => vec![here(0, false)],
            #[cfg(target_arch = "x86_64")]
            libc::SYS_renameat => vec![path(0, 1, false)],
            #[cfg(target_arch = "x86_64")]
            libc::SYS_futimesat => vec![path(0, 1, true)],
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chmod => {
                mode = Some(lower(args[1]));
                vec![here(0, true)]
            }
            #[cfg(target_arch = "aarch64")]
            RENAMEAT => vec![path(0, 1, false)],
            // The filter has no others wait.
            _ => Vec::new(),
        };
        Self {
            listener: Arc::clone(listener),
            id: call.id,
            thread: call.pid,
            subjects,
            mode,
        }
    }

    /// Whether a file of it has to be copied first. What can't be looked at is not copied either: the call says why.
    fn needs_copy(&self) -> bool {
        let is_foreign = |subject: &Subject| -> io::Result<bool> {
            Ok(is_foreign(&rustix::fs::fstat(&self.open(subject)?)?))
        };
        self.subjects
            .iter()
            .any(|subject| is_foreign(subject).unwrap_or(false))
    }

    fn copy(&self, count: &mut u64) {
        for subject in &self.subjects {
            // What can't be copied is not changed either: the call says why.
            let _ = self.open(subject).and_then(|place| self.put_copy(&place, count));
        }
    }

    /// Lets it go on, or carries it out.
    fn answer(&self) {
        let mut answer = libc::seccomp_notif_resp {
            id: self.id,
            val: 0,
            error: 0,
            flags: 0,
        };
        match self.carry_out() {
            Outcome::GoOn => answer.flags = CONTINUE,
            Outcome::Done(Ok(())) => {}
            Outcome::Done(Err(error)) => answer.error = -error.raw_os_error().unwrap_or(libc::EIO),
        }
        // That whoever made it has ended meanwhile is no failure.
        // SAFETY: the structure is the one that the request is for, and outlives the call.
        let _ = unsafe { libc::ioctl(self.listener.as_raw_fd(), SEND, &raw mut answer) };
    }

    fn carry_out(&self) -> Outcome {
        match (self.mode.filter(|mode| mode & SET_ID != 0), self.subjects.first()) {
            (Some(mode), Some(subject)) => Outcome::Done(self.open(subject).and_then(|place| {
                let mode = Permissions::from_mode(mode & !SET_ID & 0o7777);
                std::fs::set_permissions(own_link(&place), mode)
            })),
            _ => Outcome::GoOn,
        }
    }

    /// Whether it waits still, and not only one like it after a signal has come between.
    fn check(&self) -> io::Result<()> {
        // SAFETY: the request is for a number of this size, which outlives the call.
        match unsafe { libc::ioctl(self.listener.as_raw_fd(), IS_THERE, &raw const self.id) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether nobody will want what is copied for it. Who was only interrupted makes the call again, and finds the copy.
    fn is_given_up(&self) -> bool {
        self.check().is_err() && process::is_over(self.thread)
    }

    /// A file of a call, as a place, as whoever made the call would find it.
    fn open(&self, subject: &Subject) -> io::Result<OwnedFd> {
        let found = self.find(subject)?;
        // Where it has ended meanwhile, the number may be somebody else's, and what was found his.
        self.check()?;
        Ok(found)
    }

    fn find(&self, subject: &Subject) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let of_thread = |name: &str| PathBuf::from(format!("/proc/{}/{name}", self.thread));
        let open = |descriptor: i32| {
            let link = of_thread(&format!("fd/{descriptor}"));
            Ok(rustix::fs::open(link, flags, Mode::empty())?)
        };
        let (from, at, follows) = match *subject {
            Subject::Open(descriptor) => return open(descriptor),
            Subject::Path { from, at, follows } => (from, at, follows),
        };
        let path = self.path(at)?;
        // Whose descriptors these are depends on who asks.
        let own = path.to_bytes().strip_prefix(b"/proc/self/fd/");
        let own = own.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
        if let Some(descriptor) = own {
            return open(descriptor);
        }
        let from = match from {
            _ if path.to_bytes().starts_with(b"/") => PathBuf::from("/"),
            libc::AT_FDCWD => of_thread("cwd"),
            descriptor => of_thread(&format!("fd/{descriptor}")),
        };
        let from = rustix::fs::open(from, flags, Mode::empty())?;
        if path.is_empty() {
            return Ok(from);
        }
        let last = if follows {
            OFlags::empty()
        } else {
            OFlags::NOFOLLOW
        };
        // What a link of `/proc` leads to depends on who follows it.
        let resolve = ResolveFlags::NO_MAGICLINKS;
        Ok(rustix::fs::openat2(
            &from,
            path.as_c_str(),
            flags | last,
            Mode::empty(),
            resolve,
        )?)
    }

    fn path(&self, at: u64) -> io::Result<CString> {
        let memory = File::open(format!("/proc/{}/mem", self.thread))?;
        let mut bytes = vec![0; MAX_PATH];
        let read = memory.read_at(&mut bytes, at)?;
        let path = CStr::from_bytes_until_nul(&bytes[..read]).map_err(io::Error::other)?;
        Ok(path.to_owned())
    }

    /// Puts a copy in the place of a file of the host's; does nothing to another one.
    fn put_copy(&self, place: &OwnedFd, count: &mut u64) -> io::Result<()> {
        let stat = rustix::fs::fstat(place)?;
        if !is_foreign(&stat) {
            return Ok(());
        }
        let path = std::fs::read_link(own_link(place))?;
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(folder, flags, Mode::empty())?;
        let there = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if (there.st_dev, there.st_ino) != (stat.st_dev, stat.st_ino) {
            return Err(io::ErrorKind::NotFound.into());
        }
        *count += 1;
        let temporary = format!("{TEMPORARY}{count}");
        let made = self
            .make(place, &stat, &folder, &temporary)
            .and_then(|()| Ok(rustix::fs::renameat(&folder, temporary.as_str(), &folder, name)?));
        if made.is_err() {
            // It may not be there.
            let _ = rustix::fs::unlinkat(&folder, temporary.as_str(), AtFlags::empty());
        }
        made
    }

    /// Makes a copy that has this name until it is whole.
    fn make(&self, place: &OwnedFd, stat: &Stat, folder: &OwnedFd, temporary: &str) -> io::Result<()> {
        let times = Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            let to = rustix::fs::readlinkat(place, c"", Vec::new())?;
            rustix::fs::symlinkat(to.as_c_str(), folder, temporary)?;
            rustix::fs::utimensat(folder, temporary, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = File::from(rustix::fs::open(own_link(place), flags, Mode::empty())?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(folder, temporary, flags, Mode::RUSR | Mode::WUSR)?;
        let mut target = File::from(target);
        while io::copy(&mut (&source).take(PIECE), &mut target)? > 0 {
            if self.is_given_up() {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        target.set_permissions(Permissions::from_mode(stat.st_mode & !SET_ID & 0o7777))?;
        rustix::fs::futimens(&target, &times)?;
        Ok(())
    }
}

/// The name that `/proc` gives to something this process has open.
fn own_link(place: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", place.as_raw_fd()).into()
}

/// Whether something is a file or a link, and belongs to somebody whom the build does not know.
fn is_foreign(stat: &Stat) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let is_copied = matches!(kind, FileType::RegularFile | FileType::Symlink);
    is_copied && (stat.st_uid != 0 || stat.st_gid != 0)
}

fn time(seconds: i64, nanoseconds: u64) -> Timespec {
    Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.try_into().unwrap_or_default(),
    }
}
