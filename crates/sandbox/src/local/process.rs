//! The hand's process, seen from the server: named so that it can't be mistaken for another one.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use crate::Error;
use crate::error::io as io_error;
use crate::host::engine;
use crate::host::record::Process;
use crate::pidfd::Pidfd;

/// How long a process may take to die of `SIGKILL`, with all of its namespace.
const DEATH_TIMEOUT: Duration = Duration::from_secs(10);

/// A hand's process.
pub(super) struct Handle {
    pub(super) process: Process,
    fd: Pidfd,
}

impl Handle {
    /// The process that has this pid now. Only for one that was started just now.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn of_new(pid: i32) -> io::Result<Self> {
        let fd = Pidfd::open(pid)?.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        Ok(Self {
            process: Process {
                pid,
                start: start_of(pid)?,
            },
            fd,
        })
    }

    /// The process of a record; `None` when it has ended.
    ///
    /// # Errors
    /// When that can't be told.
    pub(super) fn of_record(process: Process) -> io::Result<Option<Self>> {
        let Some(fd) = Pidfd::open(process.pid)? else {
            return Ok(None);
        };
        // With the descriptor in hand the pid can't be given to another process any more; whether it had been
        // before, the start tells.
        match start_of(process.pid) {
            Ok(start) if start == process.start => Ok(Some(Self { process, fd })),
            _ => Ok(None),
        }
    }
}

/// The hand is the first process of its pid namespace, so with it everything of its sandbox ends.
#[async_trait]
impl engine::Process for Handle {
    async fn ended(&self) {
        self.fd.ended().await;
        // It may have become a child of this process, which is then the first one of a container.
        self.fd.reap();
    }

    /// [`Error::Timeout`] means that something is stuck in the kernel.
    async fn kill(&self) -> Result<(), Error> {
        self.fd
            .kill()
            .map_err(|error| io_error("killing a sandbox", error))?;
        timeout(DEATH_TIMEOUT, self.ended())
            .await
            .map_err(|_| Error::Timeout(DEATH_TIMEOUT))
    }
}

fn start_of(pid: i32) -> io::Result<u64> {
    let text = std::fs::read(format!("/proc/{pid}/stat"))?;
    crate::hand::process::parse_stat(&text)
        .map(|stat| stat.process.start)
        .ok_or_else(|| io::Error::other("a process's state is not understood"))
}
