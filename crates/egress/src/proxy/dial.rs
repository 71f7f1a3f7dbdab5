//! Who reaches hosts for a proxy.

use async_trait::async_trait;
use tokio::net::TcpStream;

use crate::target::Host;
use crate::{Error, Guard};

/// Looks up and dials: a guard, or whoever asks one.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// Checks what can be checked without a lookup.
    ///
    /// # Errors
    /// [`Error::Refused`].
    async fn admit(&self, host: &Host, port: u16) -> Result<(), Error>;

    /// Whether a name leads anywhere that may be dialled at this port.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Unresolved`].
    async fn look_up(&self, name: &str, port: u16) -> Result<(), Error>;

    /// Connects to a host. Nobody else has the socket.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unresolved`], [`Error::Timeout`], or [`Error::Failed`] when nobody answers.
    async fn connect(&self, host: &Host, port: u16) -> Result<TcpStream, Error>;
}

#[async_trait]
impl Dial for Guard {
    async fn admit(&self, host: &Host, port: u16) -> Result<(), Error> {
        Self::admit(self, host, port)
    }

    async fn look_up(&self, name: &str, port: u16) -> Result<(), Error> {
        Self::look_up(self, name, port).await
    }

    async fn connect(&self, host: &Host, port: u16) -> Result<TcpStream, Error> {
        Self::connect(self, host, port).await
    }
}
