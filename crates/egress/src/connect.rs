//! Connections of any kind, for what is not a request of the platform's own: a session's traffic.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::dial::Guard;
use crate::error::Error;
use crate::resolve::Checked;
use crate::target::Host;

/// How long it may take to connect to any of a host's addresses, and to each of them.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);

/// From how soon an answer on a host counts as near, and how much is then under way to and from it at most, in bytes: as
/// much as such a path can have under way at a gigabyte a second. More would wait in the kernel until it has left the
/// processor's cache, and is moved for twice the price.
const NEAR: Duration = Duration::from_micros(500);
const NEAR_BUFFER: usize = 512 << 10;

impl Guard {
    /// Connects to a host at one of its addresses, all of which have been checked.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unresolved`], [`Error::Timeout`], or [`Error::Failed`] when nobody answers.
    pub async fn connect(&self, host: &Host, port: u16) -> Result<TcpStream, Error> {
        let addresses = self.addresses(host, port).await?;
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let mut last = Error::Timeout(CONNECT_TIMEOUT);
        for address in addresses {
            let begun = std::time::Instant::now();
            let attempt = timeout(ATTEMPT_TIMEOUT, TcpStream::connect(address));
            match timeout_at(deadline, attempt).await {
                Ok(Ok(Ok(stream))) => {
                    // What is carried here is somebody else's conversation, and waits for its pieces.
                    stream.set_nodelay(true).map_err(failed)?;
                    // That is a whole way there and back.
                    bound(&stream, begun.elapsed()).map_err(failed)?;
                    return Ok(stream);
                }
                Ok(Ok(Err(error))) => last = failed(error),
                Ok(Err(_)) => {}
                Err(_) => break,
            }
        }
        Err(last)
    }

    /// Whether a name leads anywhere that may be dialled at this port.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Unresolved`].
    pub async fn look_up(&self, name: &str, port: u16) -> Result<(), Error> {
        let host = Host::Name(name.to_owned());
        self.addresses(&host, port).await.map(|_| ())
    }

    async fn addresses(&self, host: &Host, port: u16) -> Result<Vec<SocketAddr>, Error> {
        self.admit(host, port)?;
        match host {
            Host::Address(address) => Ok(vec![SocketAddr::new(*address, port)]),
            Host::Name(name) => {
                let checked = Checked {
                    resolver: Arc::clone(self.resolver()),
                    policy: Arc::clone(self.shared_policy()),
                    port,
                };
                checked.addresses(name.clone()).await
            }
        }
    }
}

/// Bounds what is under way to and from a host that has answered within this time, where that is near.
fn bound(stream: &TcpStream, answered: Duration) -> io::Result<()> {
    if answered < NEAR {
        sockopt::set_socket_recv_buffer_size(stream, NEAR_BUFFER)?;
        sockopt::set_socket_send_buffer_size(stream, NEAR_BUFFER)?;
    }
    Ok(())
}

/// Of the reason only what kind it is: an address could be in the text.
fn failed(error: io::Error) -> Error {
    Error::Failed(error.kind().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_under_way_is_bounded_where_a_host_is_near() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let sizes = || {
            (
                sockopt::socket_recv_buffer_size(&stream).unwrap(),
                sockopt::socket_send_buffer_size(&stream).unwrap(),
            )
        };
        let before = sizes();
        bound(&stream, NEAR).unwrap();
        assert_eq!(sizes(), before, "the kernel finds out what a longer way needs");
        bound(&stream, NEAR / 2).unwrap();
        let (receive, send) = sizes();
        // The kernel takes twice as much, for what it needs itself, and its operator may allow less.
        assert!(receive <= 2 * NEAR_BUFFER && send <= 2 * NEAR_BUFFER);
        assert_ne!(sizes(), before);
    }
}
