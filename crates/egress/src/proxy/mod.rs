//! The proxy of a session's sandbox: the only way from it to anywhere.
//!
//! A sandbox has no network but its own loopback address. There, on the server's behalf, somebody listens at the port
//! of a proxy ([`Link::serve_proxy`]), at the port of a name server ([`Link::answer_dns`]), and at the ports of the web
//! ([`Link::serve_direct`]) on addresses that stand for names ([`names`]), so that programs which know of no proxy get
//! out as well. Each of these asks the same two: the session's rules ([`Allowed`]), and the guard, which resolves,
//! checks and dials.
//!
//! Invariant: nothing is dialled, and no name is looked up, that the session's rules don't admit.
//! Invariant: where the rules are a list, what is said inside a connection is for the host of the connection: the name
//! in a TLS hello, and the `Host` of each request in the clear. Behind the hello TLS is opaque, so a server that serves
//! several hosts under one certificate may be told of another one there.
//! Where a session has [`secrets`] for a host, connections to it are opened.
//! Invariant: every decision is told to whoever observes.

mod allowed;
mod decision;
mod dial;
mod dns;
mod hello;
mod http;
mod idle;
mod names;
pub mod secrets;
mod splice;
mod stream;
#[cfg(test)]
mod tests;
mod tunnel;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::io::AsyncRead;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use allowed::{Allowed, Hosts};
pub use decision::{Decision, Denial, Observe, Protocol, Verdict};
pub use dial::Dial;
pub use dns::MAX_QUESTION;
pub use stream::Stream;

use crate::Error;
use crate::target::{Host, host};
use names::Names;
use secrets::{Keeper, ROOM};
use splice::Pipes;

/// The most hosts that are looked up and dialled at once for one session: what looks names up is shared by all.
const MAX_DIALS: usize = 8;
/// The port of requests in the clear. At any other a session's connection has to begin as TLS does, where its rules
/// are a list.
const CLEAR: u16 = 80;

/// What one sandbox is connected with, until it is closed.
pub struct Link {
    guard: Arc<dyn Dial>,
    allowed: RwLock<Arc<Allowed>>,
    observer: Arc<dyn Observe>,
    names: Names,
    /// Hosts that are being looked up and dialled.
    dials: Semaphore,
    /// Who keeps the session's secrets, if it has any.
    keeper: Option<Arc<Keeper>>,
    /// For bodies that are taken as a whole.
    room: Arc<Semaphore>,
    /// For tunnels between sockets.
    pipes: Pipes,
    end: CancellationToken,
}

impl Link {
    /// A link for a session that may reach what `allowed` says, and uses the secrets of `keeper`.
    #[must_use]
    pub fn new(
        guard: Arc<dyn Dial>,
        allowed: Allowed,
        observer: Arc<dyn Observe>,
        keeper: Option<Keeper>,
    ) -> Arc<Self> {
        Arc::new(Self {
            guard,
            allowed: RwLock::new(Arc::new(allowed)),
            observer,
            names: Names::default(),
            dials: Semaphore::new(MAX_DIALS),
            keeper: keeper.map(Arc::new),
            room: Arc::new(Semaphore::new(ROOM)),
            pipes: Pipes::default(),
            end: CancellationToken::new(),
        })
    }

    /// Puts other rules in the place of the session's, for what comes from now on.
    pub fn allow(&self, allowed: Allowed) {
        *self.allowed.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(allowed);
    }

    fn allowed(&self) -> Arc<Allowed> {
        Arc::clone(&self.allowed.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends everything that goes on through it, and whatever comes.
    pub fn close(&self) {
        self.end.cancel();
    }

    /// Serves a process that speaks to a proxy: requests for whole URLs, and `CONNECT`.
    pub async fn serve_proxy(self: Arc<Self>, stream: impl Stream) {
        self.serve_http(stream, None).await;
    }

    /// Serves a process that has connected to an address which stands for a name.
    pub async fn serve_direct(self: Arc<Self>, stream: impl Stream, to: SocketAddr) {
        let Some(name) = self.names.name(to.ip()) else {
            let verdict = Verdict::Denied(Denial::NoHost);
            return self.decide(Protocol::Direct, &to.ip().to_string(), to.port(), &verdict);
        };
        let host = Host::Name(name);
        if to.port() == CLEAR {
            return self.serve_http(stream, Some((host, to.port()))).await;
        }
        if let Err(verdict) = self.clone().direct(stream, &host, to.port()).await {
            self.decide(Protocol::Direct, &host.to_string(), to.port(), &verdict);
        }
    }

    async fn direct(self: Arc<Self>, mut stream: impl Stream, host: &Host, port: u16) -> Result<(), Verdict> {
        self.admit(host)?;
        if let Some(keeper) = self.keeper(host).await? {
            let (keeper, place) = (Arc::clone(keeper), (host.clone(), port));
            self.open(keeper, stream, place, Protocol::Direct).await;
            return Ok(());
        }
        let said = self.first_words(&mut stream, host).await?;
        let far = self.dial(host, port).await?;
        self.decide(Protocol::Direct, &host.to_string(), port, &Verdict::Allowed);
        self.carry(stream, far, &said).await;
        Ok(())
    }

    /// Connects to a host that the rules admit.
    async fn dial(&self, host: &Host, port: u16) -> Result<TcpStream, Error> {
        let _place = self.dials.acquire().await;
        tokio::select! {
            biased;
            () = self.end.cancelled() => Err(closed()),
            stream = self.guard.connect(host, port) => stream,
        }
    }

    async fn look_up_name(&self, name: &str, port: u16) -> Result<(), Error> {
        let _place = self.dials.acquire().await;
        self.guard.look_up(name, port).await
    }

    /// Whether the session's rules admit a host; whether it is public shows when it is dialled.
    fn admit(&self, host: &Host) -> Result<(), Verdict> {
        if self.allowed().admits(host) {
            Ok(())
        } else {
            Err(Verdict::Denied(Denial::NotListed))
        }
    }

    /// What a process says first on a connection that it wants to have carried, once that has been found to be for
    /// this host.
    async fn first_words(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        to: &Host,
    ) -> Result<Vec<u8>, Verdict> {
        if !self.allowed().is_strict() {
            return Ok(Vec::new());
        }
        let hello = tokio::select! {
            biased;
            () = self.end.cancelled() => return Err(closed().into()),
            hello = hello::read(stream) => hello,
        };
        let hello = hello.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Verdict::Denied(Denial::OtherHost),
            // Nothing was said, or not all of it.
            kind => Error::Failed(kind.to_string()).into(),
        })?;
        match hello.name.as_deref().map(host) {
            Some(Ok(named)) if named == *to => Ok(hello.said),
            _ => Err(Verdict::Denied(Denial::OtherHost)),
        }
    }

    async fn carry(&self, near: impl Stream, far: impl Stream, said: &[u8]) {
        tokio::select! {
            biased;
            () = self.end.cancelled() => {}
            () = tunnel::carry(near, far, said, &self.pipes) => {}
        }
    }

    fn decide(&self, protocol: Protocol, host: &str, port: u16, verdict: &Verdict) {
        self.decide_of(protocol, host, port, verdict, "");
    }

    fn decide_of(&self, protocol: Protocol, host: &str, port: u16, verdict: &Verdict, secrets: &str) {
        self.observer.decided(&Decision {
            protocol,
            host,
            port,
            verdict,
            secrets,
        });
    }
}

fn closed() -> Error {
    Error::Failed("the sandbox is cut off".to_owned())
}
