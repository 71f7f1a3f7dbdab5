//! One running shell: a `bash` that is fed commands over a pipe and reports each one's exit status over
//! another, so that nothing that a command prints can be taken for the shell's own word.
//!
//! The output of each command has a FIFO of its own. So what a background command prints later is not mixed
//! into the results of later commands: it goes to the log only, for as long as anything holds the FIFO open.
//!
//! Invariant: when [`Shell::run`] says that the command was stopped, nothing that it started is alive.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::capture::Capture;
use crate::hand::guard::writing;
use crate::hand::launch::contained;
use crate::hand::log_ring::{LineWriter, LogRing, MAX_LINES};
use crate::hand::process::{Process, Tree, kill_strays};

/// The shell's own program, see there.
const DRIVER: &str = include_str!("driver.sh");

/// How much of the output is read at once.
const CHUNK: usize = 64 << 10;

/// The longest line that the status pipe carries; a longer one does not come from the driver.
const MAX_STATUS: usize = 64;

/// Variables that would make a new `bash` run or behave in ways that nobody asked for.
const REMOVED: [&str; 6] = [
    "BASH_ENV",
    "ENV",
    "SHELLOPTS",
    "BASHOPTS",
    "PROMPT_COMMAND",
    "CDPATH",
];

/// Variables that keep programs from waiting for somebody at a terminal.
const SET: [(&str, &str); 4] = [
    ("TERM", "dumb"),
    ("PAGER", "cat"),
    ("GIT_PAGER", "cat"),
    ("GIT_TERMINAL_PROMPT", "0"),
];

/// How a command ended.
#[derive(Debug)]
pub(super) enum End {
    /// It ended by itself, with this exit status; the shell lives.
    Done(i32),
    /// The shell itself is gone: `exit`, `exec`, `set -e`, a signal.
    ShellGone(ExitStatus),
    /// Its time was over; it was killed, and the shell with it.
    TimedOut,
    /// Somebody cancelled it; it was killed, and the shell with it.
    Cancelled,
    /// The shell could not be talked to; it was killed.
    Broken(io::Error),
}

/// What a command gave.
#[derive(Debug)]
pub(super) struct Ran {
    /// What it printed, stdout and stderr as they came.
    pub(super) output: String,
    /// How it ended.
    pub(super) end: End,
    /// Whether everything that was to be killed is dead.
    pub(super) all_gone: bool,
}

/// A shell, waiting for its next command.
#[derive(Debug)]
pub(super) struct Shell {
    child: Child,
    tree: Tree,
    commands: ChildStdin,
    statuses: ChildStdout,
    folder: tempfile::TempDir,
    sequence: u64,
    log: Arc<LogRing>,
    /// The folder that the shell was in when it was last looked at.
    cwd: PathBuf,
}

impl Shell {
    /// Starts a shell in the folder `cwd`. Without `may_write`, nothing that comes from it can ever write to a
    /// file.
    ///
    /// # Errors
    /// When there is no `bash`, or the folder can't be entered.
    pub(super) fn start(cwd: &Path, log: Arc<LogRing>, may_write: bool) -> io::Result<Self> {
        match Self::start_as(Command::new("bash"), cwd, &log, may_write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match contained::bash().as_deref() {
                Some([program, arguments @ ..]) => {
                    let mut command = Command::new(program);
                    command.args(arguments);
                    Self::start_as(command, cwd, &log, may_write)
                }
                _ => Err(error),
            },
            started => started,
        }
    }

    fn start_as(mut command: Command, cwd: &Path, log: &Arc<LogRing>, may_write: bool) -> io::Result<Self> {
        let folder = private_folder()?;
        let driver: Vec<&str> = DRIVER
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::trim)
            .collect();
        command
            .args(["--noprofile", "--norc", "-c", &driver.join(" "), "bash"])
            .arg(folder.path().join("cwd"));
        command.current_dir(cwd).envs(SET);
        for name in REMOVED {
            command.env_remove(name);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // In a sandbox that of the hand is `/dev/null`. To open that anew would wait where an ordinary user builds
            // (`copy_up`).
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        if !may_write {
            // SAFETY: the function runs between fork and exec, and makes one system call.
            unsafe { command.pre_exec(writing::renounce) };
        }
        let (mut child, tree) = Tree::spawn(&mut command)?;
        let (Some(commands), Some(statuses)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other(
                "the shell has no pipes though it was started with two",
            ));
        };
        Ok(Self {
            child,
            tree,
            commands,
            statuses,
            folder,
            sequence: 0,
            log: Arc::clone(log),
            cwd: cwd.to_owned(),
        })
    }

    /// The status of the shell, if it has ended since its last command.
    ///
    /// # Errors
    /// When that can't be told.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// The folder that the shell is in, or was in when it ended.
    pub(super) fn cwd(&mut self) -> &Path {
        // Without an id it has ended and was reaped, and its pid may be another's by now.
        let live = self
            .child
            .id()
            .and_then(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).ok());
        let left = || {
            let text = std::fs::read_to_string(self.folder.path().join("cwd")).ok()?;
            Some(PathBuf::from(text.strip_suffix('\n')?))
        };
        if let Some(cwd) = live.or_else(left).filter(|cwd| cwd.is_dir()) {
            self.cwd = cwd;
        }
        &self.cwd
    }

    /// Runs a command, for at most until `deadline`. Keeps at most `max_output` bytes of its output. The
    /// shell can be used again only when the command ended with [`End::Done`].
    pub(super) async fn run(
        &mut self,
        command: &str,
        deadline: Instant,
        cancel: &CancellationToken,
        max_output: usize,
    ) -> Ran {
        let mut capture = Capture::new(max_output);
        let bystanders = self.tree.bystanders();
        // Looked at now as well, because a shell that was killed can't be asked any more.
        self.cwd();
        let end = match self.open_output() {
            Ok(output) => self.attend(command, output, deadline, cancel, &mut capture).await,
            Err(error) => End::Broken(error),
        };
        let all_gone = match &end {
            End::Done(_) => true,
            // What it left in the background goes on; it was not asked to stop.
            End::ShellGone(status) if status.code().is_some() => true,
            // Killed from outside, perhaps for want of memory: nothing of it can be relied on.
            End::ShellGone(_) => kill_strays().await,
            End::TimedOut | End::Cancelled | End::Broken(_) => self.stop(&bystanders).await,
        };
        Ran {
            output: capture.into_text(),
            end,
            all_gone,
        }
    }

    /// Whether the shell, and so everything that it starts, can't write to files any more.
    pub(super) fn is_muted(&mut self) -> bool {
        // Without an id it has ended and was reaped.
        self.child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .is_some_and(writing::has_lost)
    }

    /// Ends the shell, and nothing that it has started. Says whether it is gone.
    pub(super) async fn retire(mut self) -> bool {
        let others = self.tree.bystanders();
        self.stop(&others).await
    }

    /// Ends the shell and everything that it has started. Says whether all of it is gone.
    pub(super) async fn kill(mut self) -> bool {
        let gone = self.tree.kill().await;
        gone && self.child.wait().await.is_ok()
    }

    /// Ends the shell and everything that the running command has started.
    async fn stop(&mut self, bystanders: &[Process]) -> bool {
        self.cwd();
        let gone = self.tree.kill_but(bystanders).await;
        gone && self.child.wait().await.is_ok()
    }

    /// A new FIFO for the output of the next command, opened for reading.
    fn open_output(&mut self) -> io::Result<Output> {
        self.sequence += 1;
        let name = format!("{}", self.sequence);
        let mut path = self.folder.path().join(&name);
        if !self.folder.path().is_dir() {
            // A command may clean up /tmp.
            self.folder = private_folder()?;
            path = self.folder.path().join(&name);
        }
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let receiver = pipe::OpenOptions::new().open_receiver(&path)?;
        Ok(Output { receiver, path })
    }

    /// Hands over the command and reads its output until it ends.
    async fn attend(
        &mut self,
        command: &str,
        output: Output,
        deadline: Instant,
        cancel: &CancellationToken,
        capture: &mut Capture,
    ) -> End {
        let log = Arc::clone(&self.log);
        let mut lines = log.writer();
        let mut record = format!("{}\0{}\0", self.sequence, output.path.display()).into_bytes();
        record.extend_from_slice(command.as_bytes());
        record.push(0);
        let Self {
            child,
            commands,
            statuses,
            sequence,
            ..
        } = self;

        let mut status = Status {
            pipe: statuses,
            line: Vec::new(),
        };
        let send = commands.write_all(&record);
        tokio::pin!(send);
        let mut sent = false;
        let mut open = true;
        let mut buffer = vec![0; CHUNK];
        let end = loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break End::Cancelled,
                () = tokio::time::sleep_until(deadline) => break End::TimedOut,
                result = &mut send, if !sent => match result {
                    Ok(()) => sent = true,
                    // The shell has ended meanwhile, which its exit status tells.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => sent = true,
                    Err(error) => break End::Broken(error),
                },
                code = status.of(*sequence) => match code {
                    Ok(code) => break End::Done(code),
                    Err(error) => break End::Broken(error),
                },
                exit = child.wait() => match exit {
                    Ok(exit) => break End::ShellGone(exit),
                    Err(error) => break End::Broken(error),
                },
                // Last, so that a flood keeps nothing else from being seen.
                ready = output.receiver.readable(), if open => {
                    match ready.and_then(|()| output.receiver.try_read(&mut buffer)) {
                        Ok(0) => open = false,
                        Ok(count) => {
                            capture.write(&buffer[..count]);
                            print(&mut lines, &buffer[..count]);
                            // A flood is always ready to be read. The timers and the other tasks have their
                            // turn all the same, and the time is looked at even if they are slow.
                            tokio::task::yield_now().await;
                            if Instant::now() >= deadline {
                                break End::TimedOut;
                            }
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => break End::Broken(error),
                    }
                }
            }
        };
        drop(lines);
        self.finish_output(output, open, capture);
        end
    }

    /// Takes what the ended command had printed until now, and leaves what comes later to the log.
    fn finish_output(&self, output: Output, mut open: bool, capture: &mut Capture) {
        let mut lines = self.log.writer();
        let mut buffer = vec![0; CHUNK];
        // The amount is fixed before the reading starts, or a background command could keep it going.
        let mut left = rustix::io::ioctl_fionread(&output.receiver).unwrap_or(0);
        while left > 0 && open {
            let size = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            match rustix::io::read(&output.receiver, &mut buffer[..size]) {
                Ok(0) => open = false,
                Ok(count) => {
                    capture.write(&buffer[..count]);
                    print(&mut lines, &buffer[..count]);
                    left -= count as u64;
                }
                Err(_) => break,
            }
        }
        drop(lines);
        // Whoever holds the FIFO open needs its name no more.
        let _ = std::fs::remove_file(&output.path);
        if open {
            tokio::spawn(follow(output.receiver, Arc::clone(&self.log)));
        }
    }
}

/// The way of one command's output.
struct Output {
    receiver: pipe::Receiver,
    path: PathBuf,
}

/// Writes to the log; of a flood only the lines that it would keep anyway.
fn print(lines: &mut LineWriter<'_>, bytes: &[u8]) {
    match memchr::memrchr_iter(b'\n', bytes).nth(MAX_LINES) {
        Some(end) => {
            // What came before ends here; it is pushed out by what follows.
            lines.write(b"\n");
            lines.write(&bytes[end + 1..]);
        }
        None => lines.write(bytes),
    }
}

/// Reads what background commands print, into the log, until the last of them is gone.
async fn follow(receiver: pipe::Receiver, log: Arc<LogRing>) {
    let mut lines = log.writer();
    let mut buffer = vec![0; CHUNK];
    while receiver.readable().await.is_ok() {
        match receiver.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                print(&mut lines, &buffer[..count]);
                tokio::task::yield_now().await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!(%error, "the output of a background command is lost");
                return;
            }
        }
    }
}

/// The reading end of the status pipe.
struct Status<'a> {
    pipe: &'a mut ChildStdout,
    line: Vec<u8>,
}

impl Status<'_> {
    /// Waits for the exit status of the command with this number. May be dropped at any await. Never ends
    /// when the shell does: that is for its exit status to tell.
    async fn of(&mut self, sequence: u64) -> io::Result<i32> {
        loop {
            let mut bytes = [0; MAX_STATUS];
            let count = self.pipe.read(&mut bytes).await?;
            if count == 0 {
                std::future::pending::<()>().await;
            }
            for byte in &bytes[..count] {
                if *byte != b'\n' {
                    if self.line.len() < MAX_STATUS {
                        self.line.push(*byte);
                    }
                    continue;
                }
                let code = parse_status(&self.line, sequence);
                self.line.clear();
                if let Some(code) = code {
                    return Ok(code);
                }
            }
        }
    }
}

fn parse_status(line: &[u8], sequence: u64) -> Option<i32> {
    let (number, code) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    // A command can spoil the variable that has the number; only another number is another command's.
    if number.parse().is_ok_and(|number: u64| number != sequence) {
        return None;
    }
    code.parse().ok()
}

fn private_folder() -> io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix(".oma-shell-").tempdir()
}
