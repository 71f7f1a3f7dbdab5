//! Bytes from one socket to another without a copy in this process: the kernel moves them through a pipe.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// The most that is moved at once.
const CHUNK: usize = 1 << 20;

/// A socket that says when it is ready.
pub(super) trait Socket: AsFd + Sync {
    /// Returns when something may be done.
    async fn ready(&self, interest: Interest) -> io::Result<()>;

    /// Does something that tells by its error that the socket is not ready after all.
    fn attempt(&self, interest: Interest, act: impl FnOnce() -> io::Result<usize>) -> io::Result<usize>;
}

macro_rules! socket {
    ($kind:ty) => {
        impl Socket for $kind {
            async fn ready(&self, interest: Interest) -> io::Result<()> {
                self.ready(interest).await.map(drop)
            }

            fn attempt(
                &self,
                interest: Interest,
                act: impl FnOnce() -> io::Result<usize>,
            ) -> io::Result<usize> {
                self.try_io(interest, act)
            }
        }
    };
}

socket!(TcpStream);
socket!(UnixStream);

/// Carries what comes from one socket to the other until it has said all.
///
/// # Errors
/// When either breaks.
pub(super) async fn one_way(from: &impl Socket, to: &impl Socket) -> io::Result<()> {
    let (out, into): (OwnedFd, OwnedFd) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    loop {
        let mut held = moved(from, Interest::READABLE, from.as_fd(), into.as_fd(), CHUNK).await?;
        if held == 0 {
            return Ok(());
        }
        // The pipe is empty whenever it is filled, so that what is not ready then is the socket.
        while held > 0 {
            held -= moved(to, Interest::WRITABLE, out.as_fd(), to.as_fd(), held).await?;
        }
    }
}

async fn moved(
    socket: &impl Socket,
    interest: Interest,
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    most: usize,
) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        socket.ready(interest).await?;
        let splice = || rustix::pipe::splice(from, None, to, None, most, flags).map_err(io::Error::from);
        match socket.attempt(interest, splice) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn everything_arrives_in_order_and_then_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(
            TcpStream::connect(listener.local_addr().unwrap()),
            listener.accept()
        );
        let (mut near, far) = (near.unwrap(), far.unwrap().0);
        let (mut said, from) = UnixStream::pair().unwrap();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let sent = bytes.clone();
        let sending = tokio::spawn(async move { said.write_all(&sent).await });
        let carrying = tokio::spawn(async move {
            one_way(&from, &far).await?;
            drop(far);
            io::Result::Ok(())
        });
        let mut heard = Vec::new();
        near.read_to_end(&mut heard).await.unwrap();
        assert!(heard == bytes, "{} bytes of {}", heard.len(), bytes.len());
        sending.await.unwrap().unwrap();
        carrying.await.unwrap().unwrap();
    }
}
