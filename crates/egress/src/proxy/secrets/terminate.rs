//! TLS connections that are opened: the session's authority speaks for the host on the near side, and the host proves
//! on the far side who it is. Both sides speak the protocol that the host has chosen.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use super::inside::Inside;
use super::{Keeper, Unavailable};
use crate::Error;
use crate::proxy::http::{HEAD_TIMEOUT, MAX_HEAD, Place};
use crate::proxy::idle::Watched;
use crate::proxy::{Denial, Link, Protocol, Stream, Verdict};
use crate::target::{Host, host};

/// How long each side may take to agree on keys.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// The most requests at once on one connection.
const MAX_STREAMS: u32 = 64;
/// How often a silent connection over HTTP/2 is asked whether it is still there.
pub(super) const PING: Duration = Duration::from_secs(60);

/// How much may be on its way at once over HTTP/2: for one request, for all of a connection, and in memory for one
/// request that is sent. In bytes.
pub(super) const STREAM_WINDOW: u32 = 64 << 10;
pub(super) const CONNECTION_WINDOW: u32 = 256 << 10;
pub(super) const SEND_BUFFER: usize = 64 << 10;

pub(super) const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// A host that has proven to be the one.
pub(super) struct Proven {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) is_http_2: bool,
}

impl From<Unavailable> for Verdict {
    fn from(error: Unavailable) -> Self {
        Self::Failed(Error::Failed(error.to_string()))
    }
}

impl Link {
    /// Who keeps the session's secrets, if one of them is or was for this host: connections to it are opened then.
    pub(in crate::proxy) async fn keeper(&self, host: &Host) -> Result<Option<&Arc<Keeper>>, Verdict> {
        let Some(keeper) = &self.keeper else {
            return Ok(None);
        };
        let set = keeper.secrets.current().await?;
        Ok(set.concerns(host).then_some(keeper))
    }

    /// Serves a process that believes to speak to this host.
    pub(in crate::proxy) async fn open(
        self: Arc<Self>,
        keeper: Arc<Keeper>,
        near: impl Stream,
        place: Place,
        protocol: Protocol,
    ) {
        let (near, moved) = Watched::new(near);
        let link = Arc::clone(&self);
        tokio::select! {
            biased;
            () = self.end.cancelled() => {}
            () = moved.stalled() => {}
            served = link.serve(keeper, near, &place) => if let Err(verdict) = served {
                self.decide(protocol, &place.0.to_string(), place.1, &verdict);
            },
        }
    }

    async fn serve(
        self: Arc<Self>,
        keeper: Arc<Keeper>,
        near: impl Stream,
        place: &Place,
    ) -> Result<(), Verdict> {
        let name = place.0.to_string();
        let asked = timeout(
            HANDSHAKE_TIMEOUT,
            LazyConfigAcceptor::new(Acceptor::default(), near),
        )
        .await;
        let asked = asked.map_err(|_| Error::Timeout(HANDSHAKE_TIMEOUT))?;
        let asked = asked.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Failed(error.kind().to_string()).into(),
            _ => Verdict::Denied(Denial::OtherHost),
        })?;
        let hello = asked.client_hello();
        if !matches!(hello.server_name().map(host), Some(Ok(named)) if named == place.0) {
            return Err(Verdict::Denied(Denial::OtherHost));
        }
        let offered: Vec<Vec<u8>> = hello
            .alpn()
            .map(|offered| offered.map(<[u8]>::to_vec).collect())
            .unwrap_or_default();
        let spoken: Vec<Vec<u8>> = [HTTP_2, HTTP_1]
            .iter()
            .map(|protocol| protocol.to_vec())
            .filter(|protocol| offered.contains(protocol) || (offered.is_empty() && protocol == HTTP_1))
            .collect();
        if spoken.is_empty() {
            // Whatever else is spoken over TLS, nothing could be put into it.
            return Err(Error::Failed("neither HTTP/1.1 nor HTTP/2 is spoken".to_owned()).into());
        }
        let proven = self.prove(&keeper, place, spoken.clone()).await;
        // Where the host is not reached, that is the answer to each request.
        let is_http_2 = match &proven {
            Ok(proven) => proven.is_http_2,
            Err(_) => spoken.first().is_some_and(|protocol| protocol == HTTP_2),
        };
        let chosen = if is_http_2 { HTTP_2 } else { HTTP_1 };
        let chosen = if offered.is_empty() {
            Vec::new()
        } else {
            vec![chosen.to_vec()]
        };
        let config = keeper.authority.server(&name, chosen);
        let config = config.map_err(|error| Error::Failed(error.to_string()))?;
        let near = timeout(HANDSHAKE_TIMEOUT, asked.into_stream(Arc::new(config))).await;
        let near = near.map_err(|_| Error::Timeout(HANDSHAKE_TIMEOUT))?;
        // A process that trusts other authorities, or one certificate alone, hangs up here.
        let near = near.map_err(|error| Error::Failed(format!("the process does not go on: {error}")))?;
        let inside = Inside::new(Arc::clone(&self), keeper, place.clone(), spoken, proven).await;
        let inside = Arc::new(inside);
        let answers = service_fn(move |request| {
            let inside = Arc::clone(&inside);
            async move { Ok::<_, Infallible>(inside.answer(request).await) }
        });
        let served = if is_http_2 {
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING)
                .max_concurrent_streams(MAX_STREAMS)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buf_size(SEND_BUFFER)
                .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
                .serve_connection(TokioIo::new(near), answers)
                .await
        } else {
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(MAX_HEAD)
                .half_close(true)
                .serve_connection(TokioIo::new(near), answers)
                .with_upgrades()
                .await
        };
        match served {
            Err(error) if error.is_parse() => Err(Verdict::Denied(Denial::Malformed)),
            Err(error) => {
                tracing::debug!(%error, "a connection that was opened broke off");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Connects to a host, which proves to be it.
    pub(super) async fn prove(
        &self,
        keeper: &Keeper,
        place: &Place,
        protocols: Vec<Vec<u8>>,
    ) -> Result<Proven, Verdict> {
        let stream = self.dial(&place.0, place.1).await?;
        let name = ServerName::try_from(place.0.to_string())
            .map_err(|error| Error::Failed(format!("nobody can prove this name: {error}")))?;
        let connecting = TlsConnector::from(keeper.upstream.speaking(protocols)).connect(name, stream);
        let stream = timeout(HANDSHAKE_TIMEOUT, connecting).await;
        let stream = stream.map_err(|_| Error::Timeout(HANDSHAKE_TIMEOUT))?;
        let stream = stream.map_err(|error| Error::Failed(format!("no TLS with this host: {error}")))?;
        let is_http_2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
        Ok(Proven { stream, is_http_2 })
    }
}
