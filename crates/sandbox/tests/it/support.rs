//! What the tests share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use oma_docker_engine::Api;
use oma_domain::content::joined_text;
use oma_domain::{EventId, SessionId, WorkspaceId};
use oma_sandbox::fittings::Fittings;
use oma_sandbox::host::{Config, Host};
use oma_sandbox::limits::Enforcement;
use oma_sandbox::protocol::{Call, Reply};
use oma_sandbox::{Attached, Hand, Provider, Spec};

/// A data folder of a test, and a server's sandboxes in it.
pub(crate) struct Fixture {
    pub(crate) data: PathBuf,
    pub(crate) local: Host,
    pub(crate) folder: Folder,
}

/// The hand's program.
pub(crate) fn exe() -> PathBuf {
    std::env::var_os("OMA_TEST_HAND").map_or_else(|| env!("CARGO_BIN_EXE_hand-harness").into(), PathBuf::from)
}

/// The configuration of the tests: everything small, so that a bomb goes off soon.
pub(crate) fn config(data: &Path) -> Config {
    let mut config = Config::new(data);
    config.exe = exe();
    config.limits.memory = 256 << 20;
    config.limits.processes = 128;
    config.limits.disk = 32 << 20;
    config.limits.inodes = 5_000;
    config.limits.disk_floor = 1 << 20;
    config.limits.tmp = 64 << 20;
    config.tools.default_wall = Duration::from_secs(60);
    if engine().is_some() {
        // The image has no programs of its own.
        let readable = std::env::var_os("OMA_TEST_READABLE").unwrap_or_default();
        config.readable = std::env::split_paths(&readable).collect();
    }
    config
}

/// The engine that this run of the suite is about, when it is about containers.
pub(crate) fn engine() -> Option<Api> {
    std::env::var("OMA_TEST_DOCKER").ok().map(Api::new)
}

/// The sandboxes that this run of the suite is about.
pub(crate) async fn open(config: Config) -> Result<Host, oma_sandbox::Error> {
    #[cfg(feature = "docker")]
    if let Ok(engine) = std::env::var("OMA_TEST_DOCKER") {
        let image = std::env::var("OMA_TEST_IMAGE").unwrap();
        let mut config = oma_sandbox::docker::Config::new(config, image);
        config.engine = engine;
        config.runtime = std::env::var(RUNTIME).ok();
        config.transport = std::env::var_os(BY_EXEC).map(|_| oma_sandbox::docker::Transport::Exec);
        return oma_sandbox::docker::open(config).await;
    }
    oma_sandbox::local::open(config).await
}

/// A data folder that goes with all that was started in it, also when a test fails.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self::of(tempfile::tempdir().unwrap())
    }

    /// One in another place than that of temporary files.
    pub(crate) fn below(place: &str) -> Self {
        Self::of(tempfile::tempdir_in(place).unwrap())
    }

    fn of(folder: tempfile::TempDir) -> Self {
        std::fs::create_dir(folder.path().join("data")).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }
}

impl Folder {
    /// The label of all containers of this data folder.
    pub(crate) fn label(&self) -> String {
        let instance = std::fs::read_to_string(self.path().join("sandboxes.instance")).unwrap_or_default();
        format!("oma.installation={instance}")
    }
}

/// Removes all containers with this label, whatever runs in them.
pub(crate) fn remove_containers(label: &str) {
    let Some(engine) = engine() else { return };
    for id in engine.containers(label) {
        // One that is gone already is no failure.
        let _ = engine.ask("DELETE", &format!("/containers/{id}?force=true&v=true"), &[]);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove_containers(&self.label());
        let folders = ["sandboxes", "warm/sandboxes"].map(|name| std::fs::read_dir(self.path().join(name)));
        for entry in folders.into_iter().flatten().flatten().flatten() {
            let Ok(text) = std::fs::read(entry.path().join("record.json")) else {
                continue;
            };
            let record: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
            let pid = record["hand"]["pid"]
                .as_i64()
                .and_then(|pid| i32::try_from(pid).ok());
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                wait_for_end(pid);
            }
            for group in record["cgroups"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|path| path.as_str())
            {
                let _ = std::fs::remove_dir(group);
            }
        }
    }
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(adjust: impl FnOnce(&mut Config)) -> Self {
        Self::in_folder(Folder::new(), adjust).await
    }

    pub(crate) async fn in_folder(folder: Folder, adjust: impl FnOnce(&mut Config)) -> Self {
        let data = folder.path().to_owned();
        let mut config = config(&data);
        adjust(&mut config);
        let local = open(config).await.unwrap();
        Self { data, local, folder }
    }

    pub(crate) async fn attach(&self, session: &SessionId) -> Attached {
        let spec = spec(session);
        if std::env::var_os(FROM_RESERVE).is_some() && self.local.is_untouched(session).await.unwrap() {
            return self.claim(&spec).await;
        }
        self.local.attach(&spec).await.unwrap()
    }

    /// One that was started in advance, as the session's.
    pub(crate) async fn claim(&self, spec: &Spec) -> Attached {
        let started = self.local.start_warm(&spec.workspace, Fittings::default()).await;
        let claimed = self.local.claim(&started.unwrap(), spec).await;
        claimed.unwrap().unwrap()
    }
}

/// The runtime of this run of the suite, and whether hands are reached through a relay whatever it is.
pub(crate) const RUNTIME: &str = "OMA_TEST_RUNTIME";
#[cfg(feature = "docker")]
pub(crate) const BY_EXEC: &str = "OMA_TEST_BY_EXEC";

/// Set when sessions of this run of the suite get sandboxes that were started in advance.
pub(crate) const FROM_RESERVE: &str = "OMA_TEST_FROM_RESERVE";

/// Whether the sandboxes of this run of the suite have a kernel of their own.
pub(crate) fn has_own_kernel() -> bool {
    std::env::var_os(RUNTIME).is_some()
}

/// The ways of enforcement that can be tested as this user.
pub(crate) fn enforcements() -> Vec<Enforcement> {
    if rustix::process::geteuid().is_root() {
        vec![Enforcement::Cgroup, Enforcement::Rlimit]
    } else {
        vec![Enforcement::Rlimit]
    }
}

impl Fixture {
    /// After all sessions were destroyed: no record, no workspace, no rubbish, no control group, no mount.
    pub(crate) fn assert_nothing_left(&self) {
        let warm = ["warm/sandboxes", "warm/workspaces", "warm/mounts"];
        for name in ["sandboxes", "workspaces", "mounts", "trash"]
            .into_iter()
            .chain(warm)
        {
            let left: Vec<_> = std::fs::read_dir(self.data.join(name))
                .unwrap()
                .flatten()
                .collect();
            assert!(left.is_empty(), "{name}: {left:?}");
        }
        assert_eq!(groups_left(&self.data), "");
        let containers = engine().map(|engine| engine.containers(&self.folder.label()));
        assert_eq!(containers.unwrap_or_default(), Vec::<String>::new());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.data.to_str().unwrap()));
    }
}

/// The control groups of a data folder, one a line.
pub(crate) fn groups_left(data: &Path) -> String {
    let instance = std::fs::read_to_string(data.join("sandboxes.instance")).unwrap();
    let groups = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-name", &format!("*{instance}*")])
        .output();
    String::from_utf8_lossy(&groups.unwrap().stdout).into_owned()
}

/// That no process of the machine has `marker` in its command line.
pub(crate) fn assert_no_process(marker: &str) {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        assert!(
            !line.contains(&format!("sleep {marker}")),
            "{:?}: {line}",
            entry.path()
        );
    }
}

fn record(data: &Path, session: &SessionId) -> serde_json::Value {
    record_of(&data.join("sandboxes").join(session.as_str()))
}

fn record_of(folder: &Path) -> serde_json::Value {
    let path = folder.join("record.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The control groups of a session's sandbox.
pub(crate) fn cgroups(data: &Path, session: &SessionId) -> Vec<PathBuf> {
    serde_json::from_value(record(data, session)["cgroups"].clone()).unwrap()
}

/// The host's pid of a session's hand.
pub(crate) fn hand_pid(data: &Path, session: &SessionId) -> rustix::process::Pid {
    hand_pid_by(engine(), data, session)
}

/// The host's pid of a session's hand, which may be in a container of this engine.
pub(crate) fn hand_pid_by(engine: Option<Api>, data: &Path, session: &SessionId) -> rustix::process::Pid {
    hand_pid_of(engine, &data.join("sandboxes").join(session.as_str()))
}

/// The host's pid of the hand whose record lies in this folder.
pub(crate) fn hand_pid_of(engine: Option<Api>, folder: &Path) -> rustix::process::Pid {
    recorded_pid(engine, folder).unwrap()
}

/// The same of a hand that may have ended: an engine that has noticed has no pid for it any more.
pub(crate) fn last_hand_pid(data: &Path, session: &SessionId) -> Option<rustix::process::Pid> {
    recorded_pid(engine(), &data.join("sandboxes").join(session.as_str()))
}

fn recorded_pid(engine: Option<Api>, folder: &Path) -> Option<rustix::process::Pid> {
    let record = record_of(folder);
    let pid = match (engine, record["container"]["name"].as_str()) {
        (Some(engine), Some(name)) => engine.pid(name)?,
        _ => i32::try_from(record["hand"]["pid"].as_i64().unwrap()).unwrap(),
    };
    rustix::process::Pid::from_raw(pid)
}

/// Whether the process is there.
pub(crate) fn is_alive(pid: rustix::process::Pid) -> bool {
    rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

/// Returns when the process has ended.
pub(crate) fn wait_for_end(pid: rustix::process::Pid) {
    let Ok(fd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return;
    };
    let mut polled = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    let patience = rustix::event::Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    assert_eq!(
        rustix::event::poll(&mut polled, Some(&patience)),
        Ok(1),
        "it goes on"
    );
}

/// A call of `bash`.
pub(crate) fn bash(command: &str) -> Call {
    Call {
        tool: "bash".to_owned(),
        input: serde_json::json!({ "command": command }),
    }
}

/// What a command printed, and whether it failed.
pub(crate) async fn sh(hand: &dyn Hand, command: &str) -> (String, bool) {
    said(&hand.run(&EventId::generate(), bash(command)).await.unwrap())
}

pub(crate) fn said(reply: &Reply) -> (String, bool) {
    (joined_text(&reply.content).trim_end().to_owned(), reply.is_error)
}

/// What a sandbox of this session must be like.
pub(crate) fn spec(session: &SessionId) -> Spec {
    Spec {
        session: session.clone(),
        workspace: WorkspaceId::default_workspace(),
    }
}
