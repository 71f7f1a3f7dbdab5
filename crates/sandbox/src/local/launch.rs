//! Starting a sandbox: the server's side of [`crate::hand::launch`].

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use super::process::Handle;
use crate::Error;
use crate::error::io;
use crate::hand::launch::{Plan, Progress};
use crate::host::Config;
use crate::host::engine::Process as _;

/// The most that a launcher may say, in bytes.
const MAX_PROGRESS: u64 = 64 << 10;

/// The environment of everything in a sandbox; nothing of the server's own gets there.
const ENVIRONMENT: [(&str, &str); 9] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", crate::hand::launch::WORKSPACE),
    ("USER", "agent"),
    ("LOGNAME", "agent"),
    ("SHELL", "/bin/bash"),
    ("LANG", "C.UTF-8"),
    ("TERM", "dumb"),
    ("TMPDIR", "/tmp"),
    ("TZ", "UTC"),
];

/// Starts a sandbox and waits until it stands.
///
/// # Errors
/// [`Error`] when it can't be made; nothing of it is left then but its files.
pub(super) async fn launch(config: &Config, plan: &Plan, listener: UnixListener) -> Result<Handle, Error> {
    let mut pid = None;
    let outcome = match timeout(config.launch_timeout, attempt(config, plan, listener, &mut pid)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::Timeout(config.launch_timeout)),
    };
    // A hand without its launcher is no child of this process; it must not be left half made.
    match (outcome, pid) {
        (Ok(()), Some(hand)) => Ok(hand),
        (Ok(()), None) => Err(Error::Protocol(
            "the launcher did not name the hand's process".to_owned(),
        )),
        (Err(error), None) => Err(error),
        (Err(error), Some(hand)) => {
            hand.kill().await?;
            Err(error)
        }
    }
}

async fn attempt(
    config: &Config,
    plan: &Plan,
    listener: UnixListener,
    hand: &mut Option<Handle>,
) -> Result<(), Error> {
    let mut child = Command::new(&config.exe)
        .args(["hand", crate::hand::LAUNCH])
        .env_clear()
        .envs(ENVIRONMENT)
        .envs(
            plan.duties
                .gateway
                .then_some(crate::gateway::VARIABLES)
                .into_iter()
                .flatten(),
        )
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(OwnedFd::from(listener))
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| io(format!("starting {}", config.exe.display()), error))?;
    let json = serde_json::to_vec(plan).map_err(|error| io("writing the plan of a sandbox", error.into()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A launcher that does not read has failed, and says so on the other pipe.
        let _ = stdin.write_all(&json).await;
    }
    let mut said = Vec::new();
    let mut ready = false;
    if let Some(stderr) = child.stderr.take() {
        let mut stderr = stderr.take(MAX_PROGRESS);
        let mut done = 0;
        // The pipe ends when the launcher has gone and the hand serves, or has failed.
        while stderr
            .read_buf(&mut said)
            .await
            .map_err(|error| io("listening to a launcher", error))?
            > 0
        {
            while let Some(end) = said[done..].iter().position(|byte| *byte == b'\n') {
                let line = &said[done..done + end];
                done += end + 1;
                match serde_json::from_slice(line) {
                    Ok(Progress::Pid(pid)) => {
                        // One that has ended already has a failure to tell about.
                        *hand = Handle::of_new(pid).ok();
                    }
                    Ok(Progress::Ready) => ready = true,
                    Ok(Progress::Failed { reason, errno }) => return Err(failed(plan, reason, errno)),
                    Err(_) => {
                        let said = String::from_utf8_lossy(line);
                        return Err(Error::Protocol(format!("the launcher said {said:?}")));
                    }
                }
            }
        }
    }
    let status = child
        .wait()
        .await
        .map_err(|error| io("waiting for a launcher", error))?;
    if ready && status.success() {
        return Ok(());
    }
    Err(Error::Lost(format!("its launcher ended with {status}")))
}

/// Every step is one that a sandbox can't do without. What the machine has run out of may come back; anything
/// else it does not offer.
fn failed(plan: &Plan, reason: String, errno: Option<i32>) -> Error {
    const SPENT: [i32; 6] = [
        libc::ENOMEM,
        libc::EAGAIN,
        libc::ENOSPC,
        libc::EMFILE,
        libc::ENFILE,
        libc::EIO,
    ];
    tracing::warn!(%reason, workspace = %plan.workspace.display(), "a sandbox could not be made");
    match errno.filter(|errno| SPENT.contains(errno)) {
        Some(errno) => io(reason, std::io::Error::from_raw_os_error(errno)),
        None => Error::TooWeak(reason),
    }
}
