//! The work queue of self-hosted environments.

use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Claude, fault, find, good, id, kinds, message};
use crate::server::{Answer, Server, request};

/// A self-hosted environment, and a session in it.
async fn hosted(claude: &Claude, tools: Value) -> (String, String) {
    let config = json!({"name": "own", "config": {"type": "self_hosted"}});
    let environment = id(&claude.post("/v1/environments", &config).await);
    let agent = claude.agent(json!({ "tools": tools })).await;
    let session = json!({"agent": agent["id"], "environment_id": environment});
    (environment, id(&claude.post("/v1/sessions", &session).await))
}

fn toolset(policy: &str) -> Value {
    json!([{"type": "agent_toolset_20260401", "default_config": {"permission_policy": {"type": policy}}}])
}

fn result(tool_use: &Value) -> Value {
    json!([{"type": "user.tool_result", "tool_use_id": tool_use, "content": [{"type": "text", "text": "42"}]}])
}

#[tokio::test]
async fn a_worker_answers_for_the_built_in_tools() {
    let claude = Claude::start().await;
    let (environment, session) = hosted(&claude, toolset("always_allow")).await;
    assert_eq!(
        claude.get(&format!("/v1/environments/{environment}")).await["config"],
        json!({"type": "self_hosted"})
    );
    let frames = claude.turn(&session, json!([message("tool")])).await;
    let used = &find(&frames, "agent.tool_use")["id"];
    assert_eq!(
        find(&frames, "session.status_idle")["stop_reason"],
        json!({"type": "requires_action", "event_ids": [used]})
    );
    let path = format!("/v1/sessions/{session}/events");
    // It is no custom tool, and nobody else's.
    let custom = json!({"events": [{"type": "user.custom_tool_result", "custom_tool_use_id": used}]});
    assert_eq!(claude.refused(&path, &custom).await.0, 400);
    let other = json!({"events": [{"type": "user.tool_result", "tool_use_id": "evt_other"}]});
    let (status, _, said) = claude.refused(&path, &other).await;
    assert!(
        status == 400 && said.starts_with("`tool_use_id` does not match"),
        "{said}"
    );
    let frames = claude.turn(&session, result(used)).await;
    assert_eq!(
        kinds(&frames)[..3],
        [
            "user.tool_result",
            "session.status_running",
            "session.thread_status_running"
        ]
    );
    let told = find(&frames, "user.tool_result");
    assert_eq!(
        (&told["tool_use_id"], &told["is_error"], &told["content"]),
        (used, &json!(false), &json!([{"type": "text", "text": "42"}]))
    );
    assert_eq!(
        find(&frames, "session.status_idle")["stop_reason"]["type"],
        "end_turn"
    );
    let (status, _, _) = claude.refused(&path, &json!({"events": result(used)})).await;
    assert_eq!(status, 400, "a second result");
    // The other dialect sees a tool like any other.
    let seen = claude.server.events(&session, "").await;
    assert!(seen.iter().any(|event| event["type"] == "agent.tool_result"));
}

#[tokio::test]
async fn results_are_refused_where_the_tools_run_here() {
    let claude = Claude::start().await;
    let session = claude.session(toolset("always_ask")).await;
    let frames = claude.turn(&session, json!([message("tool")])).await;
    let used = &find(&frames, "agent.tool_use")["id"];
    let body = json!({"events": result(used)});
    let (status, _, _) = claude
        .refused(&format!("/v1/sessions/{session}/events"), &body)
        .await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn an_item_as_workers_see_it() {
    let claude = Claude::start().await;
    let (environment, session) = hosted(&claude, toolset("always_allow")).await;
    let queue = format!("/v1/environments/{environment}/work");
    assert_eq!(claude.get(&format!("{queue}/poll")).await, Value::Null);
    claude.turn(&session, json!([message("tool")])).await;
    let mut item = claude.get(&format!("{queue}/poll?block_ms=999")).await;
    // Whoever takes an item is in the audit trail; who finds none is not, and who may not ask is.
    let no = claude.send("GET", &format!("{queue}/poll?block_ms=0"), "").await;
    assert_eq!(no.status, 400, "{}", no.text());
    let trail = claude.server.get("/v1/audit?action=work.take").await.json();
    let entries = trail["events"].as_array().unwrap();
    let entries: Vec<_> = entries
        .iter()
        .map(|entry| (&entry["outcome"], &entry["target"]))
        .collect();
    let (failed, taken) = (json!("invalid_request"), json!("ok"));
    assert_eq!(entries, [(&failed, &json!(environment)), (&taken, &item["id"])]);
    let secret = item["secret"].take();
    let secret = URL_SAFE_NO_PAD.decode(secret.as_str().unwrap()).unwrap();
    let secret: Value = serde_json::from_slice(&secret).unwrap();
    assert!(secret["sessions_token"].as_str().unwrap().starts_with("omw_"));
    let expected = json!({
        "id": item["id"], "type": "work", "environment_id": environment,
        "data": {"type": "session", "id": session}, "state": "starting", "metadata": {}, "secret": null,
        "created_at": item["created_at"], "acknowledged_at": null, "started_at": null,
        "latest_heartbeat_at": null, "stop_requested_at": null, "stopped_at": null,
    });
    assert_eq!(item, expected);
    let path = format!("{queue}/{}", id(&item));
    assert_eq!(claude.get(&path).await, expected);
    let known = claude.post(&format!("{path}/ack"), &json!({})).await;
    assert!(known["acknowledged_at"].is_string());
    let beat = claude
        .send(
            "POST",
            &format!("{path}/heartbeat?expected_last_heartbeat=NO_HEARTBEAT"),
            "",
        )
        .await;
    let beat = good(&beat);
    assert_eq!(
        beat,
        json!({"type": "work_heartbeat", "last_heartbeat": beat["last_heartbeat"], "lease_extended": true,
            "state": "active", "ttl_seconds": 300})
    );
    let lost = claude
        .send(
            "POST",
            &format!("{path}/heartbeat?expected_last_heartbeat=NO_HEARTBEAT"),
            "",
        )
        .await;
    let (status, kind, _) = fault(&lost);
    assert_eq!((status, kind.as_str()), (412, "invalid_request_error"));
    assert_eq!(
        lost.json()["error"]["details"],
        json!({"error_code": "heartbeat_precondition_failed", "current_state": {
            "last_heartbeat": beat["last_heartbeat"], "lease_extended": false, "state": "active", "ttl_seconds": 300}})
    );
    for (query, name) in [
        ("expected_last_heartbeat=soon", "expected_last_heartbeat"),
        ("desired_ttl_seconds=0", "desired_ttl_seconds"),
    ] {
        let answer = claude
            .send("POST", &format!("{path}/heartbeat?{query}"), "")
            .await;
        let (status, _, said) = fault(&answer);
        assert!(status == 400 && said.starts_with(&format!("{name}: ")), "{said}");
    }
    for query in ["block_ms=0", "block_ms=1000", "reclaim_older_than_ms=x"] {
        let answer = claude.send("GET", &format!("{queue}/poll?{query}"), "").await;
        assert_eq!(fault(&answer).0, 400, "{query}");
    }
    let stopped = claude
        .post(&format!("{path}/stop"), &json!({"force": true}))
        .await;
    assert_eq!(stopped["state"], "stopped");
    let again = claude.send("POST", &format!("{path}/stop"), "").await;
    assert_eq!(
        (fault(&again).0, &again.headers["x-should-retry"]),
        (409, &"false".parse().unwrap())
    );
    let (status, _, said) = claude
        .refused(&format!("{path}/stop"), &json!({"now": true}))
        .await;
    assert_eq!(
        (status, said.as_str()),
        (400, "now: Extra inputs are not permitted")
    );
    let page = claude.get(&format!("{queue}?limit=1")).await;
    assert_eq!(
        page["data"][0]["state"], "queued",
        "the session still waits for its result"
    );
    let rest = format!("{queue}?limit=1&page={}", page["next_page"].as_str().unwrap());
    assert_eq!(claude.get(&rest).await["data"][0]["id"], item["id"]);
    assert_eq!(claude.get(&format!("{queue}/stats")).await["depth"], 1);
}

/// A poll that waits is woken by work, and does not look for it in between.
#[tokio::test]
async fn polls_wait_for_work() {
    let claude = Claude::start().await;
    let (environment, session) = hosted(&claude, toolset("always_allow")).await;
    let queue = format!("/v1/environments/{environment}/work/poll?block_ms=999");
    let said = async {
        // The poll is there first.
        tokio::task::yield_now().await;
        claude.turn(&session, json!([message("tool")])).await
    };
    let (item, _) = tokio::join!(claude.get(&queue), said);
    assert_eq!(item["data"]["id"], session.as_str());
    let waited = tokio::time::timeout(Duration::from_secs(5), claude.get(&queue)).await;
    assert_eq!(waited.unwrap(), Value::Null);
}

/// What the holder of a key of an environment, and of an item's token, may call.
#[tokio::test]
async fn hands_may_do_their_work_and_nothing_else() {
    let claude = Claude {
        server: Server::with(|config| config.api_token = Some("s3cret".into())).await,
    };
    let call = async |key: &str, dialect: bool, method: &str, path: &str, body: &Value| -> Answer {
        let mut request = request(method, path).header("authorization", format!("Bearer {key}"));
        if dialect {
            request = request.header("anthropic-version", "2026-10-21");
        }
        let request = request.body(Body::from(body.to_string())).unwrap();
        claude.server.send(request).await
    };
    let ours = async |path: &str, body: Value| good(&call("s3cret", true, "POST", path, &body).await);
    let hosted = json!({"name": "own", "config": {"type": "self_hosted"}});
    let environment = id(&ours("/v1/environments", hosted).await);
    let cloud = id(&ours("/v1/environments", json!({"name": "cloud"})).await);
    let agent = json!({"name": "A", "model": "test/puppet", "tools": toolset("always_allow")});
    let agent = id(&ours("/v1/agents", agent).await);
    let session = json!({"agent": agent, "environment_id": environment});
    let session = id(&ours("/v1/sessions", session).await);
    let other = id(&ours("/v1/sessions", json!({"agent": agent, "environment_id": cloud})).await);
    ours(
        &format!("/v1/sessions/{session}/events"),
        json!({"events": [message("tool")]}),
    )
    .await;

    let wanted = |environment: &str| json!({"name": "w", "scope": "write", "environmentId": environment});
    let key = call("s3cret", false, "POST", "/v1/keys", &wanted(&environment))
        .await
        .json();
    assert_eq!(key["environment_id"], environment.as_str());
    let key = key["secret"].as_str().unwrap();
    for (body, status) in [
        (wanted(&cloud), 400),
        (wanted("env_none"), 404),
        (
            json!({"name": "w", "scope": "admin", "environmentId": environment}),
            400,
        ),
    ] {
        let answer = call("s3cret", false, "POST", "/v1/keys", &body).await;
        assert_eq!(answer.status, status, "{body}");
    }
    let queue = format!("/v1/environments/{environment}/work");
    let item = good(
        &call(
            key,
            true,
            "GET",
            &format!("{queue}/poll?block_ms=999"),
            &json!({}),
        )
        .await,
    );
    let token = URL_SAFE_NO_PAD.decode(item["secret"].as_str().unwrap()).unwrap();
    let token: Value = serde_json::from_slice(&token).unwrap();
    let token = token["sessions_token"].as_str().unwrap();
    let work = format!("{queue}/{}", id(&item));
    let said = json!({"events": [message("x")]});
    let nothing = json!({});
    for (method, path, body, of_key, of_token) in [
        ("GET", queue.clone(), &nothing, 200, 403),
        ("GET", format!("{queue}/stats"), &nothing, 200, 403),
        ("GET", format!("{queue}/poll"), &nothing, 200, 403),
        ("GET", work.clone(), &nothing, 200, 200),
        ("POST", format!("{work}/ack"), &nothing, 200, 200),
        ("POST", format!("{work}/heartbeat"), &nothing, 200, 200),
        ("GET", format!("{queue}/work_other"), &nothing, 404, 404),
        (
            "GET",
            format!("/v1/environments/{cloud}/work/poll"),
            &nothing,
            404,
            404,
        ),
        (
            "GET",
            format!("/v1/environments/{environment}"),
            &nothing,
            403,
            403,
        ),
        ("GET", format!("/v1/sessions/{session}"), &nothing, 200, 200),
        (
            "GET",
            format!("/v1/sessions/{session}/events"),
            &nothing,
            200,
            200,
        ),
        ("POST", format!("/v1/sessions/{session}/events"), &said, 403, 403),
        ("POST", format!("/v1/sessions/{session}"), &nothing, 403, 403),
        (
            "POST",
            format!("/v1/sessions/{session}/archive"),
            &nothing,
            403,
            403,
        ),
        ("DELETE", format!("/v1/sessions/{session}"), &nothing, 403, 403),
        ("GET", format!("/v1/sessions/{other}"), &nothing, 404, 404),
        ("GET", format!("/v1/sessions/{other}/events"), &nothing, 404, 404),
        ("GET", "/v1/sessions".to_owned(), &nothing, 403, 403),
        ("GET", "/v1/agents".to_owned(), &nothing, 403, 403),
        ("GET", "/v1/nothing".to_owned(), &nothing, 403, 403),
    ] {
        for (holder, status) in [(key, of_key), (token, of_token)] {
            let answer = call(holder, true, method, &path, body).await;
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        }
    }
    // The other dialect has nothing for them.
    for path in ["/v1/sessions", "/v1/agents", "/v1/keys", "/v1/audit"] {
        for holder in [key, token] {
            assert_eq!(
                call(holder, false, "GET", path, &nothing).await.status,
                403,
                "{path}"
            );
        }
    }
    // When the item is over, so is its token.
    good(
        &call(
            token,
            true,
            "POST",
            &format!("{work}/stop"),
            &json!({"force": true}),
        )
        .await,
    );
    let late = call(token, true, "GET", &format!("/v1/sessions/{session}"), &nothing).await;
    assert_eq!(fault(&late).1, "authentication_error");
    assert_eq!(
        call(token, true, "POST", &format!("{work}/stop"), &nothing)
            .await
            .status,
        409
    );
    let forged = format!("{}x", &token[..token.len() - 1]);
    assert_eq!(call(&forged, true, "GET", &work, &nothing).await.status, 401);
}

#[tokio::test]
async fn what_workers_can_not_do_is_refused() {
    let claude = Claude::start().await;
    let (environment, _) = hosted(&claude, json!([])).await;
    let member = claude.agent(json!({})).await["id"].clone();
    let lead = claude
        .agent(json!({"multiagent": {"type": "coordinator", "agents": [member]}}))
        .await["id"]
        .clone();
    for (more, named) in [
        (json!({"agent": lead}), "agent: "),
        (
            json!({"agent": member, "resources": [{"type": "file", "file_id": "file_1"}]}),
            "resources: ",
        ),
    ] {
        let mut body = json!({"environment_id": environment});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let (status, kind, said) = claude.refused("/v1/sessions", &body).await;
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{said}");
        assert!(said.starts_with(named), "{said}");
    }
}
