//! The first words of a TLS client, which say in the clear whom it means to talk to.

use std::io;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

/// How long a client may take to say them.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest that they may be, in bytes.
const MAX_HELLO: usize = 64 << 10;

/// What a client began with.
pub(super) struct Hello {
    /// The server that it named, as it wrote it.
    pub(super) name: Option<String>,
    /// All that was read, which is the server's.
    pub(super) said: Vec<u8>,
}

/// Reads the hello of a TLS client.
///
/// # Errors
/// When something else comes, or nothing, or too much.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Hello> {
    timeout(PATIENCE, attempt(stream))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn attempt(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Hello> {
    let mut acceptor = Acceptor::default();
    let mut said = Vec::new();
    loop {
        let start = said.len();
        if start >= MAX_HELLO {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        if stream.read_buf(&mut said).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let mut new = &said[start..];
        while !new.is_empty() {
            acceptor.read_tls(&mut new)?;
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    let name = accepted.client_hello().server_name().map(str::to_owned);
                    return Ok(Hello { name, said });
                }
                Ok(None) => {}
                Err((error, _)) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }
}
