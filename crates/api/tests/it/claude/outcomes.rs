//! Outcomes, system messages, and changes of a session while it lives.

use serde_json::{Value, json};

use super::{Claude, find, id, message, stable};

fn define() -> Value {
    json!({
        "type": "user.define_outcome",
        "description": "A haiku",
        "rubric": {"type": "text", "content": "Three lines."},
        "max_iterations": null,
    })
}

#[tokio::test]
async fn an_outcome_in_the_documented_order() {
    let claude = Claude::start().await;
    let session = claude.session(json!([])).await;
    let mut stream = claude.stream(&session, "").await;
    let echo = claude.events(&session, json!([define()])).await;
    let frames = stream.until("session.status_idle").await;
    let streamed: Vec<Value> = frames.into_iter().map(|frame| frame.data).collect();
    let read = claude.get(&format!("/v1/sessions/{session}")).await;
    insta::assert_json_snapshot!(stable(&json!({
        "echo": echo,
        "streamed": streamed,
        "outcome_evaluations": read["outcome_evaluations"],
    })));
    let list = claude.get(&format!("/v1/sessions/{session}/events")).await;
    assert_eq!(list["data"], json!(streamed), "list and stream differ");
    let filtered = claude
        .get(&format!(
            "/v1/sessions/{session}/events?types[]=span.outcome_evaluation_end"
        ))
        .await;
    assert_eq!(filtered["data"].as_array().map(Vec::len), Some(2));
    // The other dialect shows what is of use to people.
    let foreign = claude
        .server
        .get(&format!("/v1/sessions/{session}/events"))
        .await
        .json();
    let told: Vec<&str> = foreign["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["type"].as_str().unwrap().contains("outcome"))
        .map(|event| event["content"].as_str().unwrap())
        .collect();
    assert_eq!(told, ["A haiku", "needs_revision: not yet", "satisfied: good"]);
}

#[tokio::test]
async fn what_is_refused_says_why() {
    let claude = Claude::start().await;
    let session = claude.session(json!([])).await;
    let path = format!("/v1/sessions/{session}/events");
    let rubric = |rubric: Value| {
        let mut define = define();
        define["rubric"] = rubric;
        define
    };
    let system = json!({"type": "system.message", "content": [{"type": "text", "text": "x"}]});
    for (events, part) in [
        (
            json!([rubric(json!({"type": "text"}))]),
            "events.0.rubric.content",
        ),
        (
            json!([rubric(json!({"type": "file", "file_id": "file_1"}))]),
            "events.0.rubric",
        ),
        (json!([rubric(json!("plain"))]), "events.0.rubric"),
        (json!([define(), define()]), "events[0]"),
        (json!([system]), "events[0]"),
        (json!([system, message("x")]), "must be the last"),
        (json!([message("x"), system, system]), "at most one"),
        (json!([define(), system]), "directly follow"),
        (
            json!([message("x"), {"type": "system.message", "content": []}]),
            "events.1.content",
        ),
        (
            json!([message("x"), {"type": "system.message", "content": [{"type": "image"}]}]),
            "events.1.content.0",
        ),
    ] {
        let (status, _, said) = claude.refused(&path, &json!({"events": events})).await;
        assert!(status == 400 && said.contains(part), "{part}: {said}");
    }
    assert_eq!(claude.get(&path).await["data"], json!([]), "all or nothing");
}

#[tokio::test]
async fn a_system_message_waits_with_its_message() {
    let claude = Claude::start().await;
    let session = claude.session(json!([])).await;
    claude.events(&session, json!([message("hang")])).await;
    let system = json!({"type": "system.message", "content": [{"type": "text", "text": "be kind"}]});
    let echo = claude.events(&session, json!([message("later"), system])).await;
    assert_eq!(
        (&echo[1]["type"], &echo[1]["processed_at"]),
        (&json!("system.message"), &Value::Null)
    );
    let path = format!("/v1/sessions/{session}/events");
    let list = claude.get(&path).await;
    let last: Vec<&Value> = list["data"].as_array().unwrap().iter().rev().take(2).collect();
    assert_eq!((&last[1]["id"], &last[0]["id"]), (&echo[0]["id"], &echo[1]["id"]));
    let only = claude.get(&format!("{path}?types[]=system.message")).await;
    assert_eq!(only["data"].as_array().map(Vec::len), Some(1));
    let mut stream = claude.stream(&session, "").await;
    claude.events(&session, json!([{"type": "user.interrupt"}])).await;
    stream.until("session.status_idle").await;
    let frames = stream.until("session.status_idle").await;
    assert_eq!(find(&frames, "system.message")["id"], echo[1]["id"]);
}

#[tokio::test]
async fn tools_servers_and_budgets_change_within_a_session() {
    let claude = Claude::start().await;
    let server = json!([{"type": "url", "name": "Docs", "url": "https://docs.example/mcp"}]);
    let agent = claude
        .agent(json!({"tools": [{"type": "mcp_toolset", "mcp_server_name": "Docs"}], "mcp_servers": server}))
        .await;
    let environment = claude.post("/v1/environments", &json!({"name": "e"})).await;
    let limit = |cents: &str| json!({"type": "limit", "max_list_cost": {"amount": cents, "currency": "USD"}});
    let body = json!({"agent": id(&agent), "environment_id": id(&environment), "budget": limit("5")});
    let session = id(&claude.post("/v1/sessions", &body).await);
    let path = format!("/v1/sessions/{session}");
    let mut stream = claude.stream(&session, "").await;
    let tools = json!([{"type": "agent_toolset_20260401"}]);
    let change = json!({"agent": {"tools": tools, "mcp_servers": []}, "budget": limit("7"), "title": "T"});
    let updated = claude.post(&path, &change).await;
    let told = stream.until("session.updated").await.pop().unwrap().data;
    assert_eq!(
        (&told["agent"], &told["budget"]),
        (&updated["agent"], &updated["budget"])
    );
    assert_eq!((&told["title"], told.get("metadata")), (&json!("T"), None));
    assert_eq!(updated["agent"]["mcp_servers"], json!([]));
    assert_eq!(updated["agent"]["id"], agent["id"]);
    assert_eq!(
        claude.get(&format!("/v1/agents/{}", id(&agent))).await["mcp_servers"],
        server
    );
    // What changes nothing is no event.
    claude
        .post(&path, &json!({"agent": {"tools": tools}, "budget": limit("7")}))
        .await;
    let list = claude
        .get(&format!("{path}/events?types[]=session.updated"))
        .await;
    assert_eq!(list["data"].as_array().map(Vec::len), Some(1));

    let (status, _, said) = claude.refused(&path, &json!({"agent": {"system": "x"}})).await;
    assert!(status == 400 && said.contains("agent.system"), "{said}");
    let (status, _, said) = claude
        .refused(&path, &json!({"agent": {"mcp_servers": server}}))
        .await;
    assert!(status == 400 && said.contains("Docs"), "{said}");
    claude.events(&session, json!([message("hang")])).await;
    let (status, _, said) = claude.refused(&path, &json!({"agent": {"tools": []}})).await;
    assert!(status == 400 && said.contains("must be idle"), "{said}");
    let freed = claude.post(&path, &json!({"budget": null})).await;
    assert_eq!(freed["budget"], Value::Null, "a budget may change at any time");
}
