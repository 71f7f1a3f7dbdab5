//! Removing a tree that a session made, however it looks.
//!
//! Sessions leave folders that may not be listed, nest deeper than a path or a stack can go, and hold links
//! to anywhere. So nothing here recurses, follows a link, or names a path longer than one step: a folder
//! inside a folder is first moved up to the top, and all of them are then emptied one by one.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::access;

/// Removes all that is in `folder`, which nobody else may be using; the folder itself stays.
///
/// # Errors
/// When something is left.
pub(crate) fn empty(folder: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::open(folder, flags, Mode::empty())?;
    let mut counter = 0_u64;
    loop {
        let mut names = Vec::new();
        let mut entries = Dir::read_from(&top)?;
        while let Some(entry) = entries.read() {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            if unlink(&top, &name)? == Kind::Folder {
                lift(&top, &name, &mut counter)?;
                rustix::fs::unlinkat(&top, name.as_c_str(), AtFlags::REMOVEDIR)?;
            }
        }
    }
}

#[derive(PartialEq)]
enum Kind {
    Gone,
    Folder,
}

/// Removes what is no folder.
fn unlink(at: &OwnedFd, name: &CString) -> io::Result<Kind> {
    match rustix::fs::unlinkat(at, name.as_c_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(Kind::Gone),
        Err(Errno::ISDIR | Errno::PERM) => Ok(Kind::Folder),
        Err(error) => Err(error.into()),
    }
}

/// Empties a folder of `top`: its files are removed, its folders moved up to `top`.
fn lift(top: &OwnedFd, name: &CString, counter: &mut u64) -> io::Result<()> {
    let folder = access::open_folder(top, name.as_c_str())?;
    let mut entries = Dir::read_from(&folder)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let inner = entry.file_name().to_owned();
        if matches!(inner.to_bytes(), b"." | b"..") || unlink(&folder, &inner)? == Kind::Gone {
            continue;
        }
        // Moving a folder changes it (its `..`), so it must be writable.
        access::grant(&folder, inner.as_c_str())?;
        loop {
            *counter += 1;
            let target = format!(".removed-{counter}");
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(&folder, inner.as_c_str(), top, target.as_str(), flags) {
                Ok(()) => break,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn odd_trees_go_and_what_links_lead_to_stays() {
        let data = tempfile::tempdir().unwrap();
        let outside = data.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        let tree = data.path().join("tree");
        fs::create_dir_all(tree.join("closed/inner/.removed-1")).unwrap();
        fs::write(tree.join("closed/inner/file"), "x").unwrap();
        fs::write(tree.join(".removed-2"), "x").unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        symlink(&outside, tree.join("closed/link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, tree.join("fifo"), Mode::RWXU).unwrap();
        fs::set_permissions(tree.join("closed/inner"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(tree.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();

        // Deeper than a path may be long.
        let mut at: OwnedFd =
            rustix::fs::open(&tree, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let name = "d".repeat(200);
        for _ in 0..500 {
            rustix::fs::mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, name.as_str(), OFlags::RDONLY, Mode::empty()).unwrap();
        }
        empty(&tree).unwrap();
        fs::remove_dir(&tree).unwrap();
        assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "x");
    }
}
