//! Sessions over HTTP.

use serde_json::{Value, json};

use crate::server::{Server, is_rest};

#[tokio::test]
async fn bad_sessions_are_refused() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    for (body, code) in [
        (json!({}), (400, "invalid_request")),
        (json!({"agentId": ""}), (400, "invalid_request")),
        (
            json!({"agentId": agent, "environmentId": null}),
            (400, "invalid_request"),
        ),
        (
            json!({"agentId": agent, "environmentId": "env_none"}),
            (404, "environment_not_found"),
        ),
        (
            json!({"agentId": agent, "environmentId": "../x"}),
            (404, "environment_not_found"),
        ),
        (json!({"agentId": "agt_none"}), (404, "agent_not_found")),
        (json!({"agentId": "no such"}), (404, "agent_not_found")),
        (
            json!({"agentId": agent, "vaultId": "vlt_1"}),
            (404, "vault_not_found"),
        ),
        (
            json!({"agentId": agent, "vaultIds": ["no such"]}),
            (404, "vault_not_found"),
        ),
    ] {
        let answer = server.post("/v1/sessions", &body).await;
        assert_eq!(answer.code(), (code.0, code.1.to_owned()), "{body}");
    }
    assert_eq!(server.get("/v1/sessions").await.json()["count"], 0);
}

#[tokio::test]
async fn a_session_over_its_life() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    let fresh = server
        .post("/v1/sessions", &json!({"agentId": agent}))
        .await
        .json();
    let id = fresh["session_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/sessions/{id}");
    let nulls = [
        "environment_id",
        "output",
        "error",
        "last_event_at",
        "boot_ms",
        "pool_source",
        "container_id",
        "container_name",
        "parent_session_id",
        "stop_reason",
    ];
    for field in nulls {
        assert_eq!(fresh.get(field), Some(&Value::Null), "{field}");
    }
    assert_eq!(
        (&fresh["status"], &fresh["cost_usd"], &fresh["turns"]),
        (&json!("idle"), &json!(0.0), &json!(0))
    );
    assert_eq!(fresh["tokens"], json!({"input": 0, "output": 0}));

    server.turn(&id, "hello").await;
    let done = server.get(&path).await.json();
    assert_eq!(
        (&done["status"], &done["output"], &done["turns"]),
        (&json!("idle"), &json!("re: hello"), &json!(1))
    );
    assert_eq!(done["tokens"], json!({"input": 12, "output": 5}));
    assert_eq!(
        (&done["cost_usd"], &done["stop_reason"]),
        (&json!(0.0015), &json!("end_turn"))
    );

    server.turn(&id, "free").await;
    assert_eq!(server.get(&path).await.json()["cost_usd"], Value::Null);

    server.turn(&id, "fail").await;
    let failed = server.get(&path).await.json();
    assert_eq!(
        (&failed["status"], &failed["error"]),
        (&json!("failed"), &json!("the provider says no"))
    );

    let compacted = server.post(&format!("{path}/compact"), &json!({})).await.json();
    assert_eq!(
        compacted,
        json!({"session_id": id, "session_status": "idle", "compacted": true})
    );

    assert_eq!(
        server.post(&format!("{path}/cancel"), &json!({})).await.code(),
        (409, "session_not_running".into())
    );
    server.say_and_watch(&id, "hang").await;
    assert_eq!(server.get(&path).await.json()["status"], "running");
    assert_eq!(
        server.post(&format!("{path}/compact"), &json!({})).await.code(),
        (409, "session_busy".into())
    );
    let cancelled = server.post(&format!("{path}/cancel"), &json!({})).await.json();
    assert_eq!(
        cancelled,
        json!({"session_id": id, "session_status": "idle", "cancelled": true})
    );
    let stopped = server.get(&path).await.json();
    assert_eq!(
        (&stopped["status"], &stopped["stop_reason"], &stopped["output"]),
        (&json!("idle"), &json!("interrupted"), &json!("re: "))
    );

    let logs = server.get(&format!("{path}/logs?tail=7")).await;
    assert_eq!(
        (
            logs.text().as_str(),
            logs.headers["content-type"].to_str().unwrap()
        ),
        ("7 lines", "text/plain; charset=utf-8")
    );
    assert_eq!(server.delete(&path).await.json(), json!({"deleted": true}));
    for (method, path) in [
        ("GET", path.clone()),
        ("DELETE", path.clone()),
        ("POST", format!("{path}/cancel")),
        ("POST", format!("{path}/compact")),
        ("GET", format!("{path}/logs")),
        ("GET", format!("{path}/events")),
        ("GET", format!("{path}/events?stream=true")),
        ("POST", format!("{path}/events")),
        ("GET", format!("{path}/events?after=evt_1")),
    ] {
        assert_eq!(
            server.raw(method, &path, "").await.code(),
            (404, "session_not_found".into()),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn a_session_survives_its_agent_but_takes_no_messages() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    let id = server.session(&agent).await;
    server.turn(&id, "hello").await;
    server.delete(&format!("/v1/agents/{agent}")).await;
    assert_eq!(
        server.get(&format!("/v1/sessions/{id}")).await.json()["output"],
        "re: hello"
    );
    let posted = server
        .post(&format!("/v1/sessions/{id}/events"), &json!({"content": "again"}))
        .await;
    assert_eq!(posted.code(), (404, "agent_not_found".into()));
}

#[tokio::test]
async fn a_spent_budget_is_429() {
    let server = Server::start().await;
    let agent = server.agent(json!({"quota": {"maxTokensPerSession": 1}})).await;
    let id = server.session(&agent).await;
    server.say(&id, "hello").await;
    server.until(&id, "", is_rest).await;
    let posted = server
        .post(&format!("/v1/sessions/{id}/events"), &json!({"content": "again"}))
        .await;
    assert_eq!(posted.code(), (429, "quota_exceeded".into()));
}

#[tokio::test]
async fn lists_can_be_filtered_and_turned() {
    let server = Server::start().await;
    let (one, two) = (server.agent(json!({})).await, server.agent(json!({})).await);
    let mut sessions = Vec::new();
    for agent in [&one, &two, &one] {
        sessions.push(server.session(agent).await);
    }
    let ids = |list: Value| -> Vec<String> {
        list["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["session_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(server.get("/v1/sessions").await.json()), sessions);
    let mine = server
        .get(&format!("/v1/sessions?agent_id={one}&order=desc"))
        .await
        .json();
    assert_eq!(ids(mine), [sessions[2].clone(), sessions[0].clone()]);
    let page = server.get("/v1/sessions?order=desc&limit=2").await.json();
    assert_eq!(ids(page.clone()), [sessions[2].clone(), sessions[1].clone()]);
    let rest = server
        .get(&format!(
            "/v1/sessions?order=desc&after={}",
            page["next"].as_str().unwrap()
        ))
        .await
        .json();
    assert_eq!(ids(rest), [sessions[0].clone()]);
    assert_eq!(server.get("/v1/sessions?agent_id=a%20b").await.code().0, 400);
}
