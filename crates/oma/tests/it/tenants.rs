//! Workspaces against each other: every route of the API's own document, called with a key of another workspace and
//! with keys that may not do everything.
//!
//! The walk knows each route by name. Whoever adds one says here how it is called and what a stranger gets.

mod claude;

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::system::client::{Answer, Client};
use crate::system::{System, soon};

const TOKEN: &str = "canary-api-token-4c1d";

/// What a stranger gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stranger {
    /// What the path or the body names is not there.
    Missing,
    /// A list, of the stranger's own things only.
    Own,
    /// A list of what it has tried itself, which names what it asked for.
    Tried,
    /// Something of its own, made from nothing of ours.
    Makes,
    /// Only the operator may.
    Forbidden,
    /// The same for everybody: it is no workspace's.
    Shared,
    /// Nobody may.
    Off,
}

/// How a route is called.
struct Call {
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
    stranger: Stranger,
}

impl Call {
    fn new(path: impl Into<String>, stranger: Stranger) -> Self {
        Self {
            path: path.into(),
            headers: Vec::new(),
            body: None,
            stranger,
        }
    }

    fn json(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    async fn send(&self, client: &Client, method: &Method) -> Answer {
        let mut request = client.request(method.clone(), &self.path);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if let Some(body) = &self.body {
            request = request.json(body);
        }
        client.send(request).await
    }
}

/// One of everything in our workspace, and the agent of a stranger.
struct Ours {
    workspace: String,
    agent: String,
    environment: String,
    vault: String,
    credential: String,
    session: String,
    key: String,
    event: String,
    their_agent: String,
    their_workspace: String,
}

impl Ours {
    fn ids(&self) -> [&str; 8] {
        [
            &self.workspace,
            &self.agent,
            &self.environment,
            &self.vault,
            &self.credential,
            &self.session,
            &self.key,
            &self.event,
        ]
    }

    fn has(&self, id: &Value) -> bool {
        id.as_str().is_some_and(|id| self.ids().contains(&id))
    }

    /// Every way to name something of ours on a route; none for a route that this walk does not know.
    fn calls(&self, method: &Method, path: &str) -> Vec<Call> {
        use Stranger::{Forbidden, Makes, Missing, Off, Own, Shared, Tried};
        let Self {
            workspace,
            agent,
            environment,
            vault,
            credential,
            session,
            key,
            event,
            their_agent,
            their_workspace: _,
        } = self;
        let filled = path
            .replace("{agent_id}", agent)
            .replace("{environment_id}", environment)
            .replace("{vault_id}", vault)
            .replace("{credential_id}", credential)
            .replace("{session_id}", session)
            .replace("{key_id}", key)
            .replace("{workspace_id}", workspace)
            .replace("{checkpoint_id}", "chk_any")
            .replace("{path}", "note.txt");
        let file = format!("{filled}?session_id={session}");
        let their_file = file.replace(agent, their_agent);
        let make_agent = json!({"model": "scripted/echo"});
        match (method.as_str(), path) {
            ("GET", "/" | "/healthz" | "/readyz" | "/metrics" | "/openapi.json" | "/v1/models") => {
                vec![Call::new(path, Shared)]
            }
            // Turned off, like everywhere unless the operator says otherwise.
            ("POST", "/auth/anonymous") | ("GET", "/auth/github" | "/auth/github/callback") => {
                vec![Call::new(path, Off)]
            }
            ("GET", "/auth/me") => vec![Call::new(path, Own)],
            ("GET", "/v1/models/{model}") => vec![Call::new("/v1/models/scripted%2Fecho", Shared)],

            ("GET", "/v1/agents") => vec![
                Call::new(path, Own),
                Call::new(format!("{path}?after={agent}"), Missing),
            ],
            ("POST", "/v1/agents") => vec![Call::new(path, Makes).json(make_agent)],
            ("PATCH", "/v1/agents/{agent_id}") => {
                vec![Call::new(filled, Missing).json(json!({"version": 1, "name": "stolen"}))]
            }
            ("GET" | "DELETE", "/v1/agents/{agent_id}") => vec![Call::new(filled, Missing)],
            ("POST", "/v1/agents/{agent_id}/archive" | "/v1/agents/{agent_id}/warm") => {
                vec![Call::new(filled, Missing)]
            }
            ("GET", "/v1/agents/{agent_id}/versions") => vec![Call::new(filled, Missing)],
            ("POST", "/v1/agents/{agent_id}/run") => vec![
                Call::new(&filled, Missing).json(json!({"task": "hello"})),
                Call::new(&filled, Missing).json(json!({"task": "hello", "sessionId": session})),
                Call::new(filled.replace(agent, their_agent), Missing)
                    .json(json!({"task": "hello", "sessionId": session})),
            ],
            ("GET", "/v1/agents/{agent_id}/files") => {
                vec![Call::new(file, Missing), Call::new(their_file, Missing)]
            }
            ("GET" | "DELETE", "/v1/agents/{agent_id}/files/{path}") => {
                vec![Call::new(file, Missing), Call::new(their_file, Missing)]
            }
            ("PUT", "/v1/agents/{agent_id}/files/{path}") => vec![
                Call::new(file, Missing).json(json!("overwritten")),
                Call::new(their_file, Missing).json(json!("overwritten")),
            ],

            ("GET", "/v1/environments") => vec![
                Call::new(path, Own),
                Call::new(format!("{path}?after={environment}"), Missing),
            ],
            ("POST", "/v1/environments") => vec![Call::new(path, Makes).json(json!({"name": "e"}))],
            ("GET" | "DELETE", "/v1/environments/{environment_id}") => vec![Call::new(filled, Missing)],
            ("GET", "/v1/environments/{environment_id}/build") => vec![Call::new(filled, Missing)],

            ("GET", "/v1/vaults") => vec![
                Call::new(path, Own),
                Call::new(format!("{path}?user_id=ours"), Own),
                Call::new(format!("{path}?after={vault}"), Missing),
            ],
            ("POST", "/v1/vaults") => vec![Call::new(path, Makes).json(json!({"userId": "u"}))],
            ("GET" | "DELETE", "/v1/vaults/{vault_id}") => vec![Call::new(filled, Missing)],
            ("PATCH", "/v1/vaults/{vault_id}") => {
                vec![Call::new(filled, Missing).json(json!({"name": "stolen"}))]
            }
            ("GET", "/v1/vaults/{vault_id}/credentials") => vec![
                Call::new(&filled, Missing),
                Call::new(format!("{filled}?after={credential}"), Missing),
            ],
            ("POST", "/v1/vaults/{vault_id}/credentials") => {
                vec![Call::new(filled, Missing).json(bearer())]
            }
            ("GET" | "DELETE", "/v1/vaults/{vault_id}/credentials/{credential_id}") => {
                vec![Call::new(filled, Missing)]
            }
            ("PATCH", "/v1/vaults/{vault_id}/credentials/{credential_id}") => {
                vec![Call::new(filled, Missing).json(json!({"token": "stolen"}))]
            }

            ("GET", "/v1/sessions") => vec![
                Call::new(path, Own),
                Call::new(format!("{path}?agent_id={agent}"), Own),
                Call::new(format!("{path}?after={session}"), Missing),
            ],
            ("POST", "/v1/sessions") => vec![
                Call::new(path, Missing).json(json!({"agentId": agent})),
                Call::new(path, Missing).json(json!({"agentId": their_agent, "environmentId": environment})),
                Call::new(path, Missing).json(json!({"agentId": their_agent, "vaultId": vault})),
            ],
            ("GET" | "DELETE", "/v1/sessions/{session_id}") => vec![Call::new(filled, Missing)],
            (
                "POST",
                "/v1/sessions/{session_id}/cancel"
                | "/v1/sessions/{session_id}/compact"
                | "/v1/sessions/{session_id}/parent_token",
            ) => {
                vec![Call::new(filled, Missing)]
            }
            ("GET" | "POST", "/v1/sessions/{session_id}/checkpoints")
            | ("GET" | "DELETE", "/v1/sessions/{session_id}/checkpoints/{checkpoint_id}") => {
                vec![Call::new(filled, Missing)]
            }
            ("POST", "/v1/sessions/{session_id}/restore") => {
                vec![Call::new(filled, Missing).json(json!({"checkpointId": "chk_any"}))]
            }
            ("GET", "/v1/sessions/{session_id}/logs") => vec![Call::new(filled, Missing)],
            ("GET", "/v1/sessions/{session_id}/events") => vec![
                Call::new(&filled, Missing),
                Call::new(format!("{filled}?after={event}"), Missing),
                Call::new(format!("{filled}?stream=true"), Missing),
            ],
            ("POST", "/v1/sessions/{session_id}/events") => {
                vec![Call::new(filled, Missing).json(json!({"content": "intruder"}))]
            }

            ("GET", "/v1/workspaces") => vec![
                Call::new(path, Own),
                Call::new(format!("{path}?after={workspace}"), Missing),
            ],
            ("POST", "/v1/workspaces") => vec![Call::new(path, Forbidden).json(json!({"name": "w"}))],
            ("GET", "/v1/workspaces/{workspace_id}") => vec![Call::new(filled, Missing)],
            ("PATCH", "/v1/workspaces/{workspace_id}") => {
                vec![Call::new(filled, Forbidden).json(json!({"maxTokensPerMonth": 1}))]
            }

            ("GET", "/v1/usage") => vec![Call::new(path, Own)],

            ("GET", "/v1/audit") => vec![
                Call::new(path, Tried),
                Call::new(format!("{path}?target={agent}"), Tried),
                Call::new(format!("{path}?workspace_id={workspace}"), Missing),
            ],

            ("GET", "/v1/keys") => vec![
                Call::new(path, Own),
                Call::new(format!("{path}?workspace_id={workspace}"), Missing),
                Call::new(format!("{path}?after={key}"), Missing),
            ],
            ("POST", "/v1/keys") => vec![
                Call::new(path, Makes).json(json!({"name": "k", "scope": "read"})),
                Call::new(path, Missing)
                    .json(json!({"name": "k", "scope": "read", "workspaceId": workspace})),
            ],
            ("GET" | "DELETE", "/v1/keys/{key_id}") => vec![
                Call::new(&filled, Missing),
                Call::new(format!("{filled}?workspace_id={workspace}"), Missing),
            ],
            ("PATCH", "/v1/keys/{key_id}") => vec![
                Call::new(&filled, Missing).json(json!({"maxTokensPerMonth": 1})),
                Call::new(format!("{filled}?workspace_id={workspace}"), Missing)
                    .json(json!({"maxTokensPerMonth": 1})),
            ],
            ("POST", "/v1/keys/{key_id}/rotate") => vec![
                Call::new(&filled, Missing),
                Call::new(format!("{filled}?workspace_id={workspace}"), Missing),
            ],

            ("POST", "/v1/chat/completions") => {
                let body =
                    json!({"model": "scripted/echo", "messages": [{"role": "user", "content": "hello"}]});
                vec![
                    Call::new(path, Missing)
                        .json(body.clone())
                        .header("x-openclaw-agent-id", agent),
                    Call::new(path, Makes)
                        .json(body)
                        .header("x-openclaw-agent-id", their_agent)
                        .header("x-openclaw-session-key", session),
                ]
            }
            _ => Vec::new(),
        }
    }
}

/// A credential to add.
fn bearer() -> Value {
    json!({"type": "static_bearer", "name": "c", "matchUrl": "https://mcp.example/", "token": "t"})
}

/// The operations of the API's document.
async fn operations(client: &Client) -> Vec<(Method, String)> {
    let document = client.get("/openapi.json").await.good();
    let mut found = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for method in operations.as_object().expect("operations").keys() {
            let name = method.to_uppercase();
            if ["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS"].contains(&name.as_str()) {
                let method = Method::from_bytes(name.as_bytes()).expect("a method");
                found.push((method, path.clone()));
            }
        }
    }
    found
}

fn mutates(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

pub(crate) async fn workspace(operator: &Client, name: &str) -> String {
    let made = operator
        .post("/v1/workspaces", &json!({ "name": name }))
        .await
        .good();
    made["workspace_id"].as_str().expect("an id").to_owned()
}

/// Makes a key and gives its id and a client that holds it.
pub(crate) async fn key(operator: &Client, body: &Value) -> (String, Client) {
    let made = operator.post("/v1/keys", body).await.good();
    let text = |field: &str| made[field].as_str().expect("text").to_owned();
    (text("key_id"), Client::new(operator.url(), Some(&text("secret"))))
}

async fn furnish(operator: &Client) -> (Ours, Client) {
    let (our, their) = (
        workspace(operator, "ours").await,
        workspace(operator, "theirs").await,
    );
    let admin = |workspace: &str| json!({"name": "admin", "scope": "admin", "workspaceId": workspace});
    let (_, us) = key(operator, &admin(&our)).await;
    let (_, them) = key(operator, &admin(&their)).await;
    let agent = us.agent(json!({"model": "scripted/echo"})).await;
    let environment = us.post("/v1/environments", &json!({"name": "e"})).await.good();
    let environment = environment["environment_id"].as_str().expect("an id").to_owned();
    let text = |made: &Value, field: &str| made[field].as_str().expect("an id").to_owned();
    let vault = us.post("/v1/vaults", &json!({"userId": "ours"})).await.good();
    let vault = text(&vault, "vault_id");
    let path = format!("/v1/vaults/{vault}/credentials");
    let credential = text(&us.post(&path, &bearer()).await.good(), "credential_id");
    let body = json!({"agentId": agent, "environmentId": environment, "vaultId": vault});
    let session = us.post("/v1/sessions", &body).await.good();
    let session = session["session_id"].as_str().expect("an id").to_owned();
    let path = format!("/v1/agents/{agent}/files/note.txt?session_id={session}");
    us.put(&path, "ours").await.good();
    let (key, _) = key(&us, &json!({"name": "k", "scope": "read"})).await;
    let posted = us
        .post(
            &format!("/v1/sessions/{session}/events"),
            &json!({"content": "hello"}),
        )
        .await
        .good();
    let mut frames = us.follow(&session).await;
    frames.until(crate::system::client::is_end).await;
    let ours = Ours {
        workspace: our,
        agent,
        environment,
        vault,
        credential,
        session,
        key,
        event: posted["event_id"].as_str().expect("an id").to_owned(),
        their_agent: them.agent(json!({"model": "scripted/echo"})).await,
        their_workspace: their,
    };
    (ours, us)
}

/// What of ours a stranger could have changed.
async fn state(us: &Client, ours: &Ours) -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    for (name, path) in [
        ("agent", format!("/v1/agents/{}", ours.agent)),
        ("environment", format!("/v1/environments/{}", ours.environment)),
        ("vault", format!("/v1/vaults/{}", ours.vault)),
        ("credentials", format!("/v1/vaults/{}/credentials", ours.vault)),
        ("session", format!("/v1/sessions/{}", ours.session)),
        ("events", format!("/v1/sessions/{}/events", ours.session)),
        ("key", format!("/v1/keys/{}", ours.key)),
        (
            "file",
            format!(
                "/v1/agents/{}/files/note.txt?session_id={}",
                ours.agent, ours.session
            ),
        ),
        ("agents", "/v1/agents".to_owned()),
        ("environments", "/v1/environments".to_owned()),
        ("sessions", "/v1/sessions".to_owned()),
    ] {
        let answer = us.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        found.insert(name, answer.text());
    }
    let keys = us.get("/v1/keys").await.good();
    found.insert("keys", keys["count"].to_string());
    found
}

#[tokio::test]
async fn every_route_keeps_workspaces_apart() {
    let system = System::start_with(|options| options.token(TOKEN)).await;
    let operator = system.client();
    let (ours, us) = furnish(operator).await;
    let (_, stranger) = key(
        operator,
        &json!({"name": "stranger", "scope": "admin", "workspaceId": ours.their_workspace}),
    )
    .await;
    let before = state(&us, &ours).await;
    let mut refused = 0;
    for (method, path) in operations(operator).await {
        let calls = ours.calls(&method, &path);
        assert!(
            !calls.is_empty(),
            "this walk does not know how to call {method} {path}: tell it"
        );
        for call in calls {
            let answer = soon("an answer", call.send(&stranger, &method)).await;
            let what = format!(
                "{method} {} {:?}: {} {}",
                call.path,
                call.body,
                answer.status,
                answer.text()
            );
            let cursor = call.path.contains("after=") && answer.status == 400;
            match call.stranger {
                // A cursor that names nothing of the caller's is a bad cursor.
                Stranger::Missing => {
                    assert!(answer.status == 404 || cursor, "{what}");
                    refused += 1;
                }
                Stranger::Own | Stranger::Tried | Stranger::Makes | Stranger::Shared => {
                    assert_eq!(answer.status, 200, "{what}")
                }
                Stranger::Forbidden => assert_eq!(answer.status, 403, "{what}"),
                Stranger::Off => assert_eq!(answer.status, 501, "{what}"),
            }
            if call.stranger == Stranger::Tried {
                let body = answer.good();
                let rows = body["events"].as_array().expect("a list");
                assert!(
                    rows.iter()
                        .all(|row| row["outcome"] != "ok" || !ours.has(&row["target"])),
                    "{what}"
                );
                continue;
            }
            for id in ours.ids() {
                assert!(!answer.text().contains(id), "{id} shows: {what}");
            }
        }
    }
    assert!(refused > 30, "{refused}");
    assert_eq!(
        state(&us, &ours).await,
        before,
        "a stranger changed something of ours"
    );
    system.stop().await;
}

#[tokio::test]
async fn a_key_that_reads_changes_nothing_on_any_route() {
    let system = System::start_with(|options| options.token(TOKEN)).await;
    let operator = system.client();
    let (ours, us) = furnish(operator).await;
    let (_, reader) = key(&us, &json!({"name": "reader", "scope": "read"})).await;
    let before = state(&us, &ours).await;
    let mut mutations = 0;
    for (method, path) in operations(operator).await {
        let calls = ours.calls(&method, &path);
        assert!(
            !calls.is_empty(),
            "this walk does not know how to call {method} {path}: tell it"
        );
        // What is open to everybody, or to nobody, asks for no key.
        let keyed = |call: &&Call| call.stranger != Stranger::Off;
        for call in calls.iter().filter(keyed).filter(|_| mutates(&method)) {
            mutations += 1;
            let answer = call.send(&reader, &method).await;
            assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text());
        }
    }
    assert!(mutations > 15, "{mutations}");
    let sessions = reader.get("/v1/sessions").await.good();
    assert_eq!(sessions["count"], 1, "it may look at everything");
    assert_eq!(state(&us, &ours).await, before);
    system.stop().await;
}

/// Keys of sessions are the clients' own words, so two workspaces will choose the same one.
#[tokio::test]
async fn the_same_session_key_in_two_workspaces_is_two_sessions() {
    let system = System::start_with(|options| options.token(TOKEN)).await;
    let operator = system.client();
    let mut clients = vec![operator.clone()];
    for name in ["one", "two"] {
        let workspace = workspace(operator, name).await;
        let admin = json!({"name": "admin", "scope": "admin", "workspaceId": workspace});
        clients.push(key(operator, &admin).await.1);
    }
    let mut ids: Vec<String> = Vec::new();
    for (number, client) in clients.iter().enumerate() {
        let agent = client.agent(json!({"model": "scripted/echo"})).await;
        let mut named = Vec::new();
        for said in ["first", "second"] {
            let body = json!({"user": "user-1", "messages": [{"role": "user", "content": format!("{said} {number}")}]});
            let request = client
                .request(Method::POST, "/v1/chat/completions")
                .header("x-openclaw-agent-id", &agent)
                .json(&body);
            let answer = client.send(request).await;
            assert_eq!(answer.status, 200, "{number}: {}", answer.text());
            named.push(answer.header("x-openclaw-session-id").expect("named").to_owned());
        }
        assert_eq!(named[0], named[1], "the session is kept");
        ids.push(named.swap_remove(0));
        let file = format!("/v1/agents/{agent}/files/note.txt?session_id={}", ids[number]);
        client.put(&file, format!("of {number}")).await.good();
        assert_eq!(client.get(&file).await.text(), format!("of {number}"));
    }
    assert_eq!(ids[0], "user-1", "in the default workspace the key is the id");
    for (number, client) in clients.iter().enumerate() {
        let session = client.get(&format!("/v1/sessions/{}", ids[number])).await.good();
        assert_eq!(
            (&session["turns"], &session["output"]),
            (&json!(2), &json!(format!("second {number}")))
        );
        for other in ids.iter().filter(|id| **id != ids[number]) {
            let path = format!("/v1/sessions/{other}");
            assert_eq!(client.get(&path).await.status, 404);
            assert_eq!(client.delete(&path).await.status, 404);
        }
    }
    // In the default workspace nobody can take an id that the server may give to somebody else.
    let agent = operator.agent(json!({"model": "scripted/echo"})).await;
    let request = operator
        .request(Method::POST, "/v1/chat/completions")
        .header("x-openclaw-agent-id", &agent)
        .header("x-openclaw-session-key", &ids[1])
        .json(&json!({"messages": [{"role": "user", "content": "mine?"}]}));
    let answer = operator.send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_ne!(answer.header("x-openclaw-session-id"), Some(ids[1].as_str()));
    system.stop().await;
}
