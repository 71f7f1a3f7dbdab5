//! What this machine offers for sandboxes, for `oma doctor`.
//!
//! Invariant: a check tells what was really seen: the last ones make namespaces and start a sandbox.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use oma_domain::{EventId, SessionId, WorkspaceId};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::error::io as io_error;
use crate::files::resolution;
use crate::host::{Host, is_root};
use crate::layers::{Build, Layers as _};
use crate::limits::Enforcement;
use crate::local::{self, Config};
use crate::protocol::{Call, Service};
use crate::{Error, Hand, Provider as _, Spec};

/// The oldest kernel that has all the calls that a sandbox is made with.
const MIN_KERNEL: (u32, u32) = (5, 14);

/// How often it is looked whether what a trial has left is gone.
const LOOK: Duration = Duration::from_millis(20);

/// The most that a command of a trial may say, in bytes.
const MAX_SAID: u64 = 4 << 10;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// As it should be.
    Ok,
    /// Sandboxes work, but less well than they could.
    Warn,
    /// Sandboxes don't work as configured.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it ended.
    pub status: Status,
    /// What was seen.
    pub detail: String,
    /// What would help, where something would.
    pub remedy: Option<String>,
}

impl Check {
    pub(crate) fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Ok,
            detail: detail.into(),
            remedy: None,
        }
    }

    pub(crate) fn bad(
        name: &'static str,
        status: Status,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            name,
            status,
            detail: detail.into(),
            remedy: Some(remedy.into()),
        }
    }
}

/// Looks at everything that a sandbox of this configuration needs. The data folder of the configuration stays as it
/// is: the trial sandbox gets one of its own, on the same file system where that can be written to.
pub async fn probe(config: &Config) -> Vec<Check> {
    let mut checks = vec![kernel(), user(), paths(), user_namespaces()];
    checks.extend(namespaces());
    checks.push(groups(config));
    checks.push(seccomp());
    checks.push(landlock());
    checks.push(shell());
    checks.push(trial(config, local::open).await);
    checks.push(trial_build(config, local::open).await);
    checks
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel() -> Check {
    let name = "kernel";
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= MIN_KERNEL {
        return Check::ok(name, release);
    }
    let (major, minor) = MIN_KERNEL;
    Check::bad(
        name,
        Status::Fail,
        release,
        format!("Linux {major}.{minor} or newer is needed"),
    )
}

fn user() -> Check {
    let uid = rustix::process::geteuid().as_raw();
    if is_root() {
        Check::ok("user", "root: each session runs as a host user of its own")
    } else {
        Check::ok(
            "user",
            format!("user {uid}: sessions run as this user, kept apart by their namespaces"),
        )
    }
}

/// Whether files of sessions can be opened beneath their folder alone.
pub(crate) fn paths() -> Check {
    let name = "files of sessions";
    match resolution::check() {
        Ok(()) => Check::ok(name, "opened beneath their folder alone"),
        Err(why) => Check::bad(name, Status::Fail, why, resolution::REMEDY),
    }
}

fn user_namespaces() -> Check {
    let name = "user namespaces";
    let switched_off = [
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ];
    for (path, off) in switched_off {
        if read(path).as_deref() == Some(off) && (!is_root() || path.contains("max_user")) {
            let key = path.trim_start_matches("/proc/sys/").replace('/', ".");
            let on = if off == "0" { "1 (or more)" } else { "0" };
            return Check::bad(
                name,
                Status::Fail,
                format!("{key} is {off}"),
                format!("set {key} to {on}"),
            );
        }
    }
    match read("/proc/sys/user/max_user_namespaces") {
        Some(most) => Check::ok(name, format!("up to {most}")),
        None => Check::bad(
            name,
            Status::Fail,
            "the kernel has none",
            "use a kernel with CONFIG_USER_NS",
        ),
    }
}

/// The kinds of namespaces, by the names that `/proc` has for them.
fn namespaces() -> Vec<Check> {
    const KINDS: [(&str, &str); 6] = [
        ("mount namespaces", "mnt"),
        ("process namespaces", "pid"),
        ("network namespaces", "net"),
        ("ipc namespaces", "ipc"),
        ("host name namespaces", "uts"),
        ("control group namespaces", "cgroup"),
    ];
    let check = |(name, file): (&'static str, &str)| match fs::read_link(format!("/proc/self/ns/{file}")) {
        Ok(_) => Check::ok(name, "there"),
        Err(error) => Check::bad(
            name,
            Status::Fail,
            error.to_string(),
            "use a kernel that has them",
        ),
    };
    KINDS.map(check).into()
}

/// How the server gets control groups of its own.
pub(crate) fn delegation() -> String {
    let user = if is_root() { "" } else { "--user " };
    format!(
        "run the server in a delegated group: under systemd as a service with `Delegate=` (docs/deploy has one), or with \
         `systemd-run {user}--scope -p Delegate=yes oma serve`"
    )
}

fn groups(config: &Config) -> Check {
    let name = "control groups";
    match (crate::local::find_groups(config), config.enforcement()) {
        (Ok(found), Enforcement::Cgroup) => {
            Check::ok(name, format!("{found}: limits are enforced by the kernel"))
        }
        (Ok(found), Enforcement::Rlimit) => {
            let detail = format!("{found}, but limits are enforced by resource limits");
            if config.enforcement.is_some() {
                return Check::ok(name, detail);
            }
            Check::bad(
                name,
                Status::Warn,
                detail,
                "configure enforcement by control group to limit processors too",
            )
        }
        (Err(why), Enforcement::Cgroup) => Check::bad(
            name,
            Status::Fail,
            why,
            format!("{}, or configure enforcement by resource limit", delegation()),
        ),
        (Err(why), Enforcement::Rlimit) => Check::bad(
            name,
            Status::Warn,
            format!("{why}; limits are enforced by resource limits, and processors are not limited"),
            format!("{}, and configure enforcement by control group", delegation()),
        ),
    }
}

fn seccomp() -> Check {
    let name = "system call filter";
    match read("/proc/sys/kernel/seccomp/actions_avail") {
        Some(actions) if actions.contains("errno") && actions.contains("kill_process") => {
            Check::ok(name, "there")
        }
        _ => Check::bad(
            name,
            Status::Fail,
            "not there",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
    }
}

fn landlock() -> Check {
    // With this flag the call only tells the version.
    const VERSION: libc::c_ulong = 1;
    // SAFETY: the flag makes the kernel look at neither the pointer nor the size.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0,
            VERSION,
        )
    };
    let detail = if version > 0 {
        format!("ABI {version} (not needed)")
    } else {
        "not there (not needed)".to_owned()
    };
    Check::ok("landlock", detail)
}

fn shell() -> Check {
    let name = "bash";
    match ["/bin/bash", "/usr/bin/bash"]
        .into_iter()
        .find(|path| fs::metadata(path).is_ok())
    {
        Some(path) => Check::ok(name, path),
        None => Check::bad(name, Status::Fail, "not there", "install bash"),
    }
}

/// A folder for a trial, on the file system of the data folder where that can be written to: what works elsewhere need
/// not work there.
fn beside(data: &Path) -> std::io::Result<tempfile::TempDir> {
    let absolute = std::path::absolute(data)?;
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("oma-doctor-");
    // The folder that the data folder will be made in, where there is none yet.
    let found = absolute.ancestors().find(|folder| folder.is_dir());
    match found.map(|folder| builder.tempdir_in(folder)) {
        Some(Ok(made)) => Ok(made),
        Some(Err(_)) | None => builder.tempdir(),
    }
}

/// Starts a sandbox, in a data folder of its own, and runs a command in it.
pub(crate) async fn trial<F: Future<Output = Result<Host, Error>>>(
    config: &Config,
    open: impl FnOnce(Config) -> F,
) -> Check {
    let name = "a sandbox";
    let remedy = "see the checks above, or configure another backend";
    let outcome = async {
        let folder = beside(&config.data);
        let folder = folder.map_err(|error| io_error("making a folder", error))?;
        let host = open(Config {
            data: folder.path().to_owned(),
            ..config.clone()
        })
        .await?;
        let spec = Spec {
            session: SessionId::generate(),
            workspace: WorkspaceId::default_workspace(),
        };
        let begun = Instant::now();
        let attached = host.attach(&spec).await?;
        let call = Call {
            tool: "bash".to_owned(),
            input: serde_json::json!({ "command": "true" }),
        };
        let reply = attached.hand.run(&EventId::generate(), call).await;
        let took = begun.elapsed();
        let removed = host.destroy(&spec.session).await;
        let reply = reply?;
        removed?;
        if reply.is_error {
            let said = oma_domain::content::joined_text(&reply.content);
            return Err(Error::Lost(format!("`true` failed: {said}")));
        }
        Ok::<_, Error>((attached.boot, took))
    };
    match outcome.await {
        Ok((boot, took)) => {
            let (boot, took) = (boot.as_secs_f64() * 1e3, took.as_secs_f64() * 1e3);
            Check::ok(
                name,
                format!("started in {boot:.0} ms, ran its first command after {took:.0} ms"),
            )
        }
        Err(error) => Check::bad(name, Status::Fail, error.to_string(), remedy),
    }
}

/// Does in the place of a build what installers do: links a program that is there, gives it to somebody, and has it run
/// with his rights.
async fn change(hand: &dyn Hand) -> Result<(), Error> {
    const DONE: &str = "done\n";
    let script = "exec 2>&1; at=$(readlink -f \"$(command -v sh)\") && ln \"$at\" \"$at.oma-doctor\" && \
                  chown 1:1 \"$at.oma-doctor\" && chmod 4755 \"$at.oma-doctor\" && rm \"$at.oma-doctor\" && echo done";
    let service = Service {
        program: "sh".to_owned(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        variables: Vec::new(),
        folder: None,
    };
    let mut said = String::new();
    let mut pipe = hand.serve(service).await?.take(MAX_SAID);
    pipe.read_to_string(&mut said)
        .await
        .map_err(|error| io_error("listening to a build", error))?;
    if said == DONE {
        return Ok(());
    }
    Err(Error::Build(said.trim().to_owned()))
}

/// Makes a place for a build, in a data folder of its own, and removes it again.
pub(crate) async fn trial_build<F: Future<Output = Result<Host, Error>>>(
    config: &Config,
    open: impl FnOnce(Config) -> F,
) -> Check {
    let name = "packages of environments";
    let remedy = "environments with packages or a setup script are refused or fail here; see docs/environments.md for \
                  what they need";
    let outcome = async {
        let folder = beside(&config.data);
        let folder = folder.map_err(|error| io_error("making a folder", error))?;
        let host = open(Config {
            data: folder.path().to_owned(),
            ..config.clone()
        })
        .await?;
        if let Some(lack) = host.lacks() {
            return Ok(Some(lack));
        }
        let build = Build {
            workspace: WorkspaceId::default_workspace(),
            image: None,
            limits: config.limits.clone(),
            files: Vec::new(),
        };
        let site = host.begin(build).await?;
        let tried = timeout(config.launch_timeout, change(&*site.hand)).await;
        host.give_up(&site).await?;
        // Nobody else waits for what is thrown away, and an ordinary user's folder can't be removed before: there are
        // folders in it that its owner may not look into.
        let left = || fs::read_dir(folder.path().join("trash")).map(|mut left| left.next().is_some());
        let emptied = async {
            while left().map_err(|error| io_error("looking what is left of a build", error))? {
                tokio::time::sleep(LOOK).await;
            }
            Ok::<_, Error>(())
        };
        timeout(config.launch_timeout, emptied)
            .await
            .map_err(|_| Error::Timeout(config.launch_timeout))??;
        tried.map_err(|_| Error::Timeout(config.launch_timeout))??;
        Ok::<_, Error>(None)
    };
    match outcome.await {
        Ok(None) => Check::ok(name, "a place to install them was made, changed and removed"),
        Ok(Some(lack)) => Check::bad(name, Status::Warn, lack, remedy),
        Err(error) => Check::bad(name, Status::Warn, error.to_string(), remedy),
    }
}
