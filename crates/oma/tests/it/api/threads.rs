//! Threads over kills of the server: nothing is entered, sent, asked or answered twice, and nothing is missing.

use std::collections::HashMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::system::client::{Answer, Client};
use crate::system::{System, soon};

async fn call(client: &Client, method: Method, path: &str, body: Option<Value>) -> Answer {
    let request = client
        .request(method, path)
        .header("anthropic-version", "2026-10-21");
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    Client::send(client, request).await
}

async fn post(client: &Client, path: &str, body: Value) -> Value {
    call(client, Method::POST, path, Some(body)).await.good()
}

async fn agent(client: &Client, name: &str, script: &Value, more: Value) -> String {
    let mut body = json!({"name": name, "model": "scripted/script", "system": script.to_string()});
    body.as_object_mut()
        .expect("an object")
        .extend(more.as_object().expect("an object").clone());
    let made = post(client, "/v1/agents", body).await;
    made["id"].as_str().expect("an id").to_owned()
}

async fn events(client: &Client, path: &str) -> Vec<Value> {
    let list = call(client, Method::GET, &format!("{path}/events"), None)
        .await
        .good();
    list["data"].as_array().expect("events").clone()
}

fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["type"] == kind).collect()
}

/// Whether the session has come to its end.
fn is_over(events: &[Value]) -> bool {
    let ends = of(events, "session.status_idle");
    ends.last()
        .is_some_and(|end| end["stop_reason"]["type"] == "end_turn")
}

/// Answers whatever the session waits for.
async fn answer_all(client: &Client, path: &str, events: &[Value]) {
    let Some(last) = events.last().filter(|last| last["type"] == "session.status_idle") else {
        return;
    };
    let ids = last["stop_reason"]["event_ids"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for id in ids {
        let used = events.iter().find(|event| event["id"] == id).expect("a tool use");
        let answer = match used["type"].as_str() {
            Some("agent.custom_tool_use") => json!({
                "type": "user.custom_tool_result", "custom_tool_use_id": id,
                "content": [{"type": "text", "text": "T-1"}],
            }),
            _ => json!({"type": "user.tool_confirmation", "tool_use_id": id, "result": "allow"}),
        };
        let body = json!({ "events": [answer] });
        call(client, Method::POST, &format!("{path}/events"), Some(body)).await;
    }
}

#[tokio::test]
async fn threads_survive_kills_at_every_step() {
    let mut system = System::start().await;
    let client = system.client();
    let ticket =
        json!({"type": "custom", "name": "ticket", "description": "d", "input_schema": {"type": "object"}});
    let toolset = json!({
        "type": "agent_toolset_20260401", "default_config": {"permission_policy": {"type": "always_ask"}},
    });
    let asking = json!([[
        [{"tool": "ticket", "input": {}}, {"tool": "bash", "input": {"command": "echo asked >> ran"}}],
        {"text": "asked and answered"},
    ]]);
    let asking = agent(client, "Asking", &asking, json!({"tools": [ticket, toolset]})).await;
    let busy = json!([[
        {"tool": "bash", "input": {"command": "echo busy >> ran; echo done"}},
        [{"delay_ms": 300}, {"text": "busy no more"}],
    ]]);
    let busy = agent(
        client,
        "Busy",
        &busy,
        json!({"tools": [{"type": "agent_toolset_20260401"}]}),
    )
    .await;
    let send = |agent: &str, thread: Option<&str>| json!({"tool": "send_to_agent", "input": {"agent": agent, "message": "go", "thread": thread}});
    let making = json!([[
        {"tool": "bash", "input": {"command": "echo made >> ran"}},
        {"text": "it is made"},
    ]]);
    let maker = json!({"name": "Maker", "system": making.to_string(), "tools": ["bash"], "message": "go"});
    let lead = json!([[
        [send("Asking", None), send("Busy", None)],
        [send("Busy", Some("latest")), {"tool": "create_agent", "input": maker}],
        [{"tool": "bash", "input": {"command": "sort ran"}}],
        {"text": "{{last_tool_result}}"},
    ]]);
    let lead = json!({
        "tools": [{"type": "agent_toolset_20260401"}],
        "multiagent": {
            "type": "multiagent_20261001",
            "subagents": {"type": "enabled", "predefined_agents": [asking, busy]},
            "workflows": {"type": "disabled"},
        },
        "system": lead.to_string(),
    });
    let lead = agent(client, "Lead", &Value::Null, lead).await;
    let environment = post(client, "/v1/environments", json!({"name": "e"})).await;
    let body = json!({"agent": lead, "environment_id": environment["id"]});
    let session = post(client, "/v1/sessions", body).await;
    let path = format!("/v1/sessions/{}", session["id"].as_str().expect("an id"));
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "go"}]});
    post(client, &format!("{path}/events"), json!({ "events": [message] })).await;

    // It is killed whenever there is more in the log than when it was killed last.
    let mut length = 0;
    let log = loop {
        let client = system.client();
        let log = soon("more in the log", async {
            loop {
                let log = events(client, &path).await;
                if log.len() > length || is_over(&log) {
                    return log;
                }
                answer_all(client, &path, &log).await;
            }
        })
        .await;
        if is_over(&log) {
            break log;
        }
        length = log.len();
        system = system.crash().await;
    };

    let kinds: Vec<&str> = log.iter().filter_map(|event| event["type"].as_str()).collect();
    let count = |kind: &str| of(&log, kind).len();
    assert_eq!(count("session.thread_created"), 3, "{kinds:?}");
    assert_eq!(count("agent.thread_message_sent"), 4, "{kinds:?}");
    assert_eq!(count("agent.thread_message_received"), 4, "{kinds:?}");
    assert_eq!(count("agent.custom_tool_use"), 1, "{kinds:?}");
    assert_eq!(count("user.custom_tool_result"), 1, "{kinds:?}");
    assert_eq!(count("user.tool_confirmation"), 1, "{kinds:?}");
    // Each thread begins and rests by turns.
    let mut works: HashMap<&str, bool> = HashMap::new();
    for event in &log {
        let now = match event["type"].as_str() {
            Some("session.thread_status_running") => true,
            Some("session.thread_status_idle") => false,
            _ => continue,
        };
        let thread = event["session_thread_id"].as_str().expect("a thread");
        // It may come to rest again with less to answer, but never begins twice.
        let before = works.insert(thread, now);
        assert!(!now || before != Some(true), "{event} in {kinds:?}");
    }
    assert!(
        works.len() == 4 && works.values().all(|works| !works),
        "{works:?}"
    );
    // What ran, ran once, and in one place.
    let said = of(&log, "agent.message");
    let text = said[0]["content"][0]["text"].as_str().expect("text");
    assert_eq!(
        text.split_whitespace().collect::<Vec<_>>(),
        ["asked", "busy", "busy", "made"],
        "{log:#?}"
    );
    system.stop().await;
}

#[tokio::test]
async fn an_archived_thread_counts_and_goes_with_its_session() {
    let system = System::start().await;
    let client = system.client();
    let busy = json!([[[{"delay_ms": 50}, {"text": "done"}]]]);
    let busy = agent(client, "Busy", &busy, json!({})).await;
    let lead = json!([[
        [{"tool": "send_to_agent", "input": {"agent": "Busy", "message": "go"}}],
        {"text": "done"},
    ]]);
    let multiagent = json!({"multiagent": {"type": "coordinator", "agents": [busy]}});
    let lead = agent(client, "Lead", &lead, multiagent).await;
    let environment = post(client, "/v1/environments", json!({"name": "e"})).await;
    let body = json!({"agent": lead, "environment_id": environment["id"]});
    let session = post(client, "/v1/sessions", body).await;
    let path = format!("/v1/sessions/{}", session["id"].as_str().expect("an id"));
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "go"}]});
    post(client, &format!("{path}/events"), json!({ "events": [message] })).await;
    let log = soon("the end of the turn", async {
        loop {
            let log = events(client, &path).await;
            if is_over(&log) {
                return log;
            }
        }
    })
    .await;
    let active = async || {
        let session = call(client, Method::GET, &path, None).await.good();
        session["stats"]["active_seconds"].clone()
    };
    let before = active().await;
    let created = of(&log, "session.thread_created");
    let thread = created[0]["session_thread_id"].as_str().expect("an id");
    post(client, &format!("{path}/threads/{thread}/archive"), json!({})).await;
    assert_eq!(active().await, before);

    // The session of the thread, of which the other dialect shows the archived ones, too.
    let listed = async || {
        let all = client.get("/v1/sessions").await.good();
        all["sessions"].as_array().expect("sessions").len()
    };
    assert_eq!(listed().await, 2);
    call(client, Method::DELETE, &path, None).await.good();
    assert_eq!(listed().await, 0);
    system.stop().await;
}
