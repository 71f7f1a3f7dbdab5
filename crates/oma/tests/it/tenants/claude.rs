//! The same walk over the routes of the Claude dialect. There is no document of them, so the walk reads them from the
//! sources: a route that is added there is called here.

use std::collections::BTreeMap;
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
const VERBS: [&str; 10] = [
    "/archive",
    "/mcp_oauth_validate",
    "/pause",
    "/unpause",
    "/run",
    "/ack",
    "/heartbeat",
    "/stop",
    "/redact",
    "/regenerate_signing_secret",
];

fn said(text: &str) -> Value {
    json!({"type": "user.message", "content": [{"type": "text", "text": text}]})
}

/// What of ours the parts of paths name.
struct Named<'a> {
    ours: &'a Ours,
    /// A session that has a resource.
    session: String,
    /// An environment whose sessions our own workers carry out.
    hosted: String,
    file: String,
    parts: BTreeMap<&'static str, String>,
}

fn id(of: &Value) -> String {
    of["id"].as_str().expect("an id").to_owned()
}

async fn get(client: &Client, path: &str) -> Value {
    send(client, &Method::GET, path, None).await.good()
}

async fn post(client: &Client, path: &str, body: Value) -> Value {
    send(client, &Method::POST, path, Some(&body)).await.good()
}

/// Uploads one file.
async fn upload(client: &Client, path: &str, field: &str, file: &str, content: &str) -> Value {
    let head = format!("content-disposition: form-data; name=\"{field}\"; filename=\"{file}\"");
    let request = client
        .request(Method::POST, path)
        .header("anthropic-version", "2026-10-21")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(format!("--b\r\n{head}\r\n\r\n{content}\r\n--b--\r\n"));
    client.send(request).await.good()
}

impl<'a> Named<'a> {
    /// What this dialect has beside what both have.
    async fn furnish(us: &Client, ours: &'a Ours) -> Self {
        let mut parts = BTreeMap::new();
        let threads = get(us, &format!("/v1/sessions/{}/threads", ours.session)).await;
        parts.insert("{thread_id}", id(&threads["data"][0]));

        let deployment = json!({
            "name": "ours", "agent": ours.agent, "environment_id": ours.environment,
            "initial_events": [said("hello")],
        });
        let deployment = id(&post(us, "/v1/deployments", deployment).await);
        let run = post(us, &format!("/v1/deployments/{deployment}/run"), json!({})).await;
        let session = run["session_id"].as_str().expect("it opens a session");
        us.follow(session).await.until(is_end).await;
        parts.insert("{deployment_id}", deployment);
        parts.insert("{deployment_run_id}", id(&run));

        let store = id(&post(us, "/v1/memory_stores", json!({"name": "ours"})).await);
        let memories = format!("/v1/memory_stores/{store}/memories");
        let memory = post(us, &memories, json!({"path": "/a", "content": "ours"})).await;
        let version = memory["memory_version_id"].as_str().expect("an id").to_owned();
        parts.insert("{memory_store_id}", store);
        parts.insert("{memory_id}", id(&memory));
        parts.insert("{memory_version_id}", version);

        let skill = "---\nname: ours\ndescription: Does things\n---\nDo things.\n";
        let skill = upload(us, "/v1/skills", "files[]", "ours/SKILL.md", skill).await;
        parts.insert("{skill_id}", id(&skill));
        parts.insert("{version}", "latest".to_owned());

        let file = id(&upload(us, "/v1/files", "file", "ours.txt", "ours").await);
        parts.insert("{file_id}", file.clone());
        let given = json!([{"type": "file", "file_id": file}]);
        let opened = json!({"agent": ours.agent, "environment_id": ours.environment, "resources": given});
        let opened = post(us, "/v1/sessions", opened).await;
        parts.insert("{resource_id}", id(&opened["resources"][0]));

        let (hosted, work) = work(us).await;
        parts.insert("{work_id}", work);

        let hook = json!({"url": "https://hooks.example/", "enabled_events": ["deployment_run.started"]});
        let hook = post(us, "/v1/organizations/webhooks", hook).await;
        parts.insert("{webhook_endpoint_id}", id(&hook));
        Self {
            ours,
            session: id(&opened),
            hosted,
            file,
            parts,
        }
    }

    /// The path with ours in it.
    fn fill(&self, path: &str) -> String {
        let session = match path.contains("/resources") {
            true => &self.session,
            false => &self.ours.session,
        };
        let environment = match path.contains("/work") {
            true => &self.hosted,
            false => &self.ours.environment,
        };
        let filled = path
            .replace("{agent_id}", &self.ours.agent)
            .replace("{environment_id}", environment)
            .replace("{vault_id}", &self.ours.vault)
            .replace("{credential_id}", &self.ours.credential)
            .replace("{session_id}", session);
        let filled = self
            .parts
            .iter()
            .fold(filled, |path, (part, id)| path.replace(part, id));
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
            "/v1/sessions/{session_id}/resources" => json!({"type": "file", "file_id": self.file}),
            "/v1/memory_stores/{memory_store_id}" => json!({"name": "stolen"}),
            "/v1/memory_stores/{memory_store_id}/memories" => json!({"path": "/b", "content": ""}),
            "/v1/memory_stores/{memory_store_id}/memories/{memory_id}" => json!({"content": "stolen"}),
            "/v1/organizations/webhooks/{webhook_endpoint_id}" => json!({"description": "stolen"}),
            "/v1/environments/{environment_id}/work/{work_id}" => json!({"metadata": {"a": "stolen"}}),
            "/v1/sessions/{session_id}/events" => {
                json!({"events": [said("intruder")]})
            }
            path if VERBS.iter().any(|verb| path.ends_with(verb)) => json!({}),
            _ => return None,
        })
    }
}

/// An environment of our own workers, and what waits for one of them there: a tool use of a session.
async fn work(us: &Client) -> (String, String) {
    let config = json!({"name": "hosted", "config": {"type": "self_hosted"}});
    let environment = id(&post(us, "/v1/environments", config).await);
    let turns = json!({"turns": [[[{"tool": "bash", "input": {"command": "true"}}]]]});
    let agent = json!({
        "name": "hosted", "model": "scripted/script", "system": turns.to_string(),
        "tools": [{
            "type": "agent_toolset_20260401",
            "default_config": {"permission_policy": {"type": "always_allow"}},
        }],
    });
    let agent = id(&post(us, "/v1/agents", agent).await);
    let session = json!({"agent": agent, "environment_id": environment});
    let session = id(&post(us, "/v1/sessions", session).await);
    let events = format!("/v1/sessions/{session}/events");
    post(us, &events, json!({"events": [said("go")]})).await;
    let items = format!("/v1/environments/{environment}/work");
    soon("a work item", async {
        loop {
            let found = get(us, &items).await;
            let rest = get(us, &format!("/v1/sessions/{session}")).await;
            if found["data"][0]["id"].is_string() && rest["status"] == "idle" {
                return (environment, id(&found["data"][0]));
            }
        }
    })
    .await
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
                400 | 415 => assert!(body.is_none() && mutates(&method), "{what}"),
                _ => panic!("{what}"),
            }
            for id in ours.ids() {
                assert!(!answer.text().contains(id), "{id} shows: {what}");
            }
            // A worker that polls takes work, and gets a token to carry it out with.
            if mutates(&method) || path.ends_with("/work/poll") {
                let answer = send(&reader, &method, &filled, sent.as_ref()).await;
                assert_eq!(answer.status, 403, "{method} {filled}: {}", answer.text());
                forbidden += 1;
            }
        }
    }
    assert!(missing > 60 && forbidden > 40, "{missing} {forbidden}");
    // Each attempt is in the trail under a name of its own.
    let tried = stranger.get("/v1/audit?limit=1000").await.good();
    let rows = tried["events"].as_array().expect("events");
    assert!(rows.len() + 1 >= forbidden, "{} of {forbidden}", rows.len());
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
