//! Streams: resuming, deltas, several readers, slow readers, and a server that stops.

use std::collections::BTreeMap;

use oma_fake_provider::{Gate, Reply};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::system::client::{is_end, said};
use crate::system::stream::Frames;
use crate::system::{Server, System, soon};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

fn ids(frames: &[Value]) -> Vec<&str> {
    frames
        .iter()
        .map(|frame| frame["event_id"].as_str().expect("an id"))
        .collect()
}

#[tokio::test]
async fn every_cursor_gives_the_rest() {
    let system = System::start().await;
    let client = system.client();
    let agent = client
        .agent(json!({"model": MODEL, "permissionPolicy": {"type": "always_ask", "tools": ["bash"]}}))
        .await;
    let session = client.session(&agent).await;
    let path = format!("/v1/sessions/{session}/events");
    let script = json!([[{"thinking": "hm"}, {"text": "asking"}, {"tool": "bash", "input": {"command": "true"}}], {"text": "done"}]);
    client
        .post(&path, &json!({"content": format!("script:{script}")}))
        .await
        .good();
    let mut frames = client.follow(&session).await;
    let asked = frames
        .until(|frame| frame["type"] == "agent.tool_confirmation_request")
        .await;
    let answer = json!({
        "type": "user.tool_confirmation", "toolUseId": asked.last().expect("one")["approval_id"], "result": "allow",
    });
    client.post(&path, &answer).await.good();
    frames.until(is_end).await;
    let all = client.events(&session).await;
    for (index, event) in all.iter().enumerate() {
        let cursor = event["event_id"].as_str().expect("an id");
        let by_header = client
            .request(Method::GET, &format!("{path}?stream=true"))
            .header("last-event-id", cursor);
        let by_query = client.request(Method::GET, &format!("{path}?stream=true&after={cursor}"));
        // What an automatic reconnect sends counts more than the address that it was opened with.
        let first = all[0]["event_id"].as_str().expect("an id");
        let both = client
            .request(Method::GET, &format!("{path}?stream=true&after={first}"))
            .header("last-event-id", cursor);
        for request in [by_header, by_query, both] {
            let mut frames = Frames::new(request.send().await.expect("a stream"));
            assert_eq!(
                frames.next().await["type"],
                "heartbeat",
                "the first bytes come at once"
            );
            for expected in &all[index + 1..] {
                assert_eq!(&frames.next().await, expected, "after {cursor}");
            }
        }
    }
    for unknown in ["evt_nobody", "x:1", "heartbeat", "%00"] {
        let request = client.request(Method::GET, &format!("{path}?stream=true&after={unknown}"));
        let mut frames = Frames::new(request.send().await.expect("a stream"));
        let seen = frames
            .until(|frame| frame["event_id"] == all[all.len() - 1]["event_id"])
            .await;
        assert_eq!(seen, all, "an unknown cursor replays everything");
    }
    system.stop().await;
}

#[tokio::test]
async fn two_followers_see_the_same_and_deltas_join_into_the_answer() {
    let system = System::start().await;
    let client = system.client();
    let chat = client.session_of(MODEL).await;
    let gate = Gate::new();
    system.provider.push(
        Reply::new()
            .thinking("Let me think about it.")
            .text("Before the gate, ")
            .gate(&gate)
            .text("and after it.")
            .chunk(3),
    );
    let mut plain = chat.follow().await;
    let mut first = client
        .try_follow(&chat.session, None, true)
        .await
        .expect("a stream");
    let mut second = client
        .try_follow(&chat.session, None, true)
        .await
        .expect("a stream");
    for frames in [&mut first, &mut second, &mut plain] {
        assert_eq!(frames.next().await["type"], "heartbeat");
    }
    chat.post("go").await;
    soon("the gate", gate.reached()).await;
    // What came before the gate is seen before the answer is complete.
    let mut seen = Vec::new();
    let mut so_far = String::new();
    while so_far.trim() != "Before the gate," {
        let frame = first.next().await;
        if frame["type"] == "agent.message_delta" {
            so_far.push_str(frame["content"].as_str().expect("text"));
        }
        seen.push(frame);
    }
    assert!(!seen.iter().any(|frame| frame["type"] == "agent.message"));
    gate.open();
    seen.extend(first.until(is_end).await);
    let mut others = second.until(is_end).await;
    let kind = |frame: &Value| frame["type"].as_str().expect("a type").to_owned();
    let timeless = |frames: &mut Vec<Value>| {
        for frame in frames.iter_mut().filter(|frame| kind(frame).ends_with("_delta")) {
            frame["created_at"] = Value::Null;
        }
    };
    timeless(&mut seen);
    timeless(&mut others);
    // How text is cut into pieces may differ; what they join into may not.
    let joined = |frames: &[Value]| {
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        for frame in frames.iter().filter(|frame| kind(frame).ends_with("_delta")) {
            let id = frame["event_id"].as_str().expect("an id").to_owned();
            texts
                .entry(id)
                .or_default()
                .push_str(frame["content"].as_str().expect("text"));
        }
        texts
    };
    let logged = |frames: &[Value]| -> Vec<Value> {
        frames
            .iter()
            .filter(|frame| !kind(frame).ends_with("_delta"))
            .cloned()
            .collect()
    };
    let log = chat.events().await;
    assert_eq!(logged(&seen), log);
    assert_eq!(logged(&others), log);
    assert_eq!(plain.until(is_end).await, log, "no deltas without asking");
    let whole: BTreeMap<String, String> = log
        .iter()
        .filter(|event| matches!(event["type"].as_str(), Some("agent.message" | "agent.thinking")))
        .map(|event| {
            (
                event["event_id"].as_str().expect("an id").to_owned(),
                event["content"].as_str().expect("text").to_owned(),
            )
        })
        .collect();
    assert_eq!(whole.len(), 3);
    assert_eq!(joined(&seen), whole);
    assert_eq!(joined(&others), whole);
    system.stop().await;
}

#[tokio::test]
async fn a_cancel_is_quick_and_keeps_what_was_said() {
    let system = System::start().await;
    let chat = system.client().session_of(MODEL).await;
    let gate = Gate::new();
    system
        .provider
        .push(Reply::new().text("Said so far").gate(&gate).text(" and never"));
    let mut frames = system
        .client()
        .try_follow(&chat.session, None, true)
        .await
        .expect("a stream");
    chat.post("go").await;
    let mut so_far = String::new();
    while so_far != "Said so far" {
        let frame = frames.next().await;
        if frame["type"] == "agent.message_delta" {
            so_far.push_str(frame["content"].as_str().expect("text"));
        }
    }
    let begun = std::time::Instant::now();
    let answer = system
        .client()
        .post(&chat.path("/cancel"), &json!({}))
        .await
        .good();
    assert!(begun.elapsed().as_millis() < 1_000, "{:?}", begun.elapsed());
    assert_eq!(answer["session_status"], "idle");
    let events = chat.events().await;
    let message = events
        .iter()
        .find(|event| event["type"] == "agent.message")
        .expect("one");
    assert_eq!(
        (&message["content"], &message["interrupted"]),
        (&json!("Said so far"), &json!(true))
    );
    assert_eq!(events.last().expect("one")["stop_reason"], "interrupted");
    gate.open();
    // The next turn goes on from there.
    let next = chat.turn(&json!([{"text": "Here I am."}])).await;
    assert_eq!(said(&next), "Here I am.", "{next:?}");
    assert_eq!(
        system
            .client()
            .post(&chat.path("/cancel"), &json!({}))
            .await
            .code(),
        "session_not_running"
    );
    system.stop().await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_nobody_up_and_misses_nothing() {
    let system = System::start().await;
    let client = system.client();
    let chat = client.session_of(MODEL).await;
    // With a small buffer on this side, what the server has sent soon waits on its own.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(8 << 10).expect("set");
    let mut slow = socket
        .connect(client.authority().parse().expect("an address"))
        .await
        .expect("connects");
    let head = format!(
        "GET {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        chat.path("/events?stream=true&deltas=true"),
        client.authority()
    );
    slow.write_all(head.as_bytes()).await.expect("sent");
    let mut start = [0; 15];
    slow.read_exact(&mut start).await.expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    // More than any buffer on the way holds.
    let text = "0123456789".repeat(200_000);
    for _ in 0..4 {
        system.provider.push(Reply::new().text(&text).chunk(50_000));
        assert_eq!(said(&chat.turn(&json!([])).await).len(), text.len());
    }
    let all = chat.events().await;
    // Now it reads, and gets all of the log. Deltas may have been left out.
    let last = all[all.len() - 1]["event_id"].as_str().expect("an id").to_owned();
    let mut read = Vec::new();
    let mut piece = vec![0; 1 << 20];
    while !String::from_utf8_lossy(&read[read.len().saturating_sub(8_192)..]).contains(&last) {
        let count = soon("more of the stream", slow.read(&mut piece))
            .await
            .expect("readable");
        assert!(count > 0, "the stream ended early");
        read.extend_from_slice(&piece[..count]);
    }
    let read = String::from_utf8_lossy(&read);
    let mut from = 0;
    for id in ids(&all) {
        let line = format!("id: {id}");
        from += read[from..]
            .find(&line)
            .unwrap_or_else(|| panic!("{line} is missing"));
    }
    system.stop().await;
}

#[tokio::test]
async fn a_stop_ends_streams_in_order_and_they_resume_on_the_next_server() {
    let system = System::start_with(|options| options.set("OPENCLAW_DRAIN_TIMEOUT_MS", "200")).await;
    let chat = system.client().session_of(MODEL).await;
    let text = "piece ".repeat(20);
    system
        .provider
        .push(Reply::new().text(&text).step(oma_fake_provider::Step::Stall));
    system.provider.respond_with(|_| Reply::new().text("whole"));
    let mut frames = system
        .client()
        .try_follow(&chat.session, None, true)
        .await
        .expect("a stream");
    chat.post("go").await;
    let mut seen = frames.until(|frame| frame["type"] == "agent.message_delta").await;
    let System {
        server,
        provider,
        options,
        data,
    } = system;
    server.ask_to_stop();
    seen.extend(frames.rest().await);
    assert_eq!(server.ended().await.code(), Some(0));
    seen.retain(|frame| !frame["type"].as_str().expect("a type").ends_with("_delta"));
    let server = Server::start(&data, &options).await;
    let chat = chat.at(&server.client);
    let last = seen.last().expect("one")["event_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let mut frames = server
        .client
        .try_follow(&chat.session, Some(&last), false)
        .await
        .expect("a stream");
    seen.extend(frames.until(is_end).await);
    assert_eq!(seen, chat.events().await);
    assert_eq!(chat.read().await["output"], "whole");
    server.terminate().await;
    provider.assert_clean();
}

#[tokio::test]
async fn a_stream_ends_when_its_session_is_deleted() {
    let system = System::start().await;
    let chat = system.client().session_of(MODEL).await;
    chat.play(&json!([[{"text": "x"}, {"fault": "stall"}]])).await;
    let mut frames = chat.follow().await;
    frames.until(|frame| frame["type"] == "user.message").await;
    assert_eq!(
        system.client().delete(&chat.path("")).await.good(),
        json!({"deleted": true})
    );
    // What may still come is that the turn was stopped.
    let rest = frames.rest().await;
    assert!(
        rest.last()
            .is_none_or(|event| event["stop_reason"] == "interrupted"),
        "{rest:?}"
    );
    assert_eq!(
        system.client().get(&chat.path("/events")).await.code(),
        "session_not_found"
    );
    system.stop().await;
}
