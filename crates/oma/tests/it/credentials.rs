//! Tokens of vaults on their way to an MCP server: over the real binary, with an issuer that rotates refresh
//! tokens, and with kills around each refresh. That none of them shows anywhere is what `system::canary` sees to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::system::client::{Chat, is_end, said};
use crate::system::{Server, System};

const MODEL: &str = "anthropic/claude-sonnet-4-5";
const BEARER: &str = "canary-bearer-0a4e";
const SECRET: &str = "canary-client-secret-77d1";

fn access(generation: u64) -> String {
    format!("canary-access-{generation}-e5")
}

fn refresh(generation: u64) -> String {
    format!("canary-refresh-{generation}-b2")
}

/// The generation of a pair of tokens that a token belongs to.
fn generation(token: &str, kind: &str) -> Option<u64> {
    let number = token.strip_prefix(&format!("canary-{kind}-"))?;
    number.split_once('-')?.0.parse().ok()
}

/// An issuer and the MCP server that takes its tokens.
#[derive(Clone)]
struct Upstream {
    port: u16,
    state: Arc<Mutex<Issued>>,
    /// How many refreshes were asked for.
    refreshes: watch::Sender<u64>,
}

#[derive(Default)]
struct Issued {
    /// The pair that was issued last.
    last: u64,
    /// The latest pair of which anything was presented. A client that has it has stored it.
    seen: u64,
    calls: u64,
    wrong: Vec<String>,
}

impl Issued {
    /// Whether a token may be presented: nobody goes back behind what they have had, as after losing it.
    fn takes(&mut self, what: &str, presented: Option<u64>) -> bool {
        match presented {
            Some(one) if (self.seen..=self.last).contains(&one) => {
                self.seen = one;
                true
            }
            other => {
                self.wrong
                    .push(format!("{what} {other:?}, of {}, {} seen", self.last, self.seen));
                false
            }
        }
    }
}

impl Upstream {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let upstream = Self {
            port,
            state: Arc::default(),
            refreshes: watch::Sender::new(0),
        };
        let router = Router::new()
            .route("/token", post(issue))
            .route("/mcp", post(serve))
            .with_state(upstream.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        upstream
    }

    fn state(&self) -> MutexGuard<'_, Issued> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn system(&self) -> System {
        let allowed = format!("127.0.0.1:{}", self.port);
        System::start_with(|options| {
            options
                .set("OPENCLAW_DIAL_ALLOW", &allowed)
                .set("OPENCLAW_LOG_LEVEL", "trace")
                .set("OPENCLAW_MCP_CONNECT_WAIT_MS", "60000")
        })
        .await
    }

    /// A session whose vault has this credential for the server.
    async fn session(&self, system: &System, credential: Value) -> Chat {
        let client = system.client();
        let vault = json!({"userId": "u", "name": "v"});
        let vault = client.post("/v1/vaults", &vault).await.good()["vault_id"].clone();
        let path = format!("/v1/vaults/{}/credentials", vault.as_str().expect("an id"));
        client.post(&path, &credential).await.good();
        let agent = json!({"model": MODEL, "mcpServers": {"s": {"url": self.url("/mcp")}}});
        let agent = client.agent(agent).await;
        let session = json!({"agentId": agent, "vaultId": vault});
        let session = client.post("/v1/sessions", &session).await.good();
        Chat {
            client: client.clone(),
            agent,
            session: session["session_id"].as_str().expect("an id").to_owned(),
        }
    }
}

async fn issue(State(upstream): State<Upstream>, body: String) -> Response {
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect();
    let presented = generation(&form["refresh_token"], "refresh");
    let answer = {
        let mut state = upstream.state();
        if state.takes("a refresh token", presented) {
            state.last += 1;
            // Good for so short that each use comes with a refresh.
            json!({"access_token": access(state.last), "refresh_token": refresh(state.last), "expires_in": 1})
                .to_string()
                .into_response()
        } else {
            (StatusCode::BAD_REQUEST, r#"{"error":"invalid_grant"}"#).into_response()
        }
    };
    upstream.refreshes.send_modify(|count| *count += 1);
    answer
}

/// An MCP server with one tool, which repeats the token that it was called with.
async fn serve(State(upstream): State<Upstream>, headers: HeaderMap, body: String) -> Response {
    let presented = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .unwrap_or_default()
        .to_owned();
    let mut state = upstream.state();
    if presented != BEARER && !state.takes("an access token", generation(&presented, "access")) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let message: Value = serde_json::from_str(&body).unwrap_or_default();
    let result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => json!({
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "guarded", "version": "1"},
        }),
        "tools/list" => json!({"tools": [
            {"name": "whoami", "description": "Says who calls.", "inputSchema": {"type": "object"}},
        ]}),
        "tools/call" => {
            state.calls += 1;
            json!({"content": [{"type": "text", "text": format!("called with {presented}")}]})
        }
        _ => return StatusCode::ACCEPTED.into_response(),
    };
    axum::Json(json!({"jsonrpc": "2.0", "id": message["id"], "result": result})).into_response()
}

fn script() -> Value {
    json!([{"tool": "mcp__s__whoami", "input": {}}, {"text": "heard: {{last_tool_result}}"}])
}

#[tokio::test]
async fn a_token_gets_to_its_server_and_nowhere_else() {
    let upstream = Upstream::start().await;
    let system = upstream.system().await;
    let url = upstream.url("/");
    let fixed = json!({"type": "static_bearer", "name": "n", "matchUrl": url, "token": BEARER});
    let chat = upstream.session(&system, fixed).await;
    // The tool's result, which repeats the token, is masked; so is what the model makes of it.
    let events = chat.turn(&script()).await;
    let result = events.iter().find(|event| event["type"] == "agent.tool_result");
    let result = result.expect("a result")["content"].as_str().expect("text");
    assert!(
        result.starts_with("called with ") && result.len() > 12,
        "{result}"
    );
    assert!(said(&events).starts_with("heard: called with"), "{events:?}");
    chat.run("env; cat /proc/*/environ; echo $$ > pid; sleep 600 &")
        .await;
    assert_eq!(upstream.state().calls, 1);
    let trail = system.client().get("/v1/audit?limit=1000").await.good();
    assert!(trail["count"].as_u64() >= Some(4), "{trail}");
    system.stop().await;
}

/// Follows a session until its turns are over.
async fn rests(server: &Server, chat: &Chat) {
    let mut frames = server.client.follow(&chat.session).await;
    let mut turns = 0;
    while turns
        < chat.at(&server.client).read().await["turns"]
            .as_u64()
            .expect("a number")
    {
        frames.until(is_end).await;
        turns += 1;
    }
}

#[tokio::test]
async fn a_kill_around_a_refresh_costs_no_token_and_wedges_nobody() {
    let upstream = Upstream::start().await;
    let mut system = upstream.system().await;
    let credential = json!({
        "type": "mcp_oauth", "name": "n", "matchUrl": upstream.url("/mcp"), "accessToken": access(0),
        "refreshToken": refresh(0), "clientSecret": SECRET, "clientId": "c",
        "tokenEndpoint": upstream.url("/token"), "expiresAt": 1,
    });
    let chat = upstream.session(&system, credential).await;
    for kill in 0..8 {
        let begun = *upstream.refreshes.borrow();
        chat.at(system.client()).play(&script()).await;
        let mut refreshes = upstream.refreshes.subscribe();
        // A turn over connections that are there already has one refresh only.
        let further = begun + 1 + kill % 4;
        tokio::select! {
            seen = refreshes.wait_for(|count| *count >= further) => drop(seen.expect("it is there")),
            () = rests(&system.server, &chat) => {}
        }
        system = system.crash().await;
        rests(&system.server, &chat).await;
    }
    let events = chat.at(system.client()).turn(&script()).await;
    assert!(said(&events).starts_with("heard: called with"), "{events:?}");
    assert!(upstream.state().wrong.is_empty(), "{:?}", upstream.state().wrong);
    system.stop().await;
}
