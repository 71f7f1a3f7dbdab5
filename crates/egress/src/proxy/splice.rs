//! Bytes from one socket to another without a copy in this process: the kernel moves them through a pipe.
//!
//! Both sockets have to be this process's own: whoever shares one could make a call on it wait.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::net::Shutdown;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::tunnel::Silence;

/// The most that is moved at once, and the room of a pipe through which much moves, in bytes.
const CHUNK: usize = 1 << 20;
/// The room of a pipe as it is made: 16 pages.
const ROOM: usize = 64 << 10;
/// The most pipes that are kept when nothing moves through them.
const KEPT: usize = 4;

/// The pipes of one session. A connection has one only while something moves: one that waits costs none.
#[derive(Default)]
pub(super) struct Pipes(Mutex<Vec<Pipe>>);

struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    is_grown: bool,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self {
            out,
            into,
            is_grown: false,
        })
    }

    /// Makes more room, after so much has moved at once that there may be more behind it.
    fn grow_after(&mut self, moved: usize) {
        if moved < ROOM || self.is_grown {
            return;
        }
        // The kernel has a bound for all pipes of a user. With less room it takes more calls, and that is all.
        let _ = fcntl_setpipe_size(&self.into, CHUNK);
        self.is_grown = true;
    }
}

impl Pipes {
    fn take(&self) -> io::Result<Pipe> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match kept {
            Some(pipe) => Ok(pipe),
            None => Pipe::new(),
        }
    }

    /// Takes back one that is empty.
    fn give(&self, pipe: Pipe) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(pipe);
        }
    }
}

/// Whether a socket goes on.
#[derive(PartialEq, Eq)]
enum Said {
    /// There is nothing now.
    Enough,
    /// There never will be.
    All,
}

/// Carries what comes from one socket to the other until it has said all, and tells the other so.
///
/// # Errors
/// When either breaks, or both sides are silent for too long.
pub(super) async fn one_way(
    from: &TcpStream,
    to: &TcpStream,
    pipes: &Pipes,
    silence: &Silence,
) -> io::Result<()> {
    loop {
        silence.until(|| from.readable()).await?;
        let mut pipe = pipes.take()?;
        let said = pour(from, to, &mut pipe, silence).await?;
        // One that something is left in is dropped instead.
        pipes.give(pipe);
        if said == Said::All {
            return Ok(rustix::net::shutdown(to, Shutdown::Write)?);
        }
    }
}

/// Moves what is there.
async fn pour(from: &TcpStream, to: &TcpStream, pipe: &mut Pipe, silence: &Silence) -> io::Result<Said> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        let filled = from.try_io(Interest::READABLE, || {
            Ok(splice(from.as_fd(), None, pipe.into.as_fd(), None, CHUNK, flags)?)
        });
        let mut held = match filled {
            Ok(0) => return Ok(Said::All),
            Ok(held) => held,
            // The pipe is empty whenever it is filled, so that what is not ready is the socket.
            Err(error) if is_passing(&error) => return Ok(Said::Enough),
            Err(error) => return Err(error),
        };
        silence.broken();
        pipe.grow_after(held);
        while held > 0 {
            silence.bounded(to.writable()).await?;
            let moved = to.try_io(Interest::WRITABLE, || {
                Ok(splice(pipe.out.as_fd(), None, to.as_fd(), None, held, flags)?)
            });
            match moved {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(moved) => held = held.saturating_sub(moved),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        // Both may be ready for as long as they like, and there are others.
        tokio::task::coop::consume_budget().await;
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
