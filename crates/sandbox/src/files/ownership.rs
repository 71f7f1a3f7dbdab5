//! Giving a whole workspace to another user, when the server's way of running has changed.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};

/// Gives the folder and all that is in it to `uid` (and the group of the same number), following no link.
/// `None` changes nothing.
///
/// # Errors
/// When something could not be given.
pub(crate) fn give_all(folder: &Path, uid: Option<u32>) -> io::Result<()> {
    let Some(id) = uid else {
        return Ok(());
    };
    let owner = (Uid::from_raw(id), Gid::from_raw(id));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut open = vec![rustix::fs::open(folder, flags, Mode::empty())?];
    while let Some(at) = open.pop() {
        let mut inner = Vec::new();
        let mut entries = Dir::read_from(&at)?;
        while let Some(entry) = entries.read() {
            let name = entry?.file_name().to_owned();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            give(&at, &name, owner)?;
            let stat = rustix::fs::statat(&at, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                inner.push(name);
            }
        }
        for name in inner {
            open.push(rustix::fs::openat(&at, name.as_c_str(), flags, Mode::empty())?);
        }
    }
    // The top last: a crash before leaves it to be done again.
    Ok(rustix::fs::chownat(
        rustix::fs::CWD,
        folder,
        Some(owner.0),
        Some(owner.1),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn give(at: &OwnedFd, name: &std::ffi::CString, (uid, gid): (Uid, Gid)) -> io::Result<()> {
    Ok(rustix::fs::chownat(
        at,
        name.as_c_str(),
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}
