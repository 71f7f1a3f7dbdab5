//! Between git in a sandbox and the hosts of repositories: a port of the sandbox's loopback address, behind which the
//! server answers as those hosts would.
//!
//! What is below `/<id of the resource>/<path of the repository>` is what git finds below the address of the
//! repository, and nothing else can be asked for. Clones are made so that git goes there by itself.
//!
//! Invariant: no secret and no header of a host comes this way, and of its failures only what they mean.
//! Invariant: what git and a host send is never held whole.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming as RequestBody;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use oma_domain::{SessionId, WorkspaceId};
use oma_sandbox::{Error as SandboxError, Hand, Incoming, Pipe, Spec};
use reqwest::Body;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::upstream::{self, Service, Trouble, Upstream};
use super::{Hosts, Repository};

/// The port. It belongs to nothing that is known, and to no range that connections get theirs from.
const PORT: u16 = 61_418;
/// How many connections one sandbox may have.
const MAX_CONNECTIONS: usize = 8;
/// How long git may take between two requests, and for the head of one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// What git says of itself that its host has to know.
const FOR_HOST: [HeaderName; 4] = [
    HeaderName::from_static("git-protocol"),
    HeaderName::from_static("accept"),
    CONTENT_TYPE,
    CONTENT_ENCODING,
];

/// Where git in a sandbox finds a repository.
pub(super) fn way(repository: &Repository<'_>) -> Result<String, Trouble> {
    let url = upstream::base(repository.url)?;
    Ok(format!("http://127.0.0.1:{PORT}/{}{}", repository.id, url.path()))
}

/// Opens the port, and answers what comes until the sandbox ends or this is dropped.
pub(super) async fn open(
    hosts: &Arc<Hosts>,
    spec: &Spec,
    hand: Arc<dyn Hand>,
) -> Result<AbortOnDropHandle<()>, SandboxError> {
    let first = hand.listen(PORT).await?;
    let bridge = Arc::new(Bridge {
        hosts: Arc::clone(hosts),
        workspace: spec.workspace.clone(),
        session: spec.session.clone(),
    });
    Ok(AbortOnDropHandle::new(tokio::spawn(run(bridge, hand, first))))
}

async fn run(bridge: Arc<Bridge>, hand: Arc<dyn Hand>, first: Incoming) {
    let mut connections = JoinSet::new();
    let mut incoming = first;
    loop {
        let pipe = match incoming.await {
            Ok(arrived) => arrived.pipe,
            Err(error) => {
                // The usual end: the sandbox has ended.
                tracing::debug!(session_id = %bridge.session, %error, "git's port is closed");
                break;
            }
        };
        connections.spawn(Arc::clone(&bridge).serve(pipe));
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        incoming = match hand.listen(PORT).await {
            Ok(incoming) => incoming,
            Err(error) => {
                tracing::warn!(session_id = %bridge.session, %error, "git's port can't be listened at");
                break;
            }
        };
    }
    connections.join_all().await;
}

struct Bridge {
    hosts: Arc<Hosts>,
    workspace: WorkspaceId,
    session: SessionId,
}

/// What git asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Refs(Service),
    Exchange(Service),
}

impl Bridge {
    async fn serve(self: Arc<Self>, pipe: Box<dyn Pipe>) {
        let answers = service_fn(|request| {
            let bridge = Arc::clone(&self);
            async move { Ok::<_, Infallible>(bridge.answer(request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(pipe), answers)
            .await;
        if let Err(error) = served {
            tracing::debug!(session_id = %self.session, %error, "a connection of git's broke off");
        }
    }

    async fn answer(&self, request: Request<RequestBody>) -> Response<Body> {
        let resources = self.hosts.store.resources(&self.workspace, &self.session).await;
        let resources = match resources {
            Ok(resources) => resources,
            Err(error) => {
                tracing::error!(session_id = %self.session, %error, "a session's repositories can't be read");
                return said(StatusCode::BAD_GATEWAY, "the server can't answer now");
            }
        };
        let mut repositories = resources.iter().filter_map(Repository::of);
        let found = repositories.find_map(|repository| {
            let base = upstream::base(repository.url).ok()?;
            let asked = asked(repository.id.as_str(), &base, &request)?;
            Some((repository, asked))
        });
        let Some((repository, asked)) = found else {
            return said(StatusCode::NOT_FOUND, "this is no repository of the session");
        };
        let token = match self
            .hosts
            .token(&self.workspace, &self.session, &repository)
            .await
        {
            Ok(token) => token,
            Err(error) => {
                tracing::error!(session_id = %self.session, %error, "a repository can't be asked");
                return said(StatusCode::BAD_GATEWAY, "the server can't answer now");
            }
        };
        let upstream = Upstream {
            id: repository.id,
            url: repository.url,
            token,
        };
        let headers = kept(request.headers());
        let answer = match asked {
            Asked::Refs(service) => self.hosts.refs(&upstream, service, headers).await,
            Asked::Exchange(service) => {
                let body = Body::wrap(request.into_body());
                self.hosts.exchange(&upstream, service, headers, body).await
            }
        };
        match answer {
            Ok(response) => relayed(response),
            Err(trouble) => {
                tracing::info!(session_id = %self.session, ?trouble, "a repository's host gave git no answer");
                refusal(&trouble)
            }
        }
    }
}

/// What a request asks this repository for; `None` when it is for another one, or for nothing that git asks for.
fn asked<B>(id: &str, base: &Url, request: &Request<B>) -> Option<Asked> {
    let path = request.uri().path().strip_prefix('/')?;
    let path = path.strip_prefix(id)?.strip_prefix(base.path())?;
    let method = request.method();
    if path == "/info/refs" && method == Method::GET {
        let service = request.uri().query()?.strip_prefix("service=")?;
        return Service::parse(service).map(Asked::Refs);
    }
    if method == Method::POST {
        return Service::parse(path.strip_prefix('/')?).map(Asked::Exchange);
    }
    None
}

fn kept(headers: &HeaderMap) -> HeaderMap {
    let kept = FOR_HOST.into_iter().filter_map(|name| {
        let value = headers.get(&name)?.clone();
        Some((name, value))
    });
    kept.collect()
}

/// A host's answer, for git.
fn relayed(response: reqwest::Response) -> Response<Body> {
    let kind = response.headers().get(CONTENT_TYPE).cloned();
    let mut answer = Response::new(Body::from(response));
    if let Some(kind) = kind {
        answer.headers_mut().insert(CONTENT_TYPE, kind);
    }
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

fn refusal(trouble: &Trouble) -> Response<Body> {
    match trouble {
        // Not 401: git would ask whoever sits in the sandbox for a password.
        Trouble::Authentication => said(
            StatusCode::FORBIDDEN,
            "the repository's host does not accept the session's token, or wants one",
        ),
        Trouble::Forbidden => said(
            StatusCode::FORBIDDEN,
            "the repository's host forbids this with the session's token",
        ),
        Trouble::NotFound => said(
            StatusCode::NOT_FOUND,
            "the repository's host has no such repository, or not for the session's token",
        ),
        Trouble::Checkout(why) | Trouble::Clone(why) => {
            said(StatusCode::BAD_GATEWAY, &format!("the repository: {why}"))
        }
    }
}

/// What git shows as a word of the other side.
fn said(status: StatusCode, text: &str) -> Response<Body> {
    let mut answer = Response::new(Body::from(format!("{text}\n")));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_gits_own_requests_is_answered() {
        let base = upstream::base("https://git.example/a/tool/").unwrap();
        let refs = |service| Some(Asked::Refs(service));
        for (method, uri, expected) in [
            (
                "GET",
                "/rsc_1/a/tool/info/refs?service=git-upload-pack",
                refs(Service::UploadPack),
            ),
            (
                "GET",
                "/rsc_1/a/tool/info/refs?service=git-receive-pack",
                refs(Service::ReceivePack),
            ),
            (
                "POST",
                "/rsc_1/a/tool/git-upload-pack",
                Some(Asked::Exchange(Service::UploadPack)),
            ),
            (
                "POST",
                "/rsc_1/a/tool/git-receive-pack",
                Some(Asked::Exchange(Service::ReceivePack)),
            ),
            ("GET", "/rsc_1/a/tool/info/refs", None),
            ("GET", "/rsc_1/a/tool/info/refs?service=git-upload-archive", None),
            ("GET", "/rsc_1/a/tool/info/refs?service=git-upload-pack&x=1", None),
            ("POST", "/rsc_1/a/tool/info/refs?service=git-upload-pack", None),
            ("GET", "/rsc_1/a/tool/git-upload-pack", None),
            ("GET", "/rsc_1/a/tool/HEAD", None),
            ("GET", "/rsc_1/a/tool2/info/refs?service=git-upload-pack", None),
            (
                "GET",
                "/rsc_1/a/tool/../other/info/refs?service=git-upload-pack",
                None,
            ),
            ("GET", "/rsc_12/a/tool/info/refs?service=git-upload-pack", None),
            ("GET", "/rsc_2/a/tool/info/refs?service=git-upload-pack", None),
            ("GET", "/", None),
        ] {
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            assert_eq!(asked("rsc_1", &base, &request), expected, "{method} {uri}");
        }
    }

    #[test]
    fn what_a_process_adds_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("git-protocol", "version=2"),
            ("content-type", "application/x-git-upload-pack-request"),
            ("content-encoding", "gzip"),
            ("accept", "*/*"),
            ("authorization", "Basic eA=="),
            ("cookie", "a=b"),
            ("host", "elsewhere"),
            ("x-forwarded-for", "1.1.1.1"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let kept = kept(&headers);
        let mut names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["accept", "content-encoding", "content-type", "git-protocol"]
        );
    }
}
