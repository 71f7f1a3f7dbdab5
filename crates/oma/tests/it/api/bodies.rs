//! Bodies that are refused: with which status, and naming which field.

use reqwest::Method;
use serde_json::{Value, json};

use crate::system::System;

/// A body, and the field that is wrong with it: a path such as `quota.maxTokensPerSession`.
type Case = (Value, &'static str);

/// The problems that an answer reports of a field.
fn problems<'a>(details: &'a Value, field: &str) -> Option<&'a Vec<Value>> {
    let mut node = details;
    for name in field.split('.').filter(|name| !name.is_empty()) {
        node = node.get(name)?;
    }
    node["_errors"].as_array().filter(|problems| !problems.is_empty())
}

fn long(chars: usize) -> String {
    "é".repeat(chars)
}

fn agents(base: &Value) -> Vec<Case> {
    let with = |field: &str, value: Value| {
        let mut body = base.clone();
        body[field] = value;
        body
    };
    let many = |count: usize| json!(vec!["bash"; count]);
    vec![
        (with("model", json!(null)), "model"),
        (with("model", json!(7)), "model"),
        (with("model", json!("")), "model"),
        (with("model", json!("noslash")), "model"),
        (with("model", json!("a/")), "model"),
        (with("model", json!("/b")), "model"),
        (with("model", json!("a/b c")), "model"),
        (with("model", json!("a/b\0")), "model"),
        (with("model", json!("nobody/model")), "model"),
        (with("model", json!("scripted/nothing")), "model"),
        (with("model", json!(format!("a/{}", long(255)))), "model"),
        (with("instructions", json!(["x"])), "instructions"),
        (with("instructions", json!("x".repeat(1_000_001))), "instructions"),
        (with("name", json!({})), "name"),
        (with("name", json!(long(257))), "name"),
        (with("name", json!("a\0b")), "name"),
        (with("instructions", json!("be\0brief")), "instructions"),
        (with("runtime", json!("openclaw")), "runtime"),
        (with("runtime", json!("docker")), "runtime"),
        (with("runtime", json!(null)), "runtime"),
        (with("tools", json!("bash")), "tools"),
        (with("tools", json!([1])), "tools.0"),
        (with("tools", json!(["bash", null])), "tools.1"),
        (with("tools", many(257)), "tools"),
        (with("tools", json!(["no_such_tool"])), "tools"),
        (with("permissionPolicy", json!("always_ask")), "permissionPolicy"),
        (with("permissionPolicy", json!({})), "permissionPolicy.type"),
        (
            with("permissionPolicy", json!({"type": "never"})),
            "permissionPolicy.type",
        ),
        (
            with("permissionPolicy", json!({"type": "deny"})),
            "permissionPolicy.tools",
        ),
        (
            with("permissionPolicy", json!({"type": "deny", "tools": []})),
            "permissionPolicy.tools",
        ),
        (
            with("permissionPolicy", json!({"type": "always_ask", "tools": [""]})),
            "permissionPolicy.tools.0",
        ),
        (
            with("permissionPolicy", json!({"type": "always_ask", "tools": 3})),
            "permissionPolicy.tools",
        ),
        (with("callableAgents", json!({})), "callableAgents"),
        (with("callableAgents", json!([""])), "callableAgents.0"),
        (
            with("callableAgents", json!(["agt_a", "a b"])),
            "callableAgents.1",
        ),
        (with("maxSubagentDepth", json!(-1)), "maxSubagentDepth"),
        (with("maxSubagentDepth", json!(1.5)), "maxSubagentDepth"),
        (with("maxSubagentDepth", json!(17)), "maxSubagentDepth"),
        (with("maxSubagentDepth", json!("1")), "maxSubagentDepth"),
        (with("mcpServers", json!([])), "mcpServers"),
        (with("mcpServers", json!({"a": 1})), "mcpServers.a"),
        (
            with("mcpServers", json!({"a": {"url": "not an address"}})),
            "mcpServers.a.url",
        ),
        (
            with("mcpServers", json!({"a": {"args": "x"}})),
            "mcpServers.a.args",
        ),
        (
            with("mcpServers", json!({"a": {"url": "file:///etc/passwd"}})),
            "mcpServers.a.url",
        ),
        (
            with("mcpServers", json!({"a": {"command": "x", "args": ["a\0b"]}})),
            "mcpServers.a.args.0",
        ),
        (
            with("mcpServers", json!({"a": {"env": {"X": []}}})),
            "mcpServers.a.env.X",
        ),
        (
            with("permissionPolicy", json!({"type": "always_ask", "timeoutMs": 0})),
            "permissionPolicy.timeoutMs",
        ),
        (
            with(
                "permissionPolicy",
                json!({"type": "always_ask", "timeoutMs": 2_678_400_001_u64}),
            ),
            "permissionPolicy.timeoutMs",
        ),
        (
            with(
                "permissionPolicy",
                json!({"type": "deny", "tools": ["mcp__*__x"]}),
            ),
            "permissionPolicy.tools.0",
        ),
        (with("quota", json!(5)), "quota"),
        (
            with("quota", json!({"maxCostUsdPerSession": 0})),
            "quota.maxCostUsdPerSession",
        ),
        (
            with("quota", json!({"maxCostUsdPerSession": 1e300})),
            "quota.maxCostUsdPerSession",
        ),
        (
            with("quota", json!({"maxTokensPerSession": 1e30})),
            "quota.maxTokensPerSession",
        ),
        (
            with("quota", json!({"maxCostUsdPerSession": "1"})),
            "quota.maxCostUsdPerSession",
        ),
        (
            with("quota", json!({"maxTokensPerSession": 0})),
            "quota.maxTokensPerSession",
        ),
        (
            with("quota", json!({"maxTokensPerSession": 0.5})),
            "quota.maxTokensPerSession",
        ),
        (
            with("quota", json!({"maxWallDurationMs": -4})),
            "quota.maxWallDurationMs",
        ),
        (with("quota", json!({"maxSomething": 1})), "quota"),
        (with("thinkingLevel", json!("very")), "thinkingLevel"),
        (with("thinkingLevel", json!(null)), "thinkingLevel"),
        (with("channels", json!([])), "channels"),
        (
            with("channels", json!({"telegram": {"enabled": "yes"}})),
            "channels.telegram.enabled",
        ),
    ]
}

fn environments() -> Vec<Case> {
    let hosts = |hosts: Value| json!({"name": "e", "networking": {"type": "limited", "allowedHosts": hosts}});
    vec![
        (json!({}), "name"),
        (json!({"name": ""}), "name"),
        (json!({"name": long(257)}), "name"),
        (json!({"name": "e", "description": 1}), "description"),
        (json!({"name": "\0"}), "name"),
        (json!({"name": "e", "description": "\0"}), "description"),
        (json!({"name": "e", "description": long(501)}), "description"),
        (json!({"name": "e", "packages": []}), "packages"),
        (json!({"name": "e", "packages": {"apt": "jq"}}), "packages.apt"),
        (json!({"name": "e", "packages": {"pip": [""]}}), "packages.pip.0"),
        (json!({"name": "e", "packages": {"brew": ["jq"]}}), "packages"),
        (
            json!({"name": "e", "packages": {"npm": vec!["x"; 257]}}),
            "packages.npm",
        ),
        (
            json!({"name": "e", "packages": {"apt": ["-jq"]}}),
            "packages.apt.0",
        ),
        (json!({"name": "e", "limits": {"memory": "1"}}), "limits.memory"),
        (json!({"name": "e", "variables": {"1": "x"}}), "variables.1"),
        (json!({"name": "e", "networking": {}}), "networking.type"),
        (
            json!({"name": "e", "networking": {"type": "open"}}),
            "networking.type",
        ),
        (
            json!({"name": "e", "networking": {"type": "limited"}}),
            "networking.allowedHosts",
        ),
        (hosts(json!([])), "networking.allowedHosts"),
        (hosts(json!(["*"])), "networking.allowedHosts.0"),
        (
            hosts(json!(["a.example", "b.example:443"])),
            "networking.allowedHosts.1",
        ),
        (hosts(json!(["https://a.example"])), "networking.allowedHosts.0"),
        (hosts(json!(["10.0.0.1"])), "networking.allowedHosts.0"),
        (hosts(json!(vec!["a.example"; 257])), "networking.allowedHosts"),
    ]
}

fn sessions() -> Vec<Case> {
    vec![
        (json!({}), "agentId"),
        (json!({"agentId": null}), "agentId"),
        (json!({"agentId": ""}), "agentId"),
        (json!({"agentId": 5}), "agentId"),
        (json!({"agentId": long(257)}), "agentId"),
        (
            json!({"agentId": "agt_x", "environmentId": null}),
            "environmentId",
        ),
        (json!({"agentId": "agt_x", "environmentId": ""}), "environmentId"),
        (json!({"agentId": "agt_x", "vaultId": null}), "vaultId"),
        (json!({"agentId": "agt_x", "vaultId": ""}), "vaultId"),
        (json!({"agentId": "agt_x", "vaultIds": "vlt_x"}), "vaultIds"),
        (json!({"agentId": "agt_x", "vaultIds": [4]}), "vaultIds.0"),
        (
            json!({"agentId": "agt_x", "vaultIds": vec!["vlt_x"; 50]}),
            "vaultIds",
        ),
    ]
}

fn events() -> Vec<Case> {
    let block = |block: Value| json!({"content": [block]});
    vec![
        (json!({}), "content"),
        (json!({"content": ""}), "content"),
        (json!({"content": null}), "content"),
        (json!({"content": 4}), "content"),
        (json!({"content": []}), "content"),
        (
            json!({"content": vec![json!({"type": "text", "text": "x"}); 257]}),
            "content",
        ),
        (json!({"content": "x".repeat(4_000_001)}), "content"),
        (block(json!("x")), "content.0"),
        (block(json!({"type": "video"})), "content.0.type"),
        (block(json!({"type": "text"})), "content.0.text"),
        (block(json!({"type": "text", "text": ""})), "content.0.text"),
        (block(json!({"type": "image"})), "content.0.source"),
        (
            block(json!({"type": "image", "source": {"type": "file"}})),
            "content.0.source.type",
        ),
        (
            block(json!({"type": "image", "source": {"type": "url", "url": "x"}})),
            "content.0.source.url",
        ),
        (
            block(json!({"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}})),
            "content.0.source.url",
        ),
        (
            block(json!({"type": "document", "source": {"type": "url", "url": "ftp://a.example/b.pdf"}})),
            "content.0.source.url",
        ),
        (json!({"content": "a\0b"}), "content"),
        (block(json!({"type": "text", "text": "\0"})), "content.0.text"),
        (
            block(
                json!({"type": "image", "source": {"type": "base64", "media_type": "image/tiff", "data": "aGk="}}),
            ),
            "content.0.source.media_type",
        ),
        (
            block(
                json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "%%"}}),
            ),
            "content.0.source.data",
        ),
        (
            block(json!({"type": "document", "source": {"type": "text", "data": ""}})),
            "content.0.source.data",
        ),
        (json!({"content": "x", "model": ""}), "model"),
        (json!({"content": "x", "model": "noslash"}), "model"),
        (json!({"content": "x", "model": null}), "model"),
        (json!({"content": "x", "model": "nobody/model"}), "model"),
        (json!({"content": "x", "thinkingLevel": "hard"}), "thinkingLevel"),
        (json!({"type": "agent.message", "content": "x"}), "type"),
        (json!({"type": 3, "content": "x"}), "type"),
        (json!({"type": "user.tool_confirmation"}), "toolUseId"),
        (
            json!({"type": "user.tool_confirmation", "toolUseId": "evt_x"}),
            "result",
        ),
        (
            json!({"type": "user.tool_confirmation", "toolUseId": "evt_x", "result": "perhaps"}),
            "result",
        ),
        (
            json!({"type": "user.tool_confirmation", "toolUseId": "", "result": "allow"}),
            "toolUseId",
        ),
        (
            json!({"type": "user.tool_confirmation", "toolUseId": "e", "result": "deny", "denyMessage": 1}),
            "denyMessage",
        ),
        (
            json!({"type": "user.tool_confirmation", "toolUseId": "e", "result": "deny", "denyMessage": long(10_001)}),
            "denyMessage",
        ),
    ]
}

#[tokio::test]
async fn every_bad_body_is_refused_and_the_field_is_named() {
    let system = System::start().await;
    let client = system.client();
    let agent = client.agent(json!({"model": "scripted/echo"})).await;
    let session = client.session(&agent).await;
    let create = json!({"model": "scripted/echo"});
    let update = json!({"version": 1});
    // An update takes null for what can be cleared, and needs no model.
    let mut updates = agents(&update);
    updates.retain(|(body, field)| !matches!(*field, "instructions" | "tools") || !body[*field].is_null());
    updates.extend([
        (json!({}), "version"),
        (json!({"version": 0}), "version"),
        (json!({"version": 1.5}), "version"),
        (json!({"version": "1"}), "version"),
        (
            json!({"version": 1, "permissionPolicy": null}),
            "permissionPolicy",
        ),
    ]);
    let run = vec![
        (json!({}), "task"),
        (json!({"task": ""}), "task"),
        (json!({"task": ["x"]}), "task"),
        (json!({"task": "x", "sessionId": null}), "sessionId"),
        (json!({"task": "x", "sessionId": ""}), "sessionId"),
    ];
    let mut whole = vec![
        (json!([]), ""),
        (json!("text"), ""),
        (json!(null), ""),
        (json!(3), ""),
    ];
    whole.push((json!([{"model": "scripted/echo"}]), ""));
    for (method, path, cases) in [
        (Method::POST, "/v1/agents".to_owned(), agents(&create)),
        (Method::POST, "/v1/agents".to_owned(), whole),
        (Method::PATCH, format!("/v1/agents/{agent}"), updates),
        (Method::POST, format!("/v1/agents/{agent}/run"), run),
        (Method::POST, "/v1/environments".to_owned(), environments()),
        (Method::POST, "/v1/sessions".to_owned(), sessions()),
        (Method::POST, format!("/v1/sessions/{session}/events"), events()),
    ] {
        for (body, field) in cases {
            let answer = client
                .send(client.request(method.clone(), &path).json(&body))
                .await;
            let shown: String = body.to_string().chars().take(200).collect();
            assert_eq!(answer.status, 400, "{method} {path} {shown}: {}", answer.text());
            assert!(
                matches!(
                    answer.code().as_str(),
                    "invalid_request" | "unsupported" | "invalid_model"
                ),
                "{}",
                answer.text()
            );
            let error = answer.json();
            assert!(
                problems(&error["details"], field).is_some(),
                "{method} {path} {shown}: {field}? {error}"
            );
            assert!(!error["message"].as_str().expect("a message").is_empty());
        }
    }
    // Nothing of all that has left a trace.
    assert_eq!(client.get("/v1/agents").await.good()["count"], 1);
    assert_eq!(client.get("/v1/environments").await.good()["count"], 0);
    assert_eq!(client.get("/v1/sessions").await.good()["count"], 1);
    assert_eq!(
        client.get(&format!("/v1/sessions/{session}/events")).await.good()["count"],
        0
    );
    assert_eq!(
        client.get(&format!("/v1/agents/{agent}")).await.good()["version"],
        1
    );
    system.stop().await;
}

#[tokio::test]
async fn all_that_is_wrong_is_reported_at_once() {
    let system = System::start().await;
    let body = json!({"model": 1, "tools": [1, "bash", 2], "quota": {"maxTokensPerSession": 0}});
    let error = system.client().post("/v1/agents", &body).await.json();
    for field in ["model", "tools.0", "tools.2", "quota.maxTokensPerSession"] {
        assert!(problems(&error["details"], field).is_some(), "{field}: {error}");
    }
    assert!(problems(&error["details"], "tools.1").is_none(), "{error}");
    system.stop().await;
}

#[tokio::test]
async fn chat_completions_refuse_in_the_shape_of_their_own_api() {
    let system = System::start().await;
    let client = system.client();
    let agent = client.agent(json!({"model": "scripted/echo"})).await;
    let messages = json!([{"role": "user", "content": "x"}]);
    let said = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    for (header, body, status) in [
        (Some(agent.as_str()), json!({}), 400),
        (Some(&agent), json!({"messages": []}), 400),
        (Some(&agent), json!({"messages": "x"}), 400),
        (Some(&agent), json!({"messages": [1]}), 400),
        (Some(&agent), json!({"messages": [{"content": "x"}]}), 400),
        (
            Some(&agent),
            json!({"messages": [{"role": "assistant", "content": "x"}]}),
            400,
        ),
        (Some(&agent), said(json!("")), 400),
        (Some(&agent), said(json!({})), 400),
        (Some(&agent), said(json!([{"type": "input_audio"}])), 400),
        (
            Some(&agent),
            said(json!([{"type": "image_url", "image_url": {"url": "data:text/html,x"}}])),
            400,
        ),
        (
            Some(&agent),
            said(json!([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}])),
            400,
        ),
        (Some(&agent), said(json!("a\0b")), 400),
        (Some(&agent), json!({"messages": messages, "stream": "yes"}), 400),
        (Some(&agent), json!({"messages": messages, "user": 3}), 400),
        (Some(&agent), json!({"messages": messages, "user": "a/../b"}), 400),
        (None, json!({"messages": messages}), 400),
        (Some("agt_nobody"), json!({"messages": messages}), 404),
        (Some("../agents"), json!({"messages": messages}), 404),
    ] {
        let mut request = client.request(Method::POST, "/v1/chat/completions").json(&body);
        if let Some(agent) = header {
            request = request.header("x-openclaw-agent-id", agent);
        }
        let answer = client.send(request).await;
        assert_eq!(answer.status, status, "{header:?} {body}: {}", answer.text());
        let error = &answer.json()["error"];
        assert!(
            error["message"].as_str().is_some_and(|text| !text.is_empty()),
            "{error}"
        );
        assert_eq!(error["type"], "invalid_request_error", "{error}");
    }
    assert_eq!(client.get("/v1/sessions").await.good()["count"], 0);
    system.stop().await;
}

#[tokio::test]
async fn bodies_that_are_no_json_or_too_large_are_refused() {
    let system = System::start_with(|options| options.set("OPENCLAW_MAX_BODY", "64KiB")).await;
    let client = system.client();
    let chat = client.session_of("scripted/echo").await;
    let routes = [
        "/v1/agents".to_owned(),
        format!("/v1/agents/{}/run", chat.agent),
        "/v1/environments".to_owned(),
        "/v1/sessions".to_owned(),
        chat.path("/events"),
    ];
    let huge = format!("{{\"content\": \"{}\"}}", "x".repeat(64 << 10));
    for route in &routes {
        for (body, status, code) in [
            (&b"{"[..], 400, "invalid_request"),
            (b"{\"content\": \"\\ud800\"}", 400, "invalid_request"),
            (b"\xef\xbb\xbf", 400, "invalid_request"),
            // An empty body counts as an empty object, and then lacks its fields.
            (b"", 400, "invalid_request"),
            (b"{\"model\": \"a/b\",}", 400, "invalid_request"),
            (b"\xff\xfe", 400, "invalid_body"),
            (huge.as_bytes(), 413, "body_too_large"),
        ] {
            let answer = client
                .send(client.request(Method::POST, route).body(body.to_vec()))
                .await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (status, code),
                "{route}: {}",
                answer.text()
            );
        }
        // Deeper than anybody parses by recursion without falling over.
        let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
        let answer = client.send(client.request(Method::POST, route).body(deep)).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        // Without an announced length, too; and a client that sends much more gets to read why it may not.
        for pieces in [17, 2_000] {
            let pieces = std::iter::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 4096])).take(pieces);
            let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
            let answer = client.send(client.request(Method::POST, route).body(body)).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (413, "body_too_large"),
                "{route}"
            );
        }
        let answer = client
            .send(client.request(Method::POST, route).body(vec![b'x'; 8 << 20]))
            .await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (413, "body_too_large"),
            "{route}"
        );
    }
    assert_eq!(chat.events().await, Vec::<Value>::new());
    // What is wrong with the JSON is said, and where; a missing session is still worse.
    let lone = r#"{"content": "\ud800"}"#;
    let request = client.request(Method::POST, &chat.path("/events")).body(lone);
    let answer = client.send(request).await;
    assert!(
        answer.text().contains("not valid JSON") && answer.text().contains("line 1 column"),
        "{}",
        answer.text()
    );
    let request = client
        .request(Method::POST, "/v1/sessions/ses_none/events")
        .body(lone);
    assert_eq!(client.send(request).await.code(), "session_not_found");
    let packed = client
        .request(Method::POST, "/v1/agents")
        .header("content-encoding", "gzip")
        .body("{}");
    let answer = client.send(packed).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (415, "unsupported_encoding")
    );
    // A byte order mark is no part of the text.
    let marked = "\u{feff}{\"model\": \"scripted/echo\"}";
    let request = client.request(Method::POST, "/v1/agents").body(marked);
    assert_eq!(client.send(request).await.status, 200);
    // An API key's rotation needs nothing said, so what is said and can't be read must not count as nothing.
    let request = client
        .request(Method::POST, "/v1/keys/key_none/rotate")
        .body("{\"graceSeconds\": 3600");
    assert_eq!(client.send(request).await.code(), "invalid_request");
    system.stop().await;
}
