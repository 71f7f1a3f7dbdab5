//! The requests inside a connection that was opened.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_ENCODING, HOST, HeaderMap, HeaderValue, TE, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::upgrade::{self, OnUpgrade};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::body::{self, Body};
use super::inject::{self, Refused, Used};
use super::terminate::{CONNECTION_WINDOW, PING, Proven, SEND_BUFFER, STREAM_WINDOW};
use super::websocket::Masked;
use super::{Keeper, Set, scrub};
use crate::Error;
use crate::proxy::http::{self as plain, ANSWER_TIMEOUT, MAX_HEAD, Place, Refusal};
use crate::proxy::{Denial, Link, Protocol, Verdict};

/// The port of requests over TLS that names none.
const SECURE: u16 = 443;

/// The most connections to the host at once for one of a process: where that speaks HTTP/2 and the host does no more,
/// each request would have one.
const MAX_FAR: usize = 8;

/// A connection to the host.
enum Sender {
    /// For one request at a time.
    Http1(http1::SendRequest<Body>),
    /// For all.
    Http2(http2::SendRequest<Body>),
}

/// One connection of a process, over all its requests.
pub(super) struct Inside {
    link: Arc<Link>,
    keeper: Arc<Keeper>,
    place: Place,
    /// What the process speaks.
    protocols: Vec<Vec<u8>>,
    /// A connection that is free.
    free: Mutex<Option<Sender>>,
    /// Why the host could not be reached.
    broken: Option<Verdict>,
    /// Connections to the host that may be opened.
    far: Arc<Semaphore>,
}

/// A request for the host, and what the answer needs of it.
struct Outgoing {
    request: Request<Body>,
    set: Arc<Set>,
    used: Used,
    near: Option<OnUpgrade>,
}

impl Inside {
    pub(super) async fn new(
        link: Arc<Link>,
        keeper: Arc<Keeper>,
        place: Place,
        protocols: Vec<Vec<u8>>,
        proven: Result<Proven, Verdict>,
    ) -> Self {
        let mut inside = Self {
            link,
            keeper,
            place,
            protocols,
            free: Mutex::default(),
            broken: None,
            far: Arc::new(Semaphore::new(MAX_FAR)),
        };
        let sender = match proven {
            Ok(proven) => {
                let place = Arc::clone(&inside.far).try_acquire_owned();
                inside.speak(proven, place.ok()).await
            }
            Err(verdict) => Err(verdict),
        };
        match sender {
            Ok(sender) => inside.free = Mutex::new(Some(sender)),
            Err(verdict) => inside.broken = Some(verdict),
        }
        inside
    }

    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (host, port) = (self.place.0.to_string(), self.place.1);
        let link = Arc::clone(&self.link);
        match self.forward(request).await {
            Ok(response) => response,
            Err(refusal) => refusal.tell(&link, Protocol::Https, &host, port),
        }
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let refused = |verdict| Refusal::Decided(self.place.clone(), verdict);
        if let Some(verdict) = &self.broken {
            return Err(refused(verdict.clone()));
        }
        self.is_for_here(&request)?;
        self.link.admit(&self.place.0).map_err(refused)?;
        let Outgoing {
            request,
            set,
            used,
            near,
        } = self.outgoing(request).await?;
        let names = used.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        // Told before anything is sent: whoever hangs up while the host answers has used the secrets all the same.
        let host = self.place.0.to_string();
        self.link
            .decide_of(Protocol::Https, &host, self.place.1, &Verdict::Allowed, &names);
        let failed = |verdict| Refusal::Failed(self.place.clone(), verdict, names.clone());
        let (mut response, sender) = self.send(request).await.map_err(failed)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let far = upgrade::on(&mut response);
            return Ok(self.switch(&set, response, near, far));
        }
        *self.free.lock().await = Some(sender);
        let scrubbed = scrub::answer(&set, response, &self.link.room).await;
        scrubbed.map_err(|error| failed(Verdict::Failed(error)))
    }

    /// Whether all that a request says of hosts is this one.
    fn is_for_here<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let uri = request.uri();
        if request.method() == Method::CONNECT {
            return Err(Refusal::Malformed("this is no proxy"));
        }
        if uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTPS) {
            return Err(Refusal::Malformed("this connection is for https"));
        }
        let mut named = Vec::new();
        for value in request.headers().get_all(HOST) {
            let authority = Authority::try_from(value.as_bytes());
            named.push(authority.map_err(|_| Refusal::Malformed("the Host header is no host"))?);
        }
        if named.len() > 1 {
            return Err(Refusal::Malformed("there is more than one Host header"));
        }
        named.extend(uri.authority().cloned());
        if named.is_empty() {
            return Err(Refusal::Malformed("there is no host in this request"));
        }
        for authority in named {
            if authority.as_str().contains('@') {
                return Err(Refusal::Malformed("there is a user name in the host"));
            }
            let named = (
                plain::host(&authority)?,
                plain::port(&authority)?.unwrap_or(SECURE),
            );
            if named != self.place {
                return Err(Refusal::Decided(
                    self.place.clone(),
                    Verdict::Denied(Denial::OtherHost),
                ));
            }
        }
        Ok(())
    }

    /// The request as the host gets it.
    async fn outgoing(&self, mut request: Request<Incoming>) -> Result<Outgoing, Refusal> {
        let refused = |verdict| Refusal::Decided(self.place.clone(), verdict);
        let asked = request.headers().get(UPGRADE);
        let is_websocket = asked.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
            && request.version() < Version::HTTP_2;
        let takes_trailers = request
            .headers()
            .get_all(TE)
            .iter()
            .any(|te| te.as_bytes() == b"trailers");
        let near = is_websocket.then(|| upgrade::on(&mut request));
        let (mut head, body) = request.into_parts();
        // Nothing of the connection that it came over, nor of how it was written there, goes along.
        head.extensions.clear();
        let headers = &mut head.headers;
        plain::end_to_end(headers);
        headers.remove(HOST);
        scrub::searchable(headers);
        if is_websocket {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        } else if takes_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        let set = self.keeper.secrets.current().await;
        let set = set.map_err(|error| refused(error.into()))?;
        let target = head.uri.path_and_query().cloned();
        let target = target.unwrap_or(PathAndQuery::from_static("/"));
        let (host, port) = (&self.place.0, self.place.1);
        let injected = inject::head(&set, host, &target, headers);
        let (target, mut used) = injected.map_err(|reason| match reason {
            Refused::Withheld(why, name) => Refusal::Withheld(self.place.clone(), why, name),
            Refused::Unfit(what) => Refusal::Malformed(what),
        })?;
        let authority = match port {
            SECURE => host.to_string(),
            port => format!("{host}:{port}"),
        };
        head.uri = Uri::builder()
            .scheme(Scheme::HTTPS)
            .authority(authority)
            .path_and_query(target)
            .build()
            .map_err(|_| Refusal::Malformed("the URL can't be made"))?;
        let body = if headers.contains_key(CONTENT_ENCODING) {
            body::unchanged(body)
        } else {
            let patterns = inject::body(&set, host, headers);
            if !patterns.is_empty() && !hyper::body::Body::is_end_stream(&body) {
                // Which of them are in it shows later; an answer is treated as if all were.
                used.extend(set.in_bodies(host));
            }
            let last = Box::new(|_: &mut HeaderMap, _| {});
            let replaced = body::replace(body, headers, patterns, None, &self.link.room, last);
            let replaced = replaced
                .await
                .map_err(|_| Refusal::Malformed("the body broke off"))?;
            replaced.body
        };
        Ok(Outgoing {
            request: Request::from_parts(head, body),
            set,
            used,
            near,
        })
    }

    /// Sends a request, on a new connection if one that was kept has ended meanwhile.
    async fn send(&self, mut request: Request<Body>) -> Result<(Response<Incoming>, Sender), Verdict> {
        let failed = |error: hyper::Error| Verdict::Failed(Error::Failed(error.to_string()));
        // Another connection may be one of the other protocol.
        let uri = request.uri().clone();
        let mut kept = self.kept().await;
        loop {
            let is_kept = kept.is_some();
            let sender = match kept.take() {
                Some(sender) => sender,
                None => {
                    let protocols = self.protocols.clone();
                    let place = Arc::clone(&self.far).acquire_owned();
                    let place = timeout(ANSWER_TIMEOUT, place)
                        .await
                        .map_err(|_| Error::Timeout(ANSWER_TIMEOUT))?;
                    let proven = self.link.prove(&self.keeper, &self.place, protocols).await?;
                    self.speak(proven, place.ok()).await?
                }
            };
            let answering = async {
                match sender {
                    Sender::Http1(mut sender) => {
                        for_http_1(&mut request, &uri);
                        let sent = sender.try_send_request(request).await;
                        (sent, Sender::Http1(sender))
                    }
                    Sender::Http2(mut sender) => {
                        for_http_2(&mut request, &uri);
                        let sent = sender.try_send_request(request).await;
                        (sent, Sender::Http2(sender))
                    }
                }
            };
            let (sent, sender) = timeout(ANSWER_TIMEOUT, answering)
                .await
                .map_err(|_| Error::Timeout(ANSWER_TIMEOUT))?;
            match sent {
                Ok(response) => return Ok((response, sender)),
                Err(mut error) => match error.take_message() {
                    // Nothing of it was sent.
                    Some(unsent) if is_kept => request = unsent,
                    _ => return Err(failed(error.into_error())),
                },
            }
        }
    }

    async fn kept(&self) -> Option<Sender> {
        let mut free = self.free.lock().await;
        if let Some(Sender::Http2(sender)) = &*free {
            return (!sender.is_closed()).then(|| Sender::Http2(sender.clone()));
        }
        match free.take() {
            Some(Sender::Http1(mut sender)) => {
                drop(free);
                sender.ready().await.is_ok().then_some(Sender::Http1(sender))
            }
            other => other,
        }
    }

    /// Speaks HTTP on a connection, which keeps its place as long as it is there.
    async fn speak(&self, proven: Proven, place: Option<OwnedSemaphorePermit>) -> Result<Sender, Verdict> {
        let failed = |error: hyper::Error| Verdict::Failed(Error::Failed(error.to_string()));
        let stream = TokioIo::new(proven.stream);
        let end = self.link.end.clone();
        if proven.is_http_2 {
            let handshake = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buf_size(SEND_BUFFER)
                .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
                .handshake(stream);
            let (sender, connection) = handshake.await.map_err(failed)?;
            tokio::spawn(async move {
                let _place = place;
                tokio::select! {
                    // Whoever waits for an answer sees its end.
                    _ = connection => {}
                    () = end.cancelled() => {}
                }
            });
            return Ok(Sender::Http2(sender));
        }
        let handshake = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(stream);
        let (sender, connection) = handshake.await.map_err(failed)?;
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                _ = connection.with_upgrades() => {}
                () = end.cancelled() => {}
            }
        });
        Ok(Sender::Http1(sender))
    }

    /// Carries what is said when both sides have left HTTP.
    fn switch(
        &self,
        set: &Arc<Set>,
        response: Response<Incoming>,
        near: Option<OnUpgrade>,
        far: OnUpgrade,
    ) -> Response<Body> {
        let empty = http_body_util::Empty::<Bytes>::new().map_err(|never| match never {});
        let mut response = response.map(|_| empty.boxed_unsync());
        scrub::switched(set, &mut response);
        let (link, set) = (Arc::clone(&self.link), Arc::clone(set));
        tokio::spawn(async move {
            let Some(near) = near else { return };
            if let (Ok(near), Ok(far)) = tokio::join!(near, far) {
                let far = Masked::new(TokioIo::new(far), &set);
                link.carry(TokioIo::new(near), far, &[]).await;
            }
        });
        response
    }
}

/// Writes a request for this URL as HTTP/1.1 has it.
fn for_http_1<B>(request: &mut Request<B>, uri: &Uri) {
    let authority = uri.authority().map(Authority::as_str).unwrap_or_default();
    let host = HeaderValue::from_str(authority);
    let target = uri.path_and_query().cloned();
    *request.uri_mut() = Uri::from(target.unwrap_or(PathAndQuery::from_static("/")));
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    if let Ok(host) = host {
        headers.entry(HOST).or_insert(host);
    }
    if !headers.contains_key(UPGRADE) {
        headers.remove(TE);
    }
}

/// Writes it as HTTP/2 has it.
fn for_http_2<B>(request: &mut Request<B>, uri: &Uri) {
    request.uri_mut().clone_from(uri);
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.remove(HOST);
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
}

impl Set {
    /// The names of the secrets that are put into bodies to this host.
    fn in_bodies(&self, host: &crate::target::Host) -> impl Iterator<Item = String> {
        self.secrets
            .iter()
            .filter(|secret| secret.places.body && secret.is_for(host))
            .map(|secret| secret.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_go_over_either_protocol_after_the_other() {
        let uri = Uri::from_static("https://good.test:8443/a?b");
        let mut request = Request::get(uri.clone()).body(()).unwrap();
        for_http_1(&mut request, &uri);
        assert_eq!(request.uri(), "/a?b");
        assert_eq!(request.headers()[HOST], "good.test:8443");
        for_http_2(&mut request, &uri);
        assert_eq!(request.uri(), &uri);
        assert!(!request.headers().contains_key(HOST));
        for_http_1(&mut request, &uri);
        assert_eq!(request.headers()[HOST], "good.test:8443");
    }
}
