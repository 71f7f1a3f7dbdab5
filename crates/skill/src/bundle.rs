//! A skill's folder, checked.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use bytes::Bytes;

use crate::frontmatter::Frontmatter;
use crate::{Error, MAIN, MAX_BYTES, MAX_FILES, archive, path};

/// What archives begin with.
const ZIP: &[u8] = b"PK\x03\x04";

/// A file as it is uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name, with the folders that it is in.
    pub name: String,
    /// What is in it.
    pub bytes: Bytes,
}

/// A file of a skill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// What is in it.
    pub bytes: Bytes,
    /// Whether it may be run.
    pub executable: bool,
}

/// A skill's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    directory: String,
    frontmatter: Frontmatter,
    files: BTreeMap<String, File>,
}

impl Bundle {
    /// What was uploaded: the files of a folder, or one zip archive with such a folder in it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn of(parts: Vec<Part>) -> Result<Self, Error> {
        if let [only] = parts.as_slice()
            && !only.name.contains('/')
            && only.bytes.starts_with(ZIP)
        {
            return Self::from_zip(&only.bytes);
        }
        let mut files = Files::default();
        for Part { name, bytes } in parts {
            let executable = bytes.starts_with(b"#!");
            files.add(&name, File { bytes, executable })?;
        }
        files.close()
    }

    /// The folder in an archive.
    ///
    /// # Errors
    /// [`Error`].
    pub fn from_zip(bytes: &[u8]) -> Result<Self, Error> {
        let mut files = Files::default();
        archive::read(bytes, |name, file| files.add(name, file))?;
        files.close()
    }

    /// The same folder as an archive. Equal folders make equal archives.
    ///
    /// # Errors
    /// [`Error::Archive`], which would be a fault of ours.
    pub fn to_zip(&self) -> Result<Vec<u8>, Error> {
        let files = self.files.iter();
        archive::write(files.map(|(name, file)| (format!("{}/{name}", self.directory), file)))
    }

    /// The name of the folder.
    #[must_use]
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// What the skill says of itself.
    #[must_use]
    pub fn frontmatter(&self) -> &Frontmatter {
        &self.frontmatter
    }

    /// The files by their names within the folder.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<String, File> {
        &self.files
    }

    /// Writes the files below `root`, which must be an empty folder that nobody else writes to.
    ///
    /// # Errors
    /// What the file system says.
    pub fn unpack(&self, root: &Path) -> io::Result<()> {
        for (name, file) in &self.files {
            // Names were checked: none leads out.
            let target = root.join(name);
            if let Some(folder) = target.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(&target, &file.bytes)?;
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt as _;
                let mode = if file.executable { 0o555 } else { 0o444 };
                std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))?;
            }
        }
        Ok(())
    }
}

/// A folder that is being read.
#[derive(Default)]
struct Files {
    directory: Option<String>,
    files: BTreeMap<String, File>,
    bytes: usize,
}

impl Files {
    fn add(&mut self, name: &str, file: File) -> Result<(), Error> {
        let (directory, rest) = path::split(name)?;
        match &self.directory {
            None => self.directory = Some(directory.to_owned()),
            Some(known) if known == directory => {}
            Some(_) => return Err(Error::Folder(path::shown(name))),
        }
        self.bytes = self.bytes.saturating_add(file.bytes.len());
        if self.bytes > MAX_BYTES {
            return Err(Error::TooLarge);
        }
        if self.files.len() >= MAX_FILES {
            return Err(Error::TooMany);
        }
        if self.files.insert(rest.to_owned(), file).is_some() {
            return Err(Error::Name {
                name: path::shown(name),
                problem: "the name is there twice",
            });
        }
        Ok(())
    }

    fn close(self) -> Result<Bundle, Error> {
        let directory = self.directory.ok_or(Error::Empty)?;
        for name in self.files.keys() {
            let folders = name.match_indices('/').map(|(end, _)| &name[..end]);
            if folders.into_iter().any(|folder| self.files.contains_key(folder)) {
                return Err(Error::Name {
                    name: path::shown(name),
                    problem: "one of its folders is a file",
                });
            }
        }
        let main = self.files.get(MAIN).ok_or(Error::NoMain)?;
        Ok(Bundle {
            directory,
            frontmatter: Frontmatter::parse(&main.bytes)?,
            files: self.files,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "---\nname: pdf\ndescription: Fills forms\n---\nRead on.\n";

    fn part(name: &str, text: &str) -> Part {
        Part {
            name: name.into(),
            bytes: Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    fn skill() -> Vec<Part> {
        vec![
            part("pdf-tools/SKILL.md", TEXT),
            part("pdf-tools/scripts/run.sh", "#!/bin/sh\necho hi\n"),
            part("pdf-tools/data/ü.txt", "ü"),
        ]
    }

    #[test]
    fn files_and_archives_make_the_same_folder() {
        let bundle = Bundle::of(skill()).expect("a skill");
        assert_eq!(bundle.directory(), "pdf-tools");
        assert_eq!(bundle.frontmatter().name, "pdf");
        assert!(bundle.files()["scripts/run.sh"].executable);
        let zip = bundle.to_zip().expect("packs");
        assert_eq!(Bundle::from_zip(&zip).as_ref(), Ok(&bundle));
        let upload = Part {
            name: "skill.zip".into(),
            bytes: zip.clone().into(),
        };
        assert_eq!(Bundle::of(vec![upload]).as_ref(), Ok(&bundle));
        let mut other = skill();
        other.reverse();
        assert_eq!(Bundle::of(other).expect("a skill").to_zip(), Ok(zip));
    }

    #[test]
    fn unpacks_what_it_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        Bundle::of(skill())
            .expect("a skill")
            .unpack(folder.path())
            .expect("unpacks");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
        assert_eq!(read("SKILL.md"), TEXT);
        assert_eq!(read("data/ü.txt"), "ü");
    }

    #[test]
    fn tricks_are_refused() {
        let with = |name: &str| Bundle::of([skill(), vec![part(name, "x")]].concat());
        for name in [
            "../etc/passwd",
            "pdf-tools/../../x",
            "/pdf-tools/x",
            "pdf-tools//x",
            "pdf-tools/./x",
            "pdf-tools\\x",
            "pdf-tools/a\0",
            "pdf-tools/\u{202e}x",
            "pdf-tools/",
            "pdf-tools/SKILL.md",
            "pdf-tools/SKILL.md/x",
        ] {
            assert!(matches!(with(name), Err(Error::Name { .. })), "{name:?}");
        }
        for name in ["x", "other/x"] {
            assert!(matches!(with(name), Err(Error::Folder(_))), "{name}");
        }
        assert_eq!(Bundle::of(Vec::new()), Err(Error::Empty));
        assert_eq!(Bundle::of(vec![part("a/b", "")]), Err(Error::NoMain));
        assert_eq!(Bundle::of(vec![part("a/b/SKILL.md", TEXT)]), Err(Error::NoMain));
        let many = (0..=MAX_FILES).map(|number| part(&format!("a/{number}"), ""));
        assert_eq!(Bundle::of(many.collect()), Err(Error::TooMany));
        let large = Bytes::from(vec![0; MAX_BYTES / 2 + 1]);
        let large = |name: &str| Part {
            name: name.into(),
            bytes: large.clone(),
        };
        assert_eq!(Bundle::of(vec![large("a/1"), large("a/2")]), Err(Error::TooLarge));
    }

    proptest! {
        #[test]
        fn nothing_leads_out(names in prop::collection::vec("[a./\\\\\\PC]{0,20}", 0..5)) {
            let parts = names.iter().map(|name| part(&format!("s/{name}"), "x"));
            let parts = [part("s/SKILL.md", TEXT)].into_iter().chain(parts).collect();
            if let Ok(bundle) = Bundle::of(parts) {
                for name in bundle.files().keys() {
                    prop_assert!(name.split('/').all(|part| !matches!(part, "" | "." | "..")), "{}", name);
                }
                let folder = tempfile::tempdir().expect("a folder");
                let root = folder.path().join("root");
                std::fs::create_dir(&root).expect("a folder");
                bundle.unpack(&root).expect("unpacks");
                prop_assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
                prop_assert_eq!(Bundle::from_zip(&bundle.to_zip().expect("packs")), Ok(bundle));
            }
        }
    }
}
