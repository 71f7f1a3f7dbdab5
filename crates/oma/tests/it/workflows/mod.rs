//! Workflow runs over the real binary: what programs lead to, their bounds, and what stops them.

mod kills;
mod limits;

use reqwest::Method;
use serde_json::{Value, json};

use crate::system::client::{Answer, Client};
use crate::system::{System, soon};

pub(crate) async fn call(client: &Client, method: Method, path: &str, body: Value) -> Answer {
    client.claude(method, path, &body).await
}

pub(crate) async fn post(client: &Client, path: &str, body: Value) -> Value {
    call(client, Method::POST, path, body).await.good()
}

pub(crate) async fn list(client: &Client, path: &str) -> Vec<Value> {
    let page = call(client, Method::GET, path, json!({})).await.good();
    page["data"].as_array().expect("a list").clone()
}

/// An agent whose model follows a script.
pub(crate) async fn agent(client: &Client, name: &str, script: &Value, more: Value) -> String {
    let mut body = json!({"name": name, "model": "scripted/script", "system": script.to_string()});
    body.as_object_mut()
        .expect("an object")
        .extend(more.as_object().expect("an object").clone());
    let made = post(client, "/v1/agents", body).await;
    made["id"].as_str().expect("an id").to_owned()
}

/// One that answers with what it was told.
pub(crate) async fn echo(client: &Client) -> String {
    agent(client, "Echo", &json!([[{"text": "{{last_user}}"}]]), json!({})).await
}

/// One that wants a client to do something before it answers.
pub(crate) async fn asking(client: &Client) -> String {
    let ticket =
        json!({"type": "custom", "name": "ticket", "description": "d", "input_schema": {"type": "object"}});
    let script = json!([[[{"tool": "ticket", "input": {}}], {"text": "done: {{last_tool_result}}"}]]);
    agent(client, "Asking", &script, json!({"tools": [ticket]})).await
}

/// A use of the tool.
pub(crate) fn runs(name: &str, phases: &[&str], program: &str) -> Value {
    let phases: Vec<Value> = phases.iter().map(|name| json!({ "name": name })).collect();
    let input = json!({"name": name, "description": "d", "phases": phases, "program": program});
    json!({"tool": "run_workflow", "input": input})
}

/// What has others work in runs.
pub(crate) fn workflows(members: &[&str]) -> Value {
    let disabled = json!({"type": "disabled"});
    json!({"multiagent": {
        "type": "multiagent_20261001",
        "subagents": disabled,
        "workflows": {"type": "enabled", "inline_agents": disabled, "predefined_agents": members},
    }})
}

/// The path of a session that begins to work, of an agent that may call these in its runs.
pub(crate) async fn begin(client: &Client, members: &[&str], script: &Value) -> (String, String) {
    let lead = agent(client, "Lead", script, workflows(members)).await;
    let environment = post(
        client,
        "/v1/environments",
        json!({ "name": format!("for {lead}") }),
    )
    .await;
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "go"}]});
    let body = json!({"agent": lead, "environment_id": environment["id"], "initial_events": [message]});
    let session = post(client, "/v1/sessions", body).await;
    let path = format!("/v1/sessions/{}", session["id"].as_str().expect("an id"));
    (path, lead)
}

pub(crate) fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["type"] == kind).collect()
}

/// All events of a session.
pub(crate) async fn events(client: &Client, path: &str) -> Vec<Value> {
    list(client, &format!("{path}/events?limit=1000")).await
}

/// The log once the session rests for this reason.
pub(crate) async fn rest(client: &Client, path: &str, reason: &str) -> Vec<Value> {
    soon("the session rests", async {
        loop {
            let log = events(client, path).await;
            let last = log.last().filter(|last| last["type"] == "session.status_idle");
            if last.is_some_and(|last| last["stop_reason"]["type"] == reason) {
                return log;
            }
        }
    })
    .await
}

/// What the agent said last.
pub(crate) fn said(log: &[Value]) -> &str {
    let said = of(log, "agent.message");
    let last = said.last().expect("it says something");
    last["content"][0]["text"].as_str().expect("a text")
}

/// What the log says of runs and their threads, in order.
pub(crate) fn story(log: &[Value]) -> Vec<&str> {
    let primary = of(log, "session.thread_status_running");
    let primary = primary.first().map(|event| &event["session_thread_id"]);
    log.iter()
        .filter(|event| Some(&event["session_thread_id"]) != primary)
        .filter_map(|event| event["type"].as_str())
        .filter(|kind| kind.starts_with("workflow_run.") || kind.starts_with("session.thread_"))
        .collect()
}

const PROGRAM: &str = r#"
phase("research");
let topics = parse_json(agent(#{agent: "Echo", prompt: `["tea", "cake"]`}).text);
let jobs = [];
for topic in topics { jobs.push(#{agent: "Echo", prompt: `on ${topic}`}); }
let found = parallel(jobs);
phase("write");
let text = "";
for one in found { text += one.text + "; "; }
let tries = 0;
while tries < 5 {
    tries += 1;
    let verdict = agent(#{agent: "Echo", prompt: if tries == 2 { "good" } else { "bad" }});
    if verdict.ok && verdict.text == "good" { break; }
}
`${text}after ${tries}`
"#;

#[tokio::test]
async fn a_program_with_a_loop_and_calls_side_by_side() {
    let system = System::start().await;
    let client = system.client();
    let echo = echo(client).await;
    let script =
        json!([[[runs("Tea time", &["research", "write"], PROGRAM)], {"text": "{{last_tool_result}}"}]]);
    let (path, lead) = begin(client, &[&echo], &script).await;
    let log = rest(client, &path, "end_turn").await;
    assert_eq!(said(&log), "on tea; on cake; after 2");

    let created = of(&log, "workflow_run.created");
    assert_eq!(created.len(), 1);
    let (run, phases) = (&created[0]["workflow_run_id"], &created[0]["phases"]);
    assert!(run.as_str().is_some_and(|id| id.starts_with("wrun_")), "{run}");
    assert_eq!(
        (&created[0]["name"], &created[0]["description"]),
        (&json!("Tea time"), &json!("d"))
    );
    assert_eq!(
        (&phases[0]["name"], &phases[1]["name"]),
        (&json!("research"), &json!("write"))
    );
    let started = of(&log, "workflow_run.phase_started");
    let ended = of(&log, "workflow_run.phase_ended");
    for (index, (started, ended)) in started.iter().zip(&ended).enumerate() {
        assert_eq!(started["workflow_run_phase_id"], phases[index]["id"]);
        assert_eq!(ended["workflow_run_phase_id"], phases[index]["id"]);
        assert_eq!(ended["phase_started_id"], started["id"]);
    }
    assert_eq!((started.len(), ended.len()), (2, 2));
    let over = of(&log, "workflow_run.status_ended");
    assert_eq!(over[0]["result"], json!({"type": "completed"}));
    for event in log.iter().filter(|event| {
        event["type"]
            .as_str()
            .is_some_and(|kind| kind.starts_with("workflow_run."))
    }) {
        assert_eq!(&event["workflow_run_id"], run, "{event}");
    }
    let story = story(&log);
    assert_eq!(
        story[..4],
        [
            "workflow_run.created",
            "workflow_run.status_running",
            "workflow_run.phase_started",
            "session.thread_created",
        ]
    );
    assert_eq!(
        story[story.len() - 3..],
        [
            "session.thread_status_terminated",
            "workflow_run.phase_ended",
            "workflow_run.status_ended",
        ]
    );
    // The tool is hidden; each call is a thread that is over.
    assert!(of(&log, "agent.tool_use").is_empty() && of(&log, "agent.tool_result").is_empty());
    let of_run = of(&log, "session.thread_created");
    assert_eq!(of_run.len(), 5);
    assert!(of_run.iter().all(|event| &event["workflow_run_id"] == run));
    let threads = soon("the ends of the threads", async {
        loop {
            let threads = list(client, &format!("{path}/threads")).await;
            if threads
                .iter()
                .filter(|thread| thread["status"] == "terminated")
                .count()
                == 5
            {
                return threads;
            }
        }
    })
    .await;
    assert_eq!(threads.len(), 6);
    assert_eq!(threads[0]["workflow_run_id"], Value::Null);
    for thread in &threads[1..] {
        assert_eq!(
            (&thread["workflow_run_id"], &thread["agent"]["id"]),
            (run, &json!(echo))
        );
    }
    // What they consumed is the session's.
    let session = call(client, Method::GET, &path, json!({})).await.good();
    let spent = |of: &Value| of["usage"]["output_tokens"].as_u64().expect("tokens");
    assert_eq!(spent(&session), threads.iter().map(spent).sum::<u64>());
    // The thread's own log has what it was told and what it said.
    let thread = of_run[1]["session_thread_id"].as_str().expect("an id");
    let own = list(client, &format!("{path}/threads/{thread}/events")).await;
    let told = of(&own, "agent.thread_message_received");
    assert_eq!(told[0]["content"][0]["text"], "on tea");

    // The other dialect shows the tool, and its agents as sessions.
    let id = path.rsplit('/').next().expect("an id");
    let seen = client.get(&format!("/v1/sessions/{id}/events")).await.good();
    let seen = seen["events"].as_array().expect("events").clone();
    let used = of(&seen, "agent.tool_use");
    assert!(
        used.iter()
            .any(|event| event.to_string().contains("run_workflow")),
        "{seen:#?}"
    );
    assert!(seen.iter().all(|event| {
        !event["type"]
            .as_str()
            .is_some_and(|kind| kind.starts_with("workflow_run"))
    }));
    let all = client.get("/v1/sessions").await.good();
    let children = all["sessions"].as_array().expect("sessions").iter();
    assert_eq!(
        children
            .filter(|session| session["parent_session_id"] == id)
            .count(),
        5
    );
    // With nothing open, the agent changes and the session goes.
    post(
        client,
        &format!("/v1/agents/{lead}"),
        json!({"description": "new"}),
    )
    .await;
    call(client, Method::DELETE, &path, json!({})).await.good();
    system.stop().await;
}

#[tokio::test]
async fn mistakes_of_programs_are_told_to_whoever_wrote_them() {
    let system = System::start().await;
    let client = system.client();
    let echo = echo(client).await;
    let script = json!([[
        [runs("No program", &[], "let x = ;")],
        [runs("No phase", &["one"], "phase(\"one\"); agent(#{agent: \"Echo\", prompt: \"hi\"}); phase(\"two\")")],
        [{"tool": "run_workflow", "input": {"name": "n"}}],
        [runs("No agent", &[], "agent(#{agent: \"Nobody\", prompt: \"hi\"})")],
        {"text": "{{last_tool_result}}"},
    ]]);
    let (path, _) = begin(client, &[&echo], &script).await;
    let log = rest(client, &path, "end_turn").await;
    assert!(
        said(&log).contains("there is no agent \"Nobody\". There are: Echo"),
        "{}",
        said(&log)
    );
    // What is no program is no run.
    let created = of(&log, "workflow_run.created");
    assert_eq!(
        created.iter().map(|event| &event["name"]).collect::<Vec<_>>(),
        ["No phase", "No agent"]
    );
    let errors = of(&log, "workflow_run.error");
    let ended = of(&log, "workflow_run.status_ended");
    assert_eq!((errors.len(), ended.len()), (2, 2));
    for ((created, error), ended) in created.iter().zip(&errors).zip(&ended) {
        assert_eq!(error["error"]["type"], "program_error");
        assert_eq!(ended["result"], json!({"type": "error", "error": error["error"]}));
        assert_eq!(error["workflow_run_id"], created["workflow_run_id"]);
    }
    let message = errors[0]["error"]["message"].as_str().expect("a text");
    assert!(
        message.contains("there is no phase \"two\"; there are: one"),
        "{message}"
    );
    assert_eq!(of(&log, "workflow_run.phase_ended").len(), 1);
    system.stop().await;
}

#[tokio::test]
async fn failures_of_agents_are_answers() {
    let system = System::start().await;
    let client = system.client();
    let failing = json!([[{"error": {"kind": "request_failed", "message": "no such luck"}}]]);
    let failing = agent(client, "Failing", &failing, json!({})).await;
    let program = "let one = agent(#{agent: \"Failing\", prompt: \"hi\"}); `${one.ok}: ${one.text}`";
    let script = json!([[[runs("n", &[], program)], {"text": "{{last_tool_result}}"}]]);
    let (path, _) = begin(client, &[&failing], &script).await;
    let log = rest(client, &path, "end_turn").await;
    assert!(
        said(&log).starts_with("false: The agent failed"),
        "{}",
        said(&log)
    );
    assert_eq!(
        of(&log, "workflow_run.status_ended")[0]["result"]["type"],
        "completed"
    );
    system.stop().await;
}

#[tokio::test]
async fn programs_define_agents_where_they_call_them() {
    let system = System::start().await;
    let client = system.client();
    let poet = r#"[[[{\"text\": \"a rhyme\"}]]]"#;
    let define = |more: &str| {
        let program =
            format!("let one = agent(#{{name: \"Poet\", system: `{poet}`, prompt: \"go\"{more}}}); one.text");
        runs("n", &[], &program.replace("\\\"", "\""))
    };
    let script = json!([[
        [define(", colour: \"red\"")],
        [define(", tools: [\"fly\"]")],
        [define(", tools: [\"read\"]")],
        {"text": "{{last_tool_result}}"},
    ]]);
    let more =
        json!({"tools": [{"type": "agent_toolset_20260401"}], "multiagent": {"type": "multiagent_20261001"}});
    let lead = agent(client, "Lead", &script, more).await;
    let environment = post(client, "/v1/environments", json!({"name": "e"})).await;
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "go"}]});
    let body = json!({"agent": lead, "environment_id": environment["id"], "initial_events": [message]});
    let session = post(client, "/v1/sessions", body).await;
    let path = format!("/v1/sessions/{}", session["id"].as_str().expect("an id"));
    let log = rest(client, &path, "end_turn").await;
    assert_eq!(said(&log), "a rhyme", "{log:#?}");
    let errors = of(&log, "workflow_run.error");
    let message = |nth: usize| errors[nth]["error"]["message"].as_str().expect("a text");
    assert!(message(0).contains("no field \"colour\""), "{}", message(0));
    assert!(
        message(1).contains("You have no tool fly to give"),
        "{}",
        message(1)
    );
    assert_eq!(errors.len(), 2);
    let threads = list(client, &format!("{path}/threads")).await;
    assert_eq!(threads.len(), 2);
    let agent = &threads[1]["agent"];
    assert_eq!(
        (&agent["type"], &agent["name"]),
        (&json!("inline"), &json!("Poet"))
    );
    let run = of(&log, "workflow_run.created")[2];
    assert_eq!(threads[1]["workflow_run_id"], run["workflow_run_id"]);
    system.stop().await;
}
