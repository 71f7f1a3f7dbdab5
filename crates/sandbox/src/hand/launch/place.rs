//! Places in a root that may have a layer in it, where links lead wherever the layer's builder liked.
//!
//! Invariant: nothing outside of the root is opened, made or written to, whatever links there are in it; what is there
//! already is only opened as a place.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::root::set_attributes;
use super::{Failure, Step as _};

/// Shows a file or folder of the host at a path of the root, which is made when nothing is there.
pub(super) fn bind(source: &Path, root: &Path, inside: &Path, attributes: u64) -> Result<(), Failure> {
    let step = format!("showing {}", source.display());
    let is_folder = fs::metadata(source).step(&step)?.is_dir();
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, source, flags).step(&step)?;
    set_attributes(&tree, Path::new(""), attributes, libc::AT_RECURSIVE)?;
    let place = make(root, inside, is_folder).step(&format!("making a place for {}", source.display()))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&tree, "", &place, "", flags).step(&step)
}

/// The place at a path of the root, made with those above it when it is not there.
///
/// # Errors
/// Also when something of another kind is there.
pub(super) fn make(root: &Path, inside: &Path, is_folder: bool) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    let names: Vec<&Path> = inside
        .components()
        .filter(|part| *part != Component::RootDir)
        .map(|part| match part {
            Component::Normal(name) => Ok(Path::new(name)),
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        })
        .collect::<io::Result<_>>()?;
    let Some((last, above)) = names.split_last() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut parent = open(&root, Path::new("."))?;
    let mut path = PathBuf::new();
    for name in above {
        path.push(name);
        parent = folder(&root, &parent, &path, name)?;
    }
    path.push(last);
    let place = if is_folder {
        folder(&root, &parent, &path, last)?
    } else {
        match open(&root, &path) {
            Err(Errno::NOENT) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                rustix::fs::openat(&parent, *last, flags, Mode::from_raw_mode(0o644))?;
                open(&root, &path)?
            }
            place => place?,
        }
    };
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode);
    match (kind, is_folder) {
        (FileType::Directory, true) | (FileType::RegularFile, false) => Ok(place),
        _ => Err(io::Error::other("something of another kind is there")),
    }
}

fn folder(root: &OwnedFd, parent: &OwnedFd, path: &Path, name: &Path) -> io::Result<OwnedFd> {
    match open(root, path) {
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
            Ok(open(root, path)?)
        }
        folder => Ok(folder?),
    }
}

/// Opens a path as a place. A link in it is followed as if the root were the file system's.
fn open(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_nowhere_outside_and_nothing_is_emptied() {
        let outer = tempfile::tempdir().unwrap();
        let (root, victim) = (outer.path().join("root"), outer.path().join("victim"));
        fs::create_dir_all(root.join("etc/corp")).unwrap();
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, root.join("etc/corp/ca.pem")).unwrap();
        symlink("../../victim", root.join("etc/corp/up.pem")).unwrap();
        symlink(outer.path(), root.join("etc/out")).unwrap();
        fs::write(root.join("etc/there"), "kept").unwrap();

        for link in [
            "etc/corp/ca.pem",
            "etc/corp/up.pem",
            "etc/out/new",
            "/etc/out/new/deeper",
        ] {
            assert!(make(&root, Path::new(link), false).is_err(), "{link}");
            assert!(make(&root, Path::new(link), true).is_err(), "{link}");
        }
        assert!(make(&root, Path::new("etc/../../victim"), false).is_err());
        assert!(make(&root, Path::new("etc/there"), true).is_err(), "it is a file");
        make(&root, Path::new("/etc/there"), false).unwrap();
        make(&root, Path::new("/srv/a/b"), true).unwrap();
        make(&root, Path::new("/srv/a/c"), false).unwrap();

        assert_eq!(fs::read_to_string(root.join("etc/there")).unwrap(), "kept");
        assert!(root.join("srv/a/b").is_dir() && root.join("srv/a/c").is_file());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        let outside: Vec<_> = fs::read_dir(outer.path()).unwrap().flatten().collect();
        assert_eq!(outside.len(), 2, "{outside:?}");
    }
}
