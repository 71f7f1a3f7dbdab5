//! What is known of a sandbox beyond the life of the server: one folder per session.
//!
//! Invariant: the record is written before a sandbox is launched and removed after it has stopped in an
//! orderly way. So a record without a living hand means that a sandbox was lost.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::DirBuilderExt as _;
#[cfg(feature = "docker")]
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::net::{UnixSocket, UnixStream};

use crate::descriptors;
use crate::hand::token::Token;
use crate::layers::Layer;

/// The file in the folder.
const FILE: &str = "record.json";

/// The socket in the folder.
const SOCKET: &str = "hand.sock";

/// The folder that a container shows, with the socket in it on which its hand is told what to be.
const DOOR: &str = "door";

/// What a container shows as the files of these names in `/etc`.
pub(crate) const USERS: &str = "passwd";
pub(crate) const GROUPS: &str = "group";
/// The loader would put what this names into every program, the hand among them, so that what an image has of it must
/// not hold.
pub(crate) const PRELOAD: &str = "ld.so.preload";

/// A folder with what programs in a container trust.
pub(crate) const TRUST: &str = "trust";

/// That socket.
pub(crate) const DOOR_SOCKET: &str = "launch.sock";

/// The folder on which a sandbox mounts its root, in its own mount namespace. Always empty on the host.
const ROOT: &str = "root";

/// The largest record that is read, in bytes.
const MAX_RECORD: u64 = 64 << 10;

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The boot of the machine that the sandbox belongs to: after another one it is surely gone.
    pub(crate) boot: String,
    /// The hand's process, once it is known.
    pub(crate) hand: Option<Process>,
    /// The cgroup folders made for it.
    pub(crate) cgroups: Vec<PathBuf>,
    /// The container made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) container: Option<Container>,
    /// The sandbox took the place of one that was lost, and the server has not yet run anything in it: until
    /// then it may not have acted on the loss.
    #[serde(default)]
    pub(crate) replaced: bool,
    /// The layer that it shows, which must stay as long as it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) layer: Option<Layer>,
    /// Whether its programs trust an authority of its session's own. Servers before this was recorded did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trusts: Option<bool>,
    /// It was made for a build, which ends with the server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_site: bool,
}

impl Record {
    /// Of nothing but a loss that nobody has acted on.
    pub(crate) fn of_loss() -> Self {
        Self {
            replaced: true,
            ..Self::default()
        }
    }

    /// Whether the launch that this records was cut off before its hand could be asked to run anything: that it is
    /// launched is recorded before the server connects to it. Known for the same boot only, because the later of
    /// two records may be lost with the power.
    pub(crate) fn never_served(&self, boot: &str) -> bool {
        self.boot == boot && !self.is_launched() && !self.replaced
    }

    /// Whether something runs, or ran, that could be asked to run commands.
    pub(crate) fn is_launched(&self) -> bool {
        let container = self.container.as_ref();
        self.hand.is_some() || container.is_some_and(|container| container.is_launched)
    }
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Container {
    /// Its name before it is made, its id after that.
    pub(crate) name: String,
    /// The folder with its hand's program, by its name.
    pub(crate) kit: String,
    /// Its hand has been told to serve.
    pub(crate) is_launched: bool,
    /// The relay through which its hand is reached; none where that has the socket in the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) relay: Option<Relay>,
}

/// A relay to a hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Relay {
    /// Its user, in the container.
    pub(crate) user: u32,
    /// What the hand is told with each connection.
    pub(crate) token: Token,
}

/// A process that may be another one later: a pid and when it started, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) start: u64,
}

/// A session's folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the folder, with the place for the root in it.
    ///
    /// # Errors
    /// When it can't be made.
    pub(crate) fn create(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(self.root())
    }

    /// Where the sandbox mounts its root.
    pub(crate) fn root(&self) -> PathBuf {
        self.0.join(ROOT)
    }

    /// Reads the record; `None` when there is none. A file that can't be understood counts as a record of
    /// nothing known: it shows that there was a sandbox.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) fn read(&self) -> io::Result<Option<Record>> {
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
    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        let fresh = self.0.join("record.new");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        fs::rename(fresh, self.0.join(FILE))
    }

    /// Makes the record outlast a loss of power.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn sync(&self) -> io::Result<()> {
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
    pub(crate) fn remove(&self) -> io::Result<()> {
        // The record goes first: without it, the rest is only rubbish.
        for name in [FILE, SOCKET, "record.new", USERS, GROUPS, PRELOAD] {
            absent_is_fine(fs::remove_file(self.0.join(name)))?;
        }
        absent_is_fine(fs::remove_file(self.door().join(DOOR_SOCKET)))?;
        absent_is_fine(fs::remove_dir_all(self.0.join(TRUST)))?;
        for folder in [self.root(), self.door()] {
            absent_is_fine(fs::remove_dir(folder))?;
        }
        absent_is_fine(fs::remove_dir(&self.0))
    }

    /// A fresh listening socket in the folder.
    ///
    /// # Errors
    /// When it can't be made.
    pub(crate) fn listen(&self) -> io::Result<UnixListener> {
        listen_in(&self.0, SOCKET)
    }

    /// The folder that a container shows.
    pub(crate) fn door(&self) -> PathBuf {
        self.0.join(DOOR)
    }

    /// Connects to the socket. No descriptors are taken over the connection, as far as the kernel knows of that.
    ///
    /// # Errors
    /// When nobody listens.
    pub(crate) async fn connect(&self) -> io::Result<UnixStream> {
        let folder = File::open(&self.0)?;
        let socket = UnixSocket::new_stream()?;
        // Before anybody is there to send some.
        descriptors::accept(&socket, false);
        socket.connect(short_path(&folder, SOCKET)).await
    }
}

/// What a container shows of the folder.
#[cfg(feature = "docker")]
impl Folder {
    /// A fresh socket in the folder that a container shows. Its user may connect; nobody else gets that far.
    ///
    /// # Errors
    /// When it can't be made.
    pub(crate) fn open_door(&self) -> io::Result<UnixListener> {
        let door = self.door();
        fs::DirBuilder::new().recursive(true).create(&door)?;
        fs::set_permissions(&door, fs::Permissions::from_mode(0o755))?;
        let listener = listen_in(&door, DOOR_SOCKET)?;
        fs::set_permissions(door.join(DOOR_SOCKET), fs::Permissions::from_mode(0o666))?;
        Ok(listener)
    }

    /// A file that a container shows.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file that a container shows.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn put(&self, name: &str, text: &str) -> io::Result<()> {
        let path = self.file(name);
        // Whoever still shows the file before keeps that one.
        absent_is_fine(fs::remove_file(&path))?;
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
    }

    /// Writes a folder of files that everybody may read.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn put_all(&self, name: &str, files: &[(&str, Vec<u8>)]) -> io::Result<()> {
        let folder = self.file(name);
        absent_is_fine(fs::remove_dir_all(&folder))?;
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        for (name, text) in files {
            let path = folder.join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        }
        Ok(())
    }

    /// Removes that socket: nobody gets in by it any more.
    ///
    /// # Errors
    /// When it is still there.
    pub(crate) fn shut_door(&self) -> io::Result<()> {
        absent_is_fine(fs::remove_file(self.door().join(DOOR_SOCKET)))
    }
}

fn listen_in(folder: &Path, name: &str) -> io::Result<UnixListener> {
    absent_is_fine(fs::remove_file(folder.join(name)))?;
    let folder = File::open(folder)?;
    UnixListener::bind(short_path(&folder, name))
}

/// The socket's path. There is room for 107 bytes only, and a data folder may lie deeper, so it goes by the
/// descriptor of its folder.
fn short_path(folder: &File, name: &str) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(name)
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
pub(crate) fn boot_id() -> io::Result<String> {
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
            container: None,
            replaced: true,
            ..Record::default()
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
