//! How much a folder holds.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType};

use super::access;

/// The deepest nesting that is followed.
const MAX_DEPTH: usize = 256;

/// What a folder holds, its own entry not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Bytes on the disk, which for a file with holes are fewer than its length.
    pub(crate) bytes: u64,
    /// Files, folders, links, and anything else.
    pub(crate) inodes: u64,
    /// Something could not be looked at, so there may be more than that.
    pub(crate) hidden: bool,
}

/// Measures a folder. Follows no link and leaves no file system; a file with two names counts once. A folder
/// whose owner may not list it is made listable, for otherwise it could hide any amount. Stops early once more
/// than `stop_at` inodes are seen, since then the answer is known.
///
/// # Errors
/// When the folder itself can't be listed.
pub(crate) fn measure(folder: &Path, stop_at: u64) -> io::Result<Usage> {
    let root = access::open_folder(rustix::fs::CWD, folder)?;
    let device = rustix::fs::fstat(&root)?.st_dev;
    let mut walk = Walk {
        usage: Usage::default(),
        seen: BTreeSet::new(),
        device,
        stop_at,
    };
    walk.folder(root, 0)?;
    Ok(walk.usage)
}

struct Walk {
    usage: Usage,
    /// Inodes with several names that have been counted.
    seen: BTreeSet<u64>,
    device: u64,
    stop_at: u64,
}

impl Walk {
    fn folder(&mut self, folder: OwnedFd, depth: usize) -> io::Result<()> {
        let mut entries = Dir::read_from(&folder)?;
        let mut inner = Vec::new();
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            // What is gone by now counts nothing.
            let Ok(stat) = rustix::fs::statat(folder.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if !is_folder && stat.st_nlink > 1 && !self.seen.insert(stat.st_ino) {
                continue;
            }
            self.usage.inodes += 1;
            self.usage.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            if self.usage.inodes > self.stop_at {
                return Ok(());
            }
            if is_folder && (depth >= MAX_DEPTH || stat.st_dev != self.device) {
                self.usage.hidden = true;
            } else if is_folder {
                inner.push(name.to_owned());
            }
        }
        drop(entries);
        for name in inner {
            let looked = match access::open_folder(&folder, name.as_c_str()) {
                Ok(next) => self.folder(next, depth + 1),
                Err(error) => Err(error),
            };
            // One that has vanished meanwhile is no more; another one is no reason to give up on the rest.
            self.usage.hidden |= looked.is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
            if self.usage.inodes > self.stop_at {
                return Ok(());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn counts_each_file_once_and_follows_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("inner")).unwrap();
        fs::write(root.join("inner/a"), vec![1; 100_000]).unwrap();
        let empty = measure(root, u64::MAX).unwrap();
        assert_eq!(empty.inodes, 2);
        assert!((100_000..200_000).contains(&empty.bytes), "{empty:?}");

        fs::hard_link(root.join("inner/a"), root.join("b")).unwrap();
        assert_eq!(
            measure(root, u64::MAX).unwrap(),
            empty,
            "a second name costs nothing"
        );
        std::os::unix::fs::symlink("/", root.join("c")).unwrap();
        assert_eq!(measure(root, u64::MAX).unwrap().inodes, 3);
        let sparse = fs::File::create(root.join("d")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        assert!(measure(root, u64::MAX).unwrap().bytes < 1 << 20);
        assert_eq!(measure(root, 2).unwrap().inodes, 3, "stops early");
        assert!(measure(&root.join("absent"), 1).is_err());

        for mode in [0o000, 0o300] {
            fs::set_permissions(root.join("inner"), fs::Permissions::from_mode(mode)).unwrap();
            assert!(
                measure(root, u64::MAX).unwrap().bytes >= 100_000,
                "nothing is hidden"
            );
        }
        let deep = root.join("e/".repeat(MAX_DEPTH + 2));
        fs::create_dir_all(deep).unwrap();
        assert!(measure(root, u64::MAX).unwrap().hidden);
    }
}
