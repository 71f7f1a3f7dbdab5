//! Who stands at the doors of a sandbox: takes what comes to them, within bounds, and hands it to the sandbox's link.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use oma_egress::proxy::{Link, MAX_QUESTION};
use oma_sandbox::gateway::{DNS, PROXY, WEB};
use oma_sandbox::{Arrived, Datagram, Datagrams, Hand, Pipe};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The most connections of one sandbox.
const MAX_CONNECTIONS: usize = 96;
/// How many connections are waited for at each door, so that one that is being taken does not hold up the next.
const WAITING: usize = 2;
/// The most of them at the name server's door, beside the others.
const MAX_STREAMS: usize = 8;
/// How long it takes until a door that could not be listened at is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// The most questions for names that are looked up at once, for one sandbox.
const MAX_QUESTIONS: usize = 32;
/// How long a process may take for a question over a stream.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Who stands at the doors of one sandbox.
pub(super) struct Doors {
    link: Arc<Link>,
    hand: Arc<dyn Hand>,
    places: Arc<Semaphore>,
    /// Those of questions over streams, which must not wait for what lasts.
    questions: Arc<Semaphore>,
}

impl Doors {
    pub(super) fn new(link: Arc<Link>, hand: Arc<dyn Hand>) -> Self {
        Self {
            link,
            hand,
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            questions: Arc::new(Semaphore::new(MAX_STREAMS)),
        }
    }

    /// Until the sandbox ends.
    pub(super) async fn run(self, datagrams: Datagrams) {
        let doors = Arc::new(self);
        let mut takers = JoinSet::new();
        for port in [PROXY, DNS]
            .into_iter()
            .chain(WEB)
            .flat_map(|port| [port; WAITING])
        {
            takers.spawn(Arc::clone(&doors).take(port));
        }
        // This connection is the sign of life; the takers end with it.
        doors.answer(datagrams).await;
    }

    /// Takes the connections that are made to a port.
    async fn take(self: Arc<Self>, port: u16) {
        let mut connections = JoinSet::new();
        let places = if port == DNS {
            &self.questions
        } else {
            &self.places
        };
        loop {
            let Ok(place) = Arc::clone(places).acquire_owned().await else {
                return;
            };
            let arrived = async {
                let incoming = self.hand.listen(port).await?;
                incoming.await
            };
            let arrived = tokio::select! {
                arrived = arrived => arrived,
                // Those that have ended are taken off meanwhile.
                () = drain(&mut connections) => return,
            };
            let arrived = match arrived {
                Ok(arrived) => arrived,
                Err(error) => {
                    // The sandbox has ended, and so will this; or the hand had no connection to spare.
                    tracing::debug!(port, %error, "a door could not be listened at");
                    drop(place);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let doors = Arc::clone(&self);
            connections.spawn(async move { doors.serve(port, arrived, place).await });
        }
    }

    async fn serve(&self, port: u16, Arrived { pipe, to }: Arrived, place: OwnedSemaphorePermit) {
        // A tunnel goes on when whoever asked for it has been answered, so the place is its bytes'.
        let mut pipe = Held { pipe, _place: place };
        match (port, to) {
            (PROXY, _) => Arc::clone(&self.link).serve_proxy(pipe).await,
            (DNS, _) => {
                let questions = async {
                    while let Ok(length) = pipe.read_u16().await {
                        let length = usize::from(length);
                        if length > MAX_QUESTION {
                            break;
                        }
                        let mut question = vec![0; length];
                        pipe.read_exact(&mut question).await?;
                        let Some(answer) = self.link.answer_dns(&question).await else {
                            break;
                        };
                        pipe.write_u16(u16::try_from(answer.len()).unwrap_or_default())
                            .await?;
                        pipe.write_all(&answer).await?;
                    }
                    io::Result::Ok(())
                };
                // Whoever takes longer asks again.
                let _ended = timeout(QUESTION_TIMEOUT, questions).await;
            }
            (_, Some(to)) => Arc::clone(&self.link).serve_direct(pipe, to).await,
            (_, None) => {}
        }
    }

    /// Answers the questions that come as datagrams.
    async fn answer(self: Arc<Self>, datagrams: Datagrams) {
        let Datagrams { mut from, mut to } = datagrams;
        let mut answers = JoinSet::new();
        loop {
            tokio::select! {
                question = from.next(), if answers.len() < MAX_QUESTIONS => {
                    let Ok(Datagram { peer, bytes }) = question else { return };
                    let link = Arc::clone(&self.link);
                    answers.spawn(async move {
                        let answer = link.answer_dns(&bytes).await?;
                        Some(Datagram { peer, bytes: answer.into() })
                    });
                }
                Some(answer) = answers.join_next() => {
                    if let Ok(Some(answer)) = answer
                        && to.send(&answer).await.is_err()
                    {
                        return;
                    }
                }
            }
        }
    }
}

/// A connection with its place, which is free when the connection is gone.
struct Held {
    pipe: Box<dyn Pipe>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// Takes off what has ended; never returns.
async fn drain(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
    pending().await
}
