//! A server over TLS that takes note of what it is sent, and tells it all in its answers.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use axum::http::{Request, Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// The server.
pub(super) struct Upstream {
    heard: Arc<Mutex<String>>,
    /// Who signed its certificate, as PEM, in a file.
    pub(super) root: PathBuf,
    _folder: tempfile::TempDir,
}

impl Upstream {
    /// Serves these names at the port of TLS. Whoever has `password` gets what is below `files`.
    pub(super) async fn start(address: Ipv4Addr, names: &[&str], files: &Path, password: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root.pem");
        let acceptor = TlsAcceptor::from(Arc::new(config(names, &root)));
        let listener = TcpListener::bind((address, 443)).await.expect("a free port");
        let heard = Arc::new(Mutex::new(String::new()));
        let known = Arc::new((files.to_owned(), password.to_owned(), Arc::clone(&heard)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, known) = (acceptor.clone(), Arc::clone(&known));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |request| {
                        let known = Arc::clone(&known);
                        async move {
                            let (files, password, heard) = &*known;
                            Ok::<_, Infallible>(answer(request, files, password, heard).await)
                        }
                    });
                    // Whoever hangs up has heard enough.
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            heard,
            root,
            _folder: folder,
        }
    }

    /// Everything that it was sent since it was asked last.
    pub(super) fn heard(&self) -> String {
        std::mem::take(&mut *self.heard.lock().expect("not poisoned"))
    }
}

fn config(names: &[&str], root: &Path) -> ServerConfig {
    let signer = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&signer).expect("a certificate");
    let pem = STANDARD.encode(certificate.der());
    let pem = format!("-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----\n");
    std::fs::write(root, pem).expect("written");
    let issuer = Issuer::new(params, signer);
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let leaf = CertificateParams::new(names).expect("names");
    let leaf = leaf.signed_by(&key, &issuer).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .expect("a key that fits");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

async fn answer(
    request: Request<Incoming>,
    files: &Path,
    password: &str,
    heard: &Mutex<String>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let host = head.uri.host().unwrap_or_default();
    let path = head.uri.path().to_owned();
    let mut text = format!(
        "{:?} {} {host}{path}?{}\n",
        head.version,
        head.method,
        head.uri.query().unwrap_or_default()
    );
    for (name, value) in &head.headers {
        text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    let body = to_bytes(Body::new(body), 1 << 20).await.unwrap_or_default();
    text += &format!("\n{}\n", String::from_utf8_lossy(&body));
    heard.lock().expect("not poisoned").push_str(&text);
    if let Some(file) = path.strip_prefix("/files/") {
        let expected = format!("Basic {}", STANDARD.encode(format!("x:{password}")));
        if head
            .headers
            .get(AUTHORIZATION)
            .is_none_or(|value| value.as_bytes() != expected.as_bytes())
        {
            let mut refused = Response::new(Body::from(text));
            *refused.status_mut() = StatusCode::UNAUTHORIZED;
            let basic = "Basic realm=\"files\"".parse().expect("a header");
            refused.headers_mut().insert(WWW_AUTHENTICATE, basic);
            return refused;
        }
        // The client is the test's own, so there is nothing else to be guarded.
        return match std::fs::read(files.join(file)) {
            Ok(bytes) => Response::new(Body::from(bytes)),
            Err(_) => {
                let mut missing = Response::new(Body::empty());
                *missing.status_mut() = StatusCode::NOT_FOUND;
                missing
            }
        };
    }
    if path == "/redirect" {
        let mut away = Response::new(Body::from(text));
        *away.status_mut() = StatusCode::FOUND;
        let to = format!("https://evil.test/?{}", head.uri.query().unwrap_or_default());
        away.headers_mut().insert(LOCATION, to.parse().expect("a URL"));
        return away;
    }
    Response::new(Body::from(text))
}
