//! Connections of any kind, for what is not a request of the platform's own: a session's traffic.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::dial::Guard;
use crate::error::Error;
use crate::resolve::Checked;
use crate::target::Host;

/// How long it may take to connect to any of a host's addresses, and to each of them.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);

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
            let attempt = timeout(ATTEMPT_TIMEOUT, TcpStream::connect(address));
            match timeout_at(deadline, attempt).await {
                Ok(Ok(Ok(stream))) => {
                    // What is carried here is somebody else's conversation, and waits for its pieces.
                    stream.set_nodelay(true).map_err(failed)?;
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

/// Of the reason only what kind it is: an address could be in the text.
fn failed(error: std::io::Error) -> Error {
    Error::Failed(error.kind().to_string())
}
