//! The documented order of events, over random scripts of what clients do and models answer.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::{Claude, message};
use crate::server::Frame;

/// What a client does.
#[derive(Debug, Clone)]
enum Move {
    /// Posts a message; the model does what it says.
    Say(&'static str),
    /// Answers one of the tool uses that wait for a client.
    Answer {
        nth: usize,
        allow: bool,
    },
    /// Answers all of them at once.
    AnswerAll {
        allow: bool,
    },
    Interrupt,
    /// Posts several things at once.
    Steer,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let words = [
        "hello",
        "tool",
        "ticket",
        "tool and ticket",
        "tool twice",
        "tool twice and ticket",
        "crowded",
        "crowded tool",
        "flaky",
        "flaky tool and ticket",
        "long",
        "declined",
        "fail",
        "hang",
        "free",
    ];
    let one = prop_oneof![
        4 => prop::sample::select(words.to_vec()).prop_map(Move::Say),
        4 => (0..3_usize, any::<bool>()).prop_map(|(nth, allow)| Move::Answer { nth, allow }),
        2 => any::<bool>().prop_map(|allow| Move::AnswerAll { allow }),
        1 => Just(Move::Interrupt),
        1 => Just(Move::Steer),
    ];
    prop::collection::vec(one, 1..12)
}

#[test]
fn events_keep_the_documented_order() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let claude = runtime.block_on(Claude::start());
    let config = Config {
        cases: 40,
        failure_persistence: None,
        ..Config::default()
    };
    let cases = (
        moves(),
        prop::sample::select(vec!["always_allow", "always_ask", "auto"]),
        (1..9_usize, any::<prop::sample::Index>()),
    );
    TestRunner::new(config)
        .run(&cases, |(moves, policy, (limit, place))| {
            runtime.block_on(play(&claude, moves, policy, limit, place));
            Ok(())
        })
        .unwrap();
}

async fn list(claude: &Claude, session: &str) -> Vec<Value> {
    let list = claude.get(&format!("/v1/sessions/{session}/events")).await;
    list["data"].as_array().unwrap().clone()
}

/// The tool uses that a session waits with, as its list says.
async fn awaited(claude: &Claude, session: &str) -> Vec<Value> {
    let list = list(claude, session).await;
    let is_status = |event: &&Value| event["type"].as_str().unwrap().starts_with("session.status_");
    let Some(last) = list.iter().rfind(is_status) else {
        return Vec::new();
    };
    let Some(ids) = last["stop_reason"]["event_ids"].as_array() else {
        return Vec::new();
    };
    let used = |id: &Value| list.iter().find(|event| event["id"] == *id).unwrap().clone();
    ids.iter().map(used).collect()
}

/// The answer to a tool use that waits for a client.
fn answer(used: &Value, allow: bool) -> Value {
    match used["type"].as_str().unwrap() {
        "agent.custom_tool_use" => json!({
            "type": "user.custom_tool_result", "custom_tool_use_id": used["id"], "is_error": !allow,
        }),
        _ => json!({
            "type": "user.tool_confirmation", "tool_use_id": used["id"],
            "result": if allow { "allow" } else { "deny" },
        }),
    }
}

/// The events of a session, read in pages of this many, and backwards.
async fn in_pages(claude: &Claude, session: &str, limit: usize, order: &str) -> Vec<Value> {
    let path = format!("/v1/sessions/{session}/events?order={order}&limit={limit}");
    let mut events = Vec::new();
    let mut page = claude.get(&path).await;
    loop {
        let rows = page["data"].as_array().unwrap();
        assert!(rows.len() <= limit);
        events.extend(rows.iter().cloned());
        let Some(next) = page["next_page"].as_str() else {
            return events;
        };
        page = claude.get(&format!("{path}&page={next}")).await;
    }
}

/// What a stream tells that is opened after an event, as far as the list goes.
async fn resumed(claude: &Claude, session: &str, listed: &[Value], place: usize) -> Vec<Value> {
    let after = listed[place]["id"].as_str().unwrap();
    let mut stream = claude.stream(session, &format!("?after={after}")).await;
    let mut seen = Vec::new();
    while seen.len() < listed.len() - place - 1 {
        let frame = stream.next().await.unwrap();
        if frame.event != "ping" {
            seen.push(frame.data);
        }
    }
    seen
}

async fn play(claude: &Claude, moves: Vec<Move>, policy: &str, limit: usize, place: prop::sample::Index) {
    let tools = json!([
        {"type": "agent_toolset_20260401", "default_config": {"permission_policy": {"type": policy}}},
        {"type": "custom", "name": "ticket", "description": "d", "input_schema": {"type": "object"}},
    ]);
    let session = claude.session(tools).await;
    let path = format!("/v1/sessions/{session}");
    let mut stream = claude.stream(&session, "?event_deltas[]=agent.message").await;
    let post = async |events: Value| {
        let body = json!({ "events": events }).to_string();
        let answer = claude.send("POST", &format!("{path}/events"), body).await;
        // A message is refused while answers are awaited, an answer when it came too late.
        assert!(matches!(answer.status.as_u16(), 200 | 400), "{}", answer.text());
    };
    for step in moves {
        match step {
            Move::Say(text) => post(json!([message(text)])).await,
            Move::Interrupt => post(json!([{"type": "user.interrupt"}])).await,
            Move::Steer => post(json!([{"type": "user.interrupt"}, message("tool")])).await,
            Move::Answer { nth, allow } => {
                let awaited = awaited(claude, &session).await;
                let Some(used) = awaited.get(nth % awaited.len().max(1)) else {
                    continue;
                };
                post(json!([answer(used, allow)])).await;
            }
            Move::AnswerAll { allow } => {
                let awaited = awaited(claude, &session).await;
                if !awaited.is_empty() {
                    let answers: Vec<Value> = awaited.iter().map(|used| answer(used, allow)).collect();
                    post(json!(answers)).await;
                }
            }
        }
    }
    // To rest: each interrupt ends a turn, and lets the next message that waits have its own.
    for _ in 0..50 {
        post(json!([{"type": "user.interrupt"}])).await;
        let waits = list(claude, &session)
            .await
            .iter()
            .any(|event| event["processed_at"].is_null());
        let rests = claude.get(&path).await["status"] == "idle";
        if !waits && rests && awaited(claude, &session).await.is_empty() {
            break;
        }
    }
    let listed = list(claude, &session).await;
    assert_eq!(in_pages(claude, &session, limit, "asc").await, listed);
    let mut backwards = in_pages(claude, &session, limit, "desc").await;
    backwards.reverse();
    assert_eq!(backwards, listed);
    if !listed.is_empty() {
        let place = place.index(listed.len());
        assert_eq!(
            resumed(claude, &session, &listed, place).await,
            listed[place + 1..]
        );
    }
    assert_eq!(claude.send("DELETE", &path, "").await.status, 200);
    let mut frames = stream.until("session.deleted").await;
    frames.pop();
    check_previews(&frames);
    frames.retain(|frame| !frame.event.starts_with("event_"));
    let differs = (0..frames.len().max(listed.len()))
        .find(|index| frames.get(*index).map(|frame| &frame.data) != listed.get(*index));
    if let Some(index) = differs {
        let (list, stream) = (listed.get(index), frames.get(index));
        panic!("list and stream differ at {index}: {list:?} {stream:?}");
    }
    check_order(&listed);
}

/// A preview begins once, and its pieces are a prefix of the message.
fn check_previews(frames: &[Frame]) {
    let mut begun: HashMap<String, String> = HashMap::new();
    for frame in frames {
        let data = &frame.data;
        match frame.event.as_str() {
            "event_start" => {
                let id = data["event"]["id"].as_str().unwrap().to_owned();
                assert_eq!(begun.insert(id, String::new()), None, "begun twice");
            }
            "event_delta" => {
                let so_far = begun.get_mut(data["event_id"].as_str().unwrap()).unwrap();
                so_far.push_str(data["delta"]["content"]["text"].as_str().unwrap());
            }
            "agent.message" => {
                let text = data["content"][0]["text"].as_str().unwrap();
                let shown = begun.get(data["id"].as_str().unwrap());
                assert!(
                    shown.is_none_or(|shown| text.starts_with(shown)),
                    "{shown:?} {text}"
                );
            }
            _ => {}
        }
    }
}

fn check_order(events: &[Value]) {
    let kind = |index: usize| {
        events
            .get(index)
            .map_or("", |event| event["type"].as_str().unwrap())
    };
    let mut ids = HashSet::new();
    let mut running = false;
    let mut span: Option<&Value> = None;
    // Tool uses without results, and whether each of them waits for a client.
    let mut open: Vec<(&Value, bool)> = Vec::new();
    for (index, event) in events.iter().enumerate() {
        let kind_here = kind(index);
        assert!(ids.insert(event["id"].as_str().unwrap()), "an id twice: {event}");
        assert!(event["processed_at"].is_string(), "{event}");
        match kind_here {
            "session.status_running" => {
                assert!(!running, "running twice");
                running = true;
                assert_eq!(kind(index + 1), "session.thread_status_running");
            }
            "session.thread_status_idle" => {
                assert_eq!(kind(index + 1), "session.usage");
                assert_eq!(kind(index + 2), "session.status_idle");
                assert_eq!(event["stop_reason"], events[index + 2]["stop_reason"]);
            }
            "session.status_idle" => {
                assert_eq!(span, None, "idle within a request");
                let awaited = open
                    .iter()
                    .filter(|(_, awaits)| *awaits)
                    .map(|(id, _)| (*id).clone());
                let awaited: Vec<Value> = awaited.collect();
                let reason = event["stop_reason"]["type"].as_str().unwrap();
                if reason == "requires_action" {
                    assert_eq!(event["stop_reason"]["event_ids"], json!(awaited));
                } else {
                    assert!(open.is_empty(), "{reason} with {open:?}");
                }
                running = false;
            }
            "user.message" => {
                assert!(
                    running && span.is_none() && open.is_empty(),
                    "a message within other work"
                );
            }
            "span.model_request_start" => {
                assert!(running && span.is_none() && open.is_empty());
                span = Some(&event["id"]);
            }
            "span.model_request_end" => {
                assert_eq!(span, Some(&event["model_request_start_id"]));
                span = None;
            }
            "agent.message" | "agent.thinking" | "agent.thread_context_compacted" => {
                assert!(span.is_some(), "{kind_here} outside of a request")
            }
            "agent.tool_use" | "agent.custom_tool_use" => {
                assert!(span.is_some(), "{kind_here} outside of a request");
                let awaits = kind_here == "agent.custom_tool_use" || event["evaluated_permission"] == "ask";
                open.push((&event["id"], awaits));
            }
            "user.tool_confirmation" => {
                let used = open
                    .iter_mut()
                    .find(|(id, awaits)| **id == event["tool_use_id"] && *awaits);
                used.unwrap().1 = false;
            }
            "agent.tool_result" | "user.custom_tool_result" => {
                let id = event.get("tool_use_id").unwrap_or(&event["custom_tool_use_id"]);
                let index = open.iter().position(|(open, _)| *open == id);
                open.remove(index.unwrap());
            }
            "session.error" => match event["error"]["retry_status"]["type"].as_str().unwrap() {
                // Another request follows, or whoever interrupts it.
                "retrying" => assert!(running),
                "exhausted" => assert_eq!(kind(index + 1), "session.thread_status_idle"),
                other => panic!("{other}"),
            },
            "session.thread_status_running" => assert_eq!(kind(index - 1), "session.status_running"),
            "session.usage" => assert_eq!(kind(index + 1), "session.status_idle"),
            "user.interrupt" => {}
            other => panic!("an event that no script leads to: {other}"),
        }
    }
    assert!(!running && span.is_none() && open.is_empty());
}
