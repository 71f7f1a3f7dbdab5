//! Bytes from one socket to another without a copy in this process: the kernel moves them through a pipe.
//!
//! Both sockets have to be this process's own: whoever shares one could make a call on it wait.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::Shutdown;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::tunnel::Silence;

/// The most that is moved at once, and the room of a pipe through which much moves, in bytes.
const CHUNK: usize = 1 << 20;
/// The room of a pipe as it is made: 16 pages.
const ROOM: usize = 64 << 10;
/// The most pipes that are kept when nothing moves through them.
const KEPT: usize = 4;
/// The most pipes at once. Each is two descriptors and its room of the kernel's memory for as long as whoever is to take
/// what is in it likes.
const MOST: usize = 16;
/// The most of them that have more room: the kernel has a bound for all pipes of a user, and sessions share one.
const GROWN: usize = 4;
/// How much is copied at once where there is no pipe, in bytes.
const PIECE: usize = 64 << 10;

/// The pipes of one session. A connection has one only while something moves: one that waits costs none. Where there is
/// none to be had, bytes are copied.
pub(super) struct Pipes {
    kept: Mutex<Vec<Pipe>>,
    /// Those that there may be beside those in use.
    left: Arc<Semaphore>,
    /// The same of those with more room.
    growing: Arc<Semaphore>,
}

struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    /// Held as long as it has more room.
    grown: Option<OwnedSemaphorePermit>,
}

/// A pipe in use.
struct Used {
    pipe: Pipe,
    _place: OwnedSemaphorePermit,
}

impl Default for Pipes {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            left: Arc::new(Semaphore::new(MOST)),
            growing: Arc::new(Semaphore::new(GROWN)),
        }
    }
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user with too many gets such as are slower than a copy.
        if fcntl_getpipe_size(&into)? < ROOM {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(Self {
            out,
            into,
            grown: None,
        })
    }

    /// Makes more room, after so much has moved at once that there may be more behind it.
    fn grow_after(&mut self, moved: usize, growing: &Arc<Semaphore>) {
        if moved < ROOM || self.grown.is_some() {
            return;
        }
        // With less room it takes more calls, and that is all.
        if let Ok(place) = Arc::clone(growing).try_acquire_owned()
            && fcntl_setpipe_size(&self.into, CHUNK).is_ok()
        {
            self.grown = Some(place);
        }
    }
}

impl Pipes {
    /// One to use, if there is one to be had.
    fn take(&self) -> Option<Used> {
        let place = Arc::clone(&self.left).try_acquire_owned().ok()?;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let pipe = kept.or_else(|| Pipe::new().ok())?;
        Some(Used { pipe, _place: place })
    }

    /// Takes back one that is empty.
    fn give(&self, used: Used) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(used.pipe);
        }
    }

    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        self.left.available_permits()
    }

    /// As if all were in use.
    #[cfg(test)]
    pub(super) fn take_all(&self) {
        self.left.forget_permits(MOST);
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
        let said = match pipes.take() {
            Some(mut used) => {
                let said = pour(from, to, (&mut used.pipe, &pipes.growing), silence).await?;
                // One that something is left in is dropped instead.
                pipes.give(used);
                said
            }
            None => copy(from, to, silence).await?,
        };
        if said == Said::All {
            return Ok(rustix::net::shutdown(to, Shutdown::Write)?);
        }
    }
}

/// Moves what is there.
async fn pour(
    from: &TcpStream,
    to: &TcpStream,
    (pipe, growing): (&mut Pipe, &Arc<Semaphore>),
    silence: &Silence,
) -> io::Result<Said> {
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
        pipe.grow_after(held, growing);
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

/// Moves a piece of what is there through the memory of this process.
async fn copy(from: &TcpStream, to: &TcpStream, silence: &Silence) -> io::Result<Said> {
    let mut piece = vec![0; PIECE];
    let read = match from.try_read(&mut piece) {
        Ok(0) => return Ok(Said::All),
        Ok(read) => read,
        Err(error) if is_passing(&error) => return Ok(Said::Enough),
        Err(error) => return Err(error),
    };
    silence.broken();
    let mut rest = &piece[..read];
    while !rest.is_empty() {
        silence.bounded(to.writable()).await?;
        match to.try_write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = &rest[written..],
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    tokio::task::coop::consume_budget().await;
    Ok(Said::Enough)
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
