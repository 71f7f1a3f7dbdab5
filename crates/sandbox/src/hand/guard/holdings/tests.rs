//! What processes hold, of programs that do what they can to hide it.

use super::*;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const SIZE: u64 = 1 << 20;

/// A program that holds a file of [`SIZE`] bytes, and ends when this is dropped.
struct Holder(Child);

impl Holder {
    /// Runs `program`, in which `f` is an open file without a name, until it has said that it is ready.
    fn start(folder: &Path, program: &str) -> Self {
        let begin = format!(
            "import ctypes, mmap, os, socket, subprocess, sys, threading\n\
             C = ctypes.CDLL(None)\nC.mmap.restype = ctypes.c_void_p\n\
             f = os.open('f', os.O_RDWR | os.O_CREAT)\n\
             os.write(f, b'x' * {SIZE})\n\
             os.unlink('f')\n"
        );
        let end = "\nprint('ready', flush=True)\nsys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", &format!("{begin}{program}{end}")])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n", "{program}");
        Self(child)
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn workspace(folder: &Path) -> Workspace {
    Workspace::of(&[folder.to_owned()]).unwrap()
}

#[test]
fn every_way_to_hold_a_deleted_file_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let known = (SIZE, 1, None);
    // (the way, what is held: bytes, files, and whether there may be more)
    let cases = [
        ("pass", known),
        ("os.dup(f)", known),
        ("m = mmap.mmap(f, 0)", known),
        // A table of descriptors that only another thread has.
        (
            "done = threading.Event()\n\
             def hold():\n C.unshare(0x400)\n done.set()\n threading.Event().wait()\n\
             threading.Thread(target=hold, daemon=True).start()\n\
             done.wait()\nos.close(f)",
            known,
        ),
        ("o = os.open(f'/proc/self/fd/{f}', os.O_PATH)\nos.close(f)", known),
        // Mapped and closed: only what is mapped of it is known.
        (
            "C.mmap(None, 1 << 20, 1, 1, f, 0)\nos.close(f)",
            (SIZE, 1, Some(Unseen::Mapped)),
        ),
        (
            "C.mmap(None, 4096, 1, 1, f, 4096)\nos.close(f)",
            (8_192, 1, Some(Unseen::Mapped)),
        ),
        (
            "a, b = socket.socketpair()\nsocket.send_fds(a, [b'x'], [f])\nos.close(f)",
            (0, 0, Some(Unseen::Sent)),
        ),
        // In a socket that waits to be accepted.
        (
            "l = socket.socket(socket.AF_UNIX)\nl.bind('')\nl.listen()\na = socket.socket(socket.AF_UNIX)\n\
             a.connect(l.getsockname())\nsocket.send_fds(a, [b'x'], [f])\nos.close(f)",
            (0, 0, Some(Unseen::Sent)),
        ),
        // Without a name from the start.
        (
            "os.close(f)\nf = os.open('.', os.O_RDWR | os.O_TMPFILE)\nos.write(f, b'x' * 8192)",
            (8_192, 1, None),
        ),
        // A folder that somebody is in.
        (
            "os.close(f)\nos.mkdir('d')\nos.chdir('d')\nos.rmdir('../d')",
            (4_096, 1, None),
        ),
        // What is no such file.
        ("os.close(f)", (0, 0, None)),
        (
            "os.close(f)\nopen('g (deleted)', 'w').write('x' * 9000)\n\
             g = os.open('g (deleted)', os.O_RDWR)\nC.mmap(None, 4096, 1, 1, g, 0)\nos.close(g)",
            (0, 0, None),
        ),
        (
            "os.close(f)\na, b = socket.socketpair()\nf = os.memfd_create('m')\nos.write(f, b'x' * 9000)",
            (0, 0, None),
        ),
    ];
    for (program, expected) in cases {
        let holder = Holder::start(&path, program);
        let found = workspace(&path).of_processes([holder.pid()].into_iter()).unwrap();
        // An empty folder takes as much as the file system gives it.
        let bytes = if program.contains("rmdir") && found.bytes < 4_096 {
            4_096
        } else {
            found.bytes
        };
        assert_eq!((bytes, found.inodes, found.unseen), expected, "{program}");
    }
}

#[test]
fn a_file_of_many_processes_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let program = "c = subprocess.Popen(['sleep', '1000'], pass_fds=[f], start_new_session=True)\nprint(c.pid, file=open('pid', 'w'))";
    let holder = Holder::start(&path, program);
    let child: i32 = std::fs::read_to_string(path.join("pid"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let both = workspace(&path)
        .of_processes([holder.pid(), child].into_iter())
        .unwrap();
    assert_eq!((both.bytes, both.inodes, both.unseen), (SIZE, 1, None));
    drop(holder);
    let one = workspace(&path).of_processes([child].into_iter()).unwrap();
    assert_eq!((one.bytes, one.inodes), (SIZE, 1), "an heir has it");
    let pid = rustix::process::Pid::from_raw(child).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let gone = workspace(&path).of_processes([i32::MAX].into_iter()).unwrap();
    assert_eq!(gone, Holdings::default(), "there is no such process");
}

#[test]
fn a_workspace_elsewhere_is_not_meant() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let holder = Holder::start(&path, "m = mmap.mmap(f, 0)");
    let other = workspace(Path::new("/proc"));
    let found = other.of_processes([holder.pid()].into_iter()).unwrap();
    assert_eq!((found.bytes, found.inodes, found.unseen), (0, 0, None));
}

#[test]
fn mappings_are_read() {
    for (line, expected) in [
        (
            "7f00a000-7f00c000 r--p 00001000 fe:00 7340 /workspace/a b (deleted)",
            Some((0x3000, 7_340, "/workspace/a b (deleted)")),
        ),
        (
            "7f00a000-7f00b000 rw-s 00000000 00:01 5                          /dev/zero (deleted)",
            Some((0x1000, 5, "/dev/zero (deleted)")),
        ),
        ("7f00a000-7f00b000 rw-p 00000000 00:00 0 ", Some((0x1000, 0, ""))),
        ("7f00b000-7f00a000 rw-p 00000000 00:00 0 ", None),
        ("rubbish", None),
        ("", None),
    ] {
        let parsed = Mapping::parse(line).map(|mapping| (mapping.end, mapping.inode, mapping.path));
        assert_eq!(parsed, expected, "{line}");
    }
}

#[test]
fn writes_are_counted() {
    let mut folder = tempfile::NamedTempFile::new().unwrap();
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let before = written_by(own);
    folder.write_all(&vec![1; 1 << 20]).unwrap();
    folder.as_file().sync_all().unwrap();
    // Where the temporary folder is no disk, nothing is.
    let is_disk = !matches!(rustix::fs::fstatfs(&folder).unwrap().f_type, 0x0102_1994);
    assert!(!is_disk || written_by(own) >= before + (1 << 20));
    assert_eq!(written_by(i32::MAX), 0);
}
