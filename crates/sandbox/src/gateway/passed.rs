//! The doors of a sandbox as its hand passes them: the sockets themselves, so that the server takes what comes to them
//! without the hand in between.
//!
//! A connection that is accepted has a description of its own that nobody else has. A socket that was passed is shared
//! with the hand, which may be whatever the sandbox has made of it, at any time. So:
//!
//! - nothing is believed of it: its family, kind, protocol and address are looked at;
//! - a call on it may wait for ever, whatever was set (the hand can unset it, and take away the connection that was
//!   there a moment ago): connections are accepted on a thread of the sandbox's own ([`porter`](super::porter)), and
//!   datagrams with calls that are told each time not to wait;
//! - closing it may wait, so that is done there as well;
//! - what it was set to, connections inherit: what could hold up whoever closes one is set back.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_protocol, socket_type};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use super::{DNS, address};
use crate::descriptors::discard;

/// The doors, and a sign of life of the sandbox.
#[derive(Debug)]
pub struct Passed {
    /// The ports of the listening sockets.
    pub ports: Vec<u16>,
    /// The listening sockets, in that order, and that of the datagrams at [`DNS`] behind them. Each is what it says.
    pub sockets: Shared,
    /// How long there is a sandbox.
    pub life: Life,
}

/// Sockets that are shared with a hand. Closing one may take as long as the hand has set it to, so nobody waits for
/// that, wherever they are dropped.
#[derive(Debug, Default)]
pub struct Shared(Vec<OwnedFd>);

impl AsMut<Vec<OwnedFd>> for Shared {
    fn as_mut(&mut self) -> &mut Vec<OwnedFd> {
        &mut self.0
    }
}

impl Shared {
    /// They, for somebody who may wait for them to close.
    #[must_use]
    pub fn into_inner(mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.0)
    }

    /// They, on loan.
    pub fn borrow(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(OwnedFd::as_fd)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        discard(std::mem::take(&mut self.0));
    }
}

impl Passed {
    /// What a hand has passed: the sockets of `ports`, and that of the datagrams behind them.
    pub(crate) fn new(ports: &[u16], sockets: Shared, life: UnixStream) -> Result<Self, String> {
        check(ports, &sockets.0)?;
        Ok(Self {
            ports: ports.to_vec(),
            sockets,
            life: Life(life),
        })
    }

    /// Returns when something has come to one of the doors. Must be called in a runtime.
    ///
    /// # Errors
    /// When they can't be waited for.
    pub async fn knocked(&self) -> io::Result<()> {
        let watched = self.sockets.borrow().map(|socket| {
            // SAFETY: the descriptor is borrowed for as long as the `AsyncFd` is there.
            let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
            registered.map_err(io::Error::from)
        });
        let watched: Vec<AsyncFd<BorrowedFd<'_>>> = watched.collect::<io::Result<_>>()?;
        let knocks = watched.iter().map(|socket| Box::pin(socket.readable()));
        futures_util::future::select_all(knocks).await.0.map(drop)
    }
}

fn check(ports: &[u16], sockets: &[OwnedFd]) -> Result<(), String> {
    let (datagrams, streams) = sockets.split_last().ok_or("no socket has come")?;
    if streams.len() != ports.len() {
        return Err(format!(
            "{} sockets have come for {} ports",
            streams.len(),
            ports.len()
        ));
    }
    for (at, port) in ports.iter().enumerate() {
        let address = address(*port).filter(|_| !ports[..at].contains(port));
        let address = address.ok_or_else(|| format!("{port} is the port of no door, or comes twice"))?;
        check_one(
            &streams[at],
            SocketType::STREAM,
            SocketAddrV4::new(address, *port),
        )?;
    }
    check_one(
        datagrams,
        SocketType::DGRAM,
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, DNS),
    )
}

fn check_one(socket: &OwnedFd, kind: SocketType, at: SocketAddrV4) -> Result<(), String> {
    let looked_at = || -> Result<bool, Errno> {
        let (protocol, listens) = match kind {
            SocketType::STREAM => (ipproto::TCP, true),
            _ => (ipproto::UDP, false),
        };
        Ok(socket_domain(socket)? == AddressFamily::INET
            && socket_type(socket)? == kind
            && socket_protocol(socket)? == Some(protocol)
            && socket_acceptconn(socket)? == listens
            && SocketAddrV4::try_from(rustix::net::getsockname(socket)?)? == at)
    };
    match looked_at() {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("what has come for {at} is something else")),
        Err(error) => Err(format!("what has come for {at} is something else: {error}")),
    }
}

/// The sandbox's end of a connection over which nothing is said.
#[derive(Debug)]
pub struct Life(UnixStream);

impl Life {
    /// Returns when the sandbox has ended, or its hand says something that it has no business to say.
    pub async fn ended(&self) {
        let mut byte = [0];
        loop {
            match self.0.ready(Interest::READABLE).await {
                Ok(_) => {}
                Err(_) => return,
            }
            match self.0.try_read(&mut byte) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// The socket of the datagrams.
#[derive(Debug)]
pub struct Questions(AsyncFd<OwnedFd>);

impl Questions {
    /// Must be called in a runtime.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is owned by the `AsyncFd` from here on, and neither replaced nor closed while it is.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self(registered.map_err(io::Error::from)?))
    }

    /// The next one, of which as much as there is room for is put into `bytes`. Returns how much, and from whom.
    ///
    /// # Errors
    /// When the socket is broken.
    pub async fn next(&self, bytes: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            let mut ready = self.0.readable().await?;
            let received = ready.try_io(|socket| {
                Ok(rustix::net::recvfrom(
                    socket.get_ref(),
                    &mut *bytes,
                    RecvFlags::DONTWAIT,
                )?)
            });
            match received {
                Ok(Ok((_, length, Some(from)))) => {
                    if let Ok(from) = SocketAddr::try_from(from) {
                        return Ok((length.min(bytes.len()), from));
                    }
                }
                // Such as the word of an answer that nobody was there for any more.
                Ok(Err(error)) if is_of_another(&error) => {}
                Ok(Err(error)) => return Err(error),
                Ok(Ok(_)) | Err(_) => {}
            }
        }
    }

    /// Answers. What there is no room for now is lost, as datagrams are.
    pub fn answer(&self, bytes: &[u8], to: SocketAddr) {
        let _ = rustix::net::sendto(&self.0, bytes, SendFlags::DONTWAIT, &to);
    }
}

fn is_of_another(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::super::PROXY;
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn life() -> (UnixStream, UnixStream) {
        UnixStream::pair().unwrap()
    }

    /// Where one may listen at a door's address: the proxy's port is no privileged one.
    fn refusal(ports: &[u16], sockets: Vec<OwnedFd>) -> String {
        Passed::new(ports, Shared(sockets), life().0).unwrap_err()
    }

    #[tokio::test]
    async fn what_is_no_door_is_not_taken() {
        let stream = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
        let datagrams = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = || OwnedFd::from(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        let local = || OwnedFd::from(std::os::unix::net::UnixStream::pair().unwrap().0);
        for (name, ports, sockets) in [
            ("nothing", vec![PROXY], vec![]),
            ("too few", vec![PROXY], vec![datagrams()]),
            ("too many", vec![], vec![stream(), datagrams()]),
            ("another port's", vec![PROXY], vec![stream(), datagrams()]),
            ("no door's", vec![22], vec![stream(), datagrams()]),
            ("a connection", vec![PROXY], vec![connected(), datagrams()]),
            ("a file", vec![PROXY], vec![file(), datagrams()]),
            ("a local socket", vec![PROXY], vec![local(), datagrams()]),
            ("datagrams", vec![PROXY], vec![datagrams(), datagrams()]),
            ("a stream for datagrams", vec![], vec![stream()]),
            ("datagrams at another port", vec![], vec![datagrams()]),
        ] {
            let refused = refusal(&ports, sockets);
            assert!(!refused.is_empty(), "{name}");
        }
    }

    #[tokio::test]
    async fn the_end_of_a_sandbox_shows() {
        let (near, far) = life();
        let life = Life(near);
        let waiting = tokio::spawn(async move { life.ended().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(far);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn questions_are_answered() {
        let (near, far) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        let (asker, place) = (near.local_addr().unwrap(), far.local_addr().unwrap());
        // Whatever it was set to, nobody waits on it.
        let questions = Questions::new(far.into()).unwrap();
        near.send_to(b"a question", place).unwrap();
        let mut bytes = [0; 5];
        assert_eq!(questions.next(&mut bytes).await.unwrap(), (5, asker));
        questions.answer(b"yes", asker);
        let mut answer = [0; 8];
        assert_eq!(near.recv(&mut answer).unwrap(), 3);
        // Whoever is gone is nobody's trouble.
        drop(near);
        questions.answer(b"yes", asker);
        let again = UdpSocket::bind("127.0.0.1:0").unwrap();
        again.send_to(b"still", place).unwrap();
        assert_eq!(questions.next(&mut bytes).await.unwrap().0, 5);
    }
}
