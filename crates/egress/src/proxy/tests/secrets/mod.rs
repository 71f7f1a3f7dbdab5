//! Secrets against real servers over TLS on loopback, which take note of what they are sent.

mod bypass;
mod passes;

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Here, Noted, Server};
use crate::proxy::secrets::{
    Authority, Keeper, Placeholder, Places, Secret, Secrets, Set, Unavailable, Upstream,
};
use crate::proxy::{Allowed, Hosts, Link};
use crate::{Guard, Policy};

/// The secret for `good.test` and `*.cdn.test`.
pub(super) const SECRET: &str = "canary-s3cret/1";
/// The secret for `other.test`, whose certificate nobody trusts.
pub(super) const OTHER: &str = "canary-other/22";

/// Signs the certificates of servers.
struct Root {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Root {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    fn server(&self, names: &[&str], protocols: &[&[u8]]) -> ServerConfig {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }
}

fn trusting(certificate: CertificateDer<'static>, protocols: &[&[u8]]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A server over TLS, which tells what it was sent, in what it answers too.
pub(super) struct Tls {
    pub(super) port: u16,
    heard: Arc<Mutex<String>>,
}

impl Tls {
    async fn start(config: ServerConfig) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(String::new()));
        let (note, acceptor) = (Arc::clone(&heard), TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (note, acceptor) = (Arc::clone(&note), acceptor.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |request| {
                        let note = Arc::clone(&note);
                        async move { Ok::<_, Infallible>(answer(request, &note).await) }
                    });
                    let serving = auto::Builder::new(TokioExecutor::new());
                    let _ = serving
                        .serve_connection_with_upgrades(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { port, heard }
    }

    pub(super) fn heard(&self) -> String {
        self.heard.lock().unwrap().clone()
    }
}

async fn answer(mut request: Request<Incoming>, note: &Mutex<String>) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let mut text = format!("{} {} {:?}\n", head.method, head.uri, head.version);
    for (name, value) in &head.headers {
        text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    let path = head.uri.path().to_owned();
    let body = match path.as_str() {
        // It answers before all has been said.
        "/ws" => Bytes::new(),
        _ => body
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default(),
    };
    text += &format!("\n{}\n", String::from_utf8_lossy(&body));
    note.lock().unwrap().push_str(&text);
    let whole = |text: String| Full::new(Bytes::from(text)).boxed_unsync();
    let pieces = |pieces: Vec<Frame<Bytes>>, lasts: bool| {
        let frames = stream::iter(pieces.into_iter().map(Ok));
        if lasts {
            let frames = futures_util::StreamExt::chain(frames, stream::pending());
            StreamBody::new(frames).boxed_unsync()
        } else {
            StreamBody::new(frames).boxed_unsync()
        }
    };
    let data = |text: &str| Frame::data(Bytes::copy_from_slice(text.as_bytes()));
    match path.as_str() {
        "/pieces" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-last", HeaderValue::from_static(SECRET));
            let (one, two) = SECRET.split_at(5);
            Response::new(pieces(
                vec![data(one), data(two), Frame::trailers(trailers)],
                false,
            ))
        }
        "/events" => Response::new(pieces(vec![data(&format!("data: {SECRET}\n\n"))], true)),
        "/half" => Response::new(pieces(
            vec![data("done.\n"), data(&SECRET[..SECRET.len() / 2])],
            true,
        )),
        "/silent" => std::future::pending().await,
        "/digest" => {
            let mut response = Response::new(whole(text));
            let digest = HeaderValue::from_static("sha-256=:AAAA:");
            response.headers_mut().insert("content-digest", digest);
            response
        }
        "/long" => {
            let text = format!("{}{SECRET}{}", "x".repeat(400_000), "y".repeat(400_000));
            Response::new(whole(text))
        }
        "/gzip" => {
            let mut response = Response::new(whole(text));
            response
                .headers_mut()
                .insert("content-encoding", HeaderValue::from_static("gzip"));
            response
        }
        "/redirect" => {
            let mut response = Response::new(whole(String::new()));
            *response.status_mut() = http::StatusCode::FOUND;
            let location = format!("https://evil.test/?{}", head.uri.query().unwrap_or_default());
            response
                .headers_mut()
                .insert("location", HeaderValue::from_str(&location).unwrap());
            response
        }
        "/ws" => {
            tokio::spawn(async move {
                let mut socket = TokioIo::new(upgrade.await.unwrap());
                let mut frame = vec![0x81, u8::try_from(SECRET.len() + 2).unwrap()];
                frame.extend(format!("<{SECRET}>").bytes());
                socket.write_all(&frame).await.unwrap();
                let mut said = [0; 4];
                socket.read_exact(&mut said).await.unwrap();
                socket.write_all(&[0x81, 4]).await.unwrap();
                socket.write_all(&said).await.unwrap();
            });
            let response = Response::builder()
                .status(101)
                .header("connection", "upgrade")
                .header("upgrade", "websocket");
            response.body(whole(String::new())).unwrap()
        }
        _ => Response::new(whole(text)),
    }
}

/// Secrets that can be changed.
pub(super) struct Changing(pub(super) Mutex<Result<Arc<Set>, Unavailable>>);

#[async_trait]
impl Secrets for Changing {
    async fn current(&self) -> Result<Arc<Set>, Unavailable> {
        self.0.lock().unwrap().clone()
    }
}

pub(super) fn placeholder(number: u8) -> Placeholder {
    Placeholder::new(&[number; 20])
}

pub(super) fn secret(number: u8, hosts: &[&str]) -> Secret {
    let mut listed = Hosts::default();
    assert!(hosts.iter().all(|host| listed.add(host)));
    Secret {
        name: format!("SECRET_{number}"),
        placeholder: placeholder(number),
        value: SecretString::from(if number == 1 { SECRET } else { OTHER }),
        hosts: Allowed::Listed(listed),
        places: Places {
            header: true,
            query: true,
            body: true,
        },
    }
}

/// A session with secrets.
pub(super) struct World {
    /// `good.test` and what is below `cdn.test`.
    pub(super) good: Tls,
    /// The same names, by a certificate that nobody trusts.
    pub(super) false_one: Tls,
    /// No TLS at all.
    pub(super) clear: Server,
    pub(super) secrets: Arc<Changing>,
    pub(super) noted: Arc<Noted>,
    pub(super) link: Arc<Link>,
    trusted: CertificateDer<'static>,
    root: CertificateDer<'static>,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::speaking(&[b"h2", b"http/1.1"], Allowed::Public).await
    }

    pub(super) async fn speaking(protocols: &[&[u8]], allowed: Allowed) -> Self {
        let (root, nobody) = (Root::new(), Root::new());
        let names = ["good.test", "a.cdn.test", "plain.test"];
        let good = Tls::start(root.server(&names, protocols)).await;
        let false_one = Tls::start(nobody.server(&names, protocols)).await;
        let clear = Server::start().await;
        let hosts = [
            "good.test",
            "*.cdn.test",
            "other.test",
            "plain.test",
            "evil.test",
            "127.0.0.1",
        ];
        let ports = [good.port, false_one.port, clear.port];
        let rules = hosts
            .iter()
            .flat_map(|host| ports.map(|port| format!("{host}:{port}").parse().unwrap()));
        let rules = rules.chain(["good.test:443", "a.cdn.test:443"].map(|rule| rule.parse().unwrap()));
        let policy = Policy {
            allow: rules.collect(),
        };
        let guard = Arc::new(Guard::with_resolver(policy, Arc::new(Here)));
        let set = Set::new(
            vec![
                secret(1, &["good.test", "*.cdn.test"]),
                secret(2, &["other.test"]),
            ],
            None,
        );
        let secrets = Arc::new(Changing(Mutex::new(Ok(Arc::new(set)))));
        let authority = Arc::new(Authority::new("test", &Zeroizing::new([7; 32])).unwrap());
        let trusted = authority.certificate().clone();
        let keeper = Keeper {
            secrets: secrets.clone(),
            authority,
            upstream: Upstream::new(trusting(root.certificate.clone(), &[])),
        };
        let noted = Arc::new(Noted::default());
        let link = Link::new(guard, allowed, noted.clone(), Some(keeper));
        Self {
            good,
            false_one,
            clear,
            secrets,
            noted,
            link,
            trusted,
            root: root.certificate,
        }
    }

    pub(super) fn change(&self, secrets: Vec<Secret>) {
        let mut current = self.secrets.0.lock().unwrap();
        let set = Set::new(secrets, current.as_ref().ok().map(|set| &**set));
        *current = Ok(Arc::new(set));
    }

    pub(super) fn dial(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(64 << 10);
        tokio::spawn(Arc::clone(&self.link).serve_proxy(far));
        near
    }

    /// A tunnel, and what was said to the request for it.
    pub(super) async fn connect(&self, to: &str) -> (DuplexStream, String) {
        let mut stream = self.dial();
        let request = format!("CONNECT {to} HTTP/1.1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        (stream, String::from_utf8(answer).unwrap())
    }

    /// What a process does that trusts whom its sandbox trusts.
    pub(super) async fn tls(
        &self,
        to: &str,
        name: &str,
        protocols: &[&[u8]],
    ) -> std::io::Result<TlsStream<DuplexStream>> {
        let (stream, answer) = self.connect(to).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let connector = TlsConnector::from(Arc::new(trusting(self.trusted.clone(), protocols)));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        connector.connect(name, stream).await
    }

    /// The answer to a request over HTTP/1.1, where PH is the placeholder of the first secret, and GOOD the port of the
    /// server.
    pub(super) async fn ask(&self, request: &str) -> String {
        self.ask_at(&format!("good.test:{}", self.good.port), "good.test", request)
            .await
    }

    pub(super) async fn ask_at(&self, to: &str, name: &str, request: &str) -> String {
        let mut stream = self.tls(to, name, &[b"http/1.1"]).await.unwrap();
        stream.write_all(self.fill(request).as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
        // Whoever is cut off has said what they had to say.
        let _ = read.await.expect("an end");
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(super) fn fill(&self, text: &str) -> String {
        text.replace("PH1", placeholder(1).as_str())
            .replace("PH2", placeholder(2).as_str())
            .replace("PH9", placeholder(9).as_str())
            .replace("GOOD", &self.good.port.to_string())
            .replace("FALSE", &self.false_one.port.to_string())
            .replace("CLEAR", &self.clear.port.to_string())
    }

    pub(super) fn decisions(&self) -> Vec<String> {
        self.noted.0.lock().unwrap().clone()
    }

    /// Everything that any server has been sent.
    pub(super) fn heard(&self) -> String {
        [self.good.heard(), self.false_one.heard(), self.clear.heard()].concat()
    }
}

/// One answer that says how long it is, or ends.
pub(super) async fn one_answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let reading = async {
        let mut left = usize::MAX;
        while left > 0 {
            let Ok(byte) = stream.read_u8().await else { break };
            answer.push(byte);
            left = left.saturating_sub(1);
            if left > 1 << 20 && answer.ends_with(b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&answer).into_owned();
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                left = length.unwrap_or_default();
            }
        }
    };
    timeout(Duration::from_secs(10), reading)
        .await
        .expect("an answer or an end");
    String::from_utf8(answer).unwrap()
}
