//! Many at once.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::system::client::is_end;
use crate::system::{System, leftovers};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

/// What a turn costs is mostly how often it waits for the disk: for its message, which comes with its entry of the audit
/// trail, for the beginning of its model request, and for the answer.
#[tokio::test]
async fn a_turn_waits_for_the_disk_three_times() {
    let system = System::start().await;
    let client = system.client();
    let chat = client.session_of("scripted/echo").await;
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        let before = client.metric("store_commit_duration_seconds_count").await;
        let posted = chat.post("hello").await;
        let mut frames = chat.follow().await;
        frames
            .until(|frame| frame["event_id"] == posted["event_id"])
            .await;
        frames.until(is_end).await;
        let after = client.metric("store_commit_duration_seconds_count").await;
        // What the server does by itself now and then may come between.
        least = least.min(after - before);
    }
    assert!((least - 3.0).abs() < 0.5, "{least}");
    let trail = client.get("/v1/audit?action=session.event").await.good();
    let rows = trail["events"].as_array().expect("rows");
    assert_eq!(rows.len(), 3);
    assert!(
        rows.iter()
            .all(|row| row["target"] == chat.session.as_str() && row["outcome"] == "ok"),
        "{trail}"
    );
    // One that is refused, and one that was accepted before, have entries, too.
    let path = chat.path("/events");
    let again = || {
        let request = client.request(reqwest::Method::POST, &path);
        client.send(
            request
                .header("idempotency-key", "k")
                .json(&json!({"content": "again"})),
        )
    };
    let first = again().await.good();
    let second = again().await.good();
    assert_eq!(first["event_id"], second["event_id"]);
    assert_eq!(client.post(&path, &json!({"content": ""})).await.status, 400);
    let trail = client.get("/v1/audit?action=session.event").await.good();
    let outcomes: Vec<&Value> = trail["events"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| &row["outcome"])
        .collect();
    assert_eq!(outcomes, ["invalid_request", "ok", "ok", "ok", "ok", "ok"]);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_at_once_to_one_session_all_get_their_turn() {
    let system = System::start().await;
    let chat = system.client().session_of(MODEL).await;
    let posts = (0..60).map(|number| {
        let chat = chat.clone();
        async move {
            (
                number,
                chat.play(&json!([{"text": format!("answer {number}")}])).await,
            )
        }
    });
    let posted: BTreeMap<String, u32> = join_all(posts)
        .await
        .into_iter()
        .map(|(number, posted)| (posted["event_id"].as_str().expect("an id").to_owned(), number))
        .collect();
    assert_eq!(posted.len(), 60);
    let mut frames = chat.follow().await;
    let mut turns = 0;
    let mut events = Vec::new();
    // The session may come to rest between two posts.
    while turns < 60 {
        events.extend(frames.until(|frame| frame["type"] == "agent.message").await);
        turns += 1;
    }
    events.extend(frames.until(is_end).await);
    let mut seen = Vec::new();
    let mut asked: Option<u32> = None;
    for event in &events {
        match event["type"].as_str() {
            Some("user.message") => {
                assert_eq!(asked, None, "{event} before the answer to the message before");
                asked = Some(posted[event["event_id"].as_str().expect("an id")]);
            }
            Some("agent.message") => {
                let number = asked.take().expect("a message");
                assert_eq!(event["content"], format!("answer {number}"));
                seen.push(number);
            }
            _ => {}
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..60).collect::<Vec<_>>());
    assert_eq!(chat.read().await["turns"], 60);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_sessions_work_at_once_and_keep_apart() {
    fifty_sessions("0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_sessions_keep_apart_where_some_sandboxes_are_there_in_advance() {
    fifty_sessions("3").await;
}

/// With so many sandboxes in advance.
async fn fifty_sessions(max_warm: &str) {
    // Fewer places than sessions: some turns and some sandboxes wait for others.
    let system = System::start_with(|options| {
        options
            .set("OPENCLAW_MAX_TURNS", "20")
            .set("OPENCLAW_MAX_ACTIVE_CONTAINERS", "6")
            .set("OPENCLAW_MAX_WARM_CONTAINERS", max_warm)
    })
    .await;
    let agent = system.client().agent(json!({"model": MODEL})).await;
    let runs = (0..50).map(|number| {
        let (client, agent) = (system.client().clone(), agent.clone());
        async move {
            let session = client.session(&agent).await;
            let chat = crate::system::client::Chat {
                client,
                agent,
                session,
            };
            let script = json!([
                {"tool": "bash", "input": {"command": format!("echo {number} >> mine; cat mine; pwd")}},
                {"text": format!("answer {number}: {{{{last_tool_result}}}}")},
            ]);
            let mut outputs = Vec::new();
            for _ in 0..2 {
                let events = chat.turn(&script).await;
                let result = events
                    .iter()
                    .find(|event| event["type"] == "agent.tool_result")
                    .expect("one");
                assert_eq!(result["is_error"], false, "{result}");
                outputs.push(result["content"].as_str().expect("text").to_owned());
                assert!(
                    events.last().expect("one")["stop_reason"] == "end_turn",
                    "{events:?}"
                );
            }
            assert_eq!(outputs[0].trim(), format!("{number}\n/workspace"));
            assert_eq!(outputs[1].trim(), format!("{number}\n{number}\n/workspace"));
            let output = chat.read().await["output"].as_str().expect("text").to_owned();
            assert!(output.starts_with(&format!("answer {number}: ")), "{output}");
        }
    });
    join_all(runs).await;
    assert_eq!(system.client().metric("turns_active").await, 0.0);
    assert!(system.client().metric("pool_active_containers").await <= 6.0);
    let list = system.client().get("/v1/sessions").await.good();
    assert!(
        list["sessions"]
            .as_array()
            .expect("rows")
            .iter()
            .all(|row: &Value| row["status"] == "idle"),
        "{list}"
    );
    system.stop().await;
}

/// The open files of a process, by kind.
fn open_files(pid: i32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for file in std::fs::read_dir(format!("/proc/{pid}/fd")).expect("readable") {
        // One may be closed while this looks.
        if let Ok(target) = std::fs::read_link(file.expect("readable").path()) {
            let name = target.display().to_string();
            let kind = name.split(':').next().unwrap_or_default().to_owned();
            *kinds.entry(kind).or_default() += 1;
        }
    }
    kinds
}

/// The memory of a process that is in RAM, in KiB.
fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("readable");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("there");
    line.split_whitespace()
        .next()
        .expect("a number")
        .parse()
        .expect("a number")
}

/// How many sessions work at once in a round.
const ROUND: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_holds_no_files_and_no_memory() {
    let system = System::start().await;
    let pid = system.server.pid();
    let round = async || {
        let runs = (0..ROUND).map(|_| async {
            let chat = system.client().session_of(MODEL).await;
            let script = json!([{"tool": "bash", "input": {"command": "echo hi"}}, {"text": "done"}]);
            chat.turn(&script).await;
            system.client().delete(&chat.path("")).await.good();
        });
        join_all(runs).await;
    };
    // The first rounds fill pools and caches.
    round().await;
    round().await;
    let (files, memory) = (open_files(pid), resident(pid));
    for _ in 0..5 {
        round().await;
    }
    let (files_now, memory_now) = (open_files(pid), resident(pid));
    let total = |files: &BTreeMap<String, usize>| files.values().sum::<usize>();
    // Connections of clients come and go: no more of them than sessions at once.
    assert!(
        total(&files_now) <= total(&files) + ROUND,
        "{files:?} {files_now:?}"
    );
    assert!(
        memory_now < memory + (32 << 10),
        "{memory} KiB grew to {memory_now} KiB"
    );
    // Those of the last round may be on their way out.
    assert!(system.client().metric("sessions_live").await <= ROUND as f64);
    let data = system.stop().await;
    assert_eq!(leftovers::find(&data.path()), []);
}
