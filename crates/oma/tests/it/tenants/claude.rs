//! The same walk over the routes of the Claude dialect. There is no document of them, so the walk reads them from the
//! sources: a route that is added there is called here.

use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Value, json};

use super::{Ours, TOKEN, bearer, furnish, key, mutates, state};
use crate::system::client::{Answer, Client, is_end};
use crate::system::{System, soon};

/// Every route of the dialect, and the methods that it takes.
fn routes() -> Vec<(String, Vec<Method>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/src/dialects/claude");
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).expect("a source");
                // What stands before the first of them is no route.
                found.extend(text.split(".route(").skip(1).map(route));
            }
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

/// Reads what stands in the parentheses of `.route(…)`.
fn route(text: &str) -> (String, Vec<Method>) {
    let mut depth = 1;
    let end = text.find(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    let inside = &text[..end.expect("it is closed")];
    let mut parts = inside.splitn(3, '"');
    let before = parts.next().expect("a start");
    assert!(
        before.trim().is_empty(),
        "a route without a literal path: {inside}"
    );
    let path = parts.next().expect("a path").to_owned();
    let handlers = parts.next().expect("handlers");
    let methods: Vec<Method> = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ]
    .into_iter()
    .filter(|method| {
        let call = format!("{}(", method.as_str().to_lowercase());
        let mut starts = handlers.match_indices(&call);
        starts.any(|(at, _)| !handlers[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
    })
    .collect();
    assert!(!methods.is_empty(), "{path}: {handlers}");
    (path, methods)
}

#[test]
fn routes_are_read_from_the_sources() {
    let found = routes();
    let methods = |path: &str| {
        let route = found.iter().find(|(found, _)| found == path);
        let (_, methods) = route.unwrap_or_else(|| panic!("{path} of {found:?}"));
        methods.iter().map(Method::as_str).collect::<Vec<_>>()
    };
    assert_eq!(methods("/v1/vaults"), ["GET", "POST"]);
    assert_eq!(methods("/v1/vaults/{vault_id}"), ["GET", "POST", "DELETE"]);
    assert_eq!(methods("/v1/vaults/{vault_id}/archive"), ["POST"]);
    assert!(found.len() >= 20, "{found:?}");
}

/// The ends of paths that take no body.
const VERBS: [&str; 5] = ["/archive", "/mcp_oauth_validate", "/pause", "/unpause", "/run"];

fn said(text: &str) -> Value {
    json!({"type": "user.message", "content": [{"type": "text", "text": text}]})
}

/// What of ours the parts of paths name.
struct Named<'a> {
    ours: &'a Ours,
    thread: String,
    deployment: String,
    run: String,
}

fn id(of: &Value) -> String {
    of["id"].as_str().expect("an id").to_owned()
}

impl<'a> Named<'a> {
    /// What this dialect has beside what both have.
    async fn furnish(us: &Client, ours: &'a Ours) -> Self {
        let threads = format!("/v1/sessions/{}/threads", ours.session);
        let threads = send(us, &Method::GET, &threads, None).await.good();
        let deployment = json!({
            "name": "ours", "agent": ours.agent, "environment_id": ours.environment,
            "initial_events": [said("hello")],
        });
        let deployment = send(us, &Method::POST, "/v1/deployments", Some(&deployment)).await;
        let deployment = id(&deployment.good());
        let run = format!("/v1/deployments/{deployment}/run");
        let run = send(us, &Method::POST, &run, Some(&json!({}))).await.good();
        let session = run["session_id"].as_str().expect("it opens a session");
        us.follow(session).await.until(is_end).await;
        Self {
            ours,
            thread: id(&threads["data"][0]),
            deployment,
            run: id(&run),
        }
    }

    /// The path with ours in it.
    fn fill(&self, path: &str) -> String {
        let filled = path
            .replace("{agent_id}", &self.ours.agent)
            .replace("{environment_id}", &self.ours.environment)
            .replace("{vault_id}", &self.ours.vault)
            .replace("{credential_id}", &self.ours.credential)
            .replace("{session_id}", &self.ours.session)
            .replace("{thread_id}", &self.thread)
            .replace("{deployment_id}", &self.deployment)
            .replace("{deployment_run_id}", &self.run);
        assert!(
            !filled.contains('{'),
            "{filled}: this walk has nothing of ours for that; make one, and name it here"
        );
        filled
    }

    /// What is sent there; nothing where any body is refused before anything is looked for.
    fn body(&self, path: &str) -> Option<Value> {
        let Ours {
            agent,
            environment,
            vault,
            ..
        } = self.ours;
        Some(match path {
            "/v1/sessions" => {
                json!({"agent": agent, "environment_id": environment, "vault_ids": [vault]})
            }
            "/v1/deployments" => {
                json!({"name": "n", "agent": agent, "environment_id": environment, "initial_events": [said("x")]})
            }
            "/v1/agents/{agent_id}"
            | "/v1/environments/{environment_id}"
            | "/v1/deployments/{deployment_id}" => json!({"name": "stolen"}),
            "/v1/vaults/{vault_id}" => json!({"display_name": "stolen"}),
            "/v1/vaults/{vault_id}/credentials" => {
                let body = bearer();
                json!({"auth": {"type": body["type"], "mcp_server_url": body["matchUrl"], "token": "stolen"}})
            }
            "/v1/vaults/{vault_id}/credentials/{credential_id}" => {
                json!({"auth": {"type": "static_bearer", "token": "stolen"}})
            }
            "/v1/sessions/{session_id}" => json!({"title": "stolen"}),
            "/v1/sessions/{session_id}/events" => {
                json!({"events": [said("intruder")]})
            }
            path if VERBS.iter().any(|verb| path.ends_with(verb)) => json!({}),
            _ => return None,
        })
    }
}

async fn send(client: &Client, method: &Method, path: &str, body: Option<&Value>) -> Answer {
    let mut request = client
        .request(method.clone(), path)
        .header("anthropic-version", "2026-10-21");
    if let Some(body) = body {
        request = request.json(body);
    }
    soon("an answer", client.send(request)).await
}

#[tokio::test]
async fn every_route_of_the_claude_dialect_keeps_workspaces_and_scopes_apart() {
    let system = System::start_with(|options| options.token(TOKEN)).await;
    let operator = system.client();
    let (ours, us) = furnish(operator).await;
    let admin = json!({"name": "stranger", "scope": "admin", "workspaceId": ours.their_workspace});
    let (_, stranger) = key(operator, &admin).await;
    let (_, reader) = key(&us, &json!({"name": "reader", "scope": "read"})).await;
    let named = Named::furnish(&us, &ours).await;
    let before = state(&us, &ours).await;
    let (mut missing, mut forbidden) = (0, 0);
    for (path, methods) in routes() {
        let filled = named.fill(&path);
        for method in methods {
            let body = named.body(&path);
            let sent = mutates(&method).then(|| body.clone().unwrap_or_else(|| json!({})));
            let answer = send(&stranger, &method, &filled, sent.as_ref()).await;
            let what = format!("{method} {filled}: {} {}", answer.status, answer.text());
            let names_ours = filled != path || body.is_some() && mutates(&method);
            match answer.status {
                404 if names_ours => missing += 1,
                // A list of the stranger's own things, or a body that says too little to make one.
                200 => assert!(!names_ours && !mutates(&method), "{what}"),
                400 => assert!(body.is_none() && mutates(&method), "{what}"),
                _ => panic!("{what}"),
            }
            for id in ours.ids() {
                assert!(!answer.text().contains(id), "{id} shows: {what}");
            }
            if mutates(&method) {
                let answer = send(&reader, &method, &filled, sent.as_ref()).await;
                assert_eq!(answer.status, 403, "{method} {filled}: {}", answer.text());
                forbidden += 1;
            }
        }
    }
    assert!(missing > 20 && forbidden > 15, "{missing} {forbidden}");
    // Each attempt is in the trail under a name of its own.
    let tried = stranger.get("/v1/audit?limit=1000").await.good();
    let rows = tried["events"].as_array().expect("events");
    assert!(rows.len() >= forbidden, "{} of {forbidden}", rows.len());
    let nameless = rows.iter().find(|row| row["action"] == "unknown");
    assert_eq!(
        nameless, None,
        "name the action of this route in audit/actions.rs"
    );
    assert_eq!(
        state(&us, &ours).await,
        before,
        "somebody changed something of ours"
    );
    system.stop().await;
}
