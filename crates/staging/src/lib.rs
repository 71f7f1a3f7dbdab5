//! Files that get their names when they are whole.
//!
//! A [`Folder`] has files under names that somebody chose. One that is being written is a [`Partial`] of the same folder
//! until then, and goes with it.
//!
//! Invariant: a file that has its name is on the disk with all its bytes.
//! Invariant: what stays free of the disk is looked at again each time that so much has been written to a file.
//!
//! Where it sits: above nothing of ours; the bytes of files and the archives of checkpoints use it. Nothing here waits for
//! anything but the disk, so callers put it on threads that may block.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a file is named until it is whole.
const PARTIAL: &str = ".partial-";
/// How earlier versions named some of them.
const FORMER_PARTIAL: &str = "partial-";
/// How many bytes are written between two looks at what the disk has left.
const LOOK_EVERY: u64 = 16 << 20;

/// A folder of whole files. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Folder {
    path: Arc<Path>,
    floor: u64,
}

impl Folder {
    /// Opens the folder, which is made if need be, for this user only, and removes what a crash left half written.
    /// `floor` is what stays free of the disk, in bytes.
    ///
    /// # Errors
    /// When it can't be used.
    pub fn open(path: &Path, floor: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let folder = Self {
            path: path.into(),
            floor,
        };
        for name in folder.all()? {
            if is_partial(&name) {
                fs::remove_file(path.join(name))?;
            }
        }
        Ok(folder)
    }

    /// Where the file of this name is, or would be.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The names of all whole files that are text.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = self.all()?;
        names.retain(|name| !is_partial(name));
        Ok(names)
    }

    fn all(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    /// Begins a file, which may be read as well as written.
    ///
    /// # Errors
    /// When it can't be made; [`io::ErrorKind::StorageFull`] when the disk has too little room.
    pub fn begin(&self) -> io::Result<Partial> {
        self.check_floor()?;
        let path = self.file(&format!("{PARTIAL}{}", ulid::Ulid::generate()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Partial {
            folder: self.clone(),
            path,
            file,
            size: 0,
            looked_at: 0,
        })
    }

    /// Gives a file another name as well.
    ///
    /// # Errors
    /// When it is not there, or the file system has no links, or no more of them.
    pub fn link(&self, from: &str, to: &str) -> io::Result<()> {
        fs::hard_link(self.file(from), self.file(to))?;
        self.sync()
    }

    /// Removes a file. One that is gone already is no failure.
    ///
    /// # Errors
    /// When it is still there.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.file(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes new names last.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn check_floor(&self) -> io::Result<()> {
        let free = rustix::fs::statvfs(&*self.path)?;
        if free.f_bavail * free.f_frsize < self.floor.saturating_add(LOOK_EVERY) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

fn is_partial(name: &str) -> bool {
    name.starts_with(PARTIAL) || name.starts_with(FORMER_PARTIAL)
}

/// A file that is being written. It goes when this is dropped.
#[derive(Debug)]
pub struct Partial {
    folder: Folder,
    path: PathBuf,
    file: File,
    size: u64,
    looked_at: u64,
}

impl Partial {
    /// How many bytes were written.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file, for what is no writing.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is until it has its name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds all of a file, unless it has more than `most` bytes; says whether it had not.
    ///
    /// # Errors
    /// As for writing, or when the other one can't be read.
    pub fn fill(&mut self, source: File, most: u64) -> io::Result<bool> {
        let mut source = source.take(most.saturating_add(1));
        let mut copied = 0;
        loop {
            // From file to file, which the system may do without the bytes coming here.
            let mut piece = io::Read::take(&mut source, LOOK_EVERY);
            let size = io::copy(&mut piece, &mut self.file)?;
            copied += size;
            self.size += size;
            if size < LOOK_EVERY {
                return Ok(copied <= most);
            }
            self.look()?;
        }
    }

    /// Gives it its name, once it is on the disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn finish(self, name: &str) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, self.folder.file(name))?;
        self.folder.sync()
    }

    /// Takes the file, which gets no name: its bytes go when it is closed.
    ///
    /// # Errors
    /// When the name it had till now can't be removed.
    pub fn into_nameless(self) -> io::Result<File> {
        fs::remove_file(&self.path)?;
        self.file.try_clone()
    }

    fn look(&mut self) -> io::Result<()> {
        self.looked_at = self.size;
        self.folder.check_floor()
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size - self.looked_at >= LOOK_EVERY {
            self.look()?;
        }
        let written = self.file.write(bytes)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Once it has its name, nothing has this one. Where it can't be removed, the next start does it.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path(), 0).unwrap();
        let count = || fs::read_dir(place.path()).unwrap().count();
        let mut partial = folder.begin().unwrap();
        partial.write_all(b"one ").unwrap();
        partial.write_all(b"two").unwrap();
        assert_eq!(partial.size(), 7);
        assert_eq!((folder.names().unwrap().len(), count()), (0, 1));
        partial.finish("a").unwrap();
        assert_eq!(fs::read(folder.file("a")).unwrap(), b"one two");
        drop(folder.begin().unwrap());
        folder.link("a", "b").unwrap();
        assert!(folder.link("none", "c").is_err());
        let mut names = folder.names().unwrap();
        names.sort();
        assert_eq!(names, ["a", "b"]);
        folder.remove("a").unwrap();
        folder.remove("a").unwrap();
        assert_eq!(fs::read(folder.file("b")).unwrap(), b"one two");

        // What a crash leaves goes at the next start, as it was named by any version.
        std::mem::forget(folder.begin().unwrap());
        fs::write(folder.file("partial-x"), "x").unwrap();
        assert_eq!(count(), 3);
        Folder::open(place.path(), 0).unwrap();
        assert_eq!(count(), 1);
    }

    #[test]
    fn a_file_is_filled_with_another_or_kept_without_a_name() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path(), 0).unwrap();
        fs::write(folder.file("a"), "one two").unwrap();
        let source = || File::open(folder.file("a")).unwrap();
        let mut short = folder.begin().unwrap();
        assert!(!short.fill(source(), 6).unwrap(), "one byte too many");
        let mut partial = folder.begin().unwrap();
        assert!(partial.fill(source(), 7).unwrap());
        assert_eq!(partial.size(), 7);
        drop(short);
        let mut nameless = partial.into_nameless().unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        let mut text = String::new();
        nameless.rewind().unwrap();
        nameless.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two");
    }

    #[test]
    fn a_disk_that_is_nearly_full_takes_nothing() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path(), u64::MAX / 2).unwrap();
        assert_eq!(folder.begin().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn the_disk_is_looked_at_while_a_file_grows() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(place.path(), 0).unwrap();
        let mut partial = folder.begin().unwrap();
        folder.floor = u64::MAX / 2;
        partial.folder = folder;
        let piece = vec![0; usize::try_from(LOOK_EVERY).unwrap()];
        partial.write_all(&piece).unwrap();
        let error = partial.write_all(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
