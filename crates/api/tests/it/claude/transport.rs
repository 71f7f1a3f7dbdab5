//! Keys, headers, the envelope of errors, and strictness.

use axum::body::Body;
use serde_json::{Value, json};

use super::{Claude, fault, good};
use crate::server::{Server, request};

#[tokio::test]
async fn both_key_headers_and_every_version_are_taken() {
    let server = Server::with(|config| config.api_token = Some("s3cret".into())).await;
    for (header, value, version, status) in [
        ("x-api-key", "s3cret", "2023-06-01", 200),
        ("authorization", "Bearer s3cret", "2026-10-21", 200),
        ("authorization", "Bearer s3cret", "whatever", 200),
        ("x-api-key", "wrong", "2023-06-01", 401),
        ("authorization", "Bearer wrong", "2026-10-21", 401),
        ("x-other", "s3cret", "2026-10-21", 401),
    ] {
        let request = request("GET", "/v1/agents?beta=true")
            .header("anthropic-version", version)
            .header(
                "anthropic-beta",
                "managed-agents-2026-04-01,unheard-of-2030-01-01",
            )
            .header(header, value);
        let answer = server.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, status, "{header}: {value}");
        if status == 401 {
            assert_eq!(fault(&answer).1, "authentication_error");
        } else {
            assert!(answer.headers.contains_key("request-id"));
            assert_eq!(good(&answer), json!({"data": [], "next_page": null}));
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_404_in_the_envelope() {
    let claude = Claude::start().await;
    for (method, path) in [
        ("GET", "/v1/dreams"),
        ("POST", "/v1/dreams"),
        ("GET", "/v1/skills/skill_none"),
        ("GET", "/v1/skills/skill_none/versions/latest"),
        ("GET", "/v1/files/file_none"),
        ("GET", "/v1/memory_stores/memstore_none"),
        ("POST", "/v1/memory_stores/memstore_none/archive"),
        ("GET", "/v1/tunnels"),
        ("GET", "/v1/agents/agt_none"),
        ("GET", "/v1/agents/no%20id"),
        ("POST", "/v1/agents/agt_none/archive"),
        ("DELETE", "/v1/agents/agt_none"),
        ("GET", "/v1/environments/env_none"),
        ("GET", "/v1/sessions/ses_none"),
        ("GET", "/v1/sessions/ses_none/events"),
        ("GET", "/v1/sessions/ses_none/events/stream"),
        ("POST", "/v1/sessions/ses_none/events"),
    ] {
        let (status, kind, _) = fault(&claude.send(method, path, "").await);
        assert_eq!(
            (status, kind.as_str()),
            (404, "not_found_error"),
            "{method} {path}"
        );
    }
    let (status, kind, _) = fault(&claude.send("PATCH", "/v1/agents/agt_none", "{}").await);
    assert_eq!((status, kind.as_str()), (405, "invalid_request_error"));
}

#[tokio::test]
async fn unknown_fields_and_bad_bodies_are_refused_by_name() {
    let claude = Claude::start().await;
    let agent = json!({"name": "A", "model": "test/puppet"});
    let with = |name: &str, value: Value| {
        let mut body = agent.clone();
        body[name] = value;
        body
    };
    for (path, body, message) in [
        (
            "/v1/agents",
            with("nmae", json!(1)),
            "nmae: Extra inputs are not permitted",
        ),
        (
            "/v1/agents",
            with("model", json!({"id": "a/b", "temperature": 1})),
            "model.temperature: Extra inputs are not permitted",
        ),
        (
            "/v1/agents",
            with(
                "tools",
                json!([{"type": "custom", "name": "x", "defer_loading": true}]),
            ),
            "tools.0.defer_loading: Extra inputs are not permitted",
        ),
        ("/v1/agents", json!({"model": "a/b"}), "name: Required"),
        ("/v1/agents", json!([]), "Expected object, received array"),
        (
            "/v1/environments",
            json!({"name": "e", "config": {"type": "cloud", "region": "x"}}),
            "config.region: Extra inputs are not permitted",
        ),
        (
            "/v1/sessions",
            json!({"agent": "a", "environment_id": "e", "environmentId": "e"}),
            "environmentId: Extra inputs are not permitted",
        ),
    ] {
        let (status, kind, said) = claude.refused(path, &body).await;
        assert_eq!(
            (status, kind.as_str(), said.as_str()),
            (400, "invalid_request_error", message),
            "{body}"
        );
    }
    let (status, _, said) = fault(&claude.send("POST", "/v1/agents", "{\"name\":").await);
    assert!(
        status == 400 && said.contains("The body is not valid JSON"),
        "{said}"
    );
    let (status, _, said) = fault(&claude.send("POST", "/v1/agents", "").await);
    assert_eq!((status, said.as_str()), (400, "name: Required"));
}

#[tokio::test]
async fn definite_conflicts_are_not_to_be_tried_again() {
    let claude = Claude::start().await;
    let agent = claude.agent(json!({})).await;
    let path = format!("/v1/agents/{}", agent["id"].as_str().unwrap());
    let stale = claude.send("POST", &path, r#"{"version": 7, "name": "B"}"#).await;
    assert_eq!(
        (fault(&stale).0, fault(&stale).1.as_str()),
        (409, "conflict_error")
    );
    assert_eq!(stale.headers["x-should-retry"], "false");
    let missing = claude.send("GET", "/v1/agents/agt_none", "").await;
    assert!(!missing.headers.contains_key("x-should-retry"));
}

#[tokio::test]
async fn pages_join_into_the_whole_list() {
    let claude = Claude::start().await;
    let mut made = Vec::new();
    for n in 0..7 {
        made.push(claude.agent(json!({"name": format!("A{n}")})).await["id"].clone());
    }
    made.reverse();
    let mut seen = Vec::new();
    let mut path = "/v1/agents?limit=3".to_owned();
    loop {
        let page = claude.get(&path).await;
        let ids = page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|agent| agent["id"].clone());
        seen.extend(ids);
        match page["next_page"].as_str() {
            Some(next) => path = format!("/v1/agents?limit=2&page={next}"),
            None => break,
        }
    }
    assert_eq!(seen, made, "newest first");
    for query in [
        "limit=0",
        "limit=101",
        "limit=x",
        "page=mine",
        "page=page_e30",
        "include_archived=1",
    ] {
        let (status, _, _) = fault(&claude.send("GET", &format!("/v1/agents?{query}"), "").await);
        assert_eq!(status, 400, "{query}");
    }
}

/// I10: a stranger's key finds nothing of ours, on any route that names something.
#[tokio::test]
async fn workspaces_are_kept_apart() {
    let server = Server::with(|config| config.api_token = Some("s3cret".into())).await;
    let native = async |path: &str, body: Value| {
        let request = request("POST", path).header("authorization", "Bearer s3cret");
        let answer = server
            .send(request.body(Body::from(body.to_string())).unwrap())
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let elsewhere = native("/v1/workspaces", json!({"name": "elsewhere"})).await;
    let stranger = json!({"name": "k", "scope": "admin", "workspaceId": elsewhere["workspace_id"]});
    let stranger = native("/v1/keys", stranger).await["secret"]
        .as_str()
        .unwrap()
        .to_owned();
    let call = async |key: &str, method: &str, path: &str, body: &Value| {
        let request = request(method, path)
            .header("anthropic-version", "2026-10-21")
            .header("x-api-key", key);
        server
            .send(request.body(Body::from(body.to_string())).unwrap())
            .await
    };
    let ours = async |path: &str, body: Value| super::id(&good(&call("s3cret", "POST", path, &body).await));
    let agent = ours("/v1/agents", json!({"name": "A", "model": "test/puppet"})).await;
    let hosted = json!({"name": "e", "config": {"type": "self_hosted"}});
    let environment = ours("/v1/environments", hosted).await;
    let session = json!({"agent": agent, "environment_id": environment});
    let id = ours("/v1/sessions", session.clone()).await;
    let hello = json!({"events": [super::message("hello")]});
    good(&call("s3cret", "POST", &format!("/v1/sessions/{id}/events"), &hello).await);
    let queue = format!("/v1/environments/{environment}/work/poll?block_ms=999");
    let work = super::id(&good(&call("s3cret", "GET", &queue, &json!({})).await));
    let said = json!({"events": [super::message("x")]});
    for (method, path, body) in [
        ("GET", format!("/v1/agents/{agent}"), json!({})),
        ("GET", format!("/v1/agents/{agent}?version=1"), json!({})),
        ("POST", format!("/v1/agents/{agent}"), json!({"name": "mine"})),
        ("GET", format!("/v1/agents/{agent}/versions"), json!({})),
        ("POST", format!("/v1/agents/{agent}/archive"), json!({})),
        ("DELETE", format!("/v1/agents/{agent}"), json!({})),
        ("GET", format!("/v1/environments/{environment}"), json!({})),
        (
            "POST",
            format!("/v1/environments/{environment}"),
            json!({"name": "mine"}),
        ),
        (
            "POST",
            format!("/v1/environments/{environment}/archive"),
            json!({}),
        ),
        ("DELETE", format!("/v1/environments/{environment}"), json!({})),
        ("GET", format!("/v1/environments/{environment}/work"), json!({})),
        (
            "GET",
            format!("/v1/environments/{environment}/work/poll"),
            json!({}),
        ),
        (
            "GET",
            format!("/v1/environments/{environment}/work/stats"),
            json!({}),
        ),
        (
            "GET",
            format!("/v1/environments/{environment}/work/{work}"),
            json!({}),
        ),
        (
            "POST",
            format!("/v1/environments/{environment}/work/{work}"),
            json!({"metadata": {"a": "b"}}),
        ),
        (
            "POST",
            format!("/v1/environments/{environment}/work/{work}/ack"),
            json!({}),
        ),
        (
            "POST",
            format!("/v1/environments/{environment}/work/{work}/heartbeat"),
            json!({}),
        ),
        (
            "POST",
            format!("/v1/environments/{environment}/work/{work}/stop"),
            json!({}),
        ),
        ("POST", "/v1/sessions".to_owned(), session),
        ("GET", format!("/v1/sessions/{id}"), json!({})),
        ("POST", format!("/v1/sessions/{id}"), json!({"title": "mine"})),
        ("POST", format!("/v1/sessions/{id}/archive"), json!({})),
        ("DELETE", format!("/v1/sessions/{id}"), json!({})),
        ("POST", format!("/v1/sessions/{id}/events"), said.clone()),
        ("GET", format!("/v1/sessions/{id}/events"), json!({})),
        ("GET", format!("/v1/sessions/{id}/events/stream"), json!({})),
    ] {
        let answer = call(&stranger, method, &path, &body).await;
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
    }
    for path in ["/v1/agents", "/v1/environments", "/v1/sessions"] {
        let list = good(&call(&stranger, "GET", path, &json!({})).await);
        assert_eq!(list["data"], json!([]), "{path}");
    }
    // A name that we have is free there.
    good(&call(&stranger, "POST", "/v1/environments", &json!({"name": "e"})).await);
    good(&call("s3cret", "POST", &format!("/v1/sessions/{id}/events"), &said).await);

    // Everything that changes something has its name in the trail.
    let request = request("GET", "/v1/audit?limit=1000").header("authorization", "Bearer s3cret");
    let trail = server.send(request.body(Body::empty()).unwrap()).await.json();
    let actions: Vec<&Value> = trail["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["action"])
        .collect();
    assert!(
        actions.contains(&&json!("session.create")) && !actions.contains(&&json!("unknown")),
        "{actions:?}"
    );
}
