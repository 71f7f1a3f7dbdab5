//! What a session gets from its servers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use oma_domain::agent::{Agent, RuntimeKind, Spec};
use oma_domain::content::joined_text;
use oma_domain::policy::PermissionPolicy;
use oma_domain::thinking::ThinkingLevel;
use oma_domain::{AgentId, SessionId, Timestamp, WorkspaceId};
use oma_egress::{Guard, Policy};
use oma_mcp::config::Invalid;
use oma_mcp::{Config, Error, Handle, Hub, NoTokens, Ready, TokenSource};
use oma_runtime::SessionInfo;
use oma_sandbox::files::Workspace;
use oma_sandbox::{Attached, Error as SandboxError, Pool, PoolConfig, Provider, Spec as SandboxSpec};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::server::Server;

pub(crate) fn session(servers: Value) -> SessionInfo {
    let Value::Object(mcp_servers) = servers else {
        panic!("no object")
    };
    let spec = Spec {
        model: "a/b".to_owned(),
        instructions: String::new(),
        tools: Vec::new(),
        description: None,
        metadata: Default::default(),
        custom_tools: Vec::new(),
        name: None,
        permission_policy: PermissionPolicy::AlwaysAllow,
        callable_agents: Vec::new(),
        skills: Vec::new(),
        multiagent: None,
        max_subagent_depth: 0,
        mcp_servers,
        quota: None,
        thinking_level: ThinkingLevel::Off,
        channels: Value::Null,
        runtime: RuntimeKind::Native,
    };
    let id = SessionId::generate();
    SessionInfo {
        id: id.clone(),
        workspace: WorkspaceId::default_workspace(),
        agent: Arc::new(Agent {
            id: AgentId::generate(),
            workspace: WorkspaceId::default_workspace(),
            version: 1,
            spec,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            archived_at: None,
        }),
        roster: Vec::new(),
        sandbox: id,
        environment: None,
        vaults: Vec::new(),
        memories: Vec::new(),
        created_by: None,
        delegation_depth: 0,
        created_at: Timestamp(0),
    }
}

pub(crate) fn hub_with(tokens: Arc<dyn TokenSource>, config: Config) -> Hub {
    let policy = Policy {
        allow: vec!["127.0.0.1".parse().unwrap(), "127.0.0.0/8".parse().unwrap()],
    };
    let pool = Pool::new(Arc::new(NoSandbox), PoolConfig::default());
    Hub::new(Arc::new(Guard::new(policy)), tokens, pool, config)
}

/// A backend that never gives a sandbox.
struct NoSandbox;

#[async_trait]
impl Provider for NoSandbox {
    fn name(&self) -> &'static str {
        "none"
    }

    async fn attach_fitted(
        &self,
        _: &SandboxSpec,
        _: Arc<dyn oma_sandbox::fittings::Fit>,
    ) -> Result<Attached, SandboxError> {
        Err(SandboxError::TooWeak("there is none".to_owned()))
    }

    async fn reattach(&self, _: &SessionId) -> Result<Option<Attached>, SandboxError> {
        Ok(None)
    }

    fn survivors(&self) -> Vec<SessionId> {
        Vec::new()
    }

    async fn stop(&self, _: &SessionId) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn retire(&self, _: &SessionId) -> Result<bool, SandboxError> {
        Ok(true)
    }

    async fn destroy(&self, _: &SessionId) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn inventory(&self) -> Result<Vec<SessionId>, SandboxError> {
        Ok(Vec::new())
    }

    async fn workspace(&self, _: &SessionId) -> Result<Arc<dyn Workspace>, SandboxError> {
        Err(SandboxError::TooWeak("there is none".to_owned()))
    }
}

pub(crate) fn open(hub: &Hub, session: &SessionInfo) -> Result<Option<Handle>, Invalid> {
    let spec = SandboxSpec {
        session: session.id.clone(),
        workspace: session.workspace.clone(),
    };
    hub.open(session, spec)
}

pub(crate) fn hub() -> Hub {
    hub_with(Arc::new(NoTokens), Config::default())
}

pub(crate) async fn ready(hub: &Hub, servers: Value) -> Ready {
    open(hub, &session(servers)).unwrap().unwrap().ready().await
}

pub(crate) fn names(ready: &Ready) -> Vec<&str> {
    ready
        .tools
        .definitions()
        .iter()
        .map(|tool| tool.name.as_str())
        .collect()
}

/// The one trouble of a server.
async fn trouble(hub: &Hub, url: String) -> Error {
    let ready = ready(
        hub,
        json!({"s": {"url": url, "headers": {"Authorization": "Bearer canary-12345"}}}),
    )
    .await;
    let [trouble] = ready.troubles.as_slice() else {
        panic!("{:?}", ready.troubles)
    };
    assert!(ready.tools.definitions().is_empty());
    let failure = trouble.error.failure(&trouble.server);
    assert!(!failure.message.contains("canary"), "{}", failure.message);
    trouble.error.clone()
}

#[tokio::test]
async fn tools_are_listed_and_called() {
    let server = Server::start().await;
    let hub = hub();
    let handle = open(
        &hub,
        &session(json!({"my docs": {"url": server.url("/mcp"), "type": "http"}})),
    )
    .unwrap()
    .unwrap();
    let ready = handle.ready().await;
    assert!(ready.troubles.is_empty(), "{:?}", ready.troubles);
    let offered = names(&ready);
    assert_eq!(offered[..2], ["mcp__my_docs__echo", "mcp__my_docs__say_it_"]);
    assert_eq!(offered.len(), 9);
    let first = &ready.tools.definitions()[0];
    assert_eq!(first.description, "Does echo.");
    assert_eq!(first.input_schema["type"], "object");
    let outcome = ready
        .tools
        .call("mcp__my_docs__say_it_", &json!({"x": "y"}))
        .await;
    assert_eq!(
        (joined_text(&outcome.content).as_str(), outcome.is_error),
        (r#"{"x":"y"}"#, false)
    );
    let outcome = ready.tools.call("mcp__my_docs__fail", &json!({})).await;
    assert!(outcome.is_error && joined_text(&outcome.content).contains("bad input"));
    let outcome = ready.tools.call("mcp__my_docs__gone", &json!({})).await;
    assert!(outcome.is_error && joined_text(&outcome.content).contains("no tool called"));
    assert!(ready.tools.call("mcp__my_docs__echo", &json!([])).await.is_error);

    // One connection serves the whole session; it is closed with it.
    drop(handle.ready().await);
    assert_eq!(server.initialized(), 1);
    drop((ready, handle, hub));
    server.heard("DELETE").await;
}

#[tokio::test]
async fn a_changed_list_is_seen_by_the_next_request() {
    let server = Server::start().await;
    let hub = hub();
    let handle = open(&hub, &session(json!({"s": {"url": server.url("/mcp")}})))
        .unwrap()
        .unwrap();
    let before = handle.ready().await;
    assert!(!before.tools.has("mcp__s__new"));
    assert_eq!(server.times("tools/list"), 2);
    assert!(!before.tools.call("mcp__s__change", &json!({})).await.is_error);
    let after = handle.ready().await;
    assert!(after.tools.has("mcp__s__new"), "{:?}", names(&after));
    // Without a change nobody asks.
    let asked = server.times("tools/list");
    handle.ready().await;
    assert_eq!(server.times("tools/list"), asked);
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_cancelled_at_the_server() {
    let server = Server::start().await;
    let hub = hub();
    let handle = open(&hub, &session(json!({"s": {"url": server.url("/mcp")}})))
        .unwrap()
        .unwrap();
    let ready = handle.ready().await;
    let input = json!({});
    tokio::select! {
        outcome = ready.tools.call("mcp__s__hang", &input) => panic!("{outcome:?}"),
        () = server.heard("tools/call") => {}
    }
    server.heard("notifications/cancelled").await;
    // The connection goes on.
    assert!(!ready.tools.call("mcp__s__echo", &input).await.is_error);
}

#[tokio::test]
async fn calls_are_bounded() {
    let server = Server::start().await;
    let config = Config {
        call_timeout: Duration::from_millis(300),
        ..Config::default()
    };
    let hub = hub_with(Arc::new(NoTokens), config);
    let handle = open(&hub, &session(json!({"s": {"url": server.url("/mcp")}})))
        .unwrap()
        .unwrap();
    let ready = handle.ready().await;
    for tool in ["mcp__s__hang", "mcp__s__flood"] {
        let outcome = ready.tools.call(tool, &json!({})).await;
        let text = joined_text(&outcome.content);
        assert!(
            outcome.is_error && text.contains("may or may not have taken effect"),
            "{tool}: {text}"
        );
    }
    server.heard("notifications/cancelled").await;
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_anew() {
    let server = Server::start().await;
    let hub = hub();
    let handle = open(&hub, &session(json!({"s": {"url": server.url("/mcp")}})))
        .unwrap()
        .unwrap();
    let outcome = handle.ready().await.tools.call("mcp__s__die", &json!({})).await;
    let text = joined_text(&outcome.content);
    assert!(
        outcome.is_error && text.contains("may or may not have taken effect"),
        "{text}"
    );
    assert_eq!(
        server.times("tools/call"),
        1,
        "a call that may have run is not made again"
    );
    let again = handle.ready().await;
    assert!(again.troubles.is_empty(), "{:?}", again.troubles);
    assert!(!again.tools.call("mcp__s__echo", &json!({})).await.is_error);
    assert_eq!(server.initialized(), 2);
}

#[tokio::test]
async fn servers_that_are_of_no_use_are_told_of_and_harm_no_others() {
    let server = Server::start().await;
    let hub = hub();
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for (url, expected) in [
        (format!("http://{dead}/mcp"), "refused"),
        (server.url("/page"), "text/html"),
        (server.url("/garbage"), "could not parse"),
        (server.url("/error"), "go away"),
        (server.url("/loop"), "307"),
        ("http://10.0.0.1/mcp".to_owned(), "not public"),
    ] {
        let error = trouble(&hub, url.clone()).await;
        assert!(
            matches!(&error, Error::Connection(text) if text.contains(expected)),
            "{url}: {error:?}"
        );
    }
    let both = ready(
        &hub,
        json!({"down": {"url": format!("http://{dead}/")}, "up": {"url": server.url("/mcp")}}),
    )
    .await;
    assert_eq!(both.troubles.len(), 1);
    assert!(both.tools.has("mcp__up__echo"));
    assert!(open(&hub, &session(json!({}))).unwrap().is_none());
}

#[tokio::test]
async fn a_slow_server_holds_nothing_up_for_long() {
    let server = Server::start().await;
    let config = Config {
        connect_wait: Duration::from_millis(200),
        connect_timeout: Duration::from_millis(400),
        ..Config::default()
    };
    let hub = hub_with(Arc::new(NoTokens), config);
    let servers = json!({"slow": {"url": server.url("/silent")}});
    let handle = open(&hub, &session(servers)).unwrap().unwrap();
    let first = handle.ready().await;
    assert!(
        first.troubles[0].error.to_string().contains("has not finished"),
        "{:?}",
        first.troubles
    );
    let mut now = first;
    while now.troubles[0].error.to_string().contains("has not finished") {
        now = handle.ready().await;
    }
    assert!(
        now.troubles[0].error.to_string().contains("did not finish"),
        "{:?}",
        now.troubles
    );
    assert_eq!(server.times("initialize"), 1, "the next attempt waits");
}

#[tokio::test]
async fn redirects_stay_within_the_origin() {
    let (server, other) = (Server::start().await, Server::start().await);
    *server.shared.away.lock().unwrap() = other.url("/mcp");
    let hub = hub();
    let headers = json!({"X-Key": "canary-12345"});
    let moved = ready(
        &hub,
        json!({"s": {"url": server.url("/moved"), "headers": headers}}),
    )
    .await;
    assert!(moved.troubles.is_empty(), "{:?}", moved.troubles);
    assert!(!moved.tools.call("mcp__s__echo", &json!({})).await.is_error);
    let error = trouble(&hub, server.url("/away")).await;
    assert!(error.to_string().contains("another origin"), "{error}");
    assert_eq!(other.asked(), []);
}

#[tokio::test]
async fn lists_are_bounded() {
    let server = Server::start().await;
    let ready = ready(&hub(), json!({"s": {"url": server.url("/endless")}})).await;
    assert_eq!(ready.tools.definitions().len(), 256);
    assert_eq!(server.times("tools/list"), 3);
}

/// Has one token until it is refused, then another one.
struct Tokens {
    now: Mutex<Result<&'static str, &'static str>>,
    next: &'static str,
}

#[async_trait]
impl TokenSource for Tokens {
    async fn bearer_for(&self, _: &SessionInfo, _: &str) -> Result<Option<SecretString>, String> {
        let now = *self.now.lock().unwrap();
        now.map(|token| Some(token.into())).map_err(str::to_owned)
    }

    async fn refused(&self, _: &SessionInfo, _: &str, _: &SecretString) -> Result<(), String> {
        *self.now.lock().unwrap() = Ok(self.next);
        Ok(())
    }
}

#[tokio::test]
async fn tokens_are_asked_for_at_each_request_and_never_shown() {
    let server = Server::start().await;
    *server.shared.token.lock().unwrap() = "canary-fresh".to_owned();
    let tokens = |now, next| {
        let tokens = Arc::new(Tokens {
            now: Mutex::new(now),
            next,
        });
        hub_with(tokens, Config::default())
    };
    // A refused token is renewed once, and stands in the place of the agent's own header.
    let renewing = tokens(Ok("canary-stale"), "canary-fresh");
    let servers =
        json!({"s": {"url": server.url("/guarded"), "headers": {"Authorization": "Bearer canary-own"}}});
    let ready = ready(&renewing, servers).await;
    assert!(ready.troubles.is_empty(), "{:?}", ready.troubles);
    let outcome = ready.tools.call("mcp__s__leak", &json!({})).await;
    assert_eq!(
        joined_text(&outcome.content),
        "you sent Some(\"Bearer [secret]\")"
    );
    let sent: Vec<Option<String>> = server.asked().into_iter().map(|(_, token)| token).collect();
    assert_eq!(sent[0].as_deref(), Some("Bearer canary-stale"));
    assert!(
        sent[1..]
            .iter()
            .all(|token| token.as_deref() == Some("Bearer canary-fresh")),
        "{sent:?}"
    );

    let error = trouble(
        &tokens(Ok("canary-stale"), "canary-stale"),
        server.url("/guarded"),
    )
    .await;
    assert!(
        matches!(&error, Error::Authentication(text) if text.contains("401")),
        "{error:?}"
    );
    let error = trouble(
        &tokens(Err("its credential has expired"), ""),
        server.url("/guarded"),
    )
    .await;
    assert_eq!(
        error,
        Error::Authentication("its credential has expired".to_owned())
    );
    // Servers that repeat what they were sent.
    for path in ["/garbage", "/error", "/page"] {
        trouble(&tokens(Ok("canary-stale"), ""), server.url(path)).await;
    }
}

#[tokio::test]
async fn connections_without_work_are_closed() {
    let server = Server::start().await;
    let config = Config {
        max_idle: 0,
        ..Config::default()
    };
    let hub = hub_with(Arc::new(NoTokens), config);
    let info = session(json!({"s": {"url": server.url("/mcp")}}));
    let (one, two) = (
        open(&hub, &info).unwrap().unwrap(),
        open(&hub, &info).unwrap().unwrap(),
    );
    one.ready().await;
    drop(one);
    assert!(two.ready().await.troubles.is_empty());
    assert_eq!((server.initialized(), server.times("DELETE")), (1, 0));
    drop(two);
    server.heard("DELETE").await;
}

#[tokio::test]
async fn connections_that_have_been_idle_for_long_enough_are_closed() {
    let server = Server::start().await;
    let config = Config {
        idle_timeout: Duration::from_millis(100),
        ..Config::default()
    };
    let hub = hub_with(Arc::new(NoTokens), config);
    let kept = session(json!({"kept": {"url": server.url("/mcp")}}));
    let kept = open(&hub, &kept).unwrap().unwrap();
    assert!(kept.ready().await.troubles.is_empty());
    for times in 1..=2 {
        let info = session(json!({"s": {"url": server.url("/mcp")}}));
        let handle = open(&hub, &info).unwrap().unwrap();
        assert!(handle.ready().await.troubles.is_empty());
        drop(handle);
        server.heard_times("DELETE", times).await;
    }
    assert_eq!(server.times("DELETE"), 2, "one is in use");
    assert!(kept.ready().await.tools.has("mcp__kept__echo"));
}
