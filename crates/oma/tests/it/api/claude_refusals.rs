//! Bad input on every route of the Claude dialect, which is described by Anthropic's documents and not by ours.

use reqwest::Method;
use serde_json::{Value, json};

use crate::system::System;
use crate::system::client::{Answer, Client};

/// The routes that take JSON.
const BODIES: [&str; 23] = [
    "/v1/agents",
    "/v1/agents/{agent}",
    "/v1/deployments",
    "/v1/deployments/{deployment}",
    "/v1/environments",
    "/v1/environments/{environment}",
    "/v1/environments/{environment}/work/{none}",
    "/v1/files",
    "/v1/memory_stores",
    "/v1/memory_stores/{store}",
    "/v1/memory_stores/{store}/memories",
    "/v1/memory_stores/{store}/memories/{none}",
    "/v1/organizations/webhooks",
    "/v1/organizations/webhooks/{none}",
    "/v1/sessions",
    "/v1/sessions/{session}",
    "/v1/sessions/{session}/events",
    "/v1/sessions/{session}/resources",
    "/v1/skills",
    "/v1/vaults",
    "/v1/vaults/{vault}",
    "/v1/vaults/{vault}/credentials",
    "/v1/vaults/{vault}/credentials/{none}",
];

/// Routes whose path names something; those of [`BODIES`] come besides.
const NAMING: [(&str, &str); 39] = [
    ("GET", "/v1/agents/{agent}"),
    ("GET", "/v1/agents/{agent}/versions"),
    ("POST", "/v1/agents/{agent}/archive"),
    ("DELETE", "/v1/agents/{agent}"),
    ("GET", "/v1/deployments/{deployment}"),
    ("POST", "/v1/deployments/{deployment}/archive"),
    ("POST", "/v1/deployments/{deployment}/pause"),
    ("POST", "/v1/deployments/{deployment}/unpause"),
    ("POST", "/v1/deployments/{deployment}/run"),
    ("GET", "/v1/deployment_runs/{none}"),
    ("GET", "/v1/environments/{environment}"),
    ("POST", "/v1/environments/{environment}/archive"),
    ("DELETE", "/v1/environments/{environment}"),
    ("GET", "/v1/environments/{environment}/work"),
    ("GET", "/v1/environments/{environment}/work/{none}"),
    ("GET", "/v1/files/{none}"),
    ("GET", "/v1/files/{none}/content"),
    ("DELETE", "/v1/files/{none}"),
    ("GET", "/v1/memory_stores/{store}"),
    ("POST", "/v1/memory_stores/{store}/archive"),
    ("DELETE", "/v1/memory_stores/{store}"),
    ("GET", "/v1/memory_stores/{store}/memories/{none}"),
    ("GET", "/v1/memory_stores/{store}/memory_versions/{none}"),
    ("GET", "/v1/organizations/webhooks/{none}"),
    ("DELETE", "/v1/organizations/webhooks/{none}"),
    ("GET", "/v1/sessions/{session}"),
    ("GET", "/v1/sessions/{session}/events"),
    ("POST", "/v1/sessions/{session}/archive"),
    ("DELETE", "/v1/sessions/{session}"),
    ("GET", "/v1/sessions/{session}/resources/{none}"),
    ("GET", "/v1/sessions/{session}/threads/{none}"),
    ("GET", "/v1/sessions/{session}/threads/{none}/events"),
    ("POST", "/v1/sessions/{session}/threads/{none}/archive"),
    ("GET", "/v1/skills/{none}"),
    ("DELETE", "/v1/skills/{none}"),
    ("GET", "/v1/vaults/{vault}"),
    ("POST", "/v1/vaults/{vault}/archive"),
    ("DELETE", "/v1/vaults/{vault}"),
    ("GET", "/v1/vaults/{vault}/credentials/{none}"),
];

/// The lists.
const LISTS: [&str; 9] = [
    "/v1/agents",
    "/v1/deployments",
    "/v1/environments",
    "/v1/files",
    "/v1/memory_stores",
    "/v1/sessions",
    "/v1/sessions/{session}/events",
    "/v1/vaults",
    "/v1/vaults/{vault}/credentials",
];

async fn call(client: &Client, method: &str, path: &str, body: Option<&[u8]>) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let mut request = client
        .request(method, path)
        .header("anthropic-version", "2023-06-01")
        .header("content-type", "application/json");
    if let Some(body) = body {
        request = request.body(body.to_vec());
    }
    client.send(request).await
}

/// Whether it refuses in this dialect's own shape, and says why.
fn refuses(answer: &Answer) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else {
        return false;
    };
    let said = body["error"]["message"].as_str();
    let whole = body["type"] == "error" && said.is_some_and(|message| !message.is_empty());
    let kind = match answer.status {
        400 => "invalid_request_error",
        404 => "not_found_error",
        _ => return false,
    };
    whole && body["error"]["type"] == kind
}

/// One of everything, by the name that the paths above have for it.
async fn things(client: &Client) -> Vec<(&'static str, String)> {
    let mut made: Vec<(&'static str, String)> = vec![("{none}", "none_1".to_owned())];
    for (name, path) in [
        ("{agent}", "/v1/agents"),
        ("{environment}", "/v1/environments"),
        ("{session}", "/v1/sessions"),
        ("{vault}", "/v1/vaults"),
        ("{store}", "/v1/memory_stores"),
        ("{deployment}", "/v1/deployments"),
    ] {
        let id = |name: &str| {
            let found = made.iter().find(|(it, _)| *it == name);
            found.map(|(_, id)| id.clone())
        };
        let said = json!([{"type": "text", "text": "x"}]);
        let body = match name {
            "{agent}" => json!({"name": "a", "model": "scripted/echo"}),
            "{session}" => json!({"agent": id("{agent}"), "environment_id": id("{environment}")}),
            "{vault}" => json!({"display_name": "v"}),
            "{deployment}" => json!({
                "name": "d", "agent": id("{agent}"), "environment_id": id("{environment}"),
                "initial_events": [{"type": "user.message", "content": said}],
            }),
            _ => json!({"name": "n"}),
        };
        let answer = call(client, "POST", path, Some(body.to_string().as_bytes())).await;
        let id = answer.good()["id"].as_str().expect("an id").to_owned();
        made.push((name, id));
    }
    made
}

#[tokio::test]
async fn every_route_refuses_what_makes_no_sense() {
    let system = System::start().await;
    let client = system.client();
    let things = things(client).await;
    let filled = |path: &str| {
        let fill = |path: String, (name, id): &(&str, String)| path.replace(name, id);
        things.iter().fold(path.to_owned(), fill)
    };
    let mut wrong = Vec::new();
    let mut check = |what: String, answer: &Answer| {
        if !refuses(answer) {
            wrong.push(format!("{what}: {} {}", answer.status, answer.text()));
        }
    };
    for path in BODIES {
        for body in [
            &b"[]"[..],
            b"\"text\"",
            b"3",
            b"{",
            b"\xff",
            b"{\"a\": \"\\ud800\"}",
            b"{\"no_such_field\": 1}",
        ] {
            let answer = call(client, "POST", &filled(path), Some(body)).await;
            check(format!("{path} {}", String::from_utf8_lossy(body)), &answer);
        }
    }
    let bodies = BODIES.map(|path| ("POST", path));
    for (method, path) in bodies.into_iter().chain(NAMING) {
        for name in path.split('/').filter(|part| part.starts_with('{')) {
            for bad in ["nothing", "%00", "%ff", "a%2Fb", "%20", &"x".repeat(5_000)] {
                let to = filled(&path.replace(name, bad));
                let body = (method == "POST").then_some(&b"{}"[..]);
                let answer = call(client, method, &to, body).await;
                check(format!("{method} {path} {name} {bad:.8}"), &answer);
            }
        }
    }
    for path in LISTS {
        for query in ["limit=0", "limit=x", "limit=-1", "page=nothing"] {
            let to = format!("{}?{query}", filled(path));
            check(to.clone(), &call(client, "GET", &to, None).await);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Nothing of all that has left a trace.
    for (path, count) in [("/v1/agents", 1), ("/v1/sessions", 1), ("/v1/environments", 1)] {
        let listed = call(client, "GET", path, None).await.good();
        assert_eq!(
            listed["data"].as_array().map(Vec::len),
            Some(count),
            "{path}: {listed}"
        );
    }
    system.stop().await;
}
