//! Descriptors on their way over a local socket, together with some bytes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// The most descriptors of one message.
pub const MOST: usize = 8;

/// Sends bytes with these descriptors, without waiting. Returns how many of the bytes have gone; the descriptors go with
/// the first of them.
///
/// # Errors
/// When there is no room now, when there are too many descriptors, or when the socket is no way for them.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    // The space is rounded up, and one more may fit.
    let is_fit = descriptors.len() <= MOST;
    let is_put =
        is_fit && (descriptors.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    if !is_put {
        return Err(io::Error::other("there are too many descriptors"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags)?;
    Ok(sent)
}

/// Receives what is there of bytes, without waiting, and the descriptors that come with them. Returns how many bytes.
///
/// # Errors
/// When there is nothing now, or when more came than there was room for, of either.
pub fn receive(socket: impl AsFd, bytes: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, flags)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::CTRUNC | ReturnFlags::TRUNC)
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message is longer than it may be",
        ));
    }
    Ok(received.bytes)
}

/// Whether the kernel is to pass descriptors on that come over a local socket (`SO_PASSRIGHTS`, Linux 6.16). Where it is not to,
/// whoever sends them gets an error. Older kernels always pass them; whoever reads the bytes they come with then closes
/// them, which may take as long as their sender likes.
pub fn accept(socket: impl AsFd, are_passed: bool) {
    const SO_PASSRIGHTS: libc::c_int = 83;
    let wanted = libc::c_int::from(are_passed);
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or_default();
    // SAFETY: the descriptor is borrowed for the call, and the kernel reads as many bytes of the number as it is long.
    unsafe {
        // A kernel that does not know the option refuses it, and nothing has changed.
        let _ = libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const wanted).cast(),
            size,
        );
    }
}

/// Closes descriptors of unknown kind. Closing one may take as long as whoever made it likes, so nobody waits for it.
pub fn discard(descriptors: Vec<OwnedFd>) {
    if descriptors.is_empty() {
        return;
    }
    let closing = std::thread::Builder::new().name("discard".to_owned());
    // Without another thread they are closed here, after all.
    let _ = closing.spawn(move || drop(descriptors));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Seek as _, Write as _};
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_are_taken_only_where_they_are_wanted() {
        let (near, far) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        accept(&far, false);
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release
            .split(|character: char| !character.is_ascii_digit())
            .map(|number| number.parse::<u32>().unwrap_or_default());
        let knows = (numbers.next(), numbers.next()) >= (Some(6), Some(16));
        let refused = send(&near, b"x", &[file.as_fd()]).is_err();
        assert_eq!(refused, knows, "{release}");
        accept(&far, true);
        assert_eq!(send(&near, b"x", &[file.as_fd()]).unwrap(), 1);
    }

    #[test]
    fn descriptors_arrive_with_their_bytes() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"words").unwrap();
        file.rewind().unwrap();
        assert_eq!(send(&near, b"here", &[file.as_fd(), file.as_fd()]).unwrap(), 4);
        let (mut bytes, mut got) = ([0; 16], Vec::new());
        assert_eq!(receive(&far, &mut bytes, &mut got).unwrap(), 4);
        assert_eq!((&bytes[..4], got.len()), (&b"here"[..], 2));
        let mut said = String::new();
        std::fs::File::from(got.remove(0))
            .read_to_string(&mut said)
            .unwrap();
        assert_eq!(said, "words");
        let none = receive(&far, &mut bytes, &mut got).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        let many = [file.as_fd(); MOST + 1];
        assert!(send(&near, b"x", &many).is_err());
    }
}
