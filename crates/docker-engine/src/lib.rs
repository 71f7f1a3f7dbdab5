//! For tests only: a Docker engine of a test's own, that touches nothing of the machine's, and images made from
//! nothing.
//!
//! The engine is `dockerd` as Debian's `docker.io` has it, started by root in a network namespace of its own, without a
//! bridge and without rules: the sandboxes that are tested have no network, and another engine on the machine must not
//! notice. It ends with the test, also with one that fails or is killed. Podman's service, which speaks the same language,
//! is started in the same way.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking, their helpers too")]
#![expect(clippy::panic, reason = "as above")]

mod api;

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;
use serde_json::json;

pub use api::Api;

/// How long an engine may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long apart it is asked whether it has started: it gives no word of it.
const PAUSE: Duration = Duration::from_millis(50);

/// The name of an image with `busybox` and nothing else: no library, no `bash`, no users.
pub const BARE: &str = "oma-test/bare:1";

/// The name of an image whose programs are the host's, where its `/usr` is mounted.
pub const HOSTED: &str = "oma-test/hosted:1";

/// The name of a runtime with a kernel of its own, where it is installed.
pub const GVISOR: &str = "runsc";

/// An engine of one test's own.
#[derive(Debug)]
pub struct Engine {
    folder: tempfile::TempDir,
    make: Make,
    daemon: Child,
}

/// Whose engine it is.
#[derive(Debug, Clone, Copy)]
enum Make {
    Docker {
        /// Containers go on while it is away.
        is_live_restoring: bool,
    },
    Podman,
}

impl Make {
    fn program(self) -> &'static str {
        match self {
            Self::Docker { .. } => "dockerd",
            Self::Podman => "podman",
        }
    }
}

/// What an engine needs, for whoever reads why it does not start.
const NEEDS: &str = "it needs root with all rights: to mount, to make namespaces and control groups. An ordinary \
                     container has not got them; a machine of its own or a privileged container has";

/// Whether a test can have an engine here: with root's rights, and where `dockerd` is installed.
///
/// # Panics
/// When there can be none although `CI` says that all components are here.
#[must_use]
pub fn is_possible() -> bool {
    can_start("dockerd", "docker.io")
}

/// The same of [`Engine::podman`].
///
/// # Panics
/// When there can be none although `CI` says that all components are here.
#[must_use]
pub fn is_podman_possible() -> bool {
    can_start("podman", "podman")
}

/// Whether engines here have the runtime [`GVISOR`] as well.
///
/// # Panics
/// As [`is_possible`].
#[must_use]
pub fn is_gvisor_possible() -> bool {
    is_possible() && can_start(GVISOR, "runsc")
}

/// Where a program of this name is.
fn installed(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|path| path.exists())
}

fn can_start(program: &str, package: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    let is_installed = installed(program).is_some();
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(
        is_root || !is_ci,
        "sandboxes in containers can't be tested: {NEEDS}"
    );
    assert!(is_installed || !is_ci, "{program} is missing: install {package}");
    is_root && is_installed
}

impl Engine {
    /// Starts an engine. With `is_live_restoring`, containers go on while it is away.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(is_live_restoring: bool) -> Self {
        Self::of(Make::Docker { is_live_restoring })
    }

    /// Starts Podman's service.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn podman() -> Self {
        Self::of(Make::Podman)
    }

    fn of(make: Make) -> Self {
        let folder = tempfile::Builder::new().prefix("oma-engine-").tempdir().unwrap();
        let daemon = spawn(folder.path(), make);
        let mut engine = Self { folder, make, daemon };
        engine.wait_until_up();
        engine
    }

    /// The path of its socket.
    #[must_use]
    pub fn address(&self) -> String {
        self.folder.path().join("sock").to_str().unwrap().to_owned()
    }

    /// Its interface.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(self.address())
    }

    /// Ends it in an orderly way, and returns when it has ended.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// Ends it as a crash does.
    ///
    /// # Panics
    /// When it does not end.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
        // With it goes its containerd. Where nobody reaps that one, it would count as running.
        let note = self.folder.path().join("exec/containerd/containerd.pid");
        let pid = fs::read_to_string(&note).ok();
        if let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid.trim().parse().ok()?)) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        let _ = fs::remove_file(note);
    }

    /// Starts it again.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        // One that was killed leaves its word that it runs.
        let _ = fs::remove_file(self.folder.path().join("pid"));
        self.daemon = spawn(self.folder.path(), self.make);
        self.wait_until_up();
    }

    fn end(&mut self, signal: Signal) {
        let pid = Pid::from_child(&self.daemon);
        rustix::process::kill_process(pid, signal).unwrap();
        self.daemon.wait().unwrap();
    }

    fn wait_until_up(&mut self) {
        let begun = Instant::now();
        while Api::new(self.address()).ask("GET", "/_ping", &[]).is_err() {
            let has_ended = self.daemon.try_wait().unwrap().is_some();
            if has_ended || begun.elapsed() > PATIENCE {
                let program = self.make.program();
                panic!("{program} does not start; {NEEDS}. Its log:\n{}", self.log());
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Makes the image [`BARE`].
    ///
    /// # Panics
    /// When that fails, for example because there is no `busybox` that is linked statically.
    pub fn import_bare(&self) {
        self.import(BARE, &[], |root| {
            fs::create_dir(root.join("bin")).unwrap();
            fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
            for name in ["sh", "ls", "cat", "sleep", "id"] {
                std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
            }
        });
    }

    /// Makes the image [`HOSTED`].
    ///
    /// # Panics
    /// When that fails.
    pub fn import_hosted(&self) {
        self.import(HOSTED, &[], |root| {
            for name in ["bin", "sbin", "lib", "lib64"] {
                std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)).unwrap();
            }
            fs::create_dir(root.join("etc")).unwrap();
            fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/bash\n").unwrap();
        });
    }

    /// Makes an image of a folder that `fill` fills, with these lines of a Dockerfile.
    ///
    /// # Panics
    /// When that fails.
    pub fn import(&self, name: &str, lines: &[&str], fill: impl FnOnce(&Path)) {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        fill(root.path());
        let tar = Command::new("tar")
            .args(["--numeric-owner", "--owner=0", "--group=0", "-c", "."])
            .current_dir(root.path())
            .output()
            .unwrap();
        assert!(tar.status.success());
        self.api().import(name, &tar.stdout, lines);
    }

    /// The processes that serve containers beside the engine, and outlive it.
    fn shims(&self) -> Vec<Pid> {
        let mark = self.folder.path().join("exec").to_str().unwrap().to_owned();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&mark)
        })
        .filter_map(Pid::from_raw)
        .collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.daemon.try_wait().is_ok_and(|ended| ended.is_none()) {
            // Containers that a failed test has left would be waited for.
            for id in self.api().containers("") {
                let _ = self
                    .api()
                    .ask("DELETE", &format!("/containers/{id}?force=true&v=true"), &[]);
            }
            self.stop();
        }
        for pid in self.shims() {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        unmount_below(self.folder.path());
    }
}

fn spawn(folder: &Path, make: Make) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    let mut command = Command::new(make.program());
    match make {
        Make::Docker { is_live_restoring } => docker(&mut command, folder, is_live_restoring),
        Make::Podman => podman(&mut command, folder),
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    // SAFETY: the closure runs between fork and exec, and makes system calls only.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
            rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)?;
            Ok(())
        });
    }
    match command.spawn() {
        Ok(daemon) => daemon,
        Err(error) => panic!("{} can't be started: {error}; {NEEDS}", make.program()),
    }
}

fn docker(command: &mut Command, folder: &Path, is_live_restoring: bool) {
    let at = |name: &str| folder.join(name);
    // Not the machine's. A runtime with a network stack of its own can't be given that of a container without one, so it
    // is told that there is none.
    let runtimes =
        installed(GVISOR).map(|path| json!({GVISOR: {"path": path, "runtimeArgs": ["--network=none"]}}));
    let configured = json!({"runtimes": runtimes.unwrap_or_else(|| json!({}))});
    fs::write(at("engine.json"), configured.to_string()).unwrap();
    command
        .args([
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
        ])
        .arg("--config-file")
        .arg(at("engine.json"))
        .arg("--data-root")
        .arg(at("data"))
        .arg("--exec-root")
        .arg(at("exec"))
        .arg("--pidfile")
        .arg(at("pid"))
        .arg(format!("--host=unix://{}", at("sock").display()));
    if is_live_restoring {
        command.arg("--live-restore");
    }
}

fn podman(command: &mut Command, folder: &Path) {
    let at = |name: &str| folder.join(name);
    // The runtime is the one that Docker's engine has: `crun` takes no control groups of mixed versions.
    command
        .env("CONTAINERS_CONF", "/dev/null")
        .args([
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--runtime=runc",
            "--events-backend=none",
        ])
        .arg("--root")
        .arg(at("data"))
        .arg("--runroot")
        .arg(at("exec"))
        .args(["system", "service", "--time=0"])
        .arg(format!("unix://{}", at("sock").display()));
}

/// Takes off what an engine that was killed has left mounted, the innermost first.
fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4).map(PathBuf::from))
        .filter(|point| point.starts_with(folder))
        .collect();
    points.sort();
    for point in points.iter().rev() {
        let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
    }
}
