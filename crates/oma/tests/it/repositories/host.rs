//! A host of repositories for tests: git's own server behind HTTP, which asks for a token and notes what it was sent.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Runs git with nothing of this machine's configuration.
pub(super) fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new("git");
    for setting in [
        "user.name=T",
        "user.email=t@example.org",
        "init.defaultBranch=main",
        "receive.denyCurrentBranch=ignore",
    ] {
        command.args(["-c", setting]);
    }
    let output = command
        .current_dir(folder)
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git runs");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What a host was sent.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) authorization: Option<String>,
}

/// A host of two repositories: `/tool` is for everybody, `/secret` for who has the token.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    folder: TempDir,
    token: Mutex<Option<String>>,
    seen: Mutex<Vec<Seen>>,
    /// Where `/away` redirects to.
    elsewhere: String,
}

impl Host {
    /// With the commits `first` and `second` on `main`, and `first` on `feature/x`.
    pub(super) async fn start(elsewhere: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["tool", "secret"] {
            let source = folder.path().join(name);
            std::fs::create_dir(&source).expect("made");
            git(&source, &["init", "-q"]);
            git(&source, &["config", "receive.denyCurrentBranch", "ignore"]);
            git(&source, &["config", "uploadpack.allowAnySHA1InWant", "true"]);
            for content in ["first", "second"] {
                commit(&source, content);
            }
            git(&source, &["branch", "feature/x", "HEAD~1"]);
            // A commit that no branch leads to.
            git(&source, &["checkout", "-q", "--detach"]);
            commit(&source, "loose");
            git(&source, &["update-ref", "refs/hidden/loose", "HEAD"]);
            git(&source, &["checkout", "-q", "main"]);
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("bound");
        let inner = Arc::new(Inner {
            folder,
            token: Mutex::default(),
            seen: Mutex::default(),
            elsewhere: elsewhere.to_owned(),
        });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, inner }
    }

    pub(super) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// The repository itself.
    pub(super) fn source(&self, name: &str) -> PathBuf {
        self.inner.folder.path().join(name)
    }

    /// What it asks for from now on.
    pub(super) fn wants(&self, token: &str) {
        *lock(&self.inner.token) = Some(token.to_owned());
    }

    /// What it was sent since somebody asked last.
    pub(super) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *lock(&self.inner.seen))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn commit(source: &Path, content: &str) {
    std::fs::write(source.join("README"), format!("{content}\n")).expect("written");
    git(source, &["add", "."]);
    git(source, &["commit", "-q", "-m", content]);
}

/// The header that a token is sent in.
pub(super) fn basic(token: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("x-access-token:{token}")))
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.expect("a body");
    let path = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let authorization = head.headers.get(AUTHORIZATION);
    let authorization = authorization.map(|value| value.to_str().expect("text").to_owned());
    lock(&inner.seen).push(Seen {
        path: path.clone(),
        authorization: authorization.clone(),
    });
    let status = |status: StatusCode| {
        // Hosts say all kinds of things; none of it is for git in the sandbox.
        let text = format!("you sent {authorization:?}");
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        response
    };
    let redirect = |to: String| {
        let mut response = status(StatusCode::MOVED_PERMANENTLY);
        let to = format!("{to}?{query}").parse().expect("a header");
        response.headers_mut().insert(LOCATION, to);
        response
    };
    let (name, rest) = path
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or((&path, ""));
    match name {
        "tool" => {}
        "secret" => {
            let wanted = lock(&inner.token).as_deref().map(basic);
            if wanted.is_none() || authorization != wanted {
                return status(StatusCode::UNAUTHORIZED);
            }
        }
        "closed" => return status(StatusCode::FORBIDDEN),
        "moved" => return redirect(format!("/secret/{rest}")),
        "away" => return redirect(format!("{}/tool/{rest}", inner.elsewhere)),
        "page" => return status(StatusCode::OK),
        _ => return status(StatusCode::NOT_FOUND),
    }
    backend(
        inner.folder.path(),
        &head.method,
        (&path, &query),
        &head.headers,
        &body,
    )
    .await
}

/// What git's server says.
async fn backend(
    root: &Path,
    method: &axum::http::Method,
    (path, query): (&str, &str),
    headers: &HeaderMap,
    body: &Bytes,
) -> Response<Body> {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let (name, rest) = path.trim_start_matches('/').split_once('/').expect("a path");
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "http.receivepack")
        .env("GIT_CONFIG_VALUE_0", "true")
        .env("PATH_INFO", format!("/{name}/.git/{rest}"))
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method.as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git runs");
    let mut stdin = child.stdin.take().expect("piped");
    let body = body.clone();
    let writing = tokio::spawn(async move { stdin.write_all(&body).await });
    let output = child.wait_with_output().await.expect("it ends").stdout;
    // It may end without having read all.
    let _ = writing.await.expect("no panic");
    let end = memchr::memmem::find(&output, b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let fields: HashMap<&str, &str> = head.lines().filter_map(|line| line.split_once(": ")).collect();
    let status = fields.get("Status").and_then(|status| status.split(' ').next());
    let mut response = Response::new(Body::from(output[end + 4..].to_vec()));
    *response.status_mut() = status.unwrap_or("200").parse().expect("a status");
    if let Some(kind) = fields.get("Content-Type") {
        let kind = kind.parse().expect("a header");
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}
