//! Workflow runs over kills of the server: nothing is called, entered or answered twice, and nothing is missing.

use serde_json::{Value, json};

use super::*;

/// Answers whatever the session waits for.
async fn answer_all(client: &Client, path: &str, log: &[Value]) {
    let Some(last) = log.last().filter(|last| last["type"] == "session.status_idle") else {
        return;
    };
    let ids = last["stop_reason"]["event_ids"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for id in ids {
        let content = json!([{"type": "text", "text": "T-1"}]);
        let answer = json!({"type": "user.custom_tool_result", "custom_tool_use_id": id, "content": content});
        call(
            client,
            Method::POST,
            &format!("{path}/events"),
            json!({ "events": [answer] }),
        )
        .await;
    }
}

#[tokio::test]
async fn runs_survive_kills_at_every_step() {
    let mut system = System::start().await;
    let client = system.client();
    let toolset = json!({"tools": [{"type": "agent_toolset_20260401"}]});
    let worker = json!([[
        [{"tool": "bash", "input": {"command": "echo {{last_user}} >> ran; echo done"}}],
        {"text": "{{last_user}}"},
    ]]);
    let worker = agent(client, "Worker", &worker, toolset.clone()).await;
    let asking = asking(client).await;
    let program = r#"
        phase("one");
        let names = "";
        for one in parallel([
            #{agent: "Worker", prompt: "a"}, #{agent: "Asking", prompt: "x"}, #{agent: "Worker", prompt: "b"},
        ]) { names += one.text + " "; }
        phase("two");
        let rounds = 0;
        while rounds < 2 { rounds += 1; names += agent(#{agent: "Worker", prompt: `c${rounds}`}).text + " "; }
        names
    "#;
    let script = json!([[
        [runs("n", &["one", "two"], program)],
        [{"tool": "bash", "input": {"command": "sort ran | tr '\\n' ' '"}}],
        {"text": "{{last_tool_result}}"},
    ]]);
    let mut more = workflows(&[&worker, &asking]);
    more["tools"] = toolset["tools"].clone();
    let lead = agent(client, "Lead", &script, more).await;
    let environment = post(client, "/v1/environments", json!({"name": "e"})).await;
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "go"}]});
    let body = json!({"agent": lead, "environment_id": environment["id"], "initial_events": [message]});
    let session = post(client, "/v1/sessions", body).await;
    let path = format!("/v1/sessions/{}", session["id"].as_str().expect("an id"));

    // It is killed whenever there is more in the log than when it was killed last.
    let mut length = 0;
    let mut kills = 0;
    let log = loop {
        let client = system.client();
        let log = soon("more in the log", async {
            loop {
                let log = events(client, &path).await;
                let is_over = of(&log, "session.status_idle")
                    .last()
                    .is_some_and(|end| end["stop_reason"]["type"] == "end_turn");
                if log.len() > length || is_over {
                    return (log, is_over);
                }
                answer_all(client, &path, &log).await;
            }
        })
        .await;
        let (log, is_over) = log;
        if is_over {
            break log;
        }
        length = log.len();
        kills += 1;
        system = system.crash().await;
    };
    assert!(kills > 3, "{kills}");

    let count = |kind: &str| of(&log, kind).len();
    for (kind, times) in [
        ("workflow_run.created", 1),
        ("workflow_run.phase_started", 2),
        ("workflow_run.phase_ended", 2),
        ("workflow_run.status_ended", 1),
        ("workflow_run.error", 0),
        ("session.thread_created", 5),
        ("session.thread_status_terminated", 5),
        ("agent.custom_tool_use", 1),
        ("user.custom_tool_result", 1),
    ] {
        assert_eq!(count(kind), times, "{kind} in {log:#?}");
    }
    assert_eq!(
        count("workflow_run.status_running"),
        count("workflow_run.status_idle") + 1
    );
    // What ran, ran once, and in one place.
    assert_eq!(said(&log).trim(), "a b c1 c2", "{log:#?}");
    system.stop().await;
}
