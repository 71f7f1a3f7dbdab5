//! Outcomes over the real binary: the agent's and the grader's requests as the provider gets them, kills at each point of
//! an iteration, budgets that stop the work and let it go on.

use oma_fake_provider::{Reply, Step, Usage};
use reqwest::Method;
use serde_json::{Value, json};

use crate::system::client::{Client, is_end};
use crate::system::{System, soon};

const MODEL: &str = "claude-sonnet-4-5";

async fn post(client: &Client, path: &str, body: Value) -> Value {
    client.claude(Method::POST, path, &body).await.good()
}

async fn get(client: &Client, path: &str) -> Value {
    client.claude(Method::GET, path, &json!({})).await.good()
}

fn define(iterations: u32) -> Value {
    json!({
        "type": "user.define_outcome",
        "description": "A haiku about rivers",
        "rubric": {"type": "text", "content": "- It has three lines.\n- It mentions water."},
        "max_iterations": iterations,
    })
}

fn verdict(result: &str, explanation: &str) -> Reply {
    Reply::new().tool(
        "submit_verdict",
        json!({"result": result, "explanation": explanation}),
    )
}

/// A session that begins to work towards an outcome.
async fn begin(client: &Client, more: Value) -> String {
    let toolset = json!([{"type": "agent_toolset_20260401"}]);
    let agent = json!({"name": "Poet", "model": MODEL, "system": "You write.", "tools": toolset});
    let agent = post(client, "/v1/agents", agent).await;
    let environment = post(
        client,
        "/v1/environments",
        json!({"name": format!("for {}", agent["id"])}),
    )
    .await;
    let mut body = json!({
        "agent": agent["id"],
        "environment_id": environment["id"],
        "initial_events": [define(2)],
    });
    body.as_object_mut()
        .expect("an object")
        .extend(more.as_object().expect("an object").clone());
    let session = post(client, "/v1/sessions", body).await;
    session["id"].as_str().expect("an id").to_owned()
}

/// The types of a session's events in this dialect, in order.
async fn kinds(client: &Client, session: &str) -> Vec<String> {
    let events = events(client, session).await;
    let kinds = events
        .iter()
        .map(|event| event["type"].as_str().expect("a type").to_owned());
    kinds.collect()
}

async fn events(client: &Client, session: &str) -> Vec<Value> {
    let page = get(client, &format!("/v1/sessions/{session}/events")).await;
    page["data"].as_array().expect("events").clone()
}

async fn rest(client: &Client, session: &str) {
    client.follow(session).await.until(is_end).await;
}

#[tokio::test]
async fn the_grader_has_a_context_of_its_own() {
    let system = System::start().await;
    let client = system.client();
    let write = json!({"file_path": "haiku.txt", "content": "Stones in the stream"});
    system
        .provider
        .push(Reply::new().thinking("Water, then.").tool("write", write));
    system.provider.push(Reply::new().text("I wrote it."));
    system
        .provider
        .push(verdict("needs_revision", "It has one line only."));
    system.provider.push(Reply::new().text("Now it has three lines."));
    // Words in the place of the tool: the verdict is read all the same.
    let said = json!({"result": "satisfied", "explanation": "Three lines, and water."});
    system
        .provider
        .push(Reply::new().text(&format!("My verdict: {said}")));
    let session = begin(client, json!({})).await;
    rest(client, &session).await;

    let requests = system.provider.requests();
    let body = |at: usize| requests[at].body.to_string();
    assert_eq!(requests.len(), 5);
    for of_agent in [0, 1, 3] {
        let body = body(of_agent);
        assert!(
            body.contains("You write.") && body.contains("A haiku about rivers"),
            "{body}"
        );
        assert!(
            body.contains("It mentions water."),
            "the agent knows the rubric: {body}"
        );
        assert!(!body.contains("submit_verdict"), "{body}");
    }
    assert!(
        body(3).contains("It has one line only."),
        "the agent is told what to revise"
    );
    for of_grader in [2, 4] {
        let body = body(of_grader);
        assert!(
            body.contains("submit_verdict") && !body.contains("You write."),
            "{body}"
        );
        assert!(
            body.contains("Stones in the stream") && body.contains("It mentions water."),
            "{body}"
        );
        assert!(
            !body.contains("Water, then."),
            "thoughts are the agent's own: {body}"
        );
    }
    assert!(body(4).contains("It has one line only.") && body(4).contains("Now it has three lines."));

    let seen = kinds(client, &session).await;
    let spans: Vec<&str> = seen
        .iter()
        .map(String::as_str)
        .filter(|kind| kind.contains("outcome"))
        .collect();
    let iteration = ["start", "ongoing", "end"].map(|part| format!("span.outcome_evaluation_{part}"));
    let expected: Vec<&str> = std::iter::once("user.define_outcome")
        .chain(iteration.iter().map(String::as_str))
        .chain(iteration.iter().map(String::as_str))
        .collect();
    assert_eq!(spans, expected);
    let count = |kind: &str| seen.iter().filter(|seen| *seen == kind).count();
    assert_eq!(
        (count("span.model_request_start"), count("span.model_request_end")),
        (3, 3),
        "the agent's"
    );
    assert_eq!(count("session.status_idle"), 1);

    let read = get(client, &format!("/v1/sessions/{session}")).await;
    let evaluation = &read["outcome_evaluations"][0];
    assert_eq!(
        (
            &evaluation["result"],
            &evaluation["iteration"],
            &evaluation["explanation"]
        ),
        (&json!("satisfied"), &json!(1), &json!("Three lines, and water."))
    );
    assert!(evaluation["completed_at"].is_string());
    // The grader's requests are in the sum.
    let input = |event: &Value, field: &str| event[field]["input_tokens"].as_u64().unwrap_or_default();
    let all = events(client, &session).await;
    let sum: u64 = all
        .iter()
        .map(|event| input(event, "model_usage") + input(event, "usage"))
        .sum::<u64>()
        - all
            .iter()
            .filter(|event| event["type"] == "session.usage")
            .map(|event| input(event, "usage"))
            .sum::<u64>();
    assert_eq!(read["usage"]["input_tokens"], sum);
    system.stop().await;
}

/// The server is killed while one of the five requests of an outcome is under way, and goes on by itself.
#[tokio::test]
async fn an_iteration_goes_on_after_a_kill_at_any_point() {
    let plan = || {
        [
            Reply::new().tool(
                "bash",
                json!({"command": "echo line >> count.txt; wc -l < count.txt"}),
            ),
            Reply::new().text("First draft."),
            verdict("needs_revision", "More."),
            Reply::new().text("Second draft."),
            verdict("satisfied", "Good."),
        ]
    };
    let mut system = System::start().await;
    for cut in 0..plan().len() {
        let asked = system.provider.requests().len();
        for (at, reply) in plan().into_iter().enumerate() {
            if at == cut {
                system.provider.push(Reply::new().step(Step::Stall));
            }
            system.provider.push(reply);
        }
        let session = begin(system.client(), json!({})).await;
        soon(
            "the request",
            system.provider.wait_for_requests((asked + cut + 1) as u64),
        )
        .await;
        system = system.crash().await;
        let client = system.client();
        rest(client, &session).await;
        let events = events(client, &session).await;
        let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
        let what = format!("killed at request {cut}: {events:#?}");
        assert_eq!(of("user.define_outcome"), 1, "{what}");
        assert_eq!(of("span.outcome_evaluation_start"), 2, "{what}");
        assert_eq!(of("span.outcome_evaluation_end"), 2, "{what}");
        // Asked again, the grader is said to look again.
        let again = usize::from(cut == 2 || cut == 4);
        assert_eq!(of("span.outcome_evaluation_ongoing"), 2 + again, "{what}");
        assert_eq!(of("agent.message"), 2, "{what}");
        let result = events.iter().find(|event| event["type"] == "agent.tool_result");
        assert_eq!(
            result.map(|result| result["content"][0]["text"]
                .as_str()
                .unwrap_or_default()
                .trim()
                .to_owned()),
            Some("1".to_owned()),
            "the command ran once: {what}"
        );
        let read = get(client, &format!("/v1/sessions/{session}")).await;
        assert_eq!(read["outcome_evaluations"][0]["result"], "satisfied", "{what}");
        assert_eq!(
            system.provider.requests().len(),
            asked + plan().len() + 1,
            "{what}"
        );
    }
    system.stop().await;
}

#[tokio::test]
async fn an_outcome_can_be_stopped_while_the_grader_looks() {
    let system = System::start().await;
    let client = system.client();
    system.provider.push(Reply::new().text("Done."));
    system.provider.push(Reply::new().step(Step::Stall));
    let session = begin(client, json!({})).await;
    soon("the grader's request", system.provider.wait_for_requests(2)).await;
    let path = format!("/v1/sessions/{session}/events");
    let second = client
        .claude(Method::POST, &path, &json!({"events": [define(1)]}))
        .await;
    assert_eq!(second.status, 400, "{}", second.text());
    assert!(second.text().contains("events[0]"), "{}", second.text());
    post(client, &path, json!({"events": [{"type": "user.interrupt"}]})).await;
    rest(client, &session).await;
    let events = events(client, &session).await;
    let find = |kind: &str| {
        events
            .iter()
            .find(|event| event["type"] == kind)
            .expect("an event")
    };
    let end = find("span.outcome_evaluation_end");
    assert_eq!(end["result"], "interrupted");
    assert_eq!(
        end["outcome_evaluation_start_id"],
        find("span.outcome_evaluation_start")["id"]
    );
    // Then there is room for another.
    system.provider.push(Reply::new().text("Done again."));
    system.provider.push(verdict("satisfied", "Yes."));
    let before = events.len();
    post(client, &path, json!({"events": [define(1)]})).await;
    let mut frames = client.follow(&session).await;
    frames.until(is_end).await;
    frames.until(is_end).await;
    let read = get(client, &format!("/v1/sessions/{session}")).await;
    let results: Vec<&Value> = read["outcome_evaluations"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|evaluation| &evaluation["result"])
        .collect();
    assert_eq!(results, ["interrupted", "satisfied"]);
    assert!(self::events(client, &session).await.len() > before);
    system.stop().await;
}

#[tokio::test]
async fn work_goes_on_by_itself_when_the_budget_is_raised() {
    // Behind this address nobody knows what a model costs unless the operator says it.
    let prices = tempfile::NamedTempFile::new().expect("a file");
    let table = format!("[\"anthropic/{MODEL}\"]\ninput = 3\noutput = 15\ncache_read = 3\ncache_write = 3\n");
    std::fs::write(prices.path(), table).expect("written");
    let path = prices.path().display().to_string();
    let system = System::start_with(|options| options.set("OPENCLAW_PRICE_FILE", &path)).await;
    let client = system.client();
    let dear = |reply: Reply| {
        reply.usage(Some(Usage {
            input: 5_000,
            output: 1_000,
            ..Usage::default()
        }))
    };
    let limit = |cents: u32| json!({"type": "limit", "max_list_cost": {"amount": cents.to_string(), "currency": "USD"}});
    system.provider.push(dear(Reply::new().text("Done.")));
    let session = begin(client, json!({"budget": limit(3)})).await;
    let mut frames = client.follow(&session).await;
    frames.until(is_end).await;
    let path = format!("/v1/sessions/{session}");
    let idle = events(client, &session).await.pop().expect("an event");
    assert_eq!(idle["stop_reason"], json!({"type": "budget_reached"}), "{idle}");
    let read = get(client, &path).await;
    assert_eq!(
        (&read["status"], &read["outcome_evaluations"][0]["result"]),
        (&json!("idle"), &json!("evaluating"))
    );

    let events_path = format!("{path}/events");
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "More?"}]});
    for refused in [message, define(1)] {
        let answer = client
            .claude(Method::POST, &events_path, &json!({"events": [refused]}))
            .await;
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    // An interrupt is swallowed: the work waits for the budget.
    post(
        client,
        &events_path,
        json!({"events": [{"type": "user.interrupt"}]}),
    )
    .await;
    let too_little = client
        .claude(Method::POST, &path, &json!({"budget": limit(1)}))
        .await;
    assert_eq!(too_little.status, 400, "{}", too_little.text());
    assert_eq!(
        too_little.json()["error"]["details"]["error_code"],
        "budget_not_raised"
    );

    system.provider.push(verdict("satisfied", "Good."));
    let updated = post(client, &path, json!({"budget": limit(500)})).await;
    assert_eq!(updated["budget"]["max_list_cost"]["amount"], "500");
    frames.until(is_end).await;
    let events = events(client, &session).await;
    let update = events
        .iter()
        .find(|event| event["type"] == "session.updated")
        .expect("it is told");
    assert_eq!(update["budget"], limit(500));
    assert!(
        update.get("title").is_none() && update.get("agent").is_none(),
        "{update}"
    );
    let usage: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "session.usage")
        .map(|event| &event["budget"]["max_list_cost"]["amount"])
        .collect();
    assert_eq!(usage, ["3", "500"], "as it was then");
    let read = get(client, &path).await;
    assert_eq!(read["outcome_evaluations"][0]["result"], "satisfied");
    let removed = post(client, &path, json!({"budget": null})).await;
    assert_eq!(removed["budget"], Value::Null);
    let again = client
        .claude(Method::POST, &path, &json!({"budget": limit(900)}))
        .await;
    assert_eq!(
        again.json()["error"]["details"]["error_code"],
        "budget_create_only",
        "{}",
        again.text()
    );
    system.stop().await;
}
