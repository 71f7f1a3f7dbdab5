//! Where a path that the model names leads, and how a path is shown to it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// The folder that relative paths start from.
#[derive(Debug, Clone)]
pub(super) struct Places {
    workspace: PathBuf,
}

impl Places {
    pub(super) fn new(workspace: PathBuf) -> Self {
        Self { workspace }
    }

    pub(super) fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// The absolute path that `given` means. `.` is taken out; `..` stays, since behind a link it is for the
    /// kernel to say what it means.
    pub(super) fn resolve(&self, given: &str) -> PathBuf {
        let joined = self.workspace.join(given);
        joined
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect()
    }

    /// The path as the model should see it: relative to the workspace where it is below it.
    pub(super) fn show(&self, path: &Path) -> String {
        match path.strip_prefix(&self.workspace) {
            Ok(inside) if inside.as_os_str().is_empty() => ".".to_owned(),
            Ok(inside) => inside.display().to_string(),
            Err(_) => path.display().to_string(),
        }
    }

    /// Opens a regular file for reading, without waiting for anybody.
    ///
    /// # Errors
    /// In words for the model, when there is no such file, it is something else or may not be read.
    pub(super) fn open(&self, path: &Path) -> Result<(File, Metadata), String> {
        let mut options = std::fs::OpenOptions::new();
        // Without this flag opening a FIFO would wait for its other end. It means nothing for a file.
        options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let file = options.open(path).map_err(|error| self.explain(path, &error))?;
        let metadata = file.metadata().map_err(|error| self.explain(path, &error))?;
        self.require_file(path, &metadata)?;
        Ok((file, metadata))
    }

    /// # Errors
    /// In words for the model, when the metadata is not that of a regular file.
    pub(super) fn require_file(&self, path: &Path, metadata: &Metadata) -> Result<(), String> {
        let kind = metadata.file_type();
        let what = if kind.is_file() {
            return Ok(());
        } else if kind.is_dir() {
            "a folder; list it with `glob` or with `ls` in `bash`"
        } else if kind.is_fifo() {
            "a FIFO, not a file"
        } else if kind.is_socket() {
            "a socket, not a file"
        } else {
            "a device, not a file"
        };
        Err(format!("{} is {what}.", self.show(path)))
    }

    /// An error about a path, in words for the model.
    pub(super) fn explain(&self, path: &Path, error: &io::Error) -> String {
        let shown = self.show(path);
        match error.kind() {
            io::ErrorKind::NotFound if path.symlink_metadata().is_ok() => {
                format!("{shown} is a link to something that does not exist.")
            }
            io::ErrorKind::NotFound => match self.nearest(path) {
                Some(near) => format!("{shown} does not exist. Did you mean {near}?"),
                None => format!("{shown} does not exist."),
            },
            io::ErrorKind::PermissionDenied => format!("{shown}: permission denied."),
            io::ErrorKind::ReadOnlyFilesystem => format!("{shown}: this can be read only, not changed."),
            io::ErrorKind::NotADirectory => format!("{shown}: a part of the path is a file, not a folder."),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                format!("{shown}: the disk is full; remove something first.")
            }
            _ => format!("{shown}: {error}."),
        }
    }

    /// A file beside the missing one that has the same name but for case or extension.
    fn nearest(&self, path: &Path) -> Option<String> {
        /// Names that are looked at; a suggestion is not worth more.
        const MAX_NAMES: usize = 2_000;
        let wanted = path.file_name()?.to_str()?.to_lowercase();
        let stem = |name: &str| name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned();
        let names = || {
            let entries = std::fs::read_dir(path.parent()?).ok()?;
            Some(
                entries
                    .take(MAX_NAMES)
                    .filter_map(|entry| entry.ok()?.file_name().into_string().ok()),
            )
        };
        let same = names()?.find(|name| name.to_lowercase() == wanted);
        let alike = || {
            let mut alike: Vec<String> = names()?
                .filter(|name| stem(&name.to_lowercase()) == stem(&wanted))
                .take(2)
                .collect();
            // Two candidates are no suggestion.
            if alike.len() == 1 { alike.pop() } else { None }
        };
        same.or_else(alike)
            .map(|name| self.show(&path.with_file_name(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_start_at_the_workspace() {
        let places = Places::new(PathBuf::from("/workspace"));
        for (given, path, shown) in [
            ("a/b", "/workspace/a/b", "a/b"),
            ("./a/./b/", "/workspace/a/b", "a/b"),
            (".", "/workspace", "."),
            ("/etc/passwd", "/etc/passwd", "/etc/passwd"),
            ("/workspace/x", "/workspace/x", "x"),
            ("../x", "/workspace/../x", "../x"),
        ] {
            let resolved = places.resolve(given);
            assert_eq!(resolved, Path::new(path), "{given}");
            assert_eq!(places.show(&resolved), shown, "{given}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::new(folder.path().to_owned());
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("dangling")).unwrap();
        std::fs::write(folder.path().join("Main.rs"), "").unwrap();
        for (given, expected) in [
            (".", ". is a folder"),
            ("fifo", "fifo is a FIFO"),
            ("/dev/zero", "/dev/zero is a device"),
            ("dangling", "is a link to something that does not exist"),
            ("none", "none does not exist."),
            ("main.rs", "Did you mean Main.rs?"),
            ("main.txt", "Did you mean Main.rs?"),
            ("Main.rs/x", "a part of the path is a file"),
        ] {
            let text = places.open(&places.resolve(given)).unwrap_err();
            assert!(text.contains(expected), "{given}: {text}");
        }
    }
}
