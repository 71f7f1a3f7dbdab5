//! Who gets in, and what stands in front of every route.

use axum::body::Body;
use serde_json::json;

use crate::server::{Server, request};

#[tokio::test]
async fn every_route_but_the_open_ones_needs_the_key() {
    let server = Server::with(|config| config.api_token = Some("s3cret".into())).await;
    let document = serde_json::to_value(oma_api::openapi::document()).unwrap();
    let mut closed = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let concrete = path.replace(['{', '}'], "");
        for method in item
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| *key != "parameters")
        {
            let answer = server.raw(&method.to_uppercase(), &concrete, "{}").await;
            if oma_api::auth::OPEN_PATHS.contains(&path.as_str()) {
                assert_ne!(answer.status, 401, "{method} {path}");
                continue;
            }
            closed += 1;
            assert_eq!(answer.code(), (401, "unauthorized".into()), "{method} {path}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
    assert!(closed > 20, "{closed}");
    // Nor does it tell which paths there are.
    assert_eq!(
        server.get("/v1/nothing").await.code(),
        (401, "unauthorized".into())
    );
    let allowed = request("GET", "/v1/agents").header("authorization", "Bearer s3cret");
    assert_eq!(
        server.send(allowed.body(Body::empty()).unwrap()).await.status,
        200
    );
    let query = server.get("/v1/agents?token=s3cret").await;
    assert_eq!(query.status, 401);
}

#[tokio::test]
async fn foreign_pages_are_kept_out_without_a_key() {
    let server = Server::start().await;
    let rebound = request("GET", "/v1/agents")
        .header("x", "y")
        .body(Body::empty())
        .unwrap();
    let (mut parts, body) = rebound.into_parts();
    parts.headers.insert("host", "evil.example".parse().unwrap());
    let answer = server.send(axum::http::Request::from_parts(parts, body)).await;
    assert_eq!(answer.code(), (403, "host_not_allowed".into()));
    // Probes come with the machine's address and learn nothing.
    for open in ["/healthz", "/readyz"] {
        let (mut parts, body) = request("GET", open).body(Body::empty()).unwrap().into_parts();
        parts.headers.insert("host", "10.0.0.7:8080".parse().unwrap());
        assert_eq!(
            server
                .send(axum::http::Request::from_parts(parts, body))
                .await
                .status,
            200,
            "{open}"
        );
    }
    let foreign = request("POST", "/v1/agents").header("origin", "https://evil.example");
    let answer = server
        .send(foreign.body(Body::from(r#"{"model":"a/b"}"#)).unwrap())
        .await;
    assert_eq!(answer.code(), (403, "cross_origin".into()));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_apart() {
    let server = Server::start().await;
    for (method, path, code) in [
        ("GET", "/v1/nothing", (404, "not_found")),
        ("PUT", "/v1/vaults", (405, "method_not_allowed")),
        ("GET", "/v2", (404, "not_found")),
        ("GET", "/v1/agents/", (404, "not_found")),
        ("PUT", "/v1/agents", (405, "method_not_allowed")),
        ("POST", "/v1/agents/agt_1/clone", (404, "not_found")),
        ("GET", "/v1/chat/completions", (405, "method_not_allowed")),
    ] {
        let answer = server.raw(method, path, "").await;
        assert_eq!(answer.code(), (code.0, code.1.to_owned()), "{method} {path}");
        assert_eq!(answer.headers["content-type"], "application/json");
        assert_eq!(
            answer.headers.contains_key("allow"),
            code.0 == 405,
            "{method} {path}"
        );
    }
    let head = server.raw("HEAD", "/v1/agents", "").await;
    assert_eq!((head.status.as_u16(), head.bytes.len()), (200, 0));
}

#[tokio::test]
async fn request_ids_are_echoed_or_made() {
    let server = Server::start().await;
    let answer = server
        .send(
            request("GET", "/healthz")
                .header("x-request-id", "mine")
                .body(Body::empty())
                .unwrap(),
        )
        .await;
    assert_eq!(answer.headers["x-request-id"], "mine");
    let answer = server.get("/v1/nothing").await;
    assert!(
        answer.headers["x-request-id"]
            .to_str()
            .unwrap()
            .starts_with("req_")
    );
}

#[tokio::test]
async fn a_panic_costs_one_request() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    let chat = request("POST", "/v1/chat/completions")
        .header("x-openclaw-agent-id", &agent)
        .header("x-openclaw-session-key", "panics");
    let body = json!({"messages": [{"role": "user", "content": "hi"}]}).to_string();
    assert_eq!(
        server.send(chat.body(Body::from(body)).unwrap()).await.status,
        200
    );
    let answer = server.get("/v1/sessions/panics/logs").await;
    assert_eq!(answer.code(), (500, "internal".into()));
    assert!(!answer.text().contains("told to"), "{}", answer.text());
    assert_eq!(server.get("/v1/sessions/panics").await.status, 200);
}

#[tokio::test]
async fn bodies_are_bounded() {
    let server = Server::with(|config| config.max_json_body = 100).await;
    let long = "x".repeat(101);
    assert_eq!(
        server.raw("POST", "/v1/agents", long.clone()).await.code(),
        (413, "body_too_large".into())
    );
    assert_eq!(
        server.raw("POST", "/v1/chat/completions", long).await.code().0,
        400
    );
    assert_eq!(
        server.raw("POST", "/v1/agents", vec![0xff, 0xfe]).await.code(),
        (400, "invalid_body".into())
    );
    for body in ["{", "not json"] {
        let answer = server.raw("POST", "/v1/agents", body).await;
        assert_eq!(answer.code(), (400, "invalid_request".into()), "{body:?}");
        let problem = answer.json()["details"]["_errors"][0].to_string();
        assert!(
            problem.contains("The body is not valid JSON"),
            "{body:?}: {problem}"
        );
    }
    for body in ["", " ", "{}"] {
        let answer = server.raw("POST", "/v1/agents", body).await;
        assert_eq!(
            answer.json()["details"]["model"]["_errors"],
            json!(["Required"]),
            "{body:?}"
        );
    }
    for (body, problem) in [
        ("[]", "Expected object, received array"),
        ("null", "Expected object, received null"),
        ("3", "Expected object, received number"),
        ("\"x\"", "Expected object, received string"),
    ] {
        let answer = server.raw("POST", "/v1/agents", body).await;
        assert_eq!(answer.code(), (400, "invalid_request".into()));
        assert_eq!(answer.json()["details"], json!({"_errors": [problem]}), "{body}");
    }
}

#[tokio::test]
async fn the_server_describes_itself() {
    let server = Server::start().await;
    let root = server.get("/").await.json();
    assert_eq!(
        (&root["auth"], &root["endpoints"]["agents"]["create"]),
        (&json!("disabled"), &json!("POST /v1/agents"))
    );
    let browser = request("GET", "/")
        .header("accept", "text/html,*/*")
        .body(Body::empty())
        .unwrap();
    let answer = server.send(browser).await;
    assert_eq!(
        (
            answer.status.as_u16(),
            answer.headers["location"].to_str().unwrap()
        ),
        (302, "/docs")
    );
    let docs = server.get("/docs").await;
    assert!(docs.text().starts_with("<!doctype html>"));
    assert!(
        docs.headers["content-security-policy"]
            .to_str()
            .unwrap()
            .starts_with("default-src 'none'")
    );
    let health = server.get("/healthz").await.json();
    assert_eq!(
        (&health["ok"], &health["commit"]),
        (&json!(true), &json!("unknown"))
    );
    assert_eq!(server.get("/readyz").await.json(), json!({"ok": true}));
    assert_eq!(
        server.get("/metrics").await.code(),
        (404, "metrics_disabled".into())
    );
}

#[tokio::test]
async fn metrics_label_the_matched_route() {
    let recorder = oma_api::telemetry::recorder().unwrap();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).unwrap();
    oma_api::telemetry::describe();
    let server = Server::measured(handle).await;
    let agent = server.agent(json!({})).await;
    server.get(&format!("/v1/agents/{agent}")).await;
    server.get("/v1/no/such/path").await;
    server.raw("BREW", "/v1/agents", "").await;
    let answer = server.get("/metrics").await;
    assert_eq!(
        answer.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = answer.text();
    for line in [
        r#"http_requests_total{service="openclaw-managed-agents",method="GET",route="/v1/agents/{agent_id}",status="200"} 1"#,
        r#"http_requests_total{service="openclaw-managed-agents",method="GET",route="unmatched",status="404"} 1"#,
        r#"http_requests_total{service="openclaw-managed-agents",method="other",route="/v1/agents",status="405"} 1"#,
        r#"pool_active_containers{service="openclaw-managed-agents"} 3"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(text.contains("http_request_duration_seconds_bucket{"), "{text}");
    assert!(!text.contains(&agent), "an id became a label");
}

#[tokio::test]
async fn models_serve_both_kinds_of_client() {
    let server = Server::start().await;
    let list = server.get("/v1/models").await.json();
    assert_eq!(list["models"][0]["id"], "test/puppet");
    assert_eq!((&list["count"], &list["object"]), (&json!(2), &json!("list")));
    assert_eq!(
        list["data"][0],
        json!({"id": "test/puppet", "object": "model", "created": 0, "owned_by": "test"})
    );
    let one = server.get("/v1/models/test%2Ffamily/large").await.json();
    assert_eq!(
        (&one["id"], &one["object"]),
        (&json!("test/family/large"), &json!("model"))
    );
    assert_eq!(
        server.get("/v1/models/test/none").await.code(),
        (404, "model_not_found".into())
    );
}
