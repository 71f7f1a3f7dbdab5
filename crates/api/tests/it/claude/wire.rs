//! How the SDKs of all versions word their requests, and the refusals that come before any handler.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Claude, fault, good, id, message};
use crate::server::{Frames, Server, request};

/// A server with these limits.
async fn limited(adjust: impl FnOnce(&mut oma_api::ApiConfig)) -> Claude {
    Claude {
        server: Server::with(adjust).await,
    }
}

#[tokio::test]
async fn actions_need_no_body_and_take_any_content_type() {
    let claude = Claude::start().await;
    for (content_type, body) in [
        (None, ""),
        (Some("application/json"), ""),
        (None, "{}"),
        (Some("application/json"), "{}"),
        (Some("text/plain"), "{}"),
    ] {
        let agent = id(&claude.agent(json!({})).await);
        let environment = format!("env of {agent}");
        let environment = id(&claude
            .post("/v1/environments", &json!({"name": environment}))
            .await);
        let session = json!({"agent": agent, "environment_id": environment});
        let session = id(&claude.post("/v1/sessions", &session).await);
        for path in [
            format!("/v1/sessions/{session}/archive"),
            format!("/v1/agents/{agent}/archive"),
            format!("/v1/environments/{environment}/archive"),
        ] {
            let mut request = request("POST", &format!("{path}?beta=true"))
                .header("anthropic-version", "2026-10-21")
                .header("accept", "application/json");
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }
            let request = request.body(Body::from(body)).unwrap();
            let archived = good(&claude.server.send(request).await);
            assert!(
                archived["archived_at"].is_string(),
                "{path} {content_type:?} {body}"
            );
        }
    }
}

#[tokio::test]
async fn lists_in_queries_are_read_in_every_encoding() {
    let claude = Claude::start().await;
    let session = claude.session(json!([])).await;
    claude.turn(&session, json!([message("hello")])).await;
    let path = format!("/v1/sessions/{session}/events");
    for query in [
        "types[]=user.message&types[]=agent.message",
        "types%5B%5D=user.message&types%5B%5D=agent.message",
        "types=user.message&types=agent.message&beta=true",
        "types=user.message,agent.message",
        "types=user.message%2Cagent.message",
    ] {
        let page = claude.get(&format!("{path}?{query}")).await;
        let kinds: Vec<&Value> = page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| &event["type"])
            .collect();
        assert_eq!(kinds, ["user.message", "agent.message"], "{query}");
    }
    for query in ["statuses[]=idle&statuses[]=running", "statuses=running,idle"] {
        let page = claude.get(&format!("/v1/sessions?{query}")).await;
        assert_eq!(page["data"].as_array().unwrap().len(), 1, "{query}");
    }
    let event = &claude.get(&path).await["data"][3];
    let at = event["processed_at"]
        .as_str()
        .unwrap()
        .replace('Z', "000%2B00:00");
    let page = claude
        .get(&format!("{path}?created_at%5Bgte%5D={at}&created_at[lte]={at}"))
        .await;
    assert!(page["data"].as_array().unwrap().contains(event));
    for query in [
        "created_at[gte]=yesterday",
        "order=random",
        "limit=1001",
        "limit=-1",
    ] {
        let (status, kind, said) = fault(&claude.send("GET", &format!("{path}?{query}"), "").await);
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{query}");
        let name = query.split_once('=').unwrap().0;
        assert!(said.starts_with(&format!("{name}: ")), "{said}");
    }
}

#[tokio::test]
async fn a_stream_is_one_whatever_the_client_says_that_it_accepts() {
    let claude = Claude::start().await;
    let session = claude.session(json!([])).await;
    for accepted in ["application/json", "text/event-stream", "*/*"] {
        let path = format!("/v1/sessions/{session}/events/stream?event_deltas%5B%5D=agent.message&beta=true");
        let request = request("GET", &path)
            .header("anthropic-version", "2026-10-21")
            .header("accept", accepted);
        let answer = claude.server.open(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert!(answer.headers().contains_key("request-id"));
        // The first bytes come by themselves.
        assert_eq!(Frames::of(answer).next().await.unwrap().event, "ping");
    }
}

#[tokio::test]
async fn a_cursor_is_of_its_own_list_only() {
    let claude = Claude::start().await;
    let session = claude.session(json!([])).await;
    claude.turn(&session, json!([message("hello")])).await;
    for n in 0..3 {
        claude.agent(json!({"name": n.to_string()})).await;
    }
    let other = claude.session(json!([])).await;
    let lists = [
        "/v1/agents?limit=1".to_owned(),
        "/v1/sessions?limit=1".to_owned(),
        format!("/v1/sessions/{session}/events?limit=1"),
    ];
    let mut cursors = Vec::new();
    for list in &lists {
        cursors.push(claude.get(list).await["next_page"].as_str().unwrap().to_owned());
    }
    for (list, order, cursor) in [(&lists[1], "asc", &cursors[1]), (&lists[2], "desc", &cursors[2])] {
        let path = format!("{list}&order={order}&page={cursor}");
        let (status, kind, said) = fault(&claude.send("GET", &path, "").await);
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{path}");
        assert!(said.starts_with("page: "), "{said}");
    }
    for (list, cursor) in [(&lists[0], &cursors[1]), (&lists[1], &cursors[2])] {
        let answer = claude.send("GET", &format!("{list}&page={cursor}"), "").await;
        assert_eq!(fault(&answer).0, 400, "{list}");
    }
    let elsewhere = format!("/v1/sessions/{other}/events?page={}", cursors[2]);
    assert_eq!(fault(&claude.send("GET", &elsewhere, "").await).0, 400);
    // Nor is one whose event is at another position than it says.
    let text = cursors[2].strip_prefix("page_").unwrap();
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    for position in [0_u64, 2, 1 << 32, (1 << 63) - 1, u64::MAX] {
        let forged = text.replace("\"r\":\"1/", &format!("\"r\":\"{position}/"));
        assert_ne!(forged, text);
        for order in ["asc", "desc"] {
            let forged = forged.replace("\"d\":false", &format!("\"d\":{}", order == "desc"));
            let page = URL_SAFE_NO_PAD.encode(forged);
            let path = format!("{}&order={order}&page=page_{page}", lists[2]);
            let (status, _, said) = fault(&claude.send("GET", &path, "").await);
            assert_eq!(
                (status, &*said),
                (400, "page: the cursor is not valid"),
                "{position}"
            );
        }
    }
    // Another limit is fine.
    claude
        .get(&format!("{}&limit=2&page={}", lists[1], cursors[1]))
        .await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_in_the_envelope() {
    let claude = limited(|config| config.max_json_body = 1_000).await;
    let body = json!({"name": "A", "model": "m", "system": "x".repeat(2_000)});
    let answer = claude.send("POST", "/v1/agents", body.to_string()).await;
    let (status, kind, _) = fault(&answer);
    assert_eq!((status, kind.as_str()), (413, "request_too_large"));
    assert!(!answer.headers.contains_key("x-should-retry"));
}

#[tokio::test]
async fn too_many_requests_are_told_when_to_come_again() {
    let claude = limited(|config| config.rate_limit_rpm = 1).await;
    claude.get("/v1/agents").await;
    let answer = claude.send("GET", "/v1/agents", "").await;
    let (status, kind, _) = fault(&answer);
    assert_eq!((status, kind.as_str()), (429, "rate_limit_error"));
    let seconds: u32 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn what_there_is_no_room_for_now_may_be_tried_again() {
    let claude = limited(|config| config.max_streams = 1).await;
    let session = claude.session(json!([])).await;
    let _open = claude.stream(&session, "").await;
    let path = format!("/v1/sessions/{session}/events/stream");
    let answer = claude.send("GET", &path, "").await;
    let (status, kind, _) = fault(&answer);
    assert_eq!((status, kind.as_str()), (503, "api_error"));
    assert!(answer.headers.contains_key("retry-after"));
    assert!(!answer.headers.contains_key("x-should-retry"));
}

/// Pages of other origins get nothing: no answer allows them to read it, and they can't change anything.
#[tokio::test]
async fn no_answer_is_shared_with_other_origins() {
    let claude = Claude::start().await;
    for (method, status) in [("GET", 200), ("OPTIONS", 405), ("POST", 403)] {
        let request = request(method, "/v1/agents")
            .header("anthropic-version", "2026-10-21")
            .header("origin", "https://elsewhere.example")
            .header("access-control-request-method", "GET");
        let answer = claude.server.send(request.body(Body::empty()).unwrap()).await;
        let allowed = answer
            .headers
            .keys()
            .find(|name| name.as_str().starts_with("access-control"));
        assert_eq!(allowed, None, "{method}");
        assert_eq!(answer.status, status, "{method}");
    }
}

/// Three states of a field: left out, null, a value.
#[tokio::test]
async fn updates_tell_what_is_left_out_from_null() {
    let claude = Claude::start().await;
    let name = json!({"name": "e", "description": "d", "metadata": {"a": "1", "b": "2"}});
    let environment = claude.post("/v1/environments", &name).await;
    let path = format!("/v1/environments/{}", id(&environment));
    for (update, description, metadata) in [
        (json!({}), json!("d"), json!({"a": "1", "b": "2"})),
        (json!({"metadata": {"a": null}}), json!("d"), json!({"b": "2"})),
        (json!({"description": null}), Value::Null, json!({"b": "2"})),
        (json!({"description": ""}), json!(""), json!({"b": "2"})),
        (json!({"description": "new"}), json!("new"), json!({"b": "2"})),
    ] {
        let updated = claude.post(&path, &update).await;
        assert_eq!(
            (&updated["description"], &updated["metadata"]),
            (&description, &metadata),
            "{update}"
        );
        assert_eq!(claude.get(&path).await, updated);
    }
    let agent = claude
        .agent(json!({"system": "s", "description": "d", "tools": [{"type": "agent_toolset_20260401"}]}))
        .await;
    let path = format!("/v1/agents/{}", id(&agent));
    for (update, version) in [
        (json!({}), 1),
        (json!({"system": "s"}), 1),
        (json!({"system": null}), 2),
        (json!({"description": ""}), 3),
        (json!({"tools": null}), 4),
        (json!({"tools": []}), 4),
    ] {
        assert_eq!(claude.post(&path, &update).await["version"], version, "{update}");
    }
    let cleared = claude.get(&path).await;
    assert_eq!(
        (&cleared["system"], &cleared["description"], &cleared["tools"]),
        (&Value::Null, &Value::Null, &json!([]))
    );
    for field in ["name", "model"] {
        let (status, _, said) = claude.refused(&path, &json!({ field: null })).await;
        assert!(status == 400 && said.starts_with(&format!("{field}: ")), "{said}");
    }
}
