//! HTTP by hand, for what no client library would send.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::soon;

/// The most of an answer that is read, in bytes.
const MAX: u64 = 4 << 20;

/// A status and what came with it.
#[derive(Debug)]
pub(crate) struct Raw {
    /// 0 when the server closed the connection without an answer.
    pub(crate) status: u16,
    pub(crate) text: String,
}

/// Sends bytes and reads until the server closes the connection.
pub(crate) async fn send(authority: &str, bytes: &[u8]) -> Raw {
    let exchange = async {
        let mut stream = TcpStream::connect(authority).await.expect("connects");
        // A server that has seen enough closes before it has read everything.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.take(MAX).read_to_end(&mut answer).await;
        answer
    };
    let answer = soon("the end of a connection", exchange).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    Raw { status, text }
}

/// Sends a request with a path that is taken as it is.
pub(crate) async fn request(authority: &str, method: &str, path: &str, headers: &str, body: &str) -> Raw {
    let length = body.len();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    send(authority, text.as_bytes()).await
}
