//! Agents over HTTP.

use axum::body::Body;
use serde_json::{Value, json};

use crate::server::{Server, is_rest, request};

/// What is wrong with a body, per field: the path of each bad field with its first message.
fn problems(details: &Value) -> Vec<(String, String)> {
    fn walk(node: &Value, path: &str, found: &mut Vec<(String, String)>) {
        for (key, value) in node.as_object().into_iter().flatten() {
            if key == "_errors" {
                for text in value.as_array().into_iter().flatten() {
                    found.push((path.to_owned(), text.as_str().unwrap().to_owned()));
                }
            } else {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                walk(value, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(details, "", &mut found);
    found
}

#[tokio::test]
async fn bad_agents_are_refused_field_by_field() {
    let server = Server::start().await;
    let with = |field: &str, value: Value| {
        let mut body = json!({"model": "a/b"});
        body[field] = value;
        body
    };
    for (body, path, text) in [
        (json!({}), "model", "Required"),
        (json!({"model": 3}), "model", "Expected string, received number"),
        (
            json!({"model": ""}),
            "model",
            "String must contain at least 1 character(s)",
        ),
        (
            json!({"model": "no-provider"}),
            "model",
            "Expected 'provider/model'",
        ),
        (json!({"model": "/x"}), "model", "Expected 'provider/model'"),
        (json!({"model": "x/"}), "model", "Expected 'provider/model'"),
        (json!({"model": "x/y z"}), "model", "Expected 'provider/model'"),
        (
            json!({"model": format!("a/{}", "b".repeat(300))}),
            "model",
            "String must contain at most 256 character(s)",
        ),
        (
            with("instructions", Value::Null),
            "instructions",
            "Expected string, received null",
        ),
        (
            with("tools", json!("bash")),
            "tools",
            "Expected array, received string",
        ),
        (
            with("tools", json!(["a", 1])),
            "tools.1",
            "Expected string, received number",
        ),
        (
            with("tools", json!(vec!["t"; 257])),
            "tools",
            "Array must contain at most 256 element(s)",
        ),
        (
            with("name", Value::Null),
            "name",
            "Expected string, received null",
        ),
        (
            with("permissionPolicy", json!("deny")),
            "permissionPolicy",
            "Expected object, received string",
        ),
        (
            with("permissionPolicy", json!({"type": "never"})),
            "permissionPolicy.type",
            "Invalid discriminator value. Expected 'always_allow' | 'deny' | 'always_ask'",
        ),
        (
            with("permissionPolicy", json!({"type": "deny"})),
            "permissionPolicy.tools",
            "Required",
        ),
        (
            with("permissionPolicy", json!({"type": "deny", "tools": []})),
            "permissionPolicy.tools",
            "Array must contain at least 1 element(s)",
        ),
        (
            with("permissionPolicy", json!({"type": "always_ask", "tools": [""]})),
            "permissionPolicy.tools.0",
            "String must contain at least 1 character(s)",
        ),
        (
            with("maxSubagentDepth", json!(-1)),
            "maxSubagentDepth",
            "Number must be greater than or equal to 0",
        ),
        (
            with("maxSubagentDepth", json!(1.5)),
            "maxSubagentDepth",
            "Expected integer, received float",
        ),
        (
            with("maxSubagentDepth", json!(17)),
            "maxSubagentDepth",
            "Number must be less than or equal to 16",
        ),
        (
            with("mcpServers", json!([])),
            "mcpServers",
            "Expected object, received array",
        ),
        (
            with("mcpServers", json!({"s": {"url": "nope"}})),
            "mcpServers.s.url",
            "Invalid url",
        ),
        (
            with("mcpServers", json!({"s": {"env": {"A": []}}})),
            "mcpServers.s.env.A",
            "Invalid input",
        ),
        (
            with("mcpServers", json!({"s": {"args": "x"}})),
            "mcpServers.s.args",
            "Expected array, received string",
        ),
        (
            with("mcpServers", json!({"s": {"headers": {"A": 1}}})),
            "mcpServers.s.headers.A",
            "Expected string, received number",
        ),
        (
            with("mcpServers", json!({"s": {}})),
            "mcpServers.s",
            "Expected 'url' or 'command'",
        ),
        (
            with(
                "mcpServers",
                json!({"s": {"command": "a", "url": "https://x.example/"}}),
            ),
            "mcpServers.s",
            "Expected either 'url' or 'command', received both",
        ),
        (
            with("mcpServers", json!({"s": {"url": "ftp://x.example/"}})),
            "mcpServers.s.url",
            "Invalid url. Expected the scheme 'http' | 'https', received 'ftp'",
        ),
        (
            with("mcpServers", json!({"s": {"url": "https://u:p@x.example/"}})),
            "mcpServers.s.url",
            "not a usable URL: it has a user name or a password in it",
        ),
        (
            with(
                "mcpServers",
                json!({"s": {"url": "https://x.example/", "headers": {"Host": "y"}}}),
            ),
            "mcpServers.s.headers.Host",
            "This header is set by the protocol",
        ),
        (
            with("mcpServers", json!({"s": {"command": "a", "type": "http"}})),
            "mcpServers.s.type",
            "Expected one of stdio",
        ),
        (
            with("quota", Value::Null),
            "quota",
            "Expected object, received null",
        ),
        (
            with("quota", json!({"foo": 1})),
            "quota",
            "Unrecognized key(s) in object: 'foo'",
        ),
        (
            with("quota", json!({"maxCostUsdPerSession": 0})),
            "quota.maxCostUsdPerSession",
            "Number must be greater than 0",
        ),
        (
            with("quota", json!({"maxTokensPerSession": 0})),
            "quota.maxTokensPerSession",
            "Number must be greater than 0",
        ),
        (
            with("quota", json!({"maxTokensPerSession": 1.5})),
            "quota.maxTokensPerSession",
            "Expected integer, received float",
        ),
        (
            with("quota", json!({"maxWallDurationMs": "1"})),
            "quota.maxWallDurationMs",
            "Expected number, received string",
        ),
        (
            with("thinkingLevel", json!("ultra")),
            "thinkingLevel",
            "Invalid enum value. Expected 'off' | 'low' | 'medium' | 'high' | 'xhigh', received 'ultra'",
        ),
        (
            with("channels", json!({"telegram": {"enabled": 1}})),
            "channels.telegram.enabled",
            "Expected boolean, received number",
        ),
    ] {
        let answer = server.post("/v1/agents", &body).await;
        assert_eq!(answer.code(), (400, "invalid_request".into()), "{body}");
        let found = problems(&answer.json()["details"]);
        assert_eq!(found, [(path.to_owned(), text.to_owned())], "{body}");
    }
    // All of them together, and a message that names the first.
    let answer = server
        .post(
            "/v1/agents",
            &json!({"tools": 1, "quota": {"x": 1, "maxTokensPerSession": -1}}),
        )
        .await;
    let body = answer.json();
    assert_eq!(problems(&body["details"]).len(), 4, "{body}");
    assert_eq!(body["message"], "The request is not valid: model: Required");
}

#[tokio::test]
async fn what_was_sent_comes_back() {
    let server = Server::start().await;
    let plain = server
        .post("/v1/agents", &json!({"model": "a/b", "unknown": 1}))
        .await
        .json();
    for (field, value) in [
        ("model", json!("a/b")),
        ("tools", json!([])),
        ("instructions", json!("")),
        ("permission_policy", json!({"type": "always_allow"})),
        ("callable_agents", json!([])),
        ("max_subagent_depth", json!(0)),
        ("mcp_servers", json!({})),
        ("thinking_level", json!("off")),
        ("channels", json!({"telegram": {"enabled": false}})),
        ("version", json!(1)),
        ("archived_at", Value::Null),
    ] {
        assert_eq!(plain[field], value, "{field}");
    }
    for absent in ["name", "quota", "unknown"] {
        assert!(plain.get(absent).is_none(), "{absent}");
    }
    let full = json!({
        "model": "a/b", "instructions": "Be kind.", "tools": ["bash"], "name": "One",
        "permissionPolicy": {"type": "always_ask", "tools": []},
        "callableAgents": ["agt_2"], "maxSubagentDepth": 2.0,
        "mcpServers": {"s": {"url": "https://x.example/mcp", "extra": {"kept": [1]}, "env": {"A": true, "B": 1}}},
        "quota": {"maxCostUsdPerSession": 0.25, "maxTokensPerSession": 10, "maxWallDurationMs": 5},
        "thinkingLevel": "high", "channels": {"telegram": {"enabled": true}, "dropped": 1},
    });
    let made = server.post("/v1/agents", &full).await.json();
    for (sent, got) in [
        ("permissionPolicy", "permission_policy"),
        ("callableAgents", "callable_agents"),
        ("mcpServers", "mcp_servers"),
        ("quota", "quota"),
        ("name", "name"),
        ("thinkingLevel", "thinking_level"),
    ] {
        assert_eq!(full[sent], made[got], "{sent}");
    }
    assert_eq!(made["max_subagent_depth"], 2);
    assert_eq!(made["channels"], json!({"telegram": {"enabled": true}}));
    assert_eq!(
        server
            .get(&format!("/v1/agents/{}", made["agent_id"].as_str().unwrap()))
            .await
            .json(),
        made
    );
}

#[tokio::test]
async fn a_tool_that_nobody_knows_is_unsupported() {
    let server = Server::start().await;
    let answer = server
        .post("/v1/agents", &json!({"model": "a/b", "tools": ["no-such-thing"]}))
        .await;
    assert_eq!(answer.code(), (400, "unsupported".into()));
    assert_eq!(
        answer.json()["details"]["tools"]["_errors"],
        json!(["there is no tool no-such-thing"])
    );
}

#[tokio::test]
async fn updates() {
    let server = Server::start().await;
    let quota = json!({"maxTokensPerSession": 5});
    let agent = server
        .agent(json!({"name": "One", "instructions": "x", "quota": quota}))
        .await;
    let path = format!("/v1/agents/{agent}");
    let patch = |body: Value| {
        let (server, path) = (&server, &path);
        async move { server.json("PATCH", path, &body).await }
    };
    assert_eq!(
        patch(json!({})).await.json()["details"]["version"]["_errors"],
        json!(["Required"])
    );
    assert_eq!(
        patch(json!({"version": 0})).await.json()["details"]["version"]["_errors"],
        json!(["Number must be greater than 0"])
    );
    assert_eq!(
        patch(json!({"version": 1, "channels": null})).await.code().1,
        "invalid_request"
    );
    let missing = server
        .json("PATCH", "/v1/agents/agt_none", &json!({"version": 1}))
        .await;
    assert_eq!(missing.code(), (404, "agent_not_found".into()));
    let same = patch(json!({"version": 1, "name": "One"})).await.json();
    assert_eq!(same["version"], 1);
    let cleared =
        patch(json!({"version": 1, "name": null, "instructions": null, "quota": null, "model": "c/d"}))
            .await
            .json();
    assert_eq!(
        (&cleared["version"], &cleared["model"], &cleared["instructions"]),
        (&json!(2), &json!("c/d"), &json!(""))
    );
    assert!(cleared.get("name").is_none() && cleared.get("quota").is_none());
    let conflict = patch(json!({"version": 1, "name": "Two"})).await;
    assert_eq!(conflict.code(), (409, "version_conflict".into()));
    assert_eq!(conflict.json()["message"], "expected version 1, got 2");
    let versions = server.get(&format!("{path}/versions")).await.json();
    assert_eq!(
        (&versions["count"], &versions["has_more"], &versions["agent_id"]),
        (&json!(2), &json!(false), &json!(agent))
    );
    let page = server.get(&format!("{path}/versions?limit=1")).await.json();
    assert_eq!(
        (&page["versions"][0]["version"], &page["next"]),
        (&json!(1), &json!("1"))
    );
    let page = server
        .get(&format!("{path}/versions?limit=1&after=1"))
        .await
        .json();
    assert_eq!(
        (&page["versions"][0]["version"], &page["has_more"]),
        (&json!(2), &json!(false))
    );
    let warmed = server.post(&format!("{path}/warm"), &json!({})).await;
    assert_eq!(warmed.status, 202);
    assert_eq!(warmed.json(), json!({"agent_id": agent, "queued": true}));
    let archived = server.post(&format!("{path}/archive"), &json!({})).await.json();
    assert!(archived["archived_at"].is_i64());
    // Archived comes before the version, like in the reference.
    assert_eq!(
        patch(json!({"version": 7})).await.code(),
        (409, "agent_archived".into())
    );
    assert_eq!(
        server
            .post("/v1/sessions", &json!({"agentId": agent}))
            .await
            .code(),
        (409, "agent_archived".into())
    );
    assert_eq!(server.delete(&path).await.json(), json!({"deleted": true}));
    for (method, path) in [
        ("GET", path.clone()),
        ("DELETE", path.clone()),
        ("GET", format!("{path}/versions")),
        ("POST", format!("{path}/archive")),
        ("POST", format!("{path}/warm")),
    ] {
        assert_eq!(
            server.raw(method, &path, "").await.code(),
            (404, "agent_not_found".into()),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn ids_that_can_not_be_are_not_found() {
    let server = Server::start().await;
    for id in ["..", "a%2Fb", "%00", &"x".repeat(200)] {
        assert_eq!(
            server.get(&format!("/v1/agents/{id}")).await.code(),
            (404, "agent_not_found".into()),
            "{id}"
        );
        assert_eq!(
            server.get(&format!("/v1/sessions/{id}")).await.code(),
            (404, "session_not_found".into()),
            "{id}"
        );
        assert_eq!(
            server.get(&format!("/v1/environments/{id}")).await.code().0,
            404,
            "{id}"
        );
    }
}

#[tokio::test]
async fn lists_are_paged() {
    let server = Server::start().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(server.agent(json!({})).await);
    }
    let whole = server.get("/v1/agents").await.json();
    assert_eq!(
        (&whole["count"], &whole["has_more"], &whole["next"]),
        (&json!(5), &json!(false), &Value::Null)
    );
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = server
            .get(&format!("/v1/agents?limit=2&after={after}"))
            .await
            .json();
        seen.extend(
            page["agents"]
                .as_array()
                .unwrap()
                .iter()
                .map(|agent| agent["agent_id"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, made);
    for query in ["limit=x", "limit=0", "after=agt_none", "after=a%20b"] {
        let answer = server.get(&format!("/v1/agents?{query}")).await;
        assert_eq!(answer.code(), (400, "invalid_request".into()), "{query}");
    }
}

#[tokio::test]
async fn a_repeated_creation_takes_effect_once() {
    let server = Server::start().await;
    let create = |key: &str, body: &Value| {
        let request = request("POST", "/v1/agents").header("idempotency-key", key);
        server.send(request.body(Body::from(body.to_string())).unwrap())
    };
    let body = json!({"model": "a/b"});
    let first = create("k", &body).await.json();
    assert_eq!(create("k", &body).await.json(), first);
    let other = create("k", &json!({"model": "c/d"})).await;
    assert_eq!(other.code(), (422, "idempotency_key_reused".into()));
    assert_ne!(create("l", &body).await.json()["agent_id"], first["agent_id"]);
    assert_eq!(create("a b", &body).await.code().0, 400);
    assert_eq!(server.get("/v1/agents").await.json()["count"], 2);
}

#[tokio::test]
async fn tasks() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    let path = format!("/v1/agents/{agent}/run");
    let started = server.post(&path, &json!({"task": "hello"})).await.json();
    assert_eq!(
        (&started["status"], &started["agent_id"], &started["queued"]),
        (&json!("starting"), &json!(agent), &json!(false))
    );
    let session = started["session_id"].as_str().unwrap().to_owned();
    server.until(&session, "", is_rest).await;
    let again = server
        .post(&path, &json!({"task": "more", "sessionId": session}))
        .await
        .json();
    assert_eq!(again["session_id"], json!(session));
    let other = server.agent(json!({})).await;
    for (agent, body, code) in [
        (&agent, json!({}), (400, "invalid_request")),
        (&agent, json!({"task": ""}), (400, "invalid_request")),
        (
            &agent,
            json!({"task": "x", "sessionId": "ses_none"}),
            (404, "session_not_found"),
        ),
        (
            &other,
            json!({"task": "x", "sessionId": session}),
            (400, "session_agent_mismatch"),
        ),
        (
            &"agt_none".to_owned(),
            json!({"task": "x"}),
            (404, "agent_not_found"),
        ),
    ] {
        let answer = server.post(&format!("/v1/agents/{agent}/run"), &body).await;
        assert_eq!(answer.code(), (code.0, code.1.to_owned()), "{body}");
    }
    let once = |n: u32| {
        let request = request("POST", &path).header("idempotency-key", "run-1");
        let body = json!({"task": format!("task {n}")}).to_string();
        server.send(request.body(Body::from(body)).unwrap())
    };
    let first = once(1).await.json();
    assert_eq!(once(1).await.json()["session_id"], first["session_id"]);
    assert_eq!(once(2).await.code().0, 422);
}
