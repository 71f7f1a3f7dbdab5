//! Who stands at the doors of a sandbox: takes what comes to them, within bounds, and hands it to the sandbox's link.
//!
//! Where the hand can pass its doors, connections are accepted in the sandbox itself ([`Porter`]), and the kernel moves
//! the bytes of a tunnel from socket to socket; elsewhere the hand carries them.

#[cfg(test)]
mod tests;

use std::future::pending;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use oma_egress::proxy::{Link, MAX_QUESTION, Stream};
use oma_sandbox::gateway::{DNS, PROXY, Passed, Porter, Questions, WEB};
use oma_sandbox::{Arrived, Datagram, Datagrams, Error, Hand, Pipe};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
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

/// The doors, where the hand passes them; where it can't, it carries what comes to them.
///
/// # Errors
/// When that can't be told, as for want of descriptors: a sandbox must not get another proxy, or none, for that.
pub(super) async fn passed(hand: &dyn Hand) -> Result<Option<Passed>, Error> {
    match hand.doors().await {
        Ok(passed) => Ok(Some(passed)),
        // Some kernels pass none, and an older hand hangs up.
        Err(error @ (Error::Refused(_) | Error::Lost(_))) => {
            tracing::info!(%error, "the doors of a sandbox are not passed, but carried by its hand");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Takes the connections that are made to a port.
#[derive(Clone)]
enum Taker {
    Porter(Arc<Porter>),
    Hand(Arc<dyn Hand>),
}

impl Taker {
    async fn next(&self, port: u16) -> Result<(Near, Option<SocketAddr>), String> {
        match self {
            Self::Porter(porter) => {
                let accepted = porter.accept(port).await;
                let (stream, to) = accepted.map_err(|error| error.to_string())?;
                Ok((Near::Socket(stream), Some(to)))
            }
            Self::Hand(hand) => {
                let incoming = hand.listen(port).await.map_err(|error| error.to_string())?;
                let Arrived { pipe, to } = incoming.await.map_err(|error| error.to_string())?;
                Ok((Near::Carried(pipe), to))
            }
        }
    }
}

/// Who stands at the doors of one sandbox.
pub(crate) struct Doors {
    link: Arc<Link>,
    places: Arc<Semaphore>,
    /// Those of questions over streams, which must not wait for what lasts.
    questions: Arc<Semaphore>,
}

impl Doors {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            questions: Arc::new(Semaphore::new(MAX_STREAMS)),
        }
    }

    /// Stands at doors that were passed, until they break.
    pub(crate) async fn stand(self, porter: Porter, questions: Questions) {
        let doors = Arc::new(self);
        let _takers = doors.take_all(&Taker::Porter(Arc::new(porter)));
        doors.answer_passed(&questions).await;
    }

    /// Stands at doors from which the hand carries what comes, until the sandbox ends.
    pub(super) async fn have_carried(self, hand: Arc<dyn Hand>, datagrams: Datagrams) {
        let doors = Arc::new(self);
        // This connection is the sign of life; the takers end with it.
        let _takers = doors.take_all(&Taker::Hand(hand));
        doors.answer(datagrams).await;
    }

    fn take_all(self: &Arc<Self>, taker: &Taker) -> JoinSet<()> {
        let ports = [PROXY, DNS].into_iter().chain(WEB);
        let takers = ports.flat_map(|port| [port; WAITING]);
        takers
            .map(|port| Arc::clone(self).take(taker.clone(), port))
            .collect()
    }

    /// Takes the connections that are made to a port.
    async fn take(self: Arc<Self>, taker: Taker, port: u16) {
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
            let arrived = tokio::select! {
                arrived = taker.next(port) => arrived,
                // Those that have ended are taken off meanwhile.
                () = drain(&mut connections) => return,
            };
            let (near, to) = match arrived {
                Ok(arrived) => arrived,
                Err(error) => {
                    // The sandbox has ended, and so will this; or somebody had no descriptor to spare.
                    tracing::debug!(port, %error, "a door could not be listened at");
                    drop(place);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let doors = Arc::clone(&self);
            connections.spawn(async move { doors.serve(port, near, to, place).await });
        }
    }

    async fn serve(&self, port: u16, near: Near, to: Option<SocketAddr>, place: OwnedSemaphorePermit) {
        // A tunnel goes on when whoever asked for it has been answered, so the place is its bytes'.
        let mut pipe = Held { near, _place: place };
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

    /// Answers the questions that come to a socket that was passed.
    async fn answer_passed(&self, questions: &Questions) {
        let mut answers = JoinSet::new();
        // What is longer is cut, and no question.
        let mut question = vec![0; MAX_QUESTION + 1];
        loop {
            tokio::select! {
                asked = questions.next(&mut question), if answers.len() < MAX_QUESTIONS => {
                    let Ok((length, peer)) = asked else { return };
                    let (link, question) = (Arc::clone(&self.link), question[..length].to_vec());
                    answers.spawn(async move { Some((link.answer_dns(&question).await?, peer)) });
                }
                Some(answer) = answers.join_next() => {
                    if let Ok(Some((answer, peer))) = answer {
                        questions.answer(&answer, peer);
                    }
                }
            }
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

/// A connection of a process.
enum Near {
    Socket(TcpStream),
    Carried(Box<dyn Pipe>),
}

impl Near {
    /// Where its bytes come from and go to.
    fn end(&mut self) -> Pin<&mut dyn Pipe> {
        match self {
            Self::Socket(stream) => Pin::new(stream),
            Self::Carried(pipe) => Pin::new(&mut **pipe),
        }
    }
}

/// A connection with its place, which is free when the connection is gone.
struct Held {
    near: Near,
    _place: OwnedSemaphorePermit,
}

impl Stream for Held {
    fn socket(&self) -> Option<&TcpStream> {
        match &self.near {
            Near::Socket(stream) => Some(stream),
            Near::Carried(_) => None,
        }
    }
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.near.end().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.near.end().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.near.end().poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.near {
            Near::Socket(stream) => stream.is_write_vectored(),
            Near::Carried(pipe) => pipe.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.near.end().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.near.end().poll_shutdown(cx)
    }
}

/// Takes off what has ended; never returns.
async fn drain(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
    pending().await
}
