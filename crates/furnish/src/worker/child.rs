//! The process: the proxy of one session, which asks the server for whatever it needs.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixDatagram as StdDatagram, UnixStream as StdStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use oma_egress::Error;
use oma_egress::proxy::secrets::{Authority, Keeper, Secret, Secrets, Set, Unavailable, Upstream};
use oma_egress::proxy::{Decision, Dial, Link, Observe, Verdict};
use oma_egress::target::Host;
use oma_sandbox::gateway::{Porter, Questions};
use oma_sandbox::{confine, descriptors};
use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixDatagram, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::messages::{
    self, Begin, Dialled, Given, MAX_DATAGRAM, MAX_FRAME, Order, Report, Said, Seed, Trouble, short,
};
use crate::network::doors::Doors;

/// Reports that may wait for the server to take them.
const QUEUE: usize = 1 << 10;

/// Serves until the server, or the sandbox, is gone.
pub(super) async fn serve(control: StdStream, dialled: StdDatagram) -> io::Result<()> {
    control.set_nonblocking(true)?;
    dialled.set_nonblocking(true)?;
    let mut control = UnixStream::from_std(control)?;
    let dialled = UnixDatagram::from_std(dialled)?;
    let begin: Begin = messages::read(&mut control, MAX_FRAME)
        .await?
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let (_, mut sockets) = receive(&dialled).await?;
    let upstream = begin.authority.is_some().then(Upstream::system).transpose();
    let upstream = upstream.map_err(io::Error::other)?;
    // Nothing that a sandbox or a stranger has said has been read yet.
    confine::close()?;

    let (reports, queue) = mpsc::channel(QUEUE);
    let server = Arc::new(Server {
        reports,
        waiting: Mutex::default(),
        next: AtomicU64::new(1),
        untold: AtomicU64::new(0),
    });
    let keeper = match (begin.authority, upstream) {
        (Some(seed), Some(upstream)) => Some(Keeper {
            authority: Arc::new(authority(&seed)?),
            secrets: Arc::new(Held {
                server: Arc::clone(&server),
                read: tokio::sync::Mutex::default(),
            }),
            upstream,
        }),
        _ => None,
    };
    let link = Link::new(
        Arc::clone(&server) as _,
        begin.allowed,
        Arc::clone(&server) as _,
        keeper,
    );
    let datagrams = sockets.pop().ok_or(io::ErrorKind::InvalidData)?;
    if sockets.len() != begin.ports.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let porter = Porter::new(begin.ports.into_iter().zip(sockets).collect())?;
    let questions = Questions::new(datagrams)?;
    let (read, write) = control.into_split();
    tokio::select! {
        told = messages::write_all(write, queue) => told,
        heard = hear(read, &server, &link) => heard,
        taken = take(&dialled, &server) => taken,
        () = Doors::new(Arc::clone(&link)).stand(porter, questions) => Ok(()),
    }
}

fn authority(seed: &Seed) -> io::Result<Authority> {
    let mut key = Zeroizing::new([0; 32]);
    hex::decode_to_slice(seed.seed.expose_secret(), &mut key[..]).map_err(io::Error::other)?;
    Authority::new(&seed.name, &key).map_err(io::Error::other)
}

/// The server, as the proxy knows it.
struct Server {
    reports: mpsc::Sender<Zeroizing<Vec<u8>>>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    next: AtomicU64,
    /// Decisions that there was no room for.
    untold: AtomicU64,
}

enum Answer {
    Checked(Option<Trouble>),
    Dialled(Result<OwnedFd, Trouble>),
    Secrets(Given),
}

/// Takes a question off the list when nobody waits for its answer any more.
struct Place<'a> {
    server: &'a Server,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.server.waiting().remove(&self.id);
    }
}

impl Server {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, id: u64, answer: Answer) {
        // Nobody may be waiting any more.
        if let Some(asked) = self.waiting().remove(&id) {
            let _ = asked.send(answer);
        }
    }

    async fn ask(&self, report: impl FnOnce(u64) -> Report) -> Result<Answer, Error> {
        let gone = |_| Error::Failed("the server is gone".to_owned());
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let frame = messages::frame(&report(id)).map_err(|error| Error::Failed(error.to_string()))?;
        let (asked, answer) = oneshot::channel();
        self.waiting().insert(id, asked);
        let _place = Place { server: self, id };
        self.reports
            .send(frame)
            .await
            .map_err(|error| gone(error.to_string()))?;
        answer.await.map_err(|error| gone(error.to_string()))
    }

    async fn check(&self, host: String, port: u16, report: impl FnOnce(u64) -> Report) -> Result<(), Error> {
        match self.ask(report).await? {
            Answer::Checked(None) => Ok(()),
            Answer::Checked(Some(trouble)) => Err(trouble.about(format!("{host}:{port}"))),
            Answer::Dialled(_) | Answer::Secrets(_) => Err(mistaken()),
        }
    }
}

fn mistaken() -> Error {
    Error::Failed("the server has answered something else".to_owned())
}

#[async_trait]
impl Dial for Server {
    async fn admit(&self, host: &Host, port: u16) -> Result<(), Error> {
        let name = host.to_string();
        let host = name.clone();
        self.check(name, port, |id| Report::Admit { id, host, port })
            .await
    }

    async fn look_up(&self, name: &str, port: u16) -> Result<(), Error> {
        let host = name.to_owned();
        self.check(name.to_owned(), port, |id| Report::LookUp { id, host, port })
            .await
    }

    async fn connect(&self, host: &Host, port: u16) -> Result<TcpStream, Error> {
        let name = host.to_string();
        let host = name.clone();
        match self.ask(|id| Report::Dial { id, host, port }).await? {
            Answer::Dialled(Ok(socket)) => {
                TcpStream::from_std(socket.into()).map_err(|error| Error::Failed(error.kind().to_string()))
            }
            Answer::Dialled(Err(trouble)) => Err(trouble.about(format!("{name}:{port}"))),
            Answer::Checked(_) | Answer::Secrets(_) => Err(mistaken()),
        }
    }
}

impl Observe for Server {
    fn decided(&self, decision: &Decision<'_>) {
        let verdict = match decision.verdict {
            Verdict::Allowed => Said::Allowed,
            Verdict::Denied(denial) => Said::Denied(*denial),
            Verdict::Failed(_) => Said::Failed,
        };
        let untold = self.untold.swap(0, Ordering::Relaxed);
        let report = Report::Decided {
            protocol: decision.protocol,
            host: short(decision.host.to_owned()),
            port: decision.port,
            verdict,
            secrets: short(decision.secrets.to_owned()),
            untold,
        };
        let sent = messages::frame(&report).is_ok_and(|frame| self.reports.try_send(frame).is_ok());
        if !sent {
            self.untold.fetch_add(untold + 1, Ordering::Relaxed);
        }
    }
}

/// The secrets, as the server has told them.
struct Held {
    server: Arc<Server>,
    read: tokio::sync::Mutex<Option<(u64, Arc<Set>)>>,
}

#[async_trait]
impl Secrets for Held {
    async fn current(&self) -> Result<Arc<Set>, Unavailable> {
        let mut read = self.read.lock().await;
        let known = read.as_ref().map(|(version, _)| *version);
        let answer = self.server.ask(|id| Report::Secrets { id, known }).await;
        match (answer, read.as_ref()) {
            (Ok(Answer::Secrets(Given::Unchanged)), Some((_, set))) => Ok(Arc::clone(set)),
            (Ok(Answer::Secrets(Given::These { version, secrets })), before) => {
                let secrets = secrets.into_iter().map(Secret::from).collect();
                let set = Arc::new(Set::new(secrets, before.map(|(_, set)| &**set)));
                *read = Some((version, Arc::clone(&set)));
                Ok(set)
            }
            _ => Err(Unavailable),
        }
    }
}

/// Hears what the server says, until it is gone.
async fn hear(mut from: impl tokio::io::AsyncRead + Unpin, server: &Server, link: &Link) -> io::Result<()> {
    while let Some(order) = messages::read(&mut from, MAX_FRAME).await? {
        match order {
            Order::Allow { allowed } => link.allow(allowed),
            Order::Checked { id, trouble } => server.answer(id, Answer::Checked(trouble)),
            Order::Secrets { id, answer } => server.answer(id, Answer::Secrets(answer)),
        }
    }
    Ok(())
}

/// Takes what the server has dialled.
async fn take(dialled: &UnixDatagram, server: &Server) -> io::Result<()> {
    loop {
        let (bytes, mut sockets) = receive(dialled).await?;
        let Dialled { id, trouble } = serde_json::from_slice(&bytes)?;
        let outcome = match (trouble, sockets.pop()) {
            (None, Some(socket)) => Ok(socket),
            (None, None) => Err(Trouble::Failed("no connection has come".to_owned())),
            (Some(trouble), _) => Err(trouble),
        };
        server.answer(id, Answer::Dialled(outcome));
    }
}

async fn receive(socket: &UnixDatagram) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; MAX_DATAGRAM];
    let mut sockets = Vec::new();
    let received = socket
        .async_io(Interest::READABLE, || {
            descriptors::receive(socket.as_fd(), &mut bytes, &mut sockets)
        })
        .await?;
    bytes.truncate(received);
    Ok((bytes, sockets))
}
