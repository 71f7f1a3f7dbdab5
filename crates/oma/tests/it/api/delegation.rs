//! Agents that have other agents work: side by side, over kills of the server, cancelled, and with few places.

use serde_json::{Value, json};

use crate::system::client::{Client, is_end};
use crate::system::{System, soon};

/// An agent that answers what it is told.
async fn echo(client: &Client) -> String {
    client.agent(json!({"model": "scripted/echo"})).await
}

/// An agent that follows a script and may call these agents.
async fn caller(client: &Client, script: &Value, callable: &[&str], depth: u32) -> String {
    let body = json!({
        "model": "scripted/script",
        "instructions": script.to_string(),
        "tools": ["glob"],
        "callableAgents": callable,
        "maxSubagentDepth": depth,
    });
    client.agent(body).await
}

fn call(agent: &str, task: &str) -> Value {
    json!({"tool": "call_agent", "input": {"agent": agent, "task": task}})
}

async fn post(client: &Client, session: &str) {
    let path = format!("/v1/sessions/{session}/events");
    client.post(&path, &json!({"content": "go"})).await.good();
}

async fn read(client: &Client, session: &str) -> Value {
    client.get(&format!("/v1/sessions/{session}")).await.good()
}

/// The sessions that a session has opened.
async fn children(client: &Client, session: &str) -> Vec<Value> {
    let all = client.get("/v1/sessions").await.good();
    let all = all["sessions"].as_array().expect("sessions");
    all.iter()
        .filter(|one| one["parent_session_id"] == session)
        .cloned()
        .collect()
}

/// Waits until the session of a tool use has its task.
async fn at_work(client: &Client, tool_use: &str) -> String {
    let child = tool_use.replace("evt_", "ses_");
    soon("a child at work", async {
        loop {
            let found = client.get(&format!("/v1/sessions/{child}")).await;
            if found.status == 200 && found.json()["turns"] == 1 {
                return child;
            }
        }
    })
    .await
}

async fn tool_uses(client: &Client, session: &str, count: usize) -> Vec<String> {
    let mut frames = client.follow(session).await;
    let mut found = Vec::new();
    while found.len() < count {
        let frame = frames.next().await;
        if frame["type"] == "agent.tool_use" {
            found.push(frame["event_id"].as_str().expect("an id").to_owned());
        }
    }
    found
}

async fn side_by_side(max_turns: &str) {
    let system = System::start_with(|options| options.set("OPENCLAW_MAX_TURNS", max_turns)).await;
    let client = system.client();
    let echo = echo(client).await;
    let usage = json!({"usage": {"input": 100, "output": 10}});
    let middle = json!([[
        [call(&echo, "deep"), usage],
        [{"text": "middle got {{last_tool_result}}"}, usage],
    ]]);
    let middle = caller(client, &middle, &[&echo], 9).await;
    let top = json!([[
        [call(&echo, "one"), call(&echo, "two"), call(&middle, "three"), usage],
        [{"text": "top got {{last_tool_result}}"}, usage],
    ]]);
    let top = caller(client, &top, &[&echo, &middle], 2).await;
    let session = client.session(&top).await;
    post(client, &session).await;
    let events = client.follow(&session).await.until(is_end).await;
    let mut results: Vec<&str> = events
        .iter()
        .filter(|event| event["type"] == "agent.tool_result")
        .map(|event| event["content"].as_str().expect("text"))
        .collect();
    results.sort_unstable();
    assert_eq!(results, ["middle got deep", "one", "two"]);
    let parent = read(client, &session).await;
    assert_eq!(parent["tokens"], json!({"input": 200, "output": 20}));
    let below = children(client, &session).await;
    assert_eq!(below.len(), 3);
    // What a session consumed with all that it delegated to is the sum of that of its children and its own.
    let sum = |field: &str| {
        let of = |one: &Value| one["total_tokens"][field].as_u64().expect("a number");
        below.iter().map(of).sum::<u64>()
    };
    assert_eq!(
        parent["total_tokens"],
        json!({"input": 200 + sum("input"), "output": 20 + sum("output")})
    );
    let middle = below
        .iter()
        .find(|one| one["agent_id"] == middle)
        .expect("the middle one");
    let middle = middle["session_id"].as_str().expect("an id");
    assert_eq!(children(client, middle).await.len(), 1);
    system.stop().await;
}

#[tokio::test]
async fn agents_work_side_by_side_in_one_place() {
    side_by_side("1").await;
}

#[tokio::test]
async fn agents_work_side_by_side_in_two_places() {
    side_by_side("2").await;
}

/// Those that are beyond what runs at once wait and hold up nobody, though all of them read the store at the same
/// time.
#[tokio::test]
async fn a_hundred_agents_at_once() {
    let system = System::start().await;
    let client = system.client();
    let echo = echo(client).await;
    let tasks: Vec<String> = (100..200).map(|task| task.to_string()).collect();
    let calls: Vec<Value> = tasks.iter().map(|task| call(&echo, task)).collect();
    let top = caller(client, &json!([[calls, {"text": "end"}]]), &[&echo], 1).await;
    let session = client.session(&top).await;
    post(client, &session).await;
    let events = client.follow(&session).await.until(is_end).await;
    let mut results: Vec<&str> = events
        .iter()
        .filter(|event| event["type"] == "agent.tool_result")
        .map(|event| event["content"].as_str().expect("text"))
        .collect();
    results.sort_unstable();
    assert_eq!(results, tasks);
    let log = system.stop().await.log();
    assert!(!log.contains("a turn was left"), "{log}");
}

#[tokio::test]
async fn a_tool_use_opens_one_session_however_often_the_server_is_killed() {
    let mut system = System::start().await;
    let slow = json!([[[{"delay_ms": 1_500}, {"text": "done"}]]]);
    let slow = caller(system.client(), &slow, &[], 0).await;
    let top = json!([[[call(&slow, "one"), call(&slow, "two")], {"text": "both"}]]);
    let top = caller(system.client(), &top, &[&slow], 1).await;
    let session = system.client().session(&top).await;
    post(system.client(), &session).await;
    let uses = tool_uses(system.client(), &session, 2).await;
    for _ in 0..2 {
        for tool_use in &uses {
            at_work(system.client(), tool_use).await;
        }
        system = system.crash().await;
    }
    let client = system.client();
    let events = client.follow(&session).await.until(is_end).await;
    let results = events.iter().filter(|event| event["type"] == "agent.tool_result");
    assert!(
        results.clone().all(|event| event["content"] == "done"),
        "{events:?}"
    );
    assert_eq!(results.count(), 2);
    let below = children(client, &session).await;
    assert_eq!(below.len(), 2);
    assert!(below.iter().all(|child| child["turns"] == 1), "{below:?}");
    system.stop().await;
}

#[tokio::test]
async fn a_cancel_reaches_the_children_and_their_children() {
    let system = System::start().await;
    let client = system.client();
    let hang = json!([[[{"delay_ms": 600_000}, {"text": "never"}]]]);
    let hang = caller(client, &hang, &[], 0).await;
    let middle = json!([[[call(&hang, "wait")], {"text": "never"}]]);
    let middle = caller(client, &middle, &[&hang], 0).await;
    let top = json!([[[call(&middle, "wait")], {"text": "never"}]]);
    let top = caller(client, &top, &[&middle], 2).await;
    let session = client.session(&top).await;
    post(client, &session).await;
    let uses = tool_uses(client, &session, 1).await;
    let child = at_work(client, &uses[0]).await;
    let uses = tool_uses(client, &child, 1).await;
    let grandchild = at_work(client, &uses[0]).await;
    client
        .post(&format!("/v1/sessions/{session}/cancel"), &json!({}))
        .await
        .good();
    for stopped in [&session, &child, &grandchild] {
        let rests = async {
            loop {
                let read = read(client, stopped).await;
                if read["status"] == "idle" {
                    return read;
                }
            }
        };
        let read = soon("a cancelled session at rest", rests).await;
        assert_eq!(read["stop_reason"], "interrupted", "{read}");
    }
    system.stop().await;
}

#[tokio::test]
async fn who_may_be_called_and_how_deep_is_enforced() {
    let system = System::start().await;
    let client = system.client();
    let (friend, stranger) = (echo(client).await, echo(client).await);
    let gone = echo(client).await;
    client.delete(&format!("/v1/agents/{gone}")).await.good();
    let script = json!([[
        [call(&stranger, "x"), call(&gone, "y"), json!({"tool": "call_agent", "input": {"agent": friend}})],
        {"text": "end"},
    ]]);
    for (depth, expected) in [
        (1, ["call_agent needs", "may not call", "There is no agent"]),
        (0, ["There is no tool", "There is no tool", "There is no tool"]),
    ] {
        let top = caller(client, &script, &[&friend, &gone], depth).await;
        let session = client.session(&top).await;
        post(client, &session).await;
        let events = client.follow(&session).await.until(is_end).await;
        let results: Vec<&str> = events
            .iter()
            .filter(|event| event["type"] == "agent.tool_result")
            .map(|event| event["content"].as_str().expect("text"))
            .collect();
        assert_eq!(results.len(), 3, "{results:?}");
        for words in expected {
            assert!(
                results.iter().any(|result| result.contains(words)),
                "{words}: {results:?}"
            );
        }
        assert!(children(client, &session).await.is_empty());
    }
    // A child may pass on only what its parent's depth leaves, whatever its own agent says.
    let last = json!([[[call(&friend, "deeper")], {"text": "{{last_tool_result}}"}]]);
    let last = caller(client, &last, &[&friend], 9).await;
    let top = json!([[[call(&last, "go")], {"text": "{{last_tool_result}}"}]]);
    let top = caller(client, &top, &[&last], 1).await;
    let session = client.session(&top).await;
    post(client, &session).await;
    client.follow(&session).await.until(is_end).await;
    let said = read(client, &session).await["output"].to_string();
    assert!(said.contains("There is no tool"), "{said}");
    system.stop().await;
}

#[tokio::test]
async fn a_budget_covers_the_children() {
    let system = System::start().await;
    let client = system.client();
    // Each child would spend as much as there is.
    let spender = json!([[[{"text": "spent"}, {"usage": {"input": 9_000, "output": 500}}]]]);
    let spender = caller(client, &spender, &[], 0).await;
    let script = json!([[
        [call(&spender, "one"), call(&spender, "two"), {"usage": {"input": 1_000, "output": 10}}],
        {"text": "end"},
    ]]);
    let body = json!({
        "model": "scripted/script",
        "instructions": script.to_string(),
        "callableAgents": [spender],
        "maxSubagentDepth": 1,
        "tools": ["glob"],
        "quota": {"maxTokensPerSession": 22_000},
    });
    let top = client.agent(body).await;
    let session = client.session(&top).await;
    post(client, &session).await;
    client.follow(&session).await.until(is_end).await;
    let parent = read(client, &session).await;
    let total = parent["total_tokens"]["input"].as_u64().expect("a number");
    assert!(total >= 19_000, "{parent}");
    let path = format!("/v1/sessions/{session}/events");
    // What the children took is gone for the parent, too: what is left does for no further round of them.
    let posted = client.post(&path, &json!({"content": "more"})).await;
    if posted.status == 200 {
        let mut frames = client.follow(&session).await;
        frames
            .until(|frame| frame["event_id"] == posted.json()["event_id"])
            .await;
        frames.until(is_end).await;
    } else {
        assert_eq!(posted.code(), "quota_exceeded");
    }
    let parent = read(client, &session).await;
    let total = |one: &Value| {
        let of = |field: &str| one["total_tokens"][field].as_u64().expect("a number");
        of("input") + of("output")
    };
    assert!(total(&parent) <= 22_000, "{parent}");
    system.stop().await;
}
