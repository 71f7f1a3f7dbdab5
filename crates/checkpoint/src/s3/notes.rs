//! What the folder remembers of an archive that is on its way to a bucket, beside the archive: so a crash forgets nothing.

use std::io::{self, Write as _};

use oma_staging::Folder;

use crate::{Error, Result, blocking};

/// The longest note, in bytes.
const MAX_NOTE: u64 = 4096;

/// What is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// The id of an upload in parts that was begun and has not ended.
    Upload,
    /// It was sent in one request whose answer has not come: it may be there, or come to be.
    Sent,
}

impl Note {
    /// What stands before the archive's name.
    fn prefix(self) -> &'static str {
        match self {
            Self::Upload => "upload-",
            Self::Sent => "sent-",
        }
    }

    fn file(self, name: &str) -> String {
        format!("{}{name}", self.prefix())
    }

    /// Keeps it, and returns when it is on the disk.
    pub(super) async fn keep(self, name: &str, text: &str, folder: &Folder) -> Result<()> {
        let (name, text, folder) = (self.file(name), text.to_owned(), folder.clone());
        let kept = blocking(move || {
            let mut file = folder.begin()?;
            file.write_all(text.as_bytes())?;
            file.finish(&name)
        });
        Ok(kept.await?)
    }

    /// What was kept.
    pub(super) async fn kept(self, name: &str, folder: &Folder) -> Result<Option<String>> {
        let path = folder.file(&self.file(name));
        let read = blocking(move || {
            let mut text = String::new();
            let file = std::fs::File::open(path)?;
            io::Read::read_to_string(&mut io::Read::take(file, MAX_NOTE), &mut text)?;
            Ok(text)
        });
        match read.await {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn forget(self, name: &str, folder: &Folder) -> Result<()> {
        let (name, folder) = (self.file(name), folder.clone());
        blocking(move || folder.remove(&name)).await.map_err(Error::from)
    }

    /// The names of all archives of which there is one.
    pub(super) fn all(self, folder: &Folder) -> io::Result<Vec<String>> {
        let names = folder.names()?.into_iter();
        Ok(names
            .filter_map(|name| name.strip_prefix(self.prefix()).map(str::to_owned))
            .collect())
    }
}
