//! Making the sandbox: from a fresh process of the server's user to the confined pid 1 that serves.
//!
//! The server starts `oma hand --launch` with an empty environment and three descriptors: on 0 the
//! [`Plan`] as JSON, on 1 the listening socket, on 2 a pipe for [`Progress`]. The process is single-threaded,
//! as the system calls below demand. It makes the namespaces and forks: the *launcher* reports the pid, writes
//! the id maps where that takes privilege, and exits; the *hand*, pid 1 of the new namespace, builds its root,
//! gives up every privilege and goes on as [`super::server`].
//!
//! Invariant: no step may fail silently: a sandbox that could not be made as planned is not made.
//! Invariant: nothing of the session runs before the last privilege is gone.

mod confine;
pub(crate) mod contained;
pub(crate) mod filter;
mod group;
pub(crate) mod layered;
mod namespaces;
mod place;
pub(crate) mod root;
mod unprivileged;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::limits::ToolLimits;
use super::token::Token;
use crate::gateway::Doors;
use crate::limits::{Enforcement, Limits};
use crate::mounts::Access;

/// The user and group that a session is, inside its sandbox.
pub(crate) const INSIDE_ID: u32 = 1_000;

/// Where the workspace is, inside a sandbox.
pub(crate) const WORKSPACE: &str = "/workspace";

/// The longest plan, in bytes.
const MAX_PLAN: u64 = 1 << 20;

/// How a sandbox is to be made. Holds no secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// An empty folder, on which the sandbox's root is mounted (in its own mount namespace only).
    pub(crate) root: PathBuf,
    /// The workspace on the host.
    pub(crate) workspace: PathBuf,
    /// What lies beside the workspace.
    pub(crate) mounts: Vec<Mount>,
    /// Further folders that the sandbox may read, at the same path.
    pub(crate) readable: Vec<PathBuf>,
    /// An authority that programs trust beside those that the machine trusts.
    pub(crate) trust: Option<String>,
    /// The host user that the session's processes are; `None` for the user that this is.
    pub(crate) uid: Option<u32>,
    /// The `cgroup.procs` files to enter.
    pub(crate) cgroups: Vec<PathBuf>,
    /// The layer that lies over the host's folders.
    pub(crate) layer: Option<PathBuf>,
    /// A layer is to be built in it, so it is made for that and not for a session.
    pub(crate) site: Option<Site>,
    pub(crate) duties: Duties,
}

/// Where a layer is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Site {
    /// What [`crate::local`] has prepared.
    pub(crate) folder: PathBuf,
    /// Who the users of the build are.
    pub(crate) users: Users,
    /// Files of the host, and where the build sees them.
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
}

/// Who the users of a build are, outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Users {
    /// Users of the host that nobody else is, which takes a server that is root: this one is the build's root, and so
    /// many there are.
    Range { first: u32, count: u32 },
    /// The server's own user is the build's root, and there is no other: the kernel lets an ordinary user map no more.
    Server,
}

impl Plan {
    /// Which users of the host those inside are, as the kernel wants it; `None` where the user can't be mapped to
    /// another one, for want of privilege.
    fn users(&self) -> Option<String> {
        match &self.site {
            Some(Site {
                users: Users::Range { first, count },
                ..
            }) => Some(format!("0 {first} {count}\n")),
            Some(Site {
                users: Users::Server, ..
            }) => None,
            None => self.uid.map(|uid| namespaces::map(INSIDE_ID, uid)),
        }
    }
}

/// What the hand does once its sandbox stands, however that was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Duties {
    pub(crate) enforcement: Enforcement,
    pub(crate) limits: Limits,
    pub(crate) tools: ToolLimits,
    /// How long the hand lives without a server.
    pub(crate) orphan_timeout: Duration,
    /// The folders of the machine's disk that the session may write to, as it sees them, the workspace first.
    pub(crate) writable: Vec<PathBuf>,
    /// There are doors to the server.
    pub(crate) gateway: bool,
    /// The sandbox may have a kernel of its own: what limits it from outside counts what that one needs, too, and has room
    /// for it.
    #[serde(default)]
    pub(crate) has_own_kernel: bool,
    /// Variables of everything that runs in the sandbox. The launcher and the hand must not have them from their start:
    /// some are orders to the loader of programs.
    pub(crate) variables: BTreeMap<String, String>,
}

/// A folder of the host, and where the sandbox shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mount {
    /// On the host.
    pub(crate) source: PathBuf,
    /// In the sandbox, from its root; below [`crate::mounts::ROOT`].
    pub(crate) target: PathBuf,
    pub(crate) access: Access,
}

/// The workspace and those of the mounts that a session may write to, as it sees them.
pub(crate) fn writable(mounts: &[Mount]) -> Vec<PathBuf> {
    let mounts = mounts.iter().filter(|mount| mount.access == Access::ReadWrite);
    let mounts = mounts.map(|mount| mount.target.clone());
    std::iter::once(PathBuf::from(WORKSPACE)).chain(mounts).collect()
}

/// What the launcher says, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Progress {
    /// The hand's pid, in the namespace of the launcher.
    Pid(i32),
    /// The sandbox stands.
    Ready,
    /// It could not be made.
    Failed {
        /// The step and what came of it.
        reason: String,
        /// The system's error number.
        errno: Option<i32>,
    },
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub(crate) struct Failure {
    step: String,
    source: io::Error,
}

/// Names the step that a failure belongs to.
trait Step<T> {
    fn step(self, step: &str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            step: step.to_owned(),
            source: error.into(),
        })
    }
}

/// What [`launch`] leaves behind in the hand.
pub(crate) struct Launched {
    pub(crate) duties: Duties,
    pub(crate) entrance: Entrance,
    pub(crate) doors: Option<Doors>,
    /// The user of the relay that the server comes through, where it does.
    pub(crate) relay: Option<u32>,
}

/// Where the server comes in.
pub(crate) struct Entrance {
    pub(crate) listener: UnixListener,
    /// What the server says first, where others can connect, too.
    pub(crate) token: Option<Token>,
}

/// Makes the sandbox. Returns in the hand, `Ok(None)` in the launcher when its part is done.
///
/// # Errors
/// [`Failure`], which has been reported on the pipe already where that was possible.
pub(crate) fn launch() -> Result<Option<Launched>, Failure> {
    let mut inherited = inherit()?;
    let outcome = stages(&mut inherited.plan, &mut inherited.progress);
    match outcome {
        Ok(Some((plan, doors))) => {
            // A server that is gone knows nothing of this hand, so it must not live on.
            report(&mut inherited.progress, &Progress::Ready).step("reporting to the server")?;
            Ok(Some(Launched {
                duties: plan.duties,
                entrance: Entrance {
                    listener: inherited.listener,
                    token: None,
                },
                doors,
                relay: None,
            }))
        }
        Ok(None) => Ok(None),
        Err(failure) => {
            let errno = failure.source.raw_os_error();
            let failed = Progress::Failed {
                reason: failure.to_string(),
                errno,
            };
            // Without anybody to tell, there is nothing more to do.
            let _ = report(&mut inherited.progress, &failed);
            Err(failure)
        }
    }
}

struct Inherited {
    plan: File,
    listener: UnixListener,
    progress: File,
}

/// Takes over the three descriptors and closes any other.
fn inherit() -> Result<Inherited, Failure> {
    // SAFETY: close_range takes integers. This process has only just started and is single-threaded: no Rust
    // object owns a descriptor above 2 yet.
    if unsafe { libc::close_range(3, libc::c_uint::MAX, 0) } != 0 {
        return Err(io::Error::last_os_error()).step("closing inherited descriptors");
    }
    let take = |fd: i32| -> Result<OwnedFd, Failure> {
        // SAFETY: 0, 1 and 2 are open (the standard library sees to it before `main`), and nothing else in
        // this process closes them. The copy, with close-on-exec, is ours alone.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        rustix::io::fcntl_dupfd_cloexec(borrowed, 3).step("taking over a descriptor")
    };
    let inherited = Inherited {
        plan: take(0)?.into(),
        listener: take(1)?.into(),
        progress: take(2)?.into(),
    };
    // Until the sandbox has its own /dev/null, 0, 1 and 2 are what they were; see `quiet`.
    Ok(inherited)
}

/// Puts `/dev/null` in the place of the standard descriptors.
fn quiet() -> Result<(), Failure> {
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .step("opening /dev/null")?;
    for fd in 0..3 {
        // SAFETY: the descriptor is wrapped only for the call, and never closed by the wrapper.
        let mut target = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(fd) });
        rustix::io::dup2(&null, &mut target).step("quieting a standard descriptor")?;
    }
    Ok(())
}

fn report(pipe: &mut impl io::Write, progress: &Progress) -> io::Result<()> {
    let mut line = serde_json::to_vec(progress)?;
    line.push(b'\n');
    pipe.write_all(&line)
}

/// Both halves of the work: in the hand the plan comes back, in the launcher `None`.
fn stages(source: &mut File, progress: &mut File) -> Result<Option<(Plan, Option<Doors>)>, Failure> {
    let mut json = Vec::new();
    source
        .take(MAX_PLAN)
        .read_to_end(&mut json)
        .step("reading the plan")?;
    let plan: Plan = serde_json::from_slice(&json).step("understanding the plan")?;

    for procs in &plan.cgroups {
        // "0" means the writer.
        std::fs::write(procs, "0").step(&format!("entering {}", procs.display()))?;
    }
    let proc_of_host = File::open("/proc").step("opening /proc")?;
    let users = plan.site.as_ref().and_then(|_| plan.users());
    let shifted = users.map(|map| namespaces::made_of(&map)).transpose()?;
    namespaces::unshare(&plan)?;
    // Pipes rather than signals: when one side dies, the other reads the end of the stream.
    let (to_hand_read, to_hand) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step("making a pipe")?;
    let (to_launcher_read, to_launcher) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step("making a pipe")?;

    // SAFETY: this process is single-threaded, so the child has everything the parent had.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(io::Error::last_os_error()).step("forking"),
        0 => {
            drop((proc_of_host, to_hand, to_launcher_read));
            let maps = namespaces::Maps {
                ask: to_launcher.into(),
                answer: to_hand_read.into(),
            };
            become_hand(plan, maps, shifted.as_ref()).map(Some)
        }
        pid => {
            drop((to_hand_read, to_launcher));
            report(progress, &Progress::Pid(pid)).step("reporting to the server")?;
            let pid = Pid::from_raw(pid)
                .ok_or_else(|| io::Error::other("fork gave 0"))
                .step("forking")?;
            if let Some(map) = plan.users() {
                namespaces::serve_maps(pid, &map, &proc_of_host, to_launcher_read.into(), to_hand.into())?;
            }
            Ok(None)
        }
    }
}

/// What pid 1 does before it serves. `shifted` is a user namespace with the users of a build.
fn become_hand(
    plan: Plan,
    maps: namespaces::Maps,
    shifted: Option<&OwnedFd>,
) -> Result<(Plan, Option<Doors>), Failure> {
    rustix::process::setsid().step("making a session")?;
    root::build(&plan, shifted)?;
    quiet()?;
    namespaces::finish_network()?;
    let doors = open_doors(&plan.duties)?;
    confine::limit_resources(&plan.duties)?;
    confine::limit_processes(&plan.duties)?;
    confine::drop_privileges(&plan, maps)?;
    filter::install()?;
    if let Some(Site {
        users: Users::Server, ..
    }) = plan.site
    {
        unprivileged::install()?;
    }
    Ok((plan, doors))
}

/// Before the last privilege is gone, and before anything of the session's could be there first.
fn open_doors(duties: &Duties) -> Result<Option<Doors>, Failure> {
    let doors = duties.gateway.then(Doors::open);
    doors.transpose().step("opening the doors to the server")
}
