//! The real binary as a process, with everything around it that a test needs: a data folder, a fake model
//! provider, a client, streams, and the means to kill it.
//!
//! Nothing here waits for time to pass: every wait is for an event, with a bound after which the test fails.

pub(crate) mod canary;
pub(crate) mod client;
pub(crate) mod leftovers;
pub(crate) mod pty;
pub(crate) mod raw;
pub(crate) mod stream;

use std::ffi::CString;
use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use oma_fake_provider::FakeProvider;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::command_line::oma;
use client::Client;

/// How long a wait for something that certainly comes may last, on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The key that the server presents to the fake provider.
pub(crate) const MODEL_KEY: &str = "canary-model-key-71f0c2";

/// Waits for something that certainly comes.
pub(crate) async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, wait).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// A data folder with a log beside it. When it goes, whatever still belongs to it is ended by pid.
pub(crate) struct Data {
    folder: TempDir,
    /// Whether it is a file system of its own.
    mounted: bool,
}

impl Data {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("oma-it-")
            .tempdir()
            .expect("a folder");
        Self {
            folder,
            mounted: false,
        }
    }

    /// A data folder on a file system of its own, in memory. Only root can make one.
    pub(crate) fn small(bytes: u64) -> Self {
        let mut data = Self::new();
        std::fs::create_dir(data.path()).expect("made");
        let options = CString::new(format!("size={bytes},mode=0700")).expect("no NUL");
        mount(
            "tmpfs",
            data.path(),
            "tmpfs",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .expect("mounted");
        data.mounted = true;
        data
    }

    /// Makes the file system of its own read-only, or writable again.
    pub(crate) fn set_read_only(&self, read_only: bool) {
        let flags = if read_only {
            MountFlags::RDONLY
        } else {
            MountFlags::empty()
        };
        mount_remount(self.path(), flags, c"").expect("remounted");
    }

    /// What `--data-dir` names.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A file beside the data folder.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Everything that the servers over this folder have logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.beside("server.log")).unwrap_or_default()
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_tail(&self.log());
            keep_log(&self.beside("server.log"));
        }
        leftovers::remove(&self.path());
        if !std::thread::panicking() {
            canary::absent_below(self.folder.path());
        }
        if self.mounted {
            unmount(self.path(), UnmountFlags::DETACH).expect("unmounted");
        }
    }
}

/// `OMA_IT_LOGS` names a folder for the whole logs of tests that failed.
fn keep_log(log: &Path) {
    if let Some(folder) = std::env::var_os("OMA_IT_LOGS") {
        let name = format!("server-{}.log", std::process::id());
        // The test has failed already; its tail was printed.
        let _ = std::fs::copy(log, PathBuf::from(folder).join(name));
    }
}

#[expect(
    clippy::print_stderr,
    reason = "shown by the test runner when the test has failed"
)]
fn print_tail(log: &str) {
    let lines: Vec<&str> = log.lines().collect();
    let tail = &lines[lines.len().saturating_sub(80)..];
    eprintln!("the server's log ends with:\n{}", tail.join("\n"));
}

/// How to start a server.
#[derive(Clone, Default)]
pub(crate) struct Options {
    variables: Vec<(String, String)>,
    token: Option<String>,
    is_ordinary: bool,
}

/// A user without an account of its own, without groups and without rights.
const NOBODY: u32 = 65_534;

impl Options {
    /// With the fake provider behind `anthropic/…` and `openai/…`.
    pub(crate) fn with(provider: &FakeProvider) -> Self {
        Self::default()
            .set("ANTHROPIC_API_KEY", MODEL_KEY)
            .set("ANTHROPIC_BASE_URL", &provider.url())
            .set("OPENAI_API_KEY", MODEL_KEY)
            .set("OPENAI_BASE_URL", &provider.openai_url())
    }

    /// Sets an environment variable.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Asks callers for a token.
    pub(crate) fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self.set("OPENCLAW_API_TOKEN", token)
    }

    /// Has the server be an ordinary user, also where the tests are root.
    pub(crate) fn ordinary(mut self) -> Self {
        self.is_ordinary = true;
        self
    }

    /// The command, with a clean environment besides.
    pub(crate) fn command(&self, data: &Path) -> std::process::Command {
        let mut command = oma(&["--json", "serve", "--data-dir"]);
        command
            .arg(data)
            .env("OPENCLAW_LISTEN", "127.0.0.1:0")
            .env("OPENCLAW_DRAIN_TIMEOUT_MS", "2000")
            .env(
                "A_SECRET_OF_SOMETHING_ELSE",
                format!("{}elsewhere-8a31", canary::PREFIX),
            )
            // Tests ask as fast as they can; those of the limit itself set it.
            .env("OPENCLAW_RATE_LIMIT_RPM", "0")
            .env("OPENCLAW_LOG_FORMAT", "json")
            .env("OPENCLAW_SANDBOX_DISK_FLOOR", "16MiB")
            .env(
                "OPENCLAW_LOG_LEVEL",
                std::env::var("OMA_IT_LOG_LEVEL").unwrap_or_default(),
            )
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        match self.is_ordinary && rustix::process::geteuid().is_root() {
            true => as_nobody(&command, data),
            false => command,
        }
    }
}

/// The same command by an ordinary user, to whom the data folder and what is beside it belong.
fn as_nobody(command: &std::process::Command, data: &Path) -> std::process::Command {
    let beside = data.parent().expect("a folder");
    std::os::unix::fs::chown(beside, Some(NOBODY), Some(NOBODY)).expect("given away");
    // Where the program was built, an ordinary user may not be allowed to look.
    let program = Path::new(command.get_program());
    let is_open =
        |folder: &Path| std::fs::metadata(folder).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0);
    let program = if program.ancestors().all(is_open) {
        program.to_owned()
    } else {
        let copy = beside.join("oma");
        if !copy.exists() {
            std::fs::copy(program, &copy).expect("copied");
        }
        copy
    };
    let mut ordinary = std::process::Command::new(program);
    ordinary.args(command.get_args()).env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            ordinary.env(name, value);
        }
    }
    ordinary.current_dir("/").gid(NOBODY).uid(NOBODY);
    ordinary
}

/// A running server. Killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    /// Kept open, so that the server never writes into a closed pipe.
    _stdout: BufReader<ChildStdout>,
    pub(crate) client: Client,
}

impl Server {
    /// Starts one and waits until it listens.
    pub(crate) async fn start(data: &Data, options: &Options) -> Self {
        Self::start_command(options.command(&data.path()), &data.beside("server.log"), options).await
    }

    /// The same with a command that leads to the server.
    pub(crate) async fn start_command(command: std::process::Command, log: &Path, options: &Options) -> Self {
        let append = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log");
        let mut child = Command::from(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(append)
            .kill_on_drop(true)
            .spawn()
            .expect("the binary runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        soon("the server's address", stdout.read_line(&mut line))
            .await
            .expect("readable");
        if line.is_empty() {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            panic!(
                "the server did not start: {}",
                said.lines().last().unwrap_or_default()
            );
        }
        let facts: Value = serde_json::from_str(&line).expect("JSON");
        let client = Client::new(facts["url"].as_str().expect("a URL"), options.token.as_deref());
        Self {
            child,
            _stdout: stdout,
            client,
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().expect("it runs").cast_signed()
    }

    /// Ends it without a farewell.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("killed");
    }

    /// Asks it to stop.
    pub(crate) fn ask_to_stop(&self) {
        let pid = Pid::from_raw(self.pid()).expect("a pid");
        kill_process(pid, Signal::TERM).expect("it is there");
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        soon("the server's end", self.child.wait())
            .await
            .expect("waited for")
    }

    /// Asks it to stop, which it does in order and in bounded time.
    pub(crate) async fn terminate(self) {
        self.ask_to_stop();
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "a stop in order ends with 0");
    }
}

/// A fake provider and a server over a fresh data folder that talks to it.
pub(crate) struct System {
    // Dropped in this order: the server before what it works with.
    pub(crate) server: Server,
    pub(crate) provider: FakeProvider,
    pub(crate) options: Options,
    pub(crate) data: Data,
}

impl System {
    pub(crate) async fn start() -> Self {
        Self::start_with(|options| options).await
    }

    pub(crate) async fn start_with(adjust: impl FnOnce(Options) -> Options) -> Self {
        let provider = FakeProvider::start().await.expect("a free port");
        let options = adjust(Options::with(&provider));
        let data = Data::new();
        let server = Server::start(&data, &options).await;
        Self {
            server,
            provider,
            options,
            data,
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.server.client
    }

    /// Kills the server and starts another one over the same data.
    pub(crate) async fn crash(self) -> Self {
        let Self {
            server,
            provider,
            options,
            data,
        } = self;
        server.kill().await;
        let server = Server::start(&data, &options).await;
        Self {
            server,
            provider,
            options,
            data,
        }
    }

    /// Stops the server in order and checks that no request was one that real providers refuse.
    pub(crate) async fn stop(self) -> Data {
        canary::absent_in_sandboxes(&self.data.path(), self.server.pid());
        self.server.terminate().await;
        self.provider.assert_clean();
        self.data
    }
}
