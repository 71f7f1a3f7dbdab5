//! The `write` tool, and how files are replaced.
//!
//! Invariant: a file that is replaced is there with all its old or all its new bytes, whenever the hand dies.

use std::fs::{Metadata, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use oma_domain::ContentBlock;

use super::FileResult;
use super::paths::Places;
use crate::hand::limits::ToolLimits;
use crate::input;

pub(super) fn run(places: &Places, limits: &ToolLimits, input: &input::Write) -> FileResult {
    let path = places.resolve(&input.file_path);
    let shown = places.show(&path);
    let size = input.content.len();
    if size as u64 > limits.max_file {
        return Err(format!(
            "The content has {size} bytes; at most {} can be written.",
            limits.max_file
        ));
    }
    let before = match path.metadata() {
        Ok(metadata) => {
            places.require_file(&path, &metadata)?;
            Some(metadata)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(places.explain(&path, &error)),
    };
    if input.file_path.ends_with('/') {
        return Err(format!("{} names a folder, not a file.", input.file_path));
    }
    replace(&path, input.content.as_bytes(), before.as_ref())
        .map_err(|error| places.explain(&path, &error))?;
    let lines = input.content.lines().count();
    let verb = if before.is_some() { "Overwrote" } else { "Created" };
    Ok(vec![ContentBlock::text(format!(
        "{verb} {shown} ({lines} lines, {size} bytes)."
    ))])
}

/// Gives the file these bytes, making its parents. What it was `before` keeps its mode; a link stays a link.
pub(super) fn replace(path: &Path, bytes: &[u8], before: Option<&Metadata>) -> io::Result<()> {
    let target = behind_links(path)?;
    let folder = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    let mode = before.map_or(0o666, |metadata| metadata.permissions().mode() & 0o7777);
    let temporary = tempfile::Builder::new()
        .prefix(".oma-write-")
        .permissions(Permissions::from_mode(mode & 0o777))
        .tempfile_in(folder);
    let mut temporary = match temporary {
        Ok(temporary) => temporary,
        // Who may not add to the folder may still change the file.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && before.is_some() => {
            return std::fs::write(&target, bytes);
        }
        Err(error) => return Err(error),
    };
    temporary.write_all(bytes)?;
    if before.is_some() {
        // The mode above went through the umask.
        temporary
            .as_file()
            .set_permissions(Permissions::from_mode(mode))?;
    }
    temporary.persist(&target).map_err(|error| error.error)?;
    Ok(())
}

/// The file that a path leads to, through any links, whether it exists or not.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    /// As the kernel has it.
    const MAX_LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match std::fs::read_link(&path) {
            Ok(next) => path = path.parent().unwrap_or(Path::new("/")).join(next),
            // Not a link, or not there yet.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::NotFound
                ) =>
            {
                return Ok(path);
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_domain::content::joined_text;

    fn write(folder: &Path, file: &str, content: &str) -> Result<String, String> {
        let input = input::Write {
            file_path: file.to_owned(),
            content: content.to_owned(),
        };
        let limits = ToolLimits {
            max_file: 20,
            ..ToolLimits::default()
        };
        run(&Places::new(folder.to_owned()), &limits, &input).map(|content| joined_text(&content))
    }

    #[test]
    fn creates_and_overwrites() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let text = |name: &str| std::fs::read_to_string(at(name)).unwrap();

        assert_eq!(
            write(folder.path(), "a/b/c.txt", "x\ny\n").unwrap(),
            "Created a/b/c.txt (2 lines, 4 bytes)."
        );
        assert_eq!(text("a/b/c.txt"), "x\ny\n");
        assert_eq!(
            at("a/b/c.txt").metadata().unwrap().permissions().mode() & 0o600,
            0o600
        );

        std::fs::set_permissions(at("a/b/c.txt"), Permissions::from_mode(0o751)).unwrap();
        assert_eq!(
            write(folder.path(), "a/b/c.txt", "").unwrap(),
            "Overwrote a/b/c.txt (0 lines, 0 bytes)."
        );
        assert_eq!(text("a/b/c.txt"), "");
        assert_eq!(
            at("a/b/c.txt").metadata().unwrap().permissions().mode() & 0o7777,
            0o751
        );

        std::os::unix::fs::symlink("a/b/c.txt", at("link")).unwrap();
        std::os::unix::fs::symlink("link", at("link2")).unwrap();
        write(folder.path(), "link2", "through").unwrap();
        assert_eq!(text("a/b/c.txt"), "through");
        assert!(at("link").is_symlink() && at("link2").is_symlink());

        std::os::unix::fs::symlink("new/file", at("dangling")).unwrap();
        write(folder.path(), "dangling", "made").unwrap();
        assert_eq!(text("new/file"), "made");

        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        let names = |path: PathBuf| std::fs::read_dir(path).unwrap().count();
        for (file, expected) in [
            (".", "is a folder"),
            ("a", "is a folder"),
            ("none/", "names a folder"),
            ("a/b/c.txt/d", "a part of the path is a file"),
            ("loop", "symbolic links"),
            ("/dev/null", "is a device"),
        ] {
            let error = write(folder.path(), file, "x").unwrap_err();
            assert!(error.contains(expected), "{file}: {error}");
        }
        assert!(
            write(folder.path(), "big", "123456789012345678901")
                .unwrap_err()
                .contains("at most 20")
        );
        assert_eq!(names(at("a/b")), 1, "no temporary file is left");
    }
}
