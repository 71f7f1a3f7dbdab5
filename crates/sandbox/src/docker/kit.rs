//! What a container needs to run our hand in any image, also in one with another C library or with none: our own
//! program, the dynamic loader of this machine and the libraries that the program asks for, and a `bash` for images
//! without one. All of it lies in one folder, which containers show read-only; the program is started through the
//! loader, which is told where the libraries are, so the image is not asked for anything.
//!
//! A program that is linked statically is started by itself, and needs no loader.
//!
//! Invariant: a folder is whole or not there, and never changes: containers that run go on with theirs when the
//! server is replaced.

use std::fs::{self, File, Permissions};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Transport;
use crate::Error;
use crate::error::io as io_error;
use crate::files::removal;
use crate::hand::launch::contained::{BASH, KIT, LIBRARIES, LOADER};
use crate::hand::relay::RELAY;
use crate::hand::{CONTAINED, RELAYED};
use crate::host::make_private;

/// The folder, below the data folder, with one folder for each version.
const FOLDER: &str = "hand";

/// The empty folder over which a container mounts the way to the server.
const DOOR: &str = "door";

/// Our own program in such a folder.
const HAND: &str = "oma";

/// How a folder is named until it is whole.
const PARTIAL: &str = ".partial-";

/// The most that is read of a loader's answer, in bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// Where a `bash` to bring along may be.
const BASHES: [&str; 2] = ["/bin/bash", "/usr/bin/bash"];

/// A folder with what a hand needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kit {
    pub(super) folder: PathBuf,
    has_loader: bool,
}

impl Kit {
    /// Makes the folder for a program, unless it is there already.
    ///
    /// # Errors
    /// [`Error`] when something is missing on this machine, or can't be copied.
    pub(super) fn make(data: &Path, exe: &Path) -> Result<Self, Error> {
        let failed = |error| io_error("preparing the hand for containers", error);
        let program = Program::of(exe).map_err(failed)?;
        let shell = BASHES.map(Path::new).into_iter().find(|path| path.is_file());
        // Without a loader, a `bash` that needs one can't be brought along.
        let shell = match (shell, &program.loader) {
            (Some(shell), Some(_)) => Some(Program::of(shell).map_err(failed)?),
            _ => None,
        };
        let mut files = program.files(HAND);
        // Of two programs of one machine, the loader and the libraries are the same.
        let of_shell = shell.iter().flat_map(|shell| shell.files(BASH));
        for (name, source) in of_shell {
            if !files.iter().any(|(known, _)| *known == name) {
                files.push((name, source));
            }
        }
        let all = data.join(FOLDER);
        make_private(&all)?;
        let folder = all.join(fingerprint(&files).map_err(failed)?);
        if !folder.is_dir() {
            write(&all, &folder, &files).map_err(failed)?;
        }
        Ok(Self {
            folder,
            has_loader: program.loader.is_some(),
        })
    }

    /// The name of its folder.
    pub(super) fn name(&self) -> String {
        self.folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// Removes the folders of other versions, but for these, which containers have.
    ///
    /// # Errors
    /// When one stays.
    pub(super) fn tidy(&self, kept: &[String]) -> io::Result<()> {
        let Some(all) = self.folder.parent() else {
            return Ok(());
        };
        for entry in fs::read_dir(all)? {
            let entry = entry?;
            let is_kept = |name: &String| entry.file_name() == name.as_str();
            if entry.path() != self.folder && !kept.iter().any(is_kept) {
                removal::empty(&entry.path())?;
                fs::remove_dir(entry.path())?;
            }
        }
        Ok(())
    }

    /// What a container starts.
    pub(super) fn command(&self, transport: Transport) -> Vec<String> {
        let argument = match transport {
            Transport::Socket => CONTAINED,
            Transport::Exec => RELAYED,
        };
        hand(self.has_loader, argument)
    }

    /// What is started as a relay in a container that has the folder of this name.
    pub(super) fn relay(&self, name: &str) -> Vec<String> {
        let has_loader = self.folder.with_file_name(name).join(LOADER).exists();
        hand(has_loader, RELAY)
    }
}

/// The command line of a hand.
fn hand(has_loader: bool, argument: &str) -> Vec<String> {
    let at = |name: &str| format!("{KIT}/{name}");
    let mut command = Vec::new();
    if has_loader {
        command.extend([at(LOADER), "--library-path".to_owned(), at(LIBRARIES)]);
    }
    command.extend([at(HAND), "hand".to_owned(), argument.to_owned()]);
    command
}

/// A program of this machine.
struct Program {
    path: PathBuf,
    loader: Option<PathBuf>,
    libraries: Vec<PathBuf>,
}

impl Program {
    fn of(path: &Path) -> io::Result<Self> {
        // By its real name, where it has one still: `/proc/self/exe` is another file for a child.
        let path = path.canonicalize()?;
        let file = File::open(&path)?;
        let loader = interpreter(&file)?;
        let libraries = match &loader {
            Some(loader) => libraries(loader, &path)?,
            None => Vec::new(),
        };
        Ok(Self {
            path,
            loader,
            libraries,
        })
    }

    /// Its files: their names in the folder, and where they are on this machine.
    fn files(&self, name: &str) -> Vec<(PathBuf, PathBuf)> {
        let loader = self
            .loader
            .iter()
            .map(|path| (PathBuf::from(LOADER), path.clone()));
        let libraries = self.libraries.iter().filter_map(|path| {
            let name = path.file_name()?;
            Some((Path::new(LIBRARIES).join(name), path.clone()))
        });
        std::iter::once((PathBuf::from(name), self.path.clone()))
            .chain(loader)
            .chain(libraries)
            .collect()
    }
}

/// The program that loads an executable, as its own headers name it; `None` for one that is linked statically.
fn interpreter(file: &File) -> io::Result<Option<PathBuf>> {
    const MAGIC: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
    const INTERPRETER: u32 = 3;
    const MAX_PATH: u64 = 4_096;
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "not a program for 64 bits");
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    if header[..6] != MAGIC {
        return Err(bad());
    }
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0_u64, |all, byte| (all << 8) | u64::from(*byte))
    };
    let (at, size, count) = (
        number(&header[32..40]),
        number(&header[54..56]),
        number(&header[56..58]),
    );
    if size < 56 {
        return Err(bad());
    }
    for index in 0..count {
        let mut part = [0; 56];
        file.read_exact_at(&mut part, at + index * size)?;
        if number(&part[..4]) != u64::from(INTERPRETER) {
            continue;
        }
        let (offset, length) = (number(&part[8..16]), number(&part[32..40]));
        if length > MAX_PATH {
            return Err(bad());
        }
        let mut path = vec![0; usize::try_from(length).map_err(|_| bad())?];
        file.read_exact_at(&mut path, offset)?;
        path.retain(|byte| *byte != 0);
        let path = String::from_utf8(path).map_err(|_| bad())?;
        return Ok(Some(path.into()));
    }
    Ok(None)
}

/// The libraries that a loader finds for a program, by its own word.
fn libraries(loader: &Path, program: &Path) -> io::Result<Vec<PathBuf>> {
    let mut child = Command::new(loader)
        .arg("--list")
        .arg(program)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut text = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_ANSWER).read_to_string(&mut text)?;
    }
    let status = child.wait()?;
    if !status.success() {
        let (loader, program) = (loader.display(), program.display());
        return Err(io::Error::other(format!(
            "{loader} --list {program} ended with {status}"
        )));
    }
    parse(&text)
        .map_err(|missing| io::Error::new(io::ErrorKind::NotFound, format!("there is no library {missing}")))
}

/// Lines like `libc.so.6 => /lib/libc.so.6 (0x…)`; those without an arrow are the loader and the kernel's own.
fn parse(list: &str) -> Result<Vec<PathBuf>, String> {
    let line = |line: &str| {
        let (name, found) = line.split_once(" => ")?;
        let path = found.split(" (0x").next().unwrap_or(found).trim();
        Some(if path.starts_with('/') {
            Ok(PathBuf::from(path))
        } else {
            Err(name.trim().to_owned())
        })
    };
    list.lines().filter_map(line).collect()
}

/// A name that other files than these have hardly ever.
fn fingerprint(files: &[(PathBuf, PathBuf)]) -> io::Result<String> {
    let mut facts = Vec::new();
    for (name, source) in files {
        let meta = fs::metadata(source)?;
        facts.push((
            name,
            meta.dev(),
            meta.ino(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
        ));
    }
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    Ok(format!(
        "{}-{:016x}",
        env!("CARGO_PKG_VERSION"),
        hasher.hash_one(facts)
    ))
}

fn write(all: &Path, folder: &Path, files: &[(PathBuf, PathBuf)]) -> io::Result<()> {
    let partial = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(all)?;
    for name in [LIBRARIES, DOOR] {
        fs::create_dir(partial.path().join(name))?;
    }
    for (name, source) in files {
        let target = partial.path().join(name);
        fs::copy(source, &target)?;
        fs::set_permissions(&target, Permissions::from_mode(0o755))?;
        File::open(&target)?.sync_all()?;
    }
    for name in ["", LIBRARIES, DOOR] {
        // Sessions have other users than the server, and may look.
        fs::set_permissions(partial.path().join(name), Permissions::from_mode(0o755))?;
    }
    fs::rename(partial.keep(), folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loader_s_list_is_understood() {
        let list = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(parse(list), Ok(vec![PathBuf::from("/lib/x/libc.so.6")]));
        let musl = "\t/lib/ld-musl-x86_64.so.1 (0x7f)\n\tlibc.musl.so => /lib/ld-musl-x86_64.so.1 (0x7f)\n";
        assert_eq!(parse(musl), Ok(vec![PathBuf::from("/lib/ld-musl-x86_64.so.1")]));
        assert_eq!(parse("\tlibx.so => not found\n"), Err("libx.so".to_owned()));
        assert_eq!(parse("\tstatically linked\n"), Ok(vec![]));
    }

    #[test]
    fn a_kit_runs_by_itself_and_is_made_once() {
        let data = tempfile::tempdir().unwrap();
        let exe = Path::new("/bin/bash");
        let kit = Kit::make(data.path(), exe).unwrap();
        let [loader, hand, libraries, bash] =
            [LOADER, HAND, LIBRARIES, BASH].map(|name| kit.folder.join(name));
        for program in [&hand, &bash] {
            let output = Command::new(&loader)
                .arg("--library-path")
                .arg(&libraries)
                .arg(program)
                .args(["-c", "echo $((6 * 7))"])
                .env_clear()
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), "42\n");
        }
        let (command, relay) = (kit.command(Transport::Socket), kit.relay(&kit.name()));
        assert!(command[0].ends_with(LOADER) && command.ends_with(&["hand", CONTAINED].map(str::to_owned)));
        assert!(
            kit.command(Transport::Exec)
                .ends_with(&["hand", RELAYED].map(str::to_owned))
        );
        assert!(relay[0].ends_with(LOADER) && relay.ends_with(&["hand", RELAY].map(str::to_owned)));
        let made = fs::metadata(&kit.folder).unwrap().ino();
        for older in ["unused", "used"] {
            fs::create_dir_all(data.path().join(FOLDER).join(older).join(LIBRARIES)).unwrap();
        }
        assert_eq!(Kit::make(data.path(), exe).unwrap(), kit);
        assert_eq!(fs::metadata(&kit.folder).unwrap().ino(), made);
        kit.tidy(&["used".to_owned()]).unwrap();
        assert_eq!(fs::read_dir(data.path().join(FOLDER)).unwrap().count(), 2);
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        fs::write(&path, "#!/bin/sh\n".repeat(20)).unwrap();
        assert!(Kit::make(folder.path(), &path).is_err());
        assert!(Kit::make(folder.path(), &folder.path().join("absent")).is_err());
    }
}
