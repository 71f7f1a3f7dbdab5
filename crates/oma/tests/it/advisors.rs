//! Advisors over the real binary: what the provider is asked, and what becomes of consultations that fail, are interrupted or
//! are cut off by a kill.

use oma_fake_provider::{Reply, Step};
use reqwest::Method;
use serde_json::{Value, json};

use crate::system::client::{Client, is_end};
use crate::system::{System, soon};

const MODEL: &str = "claude-sonnet-4-5";
const ADVISOR: &str = "claude-opus-4-5";

async fn post(client: &Client, path: &str, body: Value) -> Value {
    client.claude(Method::POST, path, &body).await.good()
}

async fn list(client: &Client, path: &str) -> Vec<Value> {
    let page = client.claude(Method::GET, path, &json!({})).await.good();
    page["data"].as_array().expect("a list").clone()
}

/// The path of a session that begins to work, for an agent with an advisor.
async fn begin(client: &Client) -> String {
    let agent = json!({
        "name": "Builder",
        "model": MODEL,
        "system": "You build bridges.",
        "tools": [{"type": "agent_toolset_20260401"}],
        "multiagent": {"type": "coordinator", "agents": [{"type": "advisor", "model": ADVISOR}]},
    });
    let agent = post(client, "/v1/agents", agent).await;
    let name = format!("for {}", agent["id"]);
    let environment = post(client, "/v1/environments", json!({ "name": name })).await;
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "Cross the river."}]});
    let body =
        json!({"agent": agent["id"], "environment_id": environment["id"], "initial_events": [message]});
    let session = post(client, "/v1/sessions", body).await;
    format!("/v1/sessions/{}", session["id"].as_str().expect("an id"))
}

fn consult() -> Reply {
    Reply::new().tool("consult_advisor", json!({"question": "Stone or wood?"}))
}

/// Waits for the end of the turn; gives the log.
async fn rest(client: &Client, path: &str) -> Vec<Value> {
    let session = path.rsplit('/').next().expect("an id");
    client.follow(session).await.until(is_end).await;
    list(client, &format!("{path}/events")).await
}

/// What the log says of threads and messages, without the primary thread's own.
fn story(log: &[Value]) -> Vec<&str> {
    let primary = log
        .iter()
        .find(|event| event["type"] == "session.thread_status_running");
    let primary = primary.map(|event| &event["session_thread_id"]);
    log.iter()
        .filter(|event| Some(&event["session_thread_id"]) != primary)
        .filter_map(|event| event["type"].as_str())
        .filter(|kind| kind.contains("thread_") || *kind == "agent.message" || kind.contains("tool"))
        .collect()
}

const ADVISED: [&str; 6] = [
    "session.thread_created",
    "session.thread_status_running",
    "agent.thread_message_received",
    "session.thread_status_idle",
    "session.thread_status_terminated",
    "agent.message",
];

/// Waits until the consultation's own session is over, too.
async fn closed(client: &Client, path: &str) -> Value {
    let threads = format!("{path}/threads");
    soon("the end of the consultation", async {
        loop {
            let found = list(client, &threads).await;
            let thread = found.iter().find(|thread| !thread["parent_thread_id"].is_null());
            if let Some(thread) = thread.filter(|thread| thread["status"] == "terminated") {
                return thread.clone();
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_advisor_is_shown_the_work_and_its_advice_comes_back() {
    let system = System::start().await;
    let client = system.client();
    let run = json!({"command": "echo the river is wide"});
    system.provider.push(Reply::new().tool("bash", run));
    system.provider.push(consult());
    system
        .provider
        .push(Reply::new().text("Wood. Stone takes too long."));
    system.provider.push(Reply::new().text("Then wood it is."));
    let path = begin(client).await;
    let log = rest(client, &path).await;
    let requests = system.provider.requests();
    assert_eq!(requests.len(), 4);

    // Its model, with nothing but what it is to know.
    let asked = &requests[2].body;
    assert_eq!(
        (&requests[0].body["model"], &asked["model"]),
        (&json!(MODEL), &json!(ADVISOR))
    );
    assert!(
        asked.get("tools").is_none_or(|tools| tools == &json!([])),
        "{asked}"
    );
    let text = asked.to_string();
    for shown in [
        "You build bridges.",
        "Cross the river.",
        "the river is wide",
        "Stone or wood?",
    ] {
        assert!(text.contains(shown), "{shown} in {text}");
    }
    let told = requests[3].body["messages"].to_string();
    assert!(told.contains("Wood. Stone takes too long."), "{told}");

    // The tool is hidden; so is what the advisor was asked, outside of its thread.
    let mut expected = vec!["agent.tool_use", "agent.tool_result"];
    expected.extend(ADVISED);
    assert_eq!(story(&log), expected, "{log:#?}");
    let of = |kind: &str| log.iter().find(|event| event["type"] == kind).expect("an event");
    let advice = of("agent.thread_message_received");
    assert_eq!(advice["from_agent_name"], "anthropic.advisor");
    assert_eq!(advice["content"][0]["text"], "Wood. Stone takes too long.");
    let all = Value::from(log.clone()).to_string();
    assert!(!all.contains("Stone or wood?"), "{all}");

    let thread = closed(client, &path).await;
    assert_eq!(thread["agent"], json!({"type": "advisor", "model": ADVISOR}));
    assert_eq!(thread["id"], advice["from_session_thread_id"]);
    assert!(thread["archived_at"].is_string(), "{thread}");
    // What it consumes is the session's, and reported under a name of its own.
    let session = client.claude(Method::GET, &path, &json!({})).await.good();
    let threads = list(client, &format!("{path}/threads")).await;
    let spent = |of: &Value| of["usage"]["output_tokens"].as_u64().expect("tokens");
    assert_eq!(spent(&session), threads.iter().map(spent).sum::<u64>());
    assert!(spent(&thread) > 0, "{thread}");
    let report = client.get("/v1/usage").await.good();
    let rows = report["usage"].as_array().expect("rows");
    let own = rows.iter().find(|row| row["agent_id"] == "agt_advisor");
    assert!(
        own.is_some_and(|row| row["model"]
            .as_str()
            .is_some_and(|model| model.ends_with(ADVISOR))),
        "{report}"
    );

    // Nothing more can be said to it, and it goes with its session.
    let id = thread["id"].as_str().expect("an id");
    let stop = json!({"events": [{"type": "user.interrupt", "session_thread_id": id}]});
    let refused = client
        .claude(Method::POST, &format!("{path}/events"), &stop)
        .await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    client.claude(Method::DELETE, &path, &json!({})).await.good();
    assert_eq!(client.get("/v1/sessions").await.good()["sessions"], json!([]));
    system.stop().await;
}

#[tokio::test]
async fn a_consultation_goes_on_after_a_kill_at_any_point() {
    let mut system = System::start().await;
    for cut in 0..3 {
        let asked = system.provider.requests().len();
        let plan = [
            consult(),
            Reply::new().text("Wood."),
            Reply::new().text("So be it."),
        ];
        for (at, reply) in plan.into_iter().enumerate() {
            if at == cut {
                system.provider.push(Reply::new().step(Step::Stall));
            }
            system.provider.push(reply);
        }
        let path = begin(system.client()).await;
        let reached = system.provider.wait_for_requests((asked + cut + 1) as u64);
        soon("the request", reached).await;
        system = system.crash().await;
        let client = system.client();
        let log = rest(client, &path).await;
        assert_eq!(story(&log), ADVISED, "killed at request {cut}: {log:#?}");
        assert_eq!(
            system.provider.requests().len(),
            asked + 4,
            "killed at request {cut}"
        );
        let thread = closed(client, &path).await;
        let id = thread["id"].as_str().expect("an id");
        let own = list(client, &format!("{path}/threads/{id}/events")).await;
        let questions = own
            .iter()
            .filter(|event| event["type"] == "agent.thread_message_received");
        assert_eq!(questions.count(), 1, "killed at request {cut}: {own:#?}");
    }
    system.stop().await;
}

#[tokio::test]
async fn an_interrupt_ends_a_consultation() {
    let system = System::start().await;
    let client = system.client();
    system.provider.push(consult());
    system.provider.push(Reply::new().step(Step::Stall));
    let path = begin(client).await;
    soon("the advisor's request", system.provider.wait_for_requests(2)).await;
    let events = format!("{path}/events");
    post(client, &events, json!({"events": [{"type": "user.interrupt"}]})).await;
    let log = rest(client, &path).await;
    let ends: Vec<&str> = story(&log)
        .into_iter()
        .filter(|kind| !kind.contains("running"))
        .collect();
    assert_eq!(
        ends,
        [
            "session.thread_created",
            "session.thread_status_idle",
            "session.thread_status_terminated"
        ],
        "{log:#?}"
    );
    closed(client, &path).await;
    // The next message is answered, and the advisor can be asked again.
    for reply in [
        consult(),
        Reply::new().text("Wood."),
        Reply::new().text("So be it."),
    ] {
        system.provider.push(reply);
    }
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "Go on."}]});
    post(client, &events, json!({ "events": [message] })).await;
    let log = soon("the answer", async {
        loop {
            let log = list(client, &events).await;
            if log
                .last()
                .is_some_and(|last| last["stop_reason"]["type"] == "end_turn")
            {
                return log;
            }
        }
    })
    .await;
    assert!(story(&log).ends_with(&ADVISED), "{log:#?}");
    system.stop().await;
}

#[tokio::test]
async fn the_work_goes_on_without_an_advisor_that_fails() {
    let system = System::start().await;
    let client = system.client();
    system.provider.push(consult());
    let message = "this model is not for you";
    system
        .provider
        .push(Reply::failure(403, "permission_error", message));
    system.provider.push(Reply::new().text("Alone, then."));
    let path = begin(client).await;
    let log = rest(client, &path).await;
    assert_eq!(
        story(&log),
        [
            "session.thread_created",
            "session.thread_status_running",
            "session.thread_status_idle",
            "session.thread_status_terminated",
            "agent.message",
        ],
        "{log:#?}"
    );
    let requests = system.provider.requests();
    let told = requests[2].body["messages"].to_string();
    assert!(
        told.contains("The agent failed") && told.contains(message),
        "{told}"
    );
    closed(client, &path).await;
    system.stop().await;
}

#[tokio::test]
async fn a_budget_needs_the_price_of_the_advisor_too() {
    let prices = tempfile::NamedTempFile::new().expect("a file");
    let table = format!("[\"anthropic/{MODEL}\"]\ninput = 3\noutput = 15\ncache_read = 3\ncache_write = 3\n");
    std::fs::write(prices.path(), table).expect("written");
    let prices = prices.path().display().to_string();
    let system = System::start_with(|options| options.set("OPENCLAW_PRICE_FILE", &prices)).await;
    let client = system.client();
    let environment = post(client, "/v1/environments", json!({"name": "e"})).await;
    for (advisor, status) in [(MODEL, 200), ("scripted/echo", 400)] {
        let advisor_entry = json!({"type": "advisor", "model": advisor});
        let multiagent = json!({"type": "coordinator", "agents": [advisor_entry]});
        let agent = json!({"name": "Builder", "model": MODEL, "multiagent": multiagent});
        let agent = post(client, "/v1/agents", agent).await;
        let budget = json!({"type": "limit", "max_list_cost": {"amount": "5", "currency": "USD"}});
        let body = json!({"agent": agent["id"], "environment_id": environment["id"], "budget": budget});
        let made = client.claude(Method::POST, "/v1/sessions", &body).await;
        assert_eq!(made.status, status, "{}", made.text());
        assert!(made.text().contains(advisor), "{}", made.text());
    }
    system.stop().await;
}
