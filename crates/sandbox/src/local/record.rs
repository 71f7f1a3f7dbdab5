//! What is known of a sandbox beyond the life of the server: one folder per session.
//!
//! Invariant: the record is written before a sandbox is launched and removed after it has stopped in an
//! orderly way. So a record without a living hand means that a sandbox was lost.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

/// The file in the folder.
const FILE: &str = "record.json";

/// The socket in the folder.
const SOCKET: &str = "hand.sock";

/// The folder on which a sandbox mounts its root, in its own mount namespace. Always empty on the host.
const ROOT: &str = "root";

/// The largest record that is read, in bytes.
const MAX_RECORD: u64 = 64 << 10;

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The boot of the machine that the sandbox belongs to: after another one it is surely gone.
    pub(super) boot: String,
    /// The hand's process, once it is known.
    pub(super) hand: Option<Process>,
    /// The cgroup folders made for it.
    pub(super) cgroups: Vec<PathBuf>,
    /// The sandbox took the place of one that was lost, and the server has not yet run anything in it: until
    /// then it may not have acted on the loss.
    #[serde(default)]
    pub(super) replaced: bool,
}

impl Record {
    /// Of nothing but a loss that nobody has acted on.
    pub(super) fn of_loss() -> Self {
        Self {
            replaced: true,
            ..Self::default()
        }
    }

    /// Whether the launch that this records was cut off before its hand could be asked to run anything: the hand's
    /// process is recorded before the server connects to it. Known for the same boot only, because the later of
    /// two records may be lost with the power.
    pub(super) fn never_served(&self, boot: &str) -> bool {
        self.boot == boot && self.hand.is_none() && !self.replaced
    }
}

/// A process that may be another one later: a pid and when it started, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) start: u64,
}

/// A session's folder.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the folder, with the place for the root in it.
    ///
    /// # Errors
    /// When it can't be made.
    pub(super) fn create(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(self.root())
    }

    /// Where the sandbox mounts its root.
    pub(super) fn root(&self) -> PathBuf {
        self.0.join(ROOT)
    }

    /// Reads the record; `None` when there is none. A file that can't be understood counts as a record of
    /// nothing known: it shows that there was a sandbox.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn read(&self) -> io::Result<Option<Record>> {
        let file = match File::open(self.0.join(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let reader = io::Read::take(file, MAX_RECORD);
        match serde_json::from_reader(reader) {
            Ok(record) => Ok(Some(record)),
            Err(error) if error.is_io() => Err(error.into()),
            Err(error) => {
                tracing::warn!(folder = %self.0.display(), %error, "a sandbox's record is damaged");
                Ok(Some(Record::default()))
            }
        }
    }

    /// Writes the record, whole or not at all. It outlasts this process; see [`Folder::sync`] for the rest.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        let fresh = self.0.join("record.new");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        fs::rename(fresh, self.0.join(FILE))
    }

    /// Makes the record outlast a loss of power.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(self.0.join(FILE))?.sync_all()?;
        File::open(&self.0)?.sync_all()?;
        match self.0.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Removes the folder. It must not be in use.
    ///
    /// # Errors
    /// When something is left.
    pub(super) fn remove(&self) -> io::Result<()> {
        // The record goes first: without it, the rest is only rubbish.
        for name in [FILE, SOCKET, "record.new"] {
            absent_is_fine(fs::remove_file(self.0.join(name)))?;
        }
        absent_is_fine(fs::remove_dir(self.root()))?;
        absent_is_fine(fs::remove_dir(&self.0))
    }

    /// A fresh listening socket in the folder.
    ///
    /// # Errors
    /// When it can't be made.
    pub(super) fn listen(&self) -> io::Result<UnixListener> {
        absent_is_fine(fs::remove_file(self.0.join(SOCKET)))?;
        let folder = File::open(&self.0)?;
        UnixListener::bind(short_path(&folder))
    }

    /// Connects to the socket.
    ///
    /// # Errors
    /// When nobody listens.
    pub(super) async fn connect(&self) -> io::Result<UnixStream> {
        let folder = File::open(&self.0)?;
        UnixStream::connect(short_path(&folder)).await
    }
}

/// The socket's path. There is room for 107 bytes only, and a data folder may lie deeper, so it goes by the
/// descriptor of its folder.
fn short_path(folder: &File) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(SOCKET)
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Names this boot of the machine.
///
/// # Errors
/// When `/proc` can't be read.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_record_comes_back_and_goes() {
        let data = tempfile::tempdir().unwrap();
        let folder = Folder::new(data.path().join("x".repeat(100)).join("y".repeat(100)));
        assert_eq!(folder.read().unwrap(), None);
        folder.create().unwrap();
        assert_eq!(folder.read().unwrap(), None);
        let record = Record {
            boot: boot_id().unwrap(),
            hand: Some(Process { pid: 7, start: 9 }),
            cgroups: vec![PathBuf::from("/a")],
            replaced: true,
        };
        folder.write(&record).unwrap();
        folder.sync().unwrap();
        assert_eq!(folder.read().unwrap(), Some(record));

        assert!(folder.connect().await.is_err());
        let listener = folder.listen().unwrap();
        folder.connect().await.unwrap();
        drop(listener);
        assert!(folder.connect().await.is_err(), "nobody listens");
        folder.listen().unwrap();

        fs::write(folder.path().join(FILE), "{").unwrap();
        assert_eq!(
            folder.read().unwrap(),
            Some(Record::default()),
            "damaged, but there"
        );
        folder.remove().unwrap();
        folder.remove().unwrap();
        assert!(!folder.path().exists());
    }
}
