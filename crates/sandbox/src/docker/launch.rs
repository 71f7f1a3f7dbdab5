//! Telling the hand of a fresh container what to be: the server's side of [`crate::hand::launch::contained`].

use std::io::{self, IoSlice};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;

use crate::error::io as io_error;
use crate::hand::launch::Progress;
use crate::hand::launch::contained::Contained;
use crate::{Error, Pipe};

/// The most that a hand may say, in bytes.
const MAX_PROGRESS: u64 = 64 << 10;

/// Waits for the hand at the door, and hands the socket over.
///
/// # Errors
/// [`Error`] when that fails.
pub(super) async fn welcome(door: UnixListener, socket: UnixListener) -> Result<UnixStream, Error> {
    let failed = |error| io_error("handing a hand its socket", error);
    door.set_nonblocking(true).map_err(failed)?;
    let door = tokio::net::UnixListener::from_std(door).map_err(failed)?;
    let (hand, _) = door.accept().await.map_err(failed)?;
    // One hand, and nobody after it.
    drop(door);
    pass(&hand, &socket).await.map_err(failed)?;
    Ok(hand)
}

/// Tells the hand what to be, and returns when it serves.
///
/// # Errors
/// [`Error`] when it does not, with its own reason where it gives one.
pub(super) async fn instruct(mut hand: impl Pipe, orders: &Contained) -> Result<(), Error> {
    let failed = |error| io_error("instructing a hand", error);
    let json = serde_json::to_vec(orders).map_err(|error| failed(error.into()))?;
    let told = async {
        hand.write_all(&json).await?;
        hand.shutdown().await
    };
    let told = told.await;
    let mut said = Vec::new();
    let heard = hand.take(MAX_PROGRESS).read_to_end(&mut said).await;
    if said.is_empty() {
        // What it has said of its failure tells more than that it hears nothing any more.
        told.and(heard).map_err(failed)?;
    }
    match serde_json::from_slice(&said) {
        Ok(Progress::Ready) => Ok(()),
        Ok(Progress::Failed { reason, .. }) => Err(Error::TooWeak(reason)),
        Ok(Progress::Pid(_)) | Err(_) if !said.is_empty() => Err(Error::Protocol(format!(
            "a hand said {:?}",
            String::from_utf8_lossy(&said)
        ))),
        Ok(Progress::Pid(_)) | Err(_) => Err(Error::Lost("its hand ended before it served".to_owned())),
    }
}

/// Passes the socket along with one byte.
async fn pass(hand: &UnixStream, socket: &UnixListener) -> io::Result<()> {
    let send = || {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let sockets = [socket.as_fd()];
        if !ancillary.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(io::Error::other("there is no room for the socket"));
        }
        rustix::net::sendmsg(hand, &[IoSlice::new(b"s")], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    };
    hand.async_io(Interest::WRITABLE, send).await
}
