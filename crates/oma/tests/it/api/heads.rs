//! Paths, methods, queries and headers that are refused.

use reqwest::Method;
use serde_json::json;

use crate::system::{System, raw};

#[tokio::test]
async fn ids_that_nothing_has_are_not_found() {
    let system = System::start().await;
    let client = system.client();
    let chat = client.session_of("scripted/echo").await;
    let message = json!({"content": "x"}).to_string();
    let task = json!({"task": "x"}).to_string();
    let version = json!({"version": 1}).to_string();
    let long = "x".repeat(5_000);
    let ids = [
        "ses_nobody",
        "x",
        "..%2f..%2fetc",
        "%00",
        "a%20b",
        "%2e%2e",
        "'%20or%201=1",
        long.as_str(),
    ];
    for id in ids {
        for (method, path, body, code) in [
            ("GET", format!("/v1/agents/{id}"), "", "agent_not_found"),
            ("PATCH", format!("/v1/agents/{id}"), &*version, "agent_not_found"),
            ("DELETE", format!("/v1/agents/{id}"), "", "agent_not_found"),
            ("GET", format!("/v1/agents/{id}/versions"), "", "agent_not_found"),
            ("POST", format!("/v1/agents/{id}/archive"), "", "agent_not_found"),
            ("POST", format!("/v1/agents/{id}/warm"), "", "agent_not_found"),
            ("POST", format!("/v1/agents/{id}/run"), &task, "agent_not_found"),
            (
                "GET",
                format!("/v1/agents/{id}/files?session_id={}", chat.session),
                "",
                "agent_not_found",
            ),
            (
                "GET",
                format!("/v1/environments/{id}"),
                "",
                "environment_not_found",
            ),
            (
                "DELETE",
                format!("/v1/environments/{id}"),
                "",
                "environment_not_found",
            ),
            ("GET", format!("/v1/sessions/{id}"), "", "session_not_found"),
            ("DELETE", format!("/v1/sessions/{id}"), "", "session_not_found"),
            (
                "POST",
                format!("/v1/sessions/{id}/cancel"),
                "",
                "session_not_found",
            ),
            (
                "POST",
                format!("/v1/sessions/{id}/compact"),
                "",
                "session_not_found",
            ),
            ("GET", format!("/v1/sessions/{id}/logs"), "", "session_not_found"),
            (
                "POST",
                format!("/v1/sessions/{id}/checkpoints"),
                "",
                "session_not_found",
            ),
            (
                "GET",
                format!("/v1/sessions/{id}/checkpoints"),
                "",
                "session_not_found",
            ),
            (
                "GET",
                format!("/v1/sessions/{}/checkpoints/{id}", chat.session),
                "",
                "checkpoint_not_found",
            ),
            (
                "DELETE",
                format!("/v1/sessions/{}/checkpoints/{id}", chat.session),
                "",
                "checkpoint_not_found",
            ),
            (
                "GET",
                format!("/v1/sessions/{id}/events"),
                "",
                "session_not_found",
            ),
            (
                "GET",
                format!("/v1/sessions/{id}/events?stream=true"),
                "",
                "session_not_found",
            ),
            (
                "POST",
                format!("/v1/sessions/{id}/events"),
                &message,
                "session_not_found",
            ),
            (
                "GET",
                format!("/v1/agents/{}/files?session_id={id}", chat.agent),
                "",
                "session_not_found",
            ),
            ("GET", format!("/v1/models/{id}"), "", "model_not_found"),
        ] {
            let answer = raw::request(client.authority(), method, &path, "", body).await;
            assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text);
            assert!(
                answer.text.contains(&format!("\"error\":\"{code}\"")),
                "{method} {path}: {}",
                answer.text
            );
        }
    }
    // What is no text at all could be anything, so it is said which part of the request can't be read.
    for path in [
        "/v1/agents/%ff".to_owned(),
        "/v1/sessions/%ff/events".to_owned(),
        "/v1/models/a/%c3%28".to_owned(),
        format!("/v1/agents/{}/files/%ff?session_id={}", chat.agent, chat.session),
    ] {
        let answer = raw::request(client.authority(), "GET", &path, "", "").await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text);
        assert!(
            answer.text.contains("\"error\":\"invalid_path\""),
            "{path}: {}",
            answer.text
        );
    }
    for body in [
        json!({"agentId": "agt_nobody"}),
        json!({"agentId": "../../x"}),
        json!({"agentId": chat.agent, "environmentId": "env_nobody"}),
    ] {
        assert_eq!(client.post("/v1/sessions", &body).await.status, 404, "{body}");
    }
    // A session is not found by way of another agent than its own.
    let other = client.agent(json!({"model": "scripted/echo"})).await;
    let path = format!("/v1/agents/{other}/files?session_id={}", chat.session);
    assert_eq!(client.get(&path).await.code(), "session_not_found");
    system.stop().await;
}

#[tokio::test]
async fn queries_that_make_no_sense_are_refused() {
    let system = System::start().await;
    let client = system.client();
    let chat = client.session_of("scripted/echo").await;
    for (path, field) in [
        ("/v1/agents?limit=many", "limit"),
        ("/v1/agents?limit=1.5", "limit"),
        ("/v1/agents?limit=99999999999999999999", "limit"),
        ("/v1/agents?limit=1001", "limit"),
        ("/v1/agents?limit=0", "limit"),
        ("/v1/agents?limit=-1", "limit"),
        ("/v1/environments?limit=0", "limit"),
        ("/v1/vaults?limit=0", "limit"),
        ("/v1/keys?limit=0", "limit"),
        ("/v1/workspaces?limit=0", "limit"),
        ("/v1/usage?limit=0", "limit"),
        ("/v1/audit?limit=0", "limit"),
        ("/v1/sessions?order=up", "order"),
        ("/v1/vaults?order=up", "order"),
        ("/v1/usage?from=yesterday", "from"),
        ("/v1/audit?since=1.5", "since"),
        (&chat.path("/events?limit=0"), "limit"),
        (&chat.path("/events?order=up"), "order"),
        (&chat.path("/events?stream=1"), "stream"),
        (&chat.path("/events?stream=true&deltas=1"), "deltas"),
        (&chat.path("/logs?tail=x"), "tail"),
    ] {
        let answer = client.get(path).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "invalid_request"),
            "{path}: {}",
            answer.text()
        );
        assert!(
            answer.json()["details"][field]["_errors"][0].is_string(),
            "{path}: {}",
            answer.text()
        );
    }
    for (path, status) in [
        // What a route does not know is none of its business: old clients send all kinds of things.
        ("/v1/agents?order=up".to_owned(), 200),
        ("/v1/sessions?status=bogus&page=2".to_owned(), 200),
        (chat.path("/events?stream=false&deltas=false"), 200),
        (chat.path("/logs"), 200),
        (chat.path("/logs?tail=0"), 200),
        (chat.path("/logs?tail=-1"), 200),
        (chat.path("/logs?tail=%ff"), 400),
        (
            format!(
                "/v1/agents/{}/files?session_id={}&path=%ff",
                chat.agent, chat.session
            ),
            400,
        ),
        ("/v1/agents?after=agt_nobody".to_owned(), 400),
        ("/v1/sessions?after=..%2f".to_owned(), 400),
        ("/v1/sessions?agent_id=%00".to_owned(), 400),
        ("/v1/sessions?agent_id=agt_nobody".to_owned(), 200),
        ("/v1/environments?after=x".to_owned(), 400),
        (chat.path("/events?after=evt_nobody"), 400),
        (chat.path("/events?after=%ff"), 400),
        (format!("/v1/agents/{}/files", chat.agent), 400),
        (format!("/v1/agents/{}/files/x", chat.agent), 400),
    ] {
        let answer = raw::request(client.authority(), "GET", &path, "", "").await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
    }
    system.stop().await;
}

#[tokio::test]
async fn methods_that_a_path_does_not_have_are_refused() {
    let system = System::start().await;
    let client = system.client();
    let document = client.get("/openapi.json").await.good();
    let mut checked = 0;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        let path = path.replace(['{', '}'], "");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "BREW"] {
            let name = method.to_lowercase();
            if operations.get(&name).is_some() {
                continue;
            }
            let method = Method::from_bytes(method.as_bytes()).expect("legal");
            let answer = client.send(client.request(method.clone(), &path)).await;
            assert_eq!(answer.status, 405, "{method} {path}: {}", answer.text());
            let code = &answer.json()["error"];
            let code = code.as_str().or_else(|| code["code"].as_str());
            assert_eq!(
                code,
                Some("method_not_allowed"),
                "{method} {path}: {}",
                answer.text()
            );
            assert!(answer.header("allow").is_some(), "{method} {path}");
            checked += 1;
        }
    }
    assert!(checked > 60, "{checked}");
    for path in [
        "/v2",
        "/v1",
        "/v1/agent",
        "/v1/vault",
        "/v1/sessions/a/b/c",
        "/..",
        "//",
        "/v1/agents//",
    ] {
        let answer = raw::request(client.authority(), "GET", path, "", "").await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text);
    }
    system.stop().await;
}

#[tokio::test]
async fn garbage_in_heads_is_refused_and_hurts_nobody() {
    let system = System::start().await;
    let client = system.client();
    let authority = client.authority();
    let chat = client.session_of("scripted/echo").await;
    let message = json!({"content": "x"}).to_string();
    for (key, status) in [
        ("", 400),
        ("a b", 400),
        ("k\u{e9}y", 400),
        (&"k".repeat(257), 400),
        (&"k".repeat(256), 200),
        ("  padded  ", 200),
    ] {
        let headers = format!("idempotency-key: {key}\r\n");
        let answer = raw::request(authority, "POST", &chat.path("/events"), &headers, &message).await;
        assert_eq!(answer.status, status, "{key:?}: {}", answer.text);
    }
    let line = |line: &str| {
        format!("GET /healthz HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n{line}\r\n\r\n")
    };
    for (bytes, statuses) in [
        (b"\x16\x03\x01\x02\x00\x01\x00".to_vec(), &[0, 400][..]),
        (b"\0\0\0\0\r\n\r\n".to_vec(), &[0, 400]),
        (b"GET\r\n\r\n".to_vec(), &[0, 400]),
        (b"GET / HTTP/9.9\r\n\r\n".to_vec(), &[0, 400, 505]),
        (line("no colon").into_bytes(), &[400]),
        (line("bad name: x").into_bytes(), &[400]),
        (line("x: a\0b").into_bytes(), &[400]),
        (line("content-length: many").into_bytes(), &[400]),
        (
            line("content-length: 1\r\ncontent-length: 2").into_bytes(),
            &[400],
        ),
        (
            line(&format!("x: {}", "y".repeat(200 << 10))).into_bytes(),
            &[0, 431],
        ),
        (line(&"x: y\r\n".repeat(1_000)).into_bytes(), &[0, 431]),
        (
            format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(200 << 10)).into_bytes(),
            &[0, 400, 414, 431],
        ),
        // Without a host that is this server's, a web page of anybody could be the caller.
        (
            b"GET /v1/agents HTTP/1.1\r\nconnection: close\r\n\r\n".to_vec(),
            &[400, 403],
        ),
        (
            b"GET /v1/agents HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n".to_vec(),
            &[403],
        ),
    ] {
        let answer = raw::send(authority, &bytes).await;
        let shown: String = String::from_utf8_lossy(&bytes).chars().take(100).collect();
        assert!(
            statuses.contains(&answer.status),
            "{shown:?}: {} {}",
            answer.status,
            answer.text
        );
    }
    for (headers, status) in [
        ("origin: https://evil.example\r\n", 403),
        ("sec-fetch-site: cross-site\r\n", 403),
        ("origin: null\r\n", 403),
    ] {
        let body = json!({"model": "scripted/echo"}).to_string();
        let answer = raw::request(authority, "POST", "/v1/agents", headers, &body).await;
        assert_eq!(answer.status, status, "{headers}: {}", answer.text);
    }
    assert_eq!(client.get("/v1/agents").await.good()["count"], 1);
    system.stop().await;
}
