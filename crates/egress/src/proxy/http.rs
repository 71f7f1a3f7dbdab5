//! Requests in the clear, and tunnels that are asked for.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::upgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::idle::Watched;
use super::secrets::{self, Body, Masked, Refused, Set, Withheld, in_the_clear};
use super::stream::{Reveal, reveal};
use super::{CLEAR, Denial, Link, Protocol, Stream, Verdict};
use crate::Error;
use crate::target::{self, Host};

/// How long a process may take between two requests, and for the head of one.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server may take to begin its answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// The longest head of a message, in bytes.
pub(super) const MAX_HEAD: usize = 64 << 10;
/// How much of an answer is read at once, in bytes, where so much is there; its head may be no longer.
const ANSWER_BUFFER: usize = 256 << 10;
/// What belongs to one connection, and not to what is carried over it.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

/// A host and a port.
pub(super) type Place = (Host, u16);

/// What one connection of a process is, over all its requests.
struct Conversation {
    link: Arc<Link>,
    /// Where all of it goes, where that is known from how the connection was made.
    fixed: Option<Place>,
    /// How the connection becomes a stream again.
    reveal: Reveal,
    /// The connection that the request before went over.
    last: Mutex<Option<(Place, client::SendRequest<Incoming>)>>,
}

/// Why a request gets no answer of the server that it is for.
pub(super) enum Refusal {
    /// It makes no sense.
    Malformed(&'static str),
    /// What was decided of it.
    Decided(Place, Verdict),
    /// What became of it once it had been decided that it may go, with the secrets of these variables.
    Failed(Place, Verdict, String),
    /// There is the placeholder of a secret in it, that of this variable where the session has one.
    Withheld(Place, Withheld, String),
}

impl Refusal {
    /// Tells whoever observes, and whoever asked. The host is that of a request that makes no sense.
    pub(super) fn tell(self, link: &Link, protocol: Protocol, host: &str, port: u16) -> Response<Body> {
        match self {
            Self::Malformed(what) => {
                link.decide(protocol, host, port, &Verdict::Denied(Denial::Malformed));
                said(StatusCode::BAD_REQUEST, what.to_owned())
            }
            Self::Decided(place, verdict) => {
                Self::Failed(place, verdict, String::new()).tell(link, protocol, "", 0)
            }
            Self::Failed((host, port), verdict, names) => {
                let host = host.to_string();
                link.decide_of(protocol, &host, port, &verdict, &names);
                refusal(&host, port, &verdict)
            }
            Self::Withheld((host, port), why, name) => {
                let denial = Denial::Secret(why);
                link.decide_of(protocol, &host.to_string(), port, &Verdict::Denied(denial), &name);
                let text = format!("the secret {name} is not sent to {host}:{port}: {denial}");
                said(StatusCode::FORBIDDEN, text)
            }
        }
    }
}

impl Link {
    /// Serves requests: those for a proxy, or with `fixed` those for one host.
    pub(super) async fn serve_http<S: Stream>(self: Arc<Self>, stream: S, fixed: Option<Place>) {
        let (stream, moved) = Watched::new(stream);
        let conversation = Arc::new(Conversation {
            link: Arc::clone(&self),
            fixed,
            reveal: reveal::<S>,
            last: Mutex::default(),
        });
        let answers = service_fn(move |request| {
            let conversation = Arc::clone(&conversation);
            async move { Ok::<_, Infallible>(conversation.answer(request).await) }
        });
        let serving = server::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            // A process may have said all that it wants to say.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), answers)
            .with_upgrades();
        tokio::select! {
            biased;
            () = self.end.cancelled() => {}
            () = moved.stalled() => {}
            served = serving => if let Err(error) = served {
                tracing::debug!(%error, "a connection to the proxy broke off");
                if error.is_parse() {
                    self.decide(Protocol::Http, "", 0, &Verdict::Denied(Denial::Malformed));
                }
            },
        }
    }
}

impl Link {
    /// The same for the inside of a tunnel, of whose making it is a part.
    fn serve_clear(
        self: Arc<Self>,
        stream: impl Stream,
        place: Place,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.serve_http(stream, Some(place)))
    }
}

impl Conversation {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let protocol = if request.method() == Method::CONNECT {
            Protocol::Connect
        } else {
            Protocol::Http
        };
        let link = Arc::clone(&self.link);
        let answered = if protocol == Protocol::Connect {
            self.tunnel(request).await
        } else {
            self.forward(request).await
        };
        match answered {
            Ok(response) => response,
            Err(refusal) => refusal.tell(&link, protocol, "", 0),
        }
    }

    /// Answers `CONNECT`.
    async fn tunnel(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        if self.fixed.is_some() {
            return Err(Refusal::Malformed("this is no proxy"));
        }
        let authority = request.uri().authority();
        let authority = authority.ok_or(Refusal::Malformed("CONNECT needs a host and a port"))?;
        let port = port(authority)?.ok_or(Refusal::Malformed("CONNECT needs a port"))?;
        let host = host(authority)?;
        let refused = |verdict| Refusal::Decided((host.clone(), port), verdict);
        self.link.admit(&host).map_err(refused)?;
        let keeper = self.link.keeper(&host).await.map_err(refused)?.cloned();
        // Where only requests for this host may pass, they are looked at one by one; and so where secrets might be in them.
        if port == CLEAR && (self.link.allowed().is_strict() || keeper.is_some()) {
            let (link, place) = (Arc::clone(&self.link), (host, port));
            tokio::spawn(async move {
                if let Ok(near) = upgrade::on(request).await {
                    link.serve_clear(TokioIo::new(near), place).await;
                }
            });
            return Ok(Response::new(empty()));
        }
        if let Some(keeper) = keeper {
            let admitted = self.link.guard.admit(&host, port).await;
            admitted.map_err(|error| refused(error.into()))?;
            let (link, place) = (Arc::clone(&self.link), (host, port));
            tokio::spawn(async move {
                if let Ok(near) = upgrade::on(request).await {
                    link.open(keeper, TokioIo::new(near), place, Protocol::Connect)
                        .await;
                }
            });
            return Ok(Response::new(empty()));
        }
        let far = self.link.dial(&host, port).await;
        let far = far.map_err(|error| refused(error.into()))?;
        let (link, reveal) = (Arc::clone(&self.link), self.reveal);
        tokio::spawn(async move {
            let Ok(near) = upgrade::on(request).await else {
                return;
            };
            let mut near = reveal(near);
            let name = host.to_string();
            match link.first_words(&mut near, &host).await {
                Ok(mut first) => {
                    first.extend_from_slice(&near.take_begun());
                    link.decide(Protocol::Connect, &name, port, &Verdict::Allowed);
                    link.carry(near, far, &first).await;
                }
                Err(verdict) => link.decide(Protocol::Connect, &name, port, &verdict),
            }
        });
        Ok(Response::new(empty()))
    }

    /// Has another server answer.
    async fn forward(self: Arc<Self>, mut request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let (place, authority) = self.place(&request)?;
        let refused = |verdict| Refusal::Decided(place.clone(), verdict);
        self.link.admit(&place.0).map_err(refused)?;
        // Who has secrets may repeat them in the clear as well.
        let searched = self.secrets_of(&request, &place).await?;
        let asked = request.headers().get(UPGRADE).cloned();
        // Requests in another protocol would name hosts that nobody looks at.
        let is_strict = self.link.allowed().is_strict() || searched.is_some();
        let asked = asked.filter(|to| !is_strict || to.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
        end_to_end(request.headers_mut());
        request.headers_mut().insert(HOST, authority);
        if searched.is_some() {
            secrets::searchable(request.headers_mut());
        }
        if let Some(protocol) = asked {
            let headers = request.headers_mut();
            headers.insert(UPGRADE, protocol);
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        let near = upgrade::on(&mut request);
        let mut sender = self.sender(&place).await.map_err(refused)?;
        let name = place.0.to_string();
        self.link
            .decide(Protocol::Http, &name, place.1, &Verdict::Allowed);
        let sent = timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        let failed = |error: Error| refused(Verdict::Failed(error));
        let mut response = sent
            .map_err(|_| failed(Error::Timeout(ANSWER_TIMEOUT)))?
            .map_err(|error| failed(Error::Failed(error.to_string())))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let (link, far) = (Arc::clone(&self.link), upgrade::on(&mut response));
            let mut response = response.map(|_| empty());
            if let Some(set) = &searched {
                secrets::switched(set, &mut response);
            }
            tokio::spawn(async move {
                let (Ok(near), Ok(far)) = tokio::join!(near, far) else {
                    return;
                };
                let (near, far) = (TokioIo::new(near), TokioIo::new(far));
                match searched {
                    Some(set) => link.carry(near, Masked::new(far, &set), &[]).await,
                    None => link.carry(near, far, &[]).await,
                }
            });
            return Ok(response);
        }
        *self.last.lock().await = Some((place.clone(), sender));
        if let Some(set) = searched {
            let answer = secrets::answer(&set, response, &self.link.room).await;
            return answer.map_err(|error| Refusal::Decided(place, Verdict::Failed(error)));
        }
        end_to_end(response.headers_mut());
        Ok(response.map(secrets::unchanged))
    }

    /// The secrets that the answer to a request in the clear has to be searched for, where it is for a host of some.
    ///
    /// # Errors
    /// When there is a placeholder in the request.
    async fn secrets_of<B>(&self, request: &Request<B>, place: &Place) -> Result<Option<Arc<Set>>, Refusal> {
        let Some(keeper) = &self.link.keeper else {
            return Ok(None);
        };
        let set = keeper.secrets.current().await;
        let set = set.map_err(|error| Refusal::Decided(place.clone(), error.into()))?;
        let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        match in_the_clear(&set, target, request.headers()) {
            Some(Refused::Withheld(why, name)) => Err(Refusal::Withheld(place.clone(), why, name)),
            Some(Refused::Unfit(what)) => Err(Refusal::Malformed(what)),
            None => Ok(set.concerns(&place.0).then_some(set)),
        }
    }

    /// Where a request goes, and what its `Host` is to be.
    fn place<B>(&self, request: &Request<B>) -> Result<(Place, HeaderValue), Refusal> {
        let mut hosts = request.headers().get_all(HOST).into_iter();
        let header = match (hosts.next(), hosts.next()) {
            (host, None) => host,
            (_, Some(_)) => return Err(Refusal::Malformed("there is more than one Host header")),
        };
        let header = header
            .map(|value| Authority::try_from(value.as_bytes()))
            .transpose()
            .map_err(|_| Refusal::Malformed("the Host header is no host"))?;
        let uri = request.uri();
        if uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTP) {
            return Err(Refusal::Malformed(
                "only http can be asked for in the clear; use CONNECT",
            ));
        }
        // The URL has the last word (RFC 9112, section 3.2.2).
        let authority = uri.authority().cloned().or(header);
        let authority = authority.ok_or(Refusal::Malformed("there is no host in this request"))?;
        if authority.as_str().contains('@') {
            return Err(Refusal::Malformed("there is a user name in the host"));
        }
        let port = port(&authority)?.unwrap_or(CLEAR);
        let host = host(&authority)?;
        if let Some(fixed) = &self.fixed
            && self.link.allowed().is_strict()
            && *fixed != (host.clone(), port)
        {
            return Err(Refusal::Decided(
                fixed.clone(),
                Verdict::Denied(Denial::OtherHost),
            ));
        }
        let value = HeaderValue::from_str(authority.as_str())
            .map_err(|_| Refusal::Malformed("the host is no host"))?;
        let place = self.fixed.clone().unwrap_or((host, port));
        Ok((place, value))
    }

    /// A connection to a server: that of the request before where it is free and goes there, or a new one.
    async fn sender(&self, place: &Place) -> Result<client::SendRequest<Incoming>, Verdict> {
        if let Some((to, mut sender)) = self.last.lock().await.take()
            && to == *place
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let stream = self.link.dial(&place.0, place.1).await?;
        let failed = |error: hyper::Error| Verdict::Failed(Error::Failed(error.to_string()));
        let handshake = client::Builder::new()
            .max_buf_size(ANSWER_BUFFER)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(failed)?;
        let link = Arc::clone(&self.link);
        tokio::spawn(async move {
            tokio::select! {
                // Whoever waits for an answer sees its end.
                _ = connection.with_upgrades() => {}
                () = link.end.cancelled() => {}
            }
        });
        Ok(sender)
    }
}

pub(super) fn host(authority: &Authority) -> Result<Host, Refusal> {
    target::host(authority.host())
        .map_err(|_| Refusal::Malformed("the host is neither a host name nor an address"))
}

/// The port, where one is named.
pub(super) fn port(authority: &Authority) -> Result<Option<u16>, Refusal> {
    // A colon alone names none, and a sign is no part of a number here.
    let Some((_, text)) = authority
        .as_str()
        .rsplit_once(':')
        .filter(|(_, text)| !text.ends_with(']'))
    else {
        return Ok(None);
    };
    let port = text.parse().ok().filter(|port| *port != 0);
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    port.filter(|_| is_plain)
        .map(Some)
        .ok_or(Refusal::Malformed("the port is no port"))
}

/// Takes away what belongs to one connection, also what the message itself says belongs to it.
pub(super) fn end_to_end(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named).chain([&UPGRADE]) {
        headers.remove(name);
    }
}

fn refusal(host: &str, port: u16, verdict: &Verdict) -> Response<Body> {
    match verdict {
        Verdict::Denied(denial) => said(
            StatusCode::FORBIDDEN,
            format!("{host}:{port} may not be reached from this sandbox: {denial}"),
        ),
        Verdict::Failed(Error::Timeout(_)) => said(
            StatusCode::GATEWAY_TIMEOUT,
            format!("{host}:{port} does not answer in time"),
        ),
        Verdict::Failed(error) => said(StatusCode::BAD_GATEWAY, format!("{host}:{port}: {error}")),
        Verdict::Allowed => said(StatusCode::BAD_GATEWAY, format!("{host}:{port} gave no answer")),
    }
}

fn said(status: StatusCode, text: String) -> Response<Body> {
    let body = Full::new(Bytes::from(text + "\n")).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

fn empty() -> Body {
    http_body_util::Empty::new()
        .map_err(|never| match never {})
        .boxed_unsync()
}
