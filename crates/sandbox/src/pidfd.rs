//! A process by descriptor: its end can be awaited, and it can't be mistaken for another one.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;

/// A process by descriptor.
#[derive(Debug)]
pub(crate) struct Pidfd(AsyncFd<OwnedFd>);

impl Pidfd {
    /// The process that has this pid now; `None` when there is none. Must be called in a runtime.
    ///
    /// # Errors
    /// When there are too many descriptors already.
    pub(crate) fn open(pid: i32) -> io::Result<Option<Self>> {
        let Some(pid) = Pid::from_raw(pid) else {
            return Ok(None);
        };
        let fd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // SAFETY: the descriptor is owned by the `AsyncFd` from here on, and neither replaced nor closed while
        // it is.
        let registered = unsafe { AsyncFd::register(fd) };
        Ok(Some(Self(registered.map_err(io::Error::from)?)))
    }

    /// Returns once the process has ended.
    pub(crate) async fn ended(&self) {
        // An error would mean that the runtime is shutting down.
        let _ = self.0.readable().await;
    }

    /// Reaps the process if it is a child of this one and has ended; does nothing otherwise.
    pub(crate) fn reap(&self) {
        let id = WaitId::PidFd(self.0.get_ref().as_fd());
        let _ = rustix::process::waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }

    /// Kills the process. That it has ended already is no failure.
    ///
    /// # Errors
    /// When this process may not.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(self.0.get_ref(), Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
