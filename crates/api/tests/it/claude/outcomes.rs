//! Outcomes, system messages, and changes of a session while it lives.

use serde_json::{Value, json};

use super::files::form;
use super::{Claude, find, good, id, message, stable};

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
            "events.0.rubric.file_id: no file has this id",
        ),
        (
            json!([rubric(
                json!({"type": "file", "file_id": "file_1", "content": "x"})
            )]),
            "events.0.rubric.content: Extra inputs",
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
async fn rubrics_in_files_come_back_as_text() {
    let claude = Claude::start().await;
    let upload = async |content: &[u8]| {
        id(&good(
            &claude.form(form("r.md", "text/markdown", content, "")).await,
        ))
    };
    let longest = "ö".repeat(262_144);
    let (file, long) = (upload(b"Three lines.").await, upload(longest.as_bytes()).await);
    let named = |file: &str| {
        let mut define = define();
        define["rubric"] = json!({"type": "file", "file_id": file});
        define
    };
    let session = claude.session(json!([])).await;
    let frames = claude.turn(&session, json!([named(&file)])).await;
    let text = json!({"type": "text", "content": "Three lines."});
    assert_eq!(find(&frames, "user.define_outcome")["rubric"], text);
    let echo = claude.events(&session, json!([named(&long)])).await;
    assert_eq!(echo[0]["rubric"]["content"], json!(longest));

    let agent = claude.agent(json!({})).await;
    let environment = claude.post("/v1/environments", &json!({"name": "rubrics"})).await;
    let with = |events: Value| json!({"agent": agent["id"], "environment_id": environment["id"], "initial_events": events});
    let opened = claude.post("/v1/sessions", &with(json!([named(&file)]))).await;
    let list = claude.get(&format!("/v1/sessions/{}/events", id(&opened))).await;
    let defined = |event: &&Value| event["type"] == "user.define_outcome";
    let found = list["data"].as_array().unwrap().iter().find(defined);
    assert_eq!(found.unwrap()["rubric"], text);
    let mut body = with(json!([named(&file)]));
    body["name"] = json!("graded");
    let deployment = claude.post("/v1/deployments", &body).await;
    assert_eq!(deployment["initial_events"][0]["rubric"], text);
    // What was read stays, whatever becomes of the file.
    claude.send("DELETE", &format!("/v1/files/{file}"), "").await;
    let path = format!("/v1/deployments/{}", id(&deployment));
    assert_eq!(claude.get(&path).await, deployment);
    let other = upload(b"Four lines.").await;
    let changed = claude
        .post(&path, &json!({"initial_events": [message("x"), named(&other)]}))
        .await;
    assert_eq!(changed["initial_events"][1]["rubric"]["content"], "Four lines.");

    let events = format!("/v1/sessions/{session}/events");
    let too_long = upload("ö".repeat(262_145).as_bytes()).await;
    for (bad, part) in [
        (file, "no file has this id"),
        (upload(b"\xff\xfe").await, "a rubric must be text in UTF-8"),
        (upload(b"").await, "the file is empty"),
        (too_long, "a rubric may have 262144 characters at the most"),
    ] {
        for (path, body, field) in [
            (&events, json!({"events": [named(&bad)]}), "events.0"),
            (
                &"/v1/sessions".to_owned(),
                with(json!([named(&bad)])),
                "initial_events.0",
            ),
            (
                &path,
                json!({"initial_events": [message("x"), named(&bad)]}),
                "initial_events.1",
            ),
        ] {
            let (status, kind, said) = claude.refused(path, &body).await;
            assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{said}");
            let expected = format!("{field}.rubric.file_id: {part}");
            assert!(said.starts_with(&expected), "{expected}: {said}");
        }
    }
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
