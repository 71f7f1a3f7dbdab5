//! Bytes in both directions, until there are no more.

use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

/// How long both sides may be silent.
pub(super) const IDLE: Duration = Duration::from_secs(600);
/// How much is carried at once.
const CHUNK: usize = 64 << 10;

/// Carries bytes between two streams, beginning with what the near one has `said` already, until both have said all, either breaks, or neither has anything to say for too
/// long. An end is an end: there is nobody to tell what kind it was.
pub(super) async fn carry(
    near: impl AsyncRead + AsyncWrite + Unpin,
    mut far: impl AsyncRead + AsyncWrite + Unpin,
    said: &[u8],
) {
    let first = timeout_at(Instant::now() + IDLE, far.write_all(said)).await;
    if !matches!(first, Ok(Ok(()))) {
        return;
    }
    let heard = Mutex::new(Instant::now());
    let (near_read, near_write) = tokio::io::split(near);
    let (far_read, far_write) = tokio::io::split(far);
    let _ended = tokio::try_join!(
        one_way(near_read, far_write, &heard),
        one_way(far_read, near_write, &heard)
    );
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    heard: &Mutex<Instant>,
) -> io::Result<()> {
    let last = || *heard.lock().unwrap_or_else(PoisonError::into_inner);
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = loop {
            let deadline = last() + IDLE;
            match timeout_at(deadline, from.read(&mut chunk)).await {
                Ok(read) => break read?,
                // The other side may have spoken meanwhile.
                Err(_) if last() + IDLE > deadline => {}
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        };
        if read == 0 {
            return to.shutdown().await;
        }
        *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let write = async {
            to.write_all(&chunk[..read]).await?;
            // One that encrypts may keep a part of it.
            to.flush().await
        };
        timeout_at(Instant::now() + IDLE, write)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    }
}
