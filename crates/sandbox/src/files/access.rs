//! Getting into folders whose owner has shut itself out.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::path::Arg;

/// Opens a folder for listing, after giving its owner the right to, if need be. Follows no link.
///
/// # Errors
/// When there is no such folder, or it can't be opened.
pub(crate) fn open_folder(at: impl AsFd, name: impl Arg + Copy) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&at, name, flags, Mode::empty()) {
        Err(rustix::io::Errno::ACCESS) => {
            grant(&at, name)?;
            Ok(rustix::fs::openat(&at, name, flags, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

/// Gives the owner of a folder every right on it, without following a link that may stand in its place.
///
/// # Errors
/// When there is no such folder, or it belongs to somebody else.
pub(crate) fn grant(at: impl AsFd, name: impl Arg) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(at, name, flags, Mode::empty())?;
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&folder)?.st_mode & 0o7777);
    if mode.contains(Mode::RWXU) {
        return Ok(());
    }
    // A descriptor that only names a file can't change it, but the name that `/proc` gives it can.
    let path = format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd());
    Ok(rustix::fs::chmod(path, mode | Mode::RWXU)?)
}
