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
//! Invariant: every decision is told to whoever observes.

mod allowed;
mod decision;
mod dns;
mod hello;
mod http;
mod names;
#[cfg(test)]
mod tests;
mod tunnel;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use allowed::{Allowed, Hosts};
pub use decision::{Decision, Denial, Observe, Protocol, Verdict};

use crate::Guard;
use crate::target::{Host, host};
use names::Names;

/// The port of requests in the clear. At any other a session's connection has to begin as TLS does, where its rules
/// are a list.
const CLEAR: u16 = 80;

/// What one sandbox is connected with. When it is dropped, everything that goes on through it ends.
pub struct Link {
    guard: Arc<Guard>,
    allowed: Allowed,
    observer: Arc<dyn Observe>,
    names: Names,
    end: CancellationToken,
    _ending: DropGuard,
}

/// Bytes from and to a process of the session.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

impl Link {
    /// A link for a session that may reach what `allowed` says.
    #[must_use]
    pub fn new(guard: Arc<Guard>, allowed: Allowed, observer: Arc<dyn Observe>) -> Arc<Self> {
        let end = CancellationToken::new();
        Arc::new(Self {
            guard,
            allowed,
            observer,
            names: Names::default(),
            _ending: end.clone().drop_guard(),
            end,
        })
    }

    /// Ends everything that goes on through it.
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
        let said = self.first_words(&mut stream, host, port).await?;
        let far = self.guard.connect(host, port).await?;
        self.decide(Protocol::Direct, &host.to_string(), port, &Verdict::Allowed);
        self.carry(stream, far, &said).await;
        Ok(())
    }

    /// Whether the session's rules admit a host; whether it is public shows when it is dialled.
    fn admit(&self, host: &Host) -> Result<(), Verdict> {
        if self.allowed.admits(host) {
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
        port: u16,
    ) -> Result<Vec<u8>, Verdict> {
        if !self.allowed.is_strict() {
            return Ok(Vec::new());
        }
        let other = || Verdict::Denied(Denial::OtherHost);
        let hello = tokio::select! {
            hello = hello::read(stream) => hello.map_err(|error| {
                tracing::debug!(%error, port, "a connection does not begin with TLS");
                other()
            })?,
            () = self.end.cancelled() => return Err(other()),
        };
        match hello.name.as_deref().map(host) {
            Some(Ok(named)) if named == *to => Ok(hello.said),
            _ => Err(other()),
        }
    }

    async fn carry(&self, near: impl Stream, mut far: impl Stream, said: &[u8]) {
        let carrying = async {
            // A server that has gone already is seen by the first read.
            if tokio::io::AsyncWriteExt::write_all(&mut far, said).await.is_ok() {
                tunnel::carry(near, far).await;
            }
        };
        tokio::select! {
            () = carrying => {}
            () = self.end.cancelled() => {}
        }
    }

    fn decide(&self, protocol: Protocol, host: &str, port: u16, verdict: &Verdict) {
        self.observer.decided(&Decision {
            protocol,
            host,
            port,
            verdict,
        });
    }
}
