//! Trying credentials against an MCP server that answers as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use oma_domain::{CredentialId, VaultId};
use oma_vault::probe::{Refreshed, Validation, Verdict};
use oma_vault::{Error, NewSecret};
use serde_json::{Value, json};

use crate::issuer::{Issuer, access};
use crate::setup::{Setup, bearer, oauth};

/// What the server does with a request.
#[derive(Clone, Debug)]
enum Reply {
    /// As the protocol has it, for a token.
    Good,
    /// The same as an event stream that does not end.
    Streamed,
    /// This status and body.
    Says(u16, String),
    /// Redirects to this.
    Redirects(String),
}

#[derive(Clone, Default)]
struct Server {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers with these, one after the other, and then as the protocol has it.
    async fn start(replies: impl IntoIterator<Item = Reply>) -> (Self, String) {
        let server = Self::default();
        server.replies.lock().unwrap().extend(replies);
        let router = Router::new().fallback(any(answer)).with_state(server.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (server, url)
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn answer(
    State(server): State<Server>,
    method: Method,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: String,
) -> Response {
    let text = |name: &str| {
        headers
            .get(name)
            .map_or("-", |value| value.to_str().unwrap())
            .to_owned()
    };
    let message: Value = serde_json::from_str(&body).unwrap_or_default();
    let called = message["method"].as_str().unwrap_or(method.as_str()).to_owned();
    server.seen.lock().unwrap().push(format!(
        "{} {called} {} {} {}",
        uri.path(),
        text("authorization").trim_start_matches("Bearer canary-"),
        text("mcp-session-id"),
        text("mcp-protocol-version"),
    ));
    let reply = server.replies.lock().unwrap().pop_front().unwrap_or(Reply::Good);
    let result = json!({"jsonrpc": "2.0", "id": message["id"], "result": {"protocolVersion": "2025-03-26"}});
    match reply {
        Reply::Says(status, body) => {
            let status = StatusCode::from_u16(status).unwrap();
            (status, [("content-type", "Text/Plain; charset=x")], body).into_response()
        }
        Reply::Redirects(to) => (StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response(),
        Reply::Streamed => {
            let first = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(format!(
                "event: message\ndata: {result}\n\n"
            ))]);
            let endless = futures_util::StreamExt::chain(first, futures_util::stream::pending());
            let body = axum::body::Body::from_stream(endless);
            (
                [("content-type", "text/event-stream"), ("mcp-session-id", "s1")],
                body,
            )
                .into_response()
        }
        Reply::Good if called == "initialize" => {
            let headers = [("content-type", "application/json"), ("mcp-session-id", "s1")];
            (headers, result.to_string()).into_response()
        }
        Reply::Good if called == "tools/list" => {
            ([("content-type", "application/json")], result.to_string()).into_response()
        }
        Reply::Good => StatusCode::ACCEPTED.into_response(),
    }
}

struct Tried {
    setup: Setup,
    issuer: Issuer,
    server: Server,
    vault: VaultId,
    id: CredentialId,
}

impl Tried {
    async fn new(replies: impl IntoIterator<Item = Reply>, refreshable: bool) -> Self {
        let setup = Setup::new().await;
        let issuer = Issuer::start().await;
        let (server, url) = Server::start(replies).await;
        let vault = setup.vault().await;
        let mut new = oauth(&issuer.url(), 3600);
        new.match_url = url;
        if let (false, NewSecret::McpOauth { refresh, .. }) = (refreshable, &mut new.secret) {
            *refresh = None;
        }
        let id = setup.add(&vault, new).await;
        Self {
            setup,
            issuer,
            server,
            vault,
            id,
        }
    }

    async fn validate(&self) -> Validation {
        let Self { setup, vault, id, .. } = self;
        let found = setup.vaults.validate(&setup.workspace, vault, id).await;
        found.unwrap()
    }
}

fn says(status: u16, body: &str) -> Reply {
    Reply::Says(status, body.to_owned())
}

#[tokio::test]
async fn a_good_token_goes_through_all_steps() {
    for first in [Reply::Good, Reply::Streamed] {
        let tried = Tried::new([first], true).await;
        let found = tried.validate().await;
        assert_eq!((found.verdict, found.has_refresh_token), (Verdict::Valid, true));
        assert_eq!((&found.failed, &found.refresh), (&None, &None));
        assert_eq!(
            tried.server.seen(),
            [
                "/mcp initialize access-0 - -",
                "/mcp notifications/initialized access-0 s1 2025-03-26",
                "/mcp tools/list access-0 s1 2025-03-26",
                "/mcp DELETE access-0 s1 2025-03-26",
            ]
        );
        assert_eq!(tried.issuer.with(|issued| issued.count), 0);
    }
}

#[tokio::test]
async fn a_refused_token_is_refreshed_and_the_next_one_tried() {
    let tried = Tried::new([says(401, "no")], true).await;
    let found = tried.validate().await;
    assert_eq!((found.verdict, found.failed), (Verdict::Valid, None));
    assert_eq!(found.refresh, Some(Refreshed::Succeeded));
    assert_eq!(
        tried.server.seen()[..2],
        [
            "/mcp initialize access-0 - -".to_owned(),
            "/mcp initialize access-1 - -".to_owned()
        ]
    );
    // What was refreshed is what the next request presents.
    let url = tried.server.seen().len();
    assert!(url > 2);
    let kept = tried
        .setup
        .vaults
        .credential(&tried.setup.workspace, &tried.vault, &tried.id);
    let kept = kept.await.unwrap().spec.match_url;
    let vaults = std::slice::from_ref(&tried.vault);
    assert_eq!(tried.setup.token(vaults, &kept).await, Some(access(1)));
}

#[tokio::test]
async fn what_each_refusal_comes_to() {
    let no = || says(401, "token canary-access-0 is canary-access-0");
    let shown = "token [secret] is [secret]";
    for (replies, refreshable, failure, verdict, step, refresh) in [
        (
            vec![no()],
            false,
            None,
            Verdict::Invalid,
            Some(("initialize", 401, shown)),
            Some("NoRefreshToken"),
        ),
        (
            vec![no()],
            true,
            Some((400, r#"{"error":"invalid_grant","hint":"canary-refresh-0"}"#)),
            Verdict::Invalid,
            Some(("initialize", 401, shown)),
            Some(r#"400 {"error":"invalid_grant"}"#),
        ),
        (
            vec![no()],
            true,
            Some((400, "canary-refresh-0")),
            Verdict::Invalid,
            Some(("initialize", 401, shown)),
            Some("400 "),
        ),
        (
            vec![no(), says(401, "still")],
            true,
            None,
            Verdict::Invalid,
            Some(("initialize", 401, "still")),
            Some("Succeeded"),
        ),
        (
            vec![no(), says(503, "busy")],
            true,
            None,
            Verdict::Unknown,
            Some(("initialize", 503, "busy")),
            Some("Succeeded"),
        ),
        (
            vec![says(403, "")],
            true,
            None,
            Verdict::Invalid,
            Some(("initialize", 403, "")),
            None,
        ),
        (
            vec![says(200, "<html>")],
            true,
            None,
            Verdict::Unknown,
            Some(("initialize", 200, "<html>")),
            None,
        ),
        (
            vec![Reply::Good, Reply::Good, says(500, "oops")],
            true,
            None,
            Verdict::Unknown,
            Some(("tools/list", 500, "oops")),
            None,
        ),
        (
            vec![Reply::Redirects("/mcp/".into())],
            true,
            None,
            Verdict::Valid,
            None,
            None,
        ),
        (
            vec![Reply::Redirects("/other".into())],
            true,
            None,
            Verdict::Unknown,
            Some(("initialize", 307, "")),
            None,
        ),
    ] {
        let name = format!("{replies:?} {refreshable} {failure:?}");
        let tried = Tried::new(replies, refreshable).await;
        tried
            .issuer
            .with(|issued| issued.failure = failure.map(|(status, body)| (status, body.to_owned())));
        let found = tried.validate().await;
        let text = format!("{found:?}");
        assert!(!text.contains("canary"), "{name}: {text}");
        assert_eq!(
            (found.verdict, found.has_refresh_token),
            (verdict, refreshable),
            "{name}"
        );
        let failed = found.failed.as_ref().map(|failed| {
            let answer = failed.answer.as_ref().unwrap();
            (failed.method, answer.status, answer.body.as_str())
        });
        assert_eq!(failed, step, "{name}");
        let refreshed = found.refresh.map(|refreshed| match refreshed {
            Refreshed::Failed(Some(answer)) => format!("{} {}", answer.status, answer.body),
            other => format!("{other:?}"),
        });
        assert_eq!(refreshed.as_deref(), refresh, "{name}");
    }
}

#[tokio::test]
async fn who_can_not_be_asked_leaves_it_open() {
    let gone = Tried::new([], true).await;
    // A port that was just given back: nobody listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut new = oauth(&gone.issuer.url(), 3600);
    new.match_url = format!("http://{address}/mcp");
    let id = gone.setup.add(&gone.vault, new).await;
    let setup = &gone.setup;
    let found = setup
        .vaults
        .validate(&setup.workspace, &gone.vault, &id)
        .await
        .unwrap();
    let failed = found.failed.unwrap();
    assert_eq!(found.verdict, Verdict::Unknown);
    assert_eq!(
        (failed.method, failed.answer, found.refresh),
        ("initialize", None, None)
    );

    let tried = Tried::new([says(401, "no")], true).await;
    let setup = &tried.setup;
    let mut new = oauth(&format!("http://{address}/token"), 3600);
    let kept = setup.vaults.credential(&setup.workspace, &tried.vault, &tried.id);
    new.match_url = kept.await.unwrap().spec.match_url;
    let id = setup.add(&tried.vault, new).await;
    let found = setup
        .vaults
        .validate(&setup.workspace, &tried.vault, &id)
        .await
        .unwrap();
    assert_eq!(
        (found.verdict, found.refresh),
        (Verdict::Unknown, Some(Refreshed::Unreachable))
    );
}

#[tokio::test]
async fn long_answers_are_cut_and_no_token_with_them() {
    let mut long = "x".repeat(1_995);
    long.push_str("canary-access-0");
    long.push_str(&"y".repeat(100_000));
    let tried = Tried::new([says(500, &long)], true).await;
    let answer = tried.validate().await.failed.unwrap().answer.unwrap();
    assert_eq!(answer.body, format!("{}[secr", "x".repeat(1_995)));
    assert!(answer.truncated);
    assert_eq!(answer.media_type, "text/plain");
}

#[tokio::test]
async fn only_oauth_that_is_there_is_validated() {
    let setup = Setup::new().await;
    let vault = setup.vault().await;
    let id = setup
        .add(&vault, bearer("https://a.example/", "canary-one"))
        .await;
    let validate = async || setup.vaults.validate(&setup.workspace, &vault, &id).await;
    assert!(matches!(
        validate().await,
        Err(Error::Invalid { field: "type", .. })
    ));
    setup
        .vaults
        .archive_credential(&setup.workspace, &vault, &id)
        .await
        .unwrap();
    assert!(matches!(validate().await, Err(Error::CredentialArchived)));
}
