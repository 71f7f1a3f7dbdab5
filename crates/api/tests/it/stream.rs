//! The stream of events.

use std::time::Duration;

use serde_json::json;

use crate::server::{Frame, Server, is_rest};

fn without_heartbeats(frames: Vec<Frame>) -> Vec<Frame> {
    frames
        .into_iter()
        .filter(|frame| frame.event != "heartbeat")
        .collect()
}

#[tokio::test]
async fn the_stream_is_the_list() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    let session = server.session(&agent).await;
    let path = format!("/v1/sessions/{session}/events?stream=true");
    // Opened while the session runs, so that some frames come live.
    server.say(&session, "tool one").await;
    let live = server.follow(&path, None).await;
    server.say(&session, "two").await;
    server
        .until(&session, "", |frame| frame.data["content"] == "re: two")
        .await;
    server.until(&session, "", is_rest).await;
    let frames = live.rest().await;
    assert_eq!(frames[0].event, "heartbeat");
    assert!(frames[0].data["ts"].is_i64() && frames[0].id.is_none());
    let frames = without_heartbeats(frames);
    let list = server.events(&session, "").await;
    assert_eq!(
        frames.iter().map(|frame| frame.data.clone()).collect::<Vec<_>>(),
        list
    );
    for frame in &frames {
        assert_eq!(frame.id.as_deref(), frame.data["event_id"].as_str());
        assert_eq!(frame.data["type"], json!(frame.event));
        assert!(frame.data["content"].is_string() && frame.data["created_at"].is_i64());
        assert_eq!(frame.data["session_id"], json!(session));
    }
}

#[tokio::test]
async fn every_cursor_resumes_exactly() {
    let server = Server::start().await;
    let agent = server
        .agent(json!({"permissionPolicy": {"type": "always_ask"}}))
        .await;
    let session = server.session(&agent).await;
    server.say(&session, "tool").await;
    server
        .until(&session, "", |frame| {
            frame.event == "agent.tool_confirmation_request"
        })
        .await;
    server
        .post(&format!("/v1/sessions/{session}/cancel"), &json!({}))
        .await;
    let path = format!("/v1/sessions/{session}/events?stream=true");
    let whole = without_heartbeats(server.follow(&path, None).await.rest().await);
    assert!(
        whole
            .iter()
            .any(|frame| frame.id.as_deref().is_some_and(|id| id.ends_with(":1")))
    );
    for (index, frame) in whole.iter().enumerate() {
        let id = frame.id.as_deref().unwrap();
        for (path, header) in [(path.clone(), Some(id)), (format!("{path}&after={id}"), None)] {
            let rest = without_heartbeats(server.follow(&path, header).await.rest().await);
            assert_eq!(rest, whole[index + 1..], "after {id}");
        }
    }
    for unknown in ["evt_none", "container:1:2", "%F0"] {
        let all = without_heartbeats(server.follow(&path, Some(unknown)).await.rest().await);
        assert_eq!(all, whole, "{unknown}");
    }
}

#[tokio::test]
async fn deltas_are_shown_on_request_and_carry_no_cursor() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    let session = server.session(&agent).await;
    let path = format!("/v1/sessions/{session}/events?stream=true&deltas=true");
    let follower = server.follow(&path, None).await;
    server.say(&session, "hello").await;
    let frames = without_heartbeats(follower.rest().await);
    let deltas: Vec<_> = frames
        .iter()
        .filter(|frame| frame.event == "agent.message_delta")
        .collect();
    let message = frames
        .iter()
        .find(|frame| frame.event == "agent.message")
        .unwrap();
    let joined: String = deltas
        .iter()
        .map(|frame| frame.data["content"].as_str().unwrap())
        .collect();
    assert_eq!(joined, "re: hello");
    assert!(
        deltas
            .iter()
            .all(|frame| frame.id.is_none() && frame.data["event_id"] == message.data["event_id"])
    );
    let plain = server.until(&session, "", is_rest).await;
    assert!(plain.iter().all(|frame| frame.event != "agent.message_delta"));
}

#[tokio::test]
async fn a_stream_ends_when_its_session_rests_or_goes_or_the_server_stops() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    let idle = server.session(&agent).await;
    let frames = server
        .follow(&format!("/v1/sessions/{idle}/events?stream=true"), None)
        .await
        .rest()
        .await;
    assert_eq!(frames.len(), 1);
    for delete in [true, false] {
        let busy = server.session(&agent).await;
        server.say(&busy, "hang").await;
        let mut frames = server
            .follow(&format!("/v1/sessions/{busy}/events?stream=true"), None)
            .await;
        while frames.next().await.unwrap().event != "user.message" {}
        if delete {
            server.delete(&format!("/v1/sessions/{busy}")).await;
        } else {
            server.shutdown.cancel();
        }
        frames.rest().await;
    }
}

#[tokio::test]
async fn heartbeats_keep_a_quiet_stream_open_for_as_long_as_it_lingers() {
    let linger = Duration::from_millis(300);
    let server = Server::with(|config| {
        config.stream_linger = linger;
        config.heartbeat = Duration::from_millis(20);
    })
    .await;
    let agent = server.agent(json!({})).await;
    let session = server.session(&agent).await;
    let begun = std::time::Instant::now();
    let frames = server
        .follow(&format!("/v1/sessions/{session}/events?stream=true"), None)
        .await
        .rest()
        .await;
    assert!(begun.elapsed() >= linger);
    assert!(
        frames.len() > 2 && frames.iter().all(|frame| frame.event == "heartbeat"),
        "{frames:?}"
    );
}

#[tokio::test]
async fn streams_are_bounded() {
    let server = Server::with(|config| config.max_streams = 1).await;
    let agent = server.agent(json!({})).await;
    let session = server.session(&agent).await;
    let path = format!("/v1/sessions/{session}/events?stream=true");
    let open = server.follow(&path, None).await;
    let refused = server.get(&path).await;
    assert_eq!(refused.code(), (503, "too_many_streams".into()));
    assert_eq!(refused.headers["retry-after"], "5");
    drop(open);
    server.follow(&path, None).await;
}
