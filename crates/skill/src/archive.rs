//! Zip archives: those of strangers are read with care, ours are written alike each time.

use std::io::{Cursor, Read as _, Write as _};

use bytes::Bytes;
use memchr::memmem;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use crate::bundle::File;
use crate::{Error, MAX_BYTES, MAX_FILES, path};

/// What an entry of an archive's directory begins with.
const ENTRY: &[u8] = b"PK\x01\x02";
/// The most entries of an archive: the files, and folders and what packers add of themselves.
const MAX_ENTRIES: usize = 4 * MAX_FILES;

/// Gives each file of an archive to `add`.
pub(crate) fn read(bytes: &[u8], mut add: impl FnMut(&str, File) -> Result<(), Error>) -> Result<(), Error> {
    let unreadable = |error: zip::result::ZipError| Error::Archive(error.to_string());
    // Counted before the directory is read: it would take more memory than the archive.
    if memmem::find_iter(bytes, ENTRY).take(MAX_ENTRIES + 1).count() > MAX_ENTRIES {
        return Err(Error::TooMany);
    }
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(unreadable)?;
    let mut left = MAX_BYTES;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(unreadable)?;
        let name = std::str::from_utf8(entry.name_raw()).map_err(|_| Error::Name {
            name: path::shown(&String::from_utf8_lossy(entry.name_raw())),
            problem: "the name is not valid UTF-8",
        })?;
        let name = name.to_owned();
        if let Some(folder) = name.strip_suffix('/') {
            path::check(folder)?;
            continue;
        }
        if is_of_a_packer(&name) {
            continue;
        }
        let mode = entry.unix_mode();
        // Only what has a type and is no file: many packers write none.
        if mode.is_some_and(|mode| !matches!(mode & 0o170_000, 0 | 0o100_000)) {
            return Err(Error::Name {
                name: path::shown(&name),
                problem: "it is a link, or something else that is no file",
            });
        }
        let mut content = Vec::new();
        // One byte more than may come tells that there is too much, whatever the archive says.
        let limit = u64::try_from(left).unwrap_or(u64::MAX).saturating_add(1);
        entry
            .take(limit)
            .read_to_end(&mut content)
            .map_err(|error| Error::Archive(format!("{}: {error}", path::shown(&name))))?;
        left = left.checked_sub(content.len()).ok_or(Error::TooLarge)?;
        let executable = mode.is_some_and(|mode| mode & 0o111 != 0) || content.starts_with(b"#!");
        let bytes = Bytes::from(content);
        add(&name, File { bytes, executable })?;
    }
    Ok(())
}

/// What packers of some systems add beside what they were told to pack.
fn is_of_a_packer(name: &str) -> bool {
    name.starts_with("__MACOSX/") || name.ends_with("/.DS_Store") || name == ".DS_Store"
}

/// Packs files.
pub(crate) fn write<'a>(files: impl Iterator<Item = (String, &'a File)>) -> Result<Vec<u8>, Error> {
    let failed = |error: zip::result::ZipError| Error::Archive(error.to_string());
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, file) in files {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default())
            .unix_permissions(if file.executable { 0o755 } else { 0o644 });
        archive.start_file(name, options).map_err(failed)?;
        archive
            .write_all(&file.bytes)
            .map_err(|error| Error::Archive(error.to_string()))?;
    }
    Ok(archive.finish().map_err(failed)?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bundle;

    const TEXT: &str = "---\nname: a\ndescription: b\n---\n";

    /// An archive of these entries: name, mode, content.
    fn archive(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, mode, content) in entries {
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Deflated)
                .unix_permissions(*mode);
            if mode & 0o170_000 == 0o120_000 {
                let target = std::str::from_utf8(content).expect("text");
                archive.add_symlink(*name, target, options).expect("a link");
            } else {
                archive.start_file(*name, options).expect("a file");
                archive.write_all(content).expect("written");
            }
        }
        archive.finish().expect("an archive").into_inner()
    }

    #[test]
    fn bombs_links_and_tricks_are_refused() {
        let main = ("s/SKILL.md", 0o644, TEXT.as_bytes());
        let bomb = vec![0; MAX_BYTES];
        let many: Vec<String> = (0..=MAX_ENTRIES).map(|number| format!("s/{number}")).collect();
        let many: Vec<(&str, u32, &[u8])> =
            many.iter().map(|name| (name.as_str(), 0o644, &b""[..])).collect();
        for (what, entries, refusal) in [
            (
                "a bomb",
                &[main, ("s/bomb", 0o644, bomb.as_slice())][..],
                "TooLarge",
            ),
            ("a link", &[main, ("s/link", 0o120_777, b"/etc/passwd")], "Name"),
            ("a way out", &[main, ("s/../../x", 0o644, b"x")], "Name"),
            ("a root", &[main, ("/x", 0o644, b"x")], "Name"),
            ("another folder", &[main, ("t/x", 0o644, b"x")], "Folder"),
            ("no folder", &[("SKILL.md", 0o644, TEXT.as_bytes())], "Folder"),
            ("many entries", &many, "TooMany"),
        ] {
            let refused = format!("{:?}", Bundle::from_zip(&archive(entries)).expect_err(what));
            assert!(refused.starts_with(refusal), "{what}: {refused}");
        }
        for bytes in [&b""[..], b"PK\x03\x04", b"PK\x05\x06 nothing"] {
            assert!(matches!(Bundle::from_zip(bytes), Err(Error::Archive(_))));
        }
    }

    #[test]
    fn what_packers_add_is_left_out() {
        let bytes = archive(&[
            ("s/SKILL.md", 0o644, TEXT.as_bytes()),
            ("__MACOSX/s/._SKILL.md", 0o644, b"x"),
            ("s/.DS_Store", 0o644, b"x"),
            ("s/run", 0o755, b"x"),
        ]);
        let bundle = Bundle::from_zip(&bytes).expect("a skill");
        let names: Vec<&str> = bundle.files().keys().map(String::as_str).collect();
        assert_eq!(names, ["SKILL.md", "run"]);
        assert!(bundle.files()["run"].executable);
    }
}
