//! The bounds of workflow runs, and what stops them.

use reqwest::Method;
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn a_run_makes_so_many_calls_and_no_more() {
    let system = System::start().await;
    let client = system.client();
    let echo = echo(client).await;
    let many =
        "let jobs = []; for n in 0..1001 { jobs.push(#{agent: \"Echo\", prompt: `${n}`}); } parallel(jobs)";
    let some = "let jobs = []; for n in 0..70 { jobs.push(#{agent: \"Echo\", prompt: `${n}`}); } \
                let all = \"\"; for one in parallel(jobs) { all += one.text + \" \"; } all";
    let script =
        json!([[[runs("many", &[], many)], [runs("some", &[], some)], {"text": "{{last_tool_result}}"}]]);
    let (path, _) = begin(client, &[&echo], &script).await;
    let log = rest(client, &path, "end_turn").await;
    let result = |nth: usize| &of(&log, "workflow_run.status_ended")[nth]["result"];
    assert_eq!(result(0)["error"]["type"], "thread_limit_error");
    assert_eq!(result(1)["type"], "completed");
    // Answers are in the order of the calls, whichever came first.
    let expected: Vec<String> = (0..70).map(|n| n.to_string()).collect();
    assert_eq!(said(&log).split_whitespace().collect::<Vec<_>>(), expected);
    // So many at once and no more.
    let (mut live, mut most) = (0_i32, 0);
    for event in &log {
        match event["type"].as_str() {
            Some("session.thread_created") => live += 1,
            Some("session.thread_status_terminated") => live -= 1,
            _ => {}
        }
        most = most.max(live);
    }
    assert_eq!(live, 0);
    assert!((2..=64).contains(&most), "{most}");
    system.stop().await;
}

#[tokio::test]
async fn open_runs_have_a_bound_wait_for_clients_and_are_stopped() {
    let system = System::start().await;
    let client = system.client();
    let asking = asking(client).await;
    let waits = "agent(#{agent: \"Asking\", prompt: \"go\"}).text";
    let uses: Vec<Value> = (0..11)
        .map(|n| runs(&format!("run {n}"), &["all"], waits))
        .collect();
    let script = json!([[uses, {"text": "done"}], [[runs("alone", &["all"], &format!("phase(\"all\"); {waits}"))], {"text": "{{last_tool_result}}"}]]);
    let (path, lead) = begin(client, &[&asking], &script).await;
    let log = rest(client, &path, "requires_action").await;
    let refused = of(&log, "workflow_run.error");
    assert_eq!(refused.len(), 1, "{log:#?}");
    assert_eq!(
        (&refused[0]["workflow_run_id"], &refused[0]["error"]["type"]),
        (&Value::Null, &json!("max_workflow_runs_error"))
    );
    assert_eq!(of(&log, "workflow_run.created").len(), 10);
    assert_eq!(of(&log, "workflow_run.status_idle").len(), 10);

    // Nothing that the runs go by changes meanwhile.
    for (method, target, body) in [
        (
            Method::POST,
            format!("/v1/agents/{lead}"),
            json!({"description": "new"}),
        ),
        (Method::POST, format!("/v1/agents/{lead}/archive"), json!({})),
        (Method::POST, format!("{path}/archive"), json!({})),
        (Method::DELETE, path.clone(), json!({})),
    ] {
        let refused = call(client, method, &target, body).await;
        assert_eq!(refused.status, 400, "{target}");
        let error = &refused.json()["error"];
        assert_eq!(error["details"]["error_code"], "workflow_run_open", "{target}");
        assert_eq!(error["type"], "invalid_request_error", "{target}");
    }
    // Another agent is another matter.
    post(
        client,
        &format!("/v1/agents/{asking}"),
        json!({"description": "new"}),
    )
    .await;

    let interrupt = json!({"events": [{"type": "user.interrupt"}]});
    post(client, &format!("{path}/events"), interrupt.clone()).await;
    let log = rest(client, &path, "end_turn").await;
    let ended = of(&log, "workflow_run.status_ended");
    assert_eq!(ended.len(), 10);
    assert!(
        ended
            .iter()
            .all(|event| event["result"] == json!({"type": "stopped"}))
    );
    let over = of(&log, "session.thread_status_terminated");
    assert_eq!(over.len(), 10);
    post(
        client,
        &format!("/v1/agents/{lead}"),
        json!({"description": "newer"}),
    )
    .await;

    // One that waits for a client goes on with what the client says.
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "again"}]});
    post(client, &format!("{path}/events"), json!({ "events": [message] })).await;
    let log = rest(client, &path, "requires_action").await;
    let last = log.last().expect("it waits");
    let id = &last["stop_reason"]["event_ids"][0];
    let used = log.iter().find(|event| &event["id"] == id).expect("a tool use");
    assert_eq!(used["type"], "agent.custom_tool_use");
    let answer = json!({"type": "user.custom_tool_result", "custom_tool_use_id": id, "content": [{"type": "text", "text": "T-1"}]});
    post(client, &format!("{path}/events"), json!({ "events": [answer] })).await;
    let log = rest(client, &path, "end_turn").await;
    assert_eq!(said(&log), "done: T-1");
    let of_last =
        |event: &&Value| event["workflow_run_id"] == of(&log, "workflow_run.created")[10]["workflow_run_id"];
    let story: Vec<&str> = log
        .iter()
        .filter(of_last)
        .filter_map(|event| event["type"].as_str())
        .collect();
    assert_eq!(
        story,
        [
            "workflow_run.created",
            "workflow_run.status_running",
            "workflow_run.phase_started",
            "session.thread_created",
            "workflow_run.status_idle",
            "workflow_run.status_running",
            "workflow_run.phase_ended",
            "workflow_run.status_ended",
        ]
    );
    call(client, Method::DELETE, &path, json!({})).await.good();
    system.stop().await;
}

#[tokio::test]
async fn an_interrupt_stops_a_run_that_works() {
    let system = System::start().await;
    let client = system.client();
    let slow = json!([[[{"delay_ms": 60_000}, {"text": "late"}]]]);
    let slow = agent(client, "Slow", &slow, json!({})).await;
    let program = "parallel([#{agent: \"Slow\", prompt: \"a\"}, #{agent: \"Slow\", prompt: \"b\"}])";
    let (path, _) = begin(
        client,
        &[&slow],
        &json!([[[runs("n", &[], program)], {"text": "done"}]]),
    )
    .await;
    soon("both to work", async {
        while of(&events(client, &path).await, "session.thread_status_running").len() < 3 {}
    })
    .await;
    // A running session's run is what is named, too.
    let refused = call(client, Method::DELETE, &path, json!({})).await;
    assert_eq!(
        refused.json()["error"]["details"]["error_code"],
        "workflow_run_open"
    );
    post(
        client,
        &format!("{path}/events"),
        json!({"events": [{"type": "user.interrupt"}]}),
    )
    .await;
    let log = rest(client, &path, "end_turn").await;
    assert_eq!(
        of(&log, "workflow_run.status_ended")[0]["result"],
        json!({"type": "stopped"})
    );
    soon("the ends of the threads", async {
        loop {
            let threads = list(client, &format!("{path}/threads")).await;
            if threads[1..].iter().all(|thread| thread["status"] == "terminated") {
                return;
            }
        }
    })
    .await;
    // One thread alone is stopped by its name, and the program is told.
    let program = "let both = parallel([#{agent: \"Slow\", prompt: \"a\"}]); both[0].text";
    let (path, _) = begin(
        client,
        &[&slow],
        &json!([[[runs("n", &[], program)], {"text": "{{last_tool_result}}"}]]),
    )
    .await;
    let thread = soon("it works", async {
        loop {
            let log = events(client, &path).await;
            if of(&log, "session.thread_status_running").len() == 2 {
                return of(&log, "session.thread_created")[0]["session_thread_id"].clone();
            }
        }
    })
    .await;
    let interrupt = json!({"events": [{"type": "user.interrupt", "session_thread_id": thread}]});
    post(client, &format!("{path}/events"), interrupt).await;
    let log = rest(client, &path, "end_turn").await;
    assert_eq!(said(&log), "The agent's work was cancelled.");
    system.stop().await;
}
