//! Bytes in both directions, until there are no more.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use super::Stream;
use super::splice::{self, Pipes};

/// How long both sides may be silent.
pub(super) const IDLE: Duration = Duration::from_secs(600);
/// How much is carried at once.
const CHUNK: usize = 64 << 10;

/// Carries bytes between two streams, beginning with what the near one has `said` already, until both have said all,
/// either breaks, or neither has anything to say for too long. An end is an end: there is nobody to tell what kind it
/// was. Between two sockets the kernel moves the bytes.
pub(super) async fn carry(near: impl Stream, mut far: impl Stream, said: &[u8], pipes: &Pipes) {
    let first = timeout_at(Instant::now() + IDLE, far.write_all(said)).await;
    if !matches!(first, Ok(Ok(()))) {
        return;
    }
    let silence = Silence::default();
    if let (Some(near), Some(far)) = (near.socket(), far.socket()) {
        let _ended = tokio::try_join!(
            splice::one_way(near, far, pipes, &silence),
            splice::one_way(far, near, pipes, &silence)
        );
        return;
    }
    let (near_read, near_write) = tokio::io::split(near);
    let (far_read, far_write) = tokio::io::split(far);
    let _ended = tokio::try_join!(
        one_way(near_read, far_write, &silence),
        one_way(far_read, near_write, &silence)
    );
}

/// Since when neither side of a tunnel has said anything.
pub(super) struct Silence(Mutex<Instant>);

impl Default for Silence {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Silence {
    /// One of them has said something.
    pub(super) fn broken(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn end(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) + IDLE
    }

    /// Waits for one side, as long as the silence of both does not last too long. What waits can be dropped and begun
    /// anew.
    pub(super) async fn until<T, F: Future<Output = io::Result<T>>>(
        &self,
        mut wait: impl FnMut() -> F,
    ) -> io::Result<T> {
        loop {
            let deadline = self.end();
            match timeout_at(deadline, wait()).await {
                Ok(outcome) => return outcome,
                // The other side may have spoken meanwhile.
                Err(_) if self.end() > deadline => {}
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// Waits for a side to take something, which it may not put off for longer than it may be silent.
    pub(super) async fn bounded<T>(&self, wait: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        timeout_at(Instant::now() + IDLE, wait)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    silence: &Silence,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = loop {
            let deadline = silence.end();
            match timeout_at(deadline, from.read(&mut chunk)).await {
                Ok(read) => break read?,
                // The other side may have spoken meanwhile.
                Err(_) if silence.end() > deadline => {}
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        };
        if read == 0 {
            return to.shutdown().await;
        }
        silence.broken();
        let write = async {
            to.write_all(&chunk[..read]).await?;
            // One that encrypts may keep a part of it.
            to.flush().await
        };
        silence.bounded(write).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::net::{TcpListener, TcpStream};

    /// Two ends of one connection.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// A process and a host with a tunnel between them, which is done when the third is.
    type Tunnelled = (TcpStream, TcpStream, tokio::task::JoinHandle<()>);

    async fn tunnelled(said: &'static [u8]) -> Tunnelled {
        through(Arc::default(), said).await
    }

    async fn through(pipes: Arc<Pipes>, said: &'static [u8]) -> Tunnelled {
        let (process, near) = pair().await;
        let (far, host) = pair().await;
        let carrying = tokio::spawn(async move { carry(near, far, said, &pipes).await });
        (process, host, carrying)
    }

    fn bytes(count: u32) -> Vec<u8> {
        (0..count).map(|at| (at % 251) as u8).collect()
    }

    #[tokio::test]
    async fn between_sockets_everything_arrives_in_order_and_then_its_end() {
        everything_arrives(tunnelled(b"first ").await).await;
    }

    #[tokio::test]
    async fn without_a_pipe_it_arrives_as_well() {
        let pipes = Pipes::default();
        pipes.take_all();
        everything_arrives(through(pipes.into(), b"first ").await).await;
    }

    async fn everything_arrives((process, mut host, carrying): Tunnelled) {
        let (mut from, mut to) = process.into_split();
        let (asked, told) = (bytes(3_000_000), bytes(5_000_000));
        let sent = asked.clone();
        let asking = tokio::spawn(async move {
            to.write_all(&sent).await.unwrap();
            // An end is passed on, and the answer still comes.
            to.shutdown().await.unwrap();
        });
        let mut heard = Vec::new();
        host.read_to_end(&mut heard).await.unwrap();
        assert!(heard[..6] == *b"first " && heard[6..] == asked, "{}", heard.len());
        asking.await.unwrap();
        let sent = told.clone();
        let answering = tokio::spawn(async move { host.write_all(&sent).await.unwrap() });
        heard.clear();
        from.read_to_end(&mut heard).await.unwrap();
        assert!(heard == told, "{}", heard.len());
        answering.await.unwrap();
        carrying.await.unwrap();
    }

    /// Hosts that take nothing hold up their own tunnels, with a bounded number of pipes, and no other one.
    #[tokio::test]
    async fn who_takes_nothing_takes_no_pipes_from_others() {
        let pipes = Arc::new(Pipes::default());
        let bound = pipes.left();
        let mut stalled = Vec::new();
        for number in 0..=bound {
            let tunnel = through(Arc::clone(&pipes), b"").await;
            let left = bound.saturating_sub(number + 1);
            // Full, and whatever carries it waits.
            while tunnel.0.try_write(&[0; 256 << 10]).is_ok() || pipes.left() != left {
                tokio::task::yield_now().await;
            }
            stalled.push(tunnel);
        }
        let (mut process, mut host, _carrying) = through(Arc::clone(&pipes), b"").await;
        let mut word = [0; 4];
        for _ in 0..3 {
            process.write_all(b"ping").await.unwrap();
            host.read_exact(&mut word).await.unwrap();
            host.write_all(b"pong").await.unwrap();
            process.read_exact(&mut word).await.unwrap();
        }
        // They come back with the tunnels.
        for (process, host, carrying) in stalled {
            drop((process, host));
            carrying.await.unwrap();
        }
        assert_eq!(pipes.left(), bound);
    }

    #[tokio::test]
    async fn words_go_to_and_fro_without_a_wait() {
        let (mut process, mut host, carrying) = tunnelled(b"").await;
        let mut word = [0; 4];
        for _ in 0..100 {
            process.write_all(b"ping").await.unwrap();
            host.read_exact(&mut word).await.unwrap();
            host.write_all(b"pong").await.unwrap();
            process.read_exact(&mut word).await.unwrap();
            assert_eq!(&word, b"pong");
        }
        drop((process, host));
        carrying.await.unwrap();
    }

    #[tokio::test]
    async fn a_side_that_breaks_ends_the_other() {
        let (process, mut host, carrying) = tunnelled(b"").await;
        // What it has not read makes its end a reset.
        host.write_all(&bytes(100_000)).await.unwrap();
        process.readable().await.unwrap();
        drop(process);
        let mut heard = Vec::new();
        while host.write_all(&[0; 4096]).await.is_ok() {}
        let _ = host.read_to_end(&mut heard).await;
        assert!(heard.is_empty());
        carrying.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_tunnel_ends_and_one_that_is_used_does_not() {
        let (mut process, mut host, carrying) = tunnelled(b"").await;
        let mut word = [0; 4];
        for _ in 0..3 {
            tokio::time::sleep(IDLE / 2).await;
            process.write_all(b"word").await.unwrap();
            host.read_exact(&mut word).await.unwrap();
        }
        assert!(!carrying.is_finished());
        // The end of both is the next thing that happens.
        assert_eq!(host.read(&mut word).await.unwrap(), 0);
        carrying.await.unwrap();
    }
}
