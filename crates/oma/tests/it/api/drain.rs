//! A server that was asked to stop: what it still does while turns at work come to their end.

use oma_fake_provider::{Gate, Reply};
use reqwest::Method;
use serde_json::json;

use crate::system::client::{Client, is_end, said};
use crate::system::{Server, System, soon};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

/// A system whose stops wait for long.
async fn patient() -> System {
    System::start_with(|options| options.set("OPENCLAW_DRAIN_TIMEOUT_MS", "50000")).await
}

/// Waits until the server says that it is on its way out.
async fn draining(client: &Client) {
    soon("the drain", async {
        while client.get("/readyz").await.status == 200 {}
    })
    .await;
    assert_eq!(client.get("/readyz").await.code(), "unavailable");
}

#[tokio::test]
async fn a_server_on_its_way_out_answers_and_takes_no_new_work() {
    let system = patient().await;
    let client = system.client().clone();
    let asking = client
        .agent(json!({
            "model": "scripted/script",
            "instructions": "[[[{\"tool\": \"bash\", \"input\": {\"command\": \"echo 6$((2 * 21))\"}}], \
                              [{\"text\": \"It said {{last_tool_result}}\"}]]]",
            "permissionPolicy": {"type": "always_ask"},
        }))
        .await;
    let waiting = client.session(&asking).await;
    let path = format!("/v1/sessions/{waiting}");
    let mut asks = client.follow(&waiting).await;
    client
        .post(&format!("{path}/events"), &json!({"content": "go"}))
        .await
        .good();
    let asked = asks
        .until(|frame| frame["type"] == "agent.tool_confirmation_request")
        .await;
    let approval = asked.last().expect("one")["approval_id"].clone();

    let gate = Gate::new();
    system
        .provider
        .push(Reply::new().text("begun and ").gate(&gate).text("ended"));
    let chat = client.session_of(MODEL).await;
    let mut frames = chat.follow().await;
    chat.post("go").await;
    soon("the gate", gate.reached()).await;

    system.server.ask_to_stop();
    draining(&client).await;
    // On a connection of its own, too: the server still listens.
    let fresh = Client::new(client.url(), None);
    for client in [&client, &fresh] {
        assert_eq!(chat.at(client).read().await["status"], "running");
        assert_eq!(client.get("/healthz").await.status, 200);
        assert_eq!(client.get("/v1/agents").await.good()["count"], 2);
    }
    for (path, body) in [
        (chat.path("/events"), json!({"content": "more"})),
        (format!("{path}/events"), json!({"content": "more"})),
        (format!("/v1/agents/{}/run", chat.agent), json!({"task": "more"})),
        (format!("{path}/compact"), json!({})),
        ("/v1/sessions".to_owned(), json!({"agentId": chat.agent})),
    ] {
        let answer = fresh.post(&path, &body).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "unavailable"),
            "{path}: {}",
            answer.text()
        );
        assert!(answer.header("retry-after").is_some(), "{path}");
    }
    let completion = fresh
        .request(Method::POST, "/v1/chat/completions")
        .header("x-openclaw-agent-id", &chat.agent)
        .json(&json!({"messages": [{"role": "user", "content": "more"}]}));
    let completion = fresh.send(completion).await;
    assert_eq!(
        (completion.status, &completion.json()["error"]["code"]),
        (503, &json!("unavailable"))
    );
    // Nothing is left of all that, not even a session to work in.
    assert_eq!(fresh.get("/v1/sessions").await.good()["count"], 2);
    // What a turn waits for is taken, and streams opened now follow along.
    let confirmation = json!({"type": "user.tool_confirmation", "toolUseId": approval, "result": "allow"});
    fresh.post(&format!("{path}/events"), &confirmation).await.good();
    let late = fresh.follow(&chat.session).await;

    gate.open();
    let seen = frames.until(is_end).await;
    assert_eq!(said(&seen), "begun and ended");
    assert_eq!(said(&late.rest().await), "begun and ended");
    let System {
        server,
        provider,
        options,
        data,
    } = system;
    assert_eq!(server.ended().await.code(), Some(0));

    // The confirmed turn came to its end before or comes to it now; of the refused messages there is nothing.
    let server = Server::start(&data, &options).await;
    let mut confirmed = server.client.follow(&waiting).await;
    let seen = confirmed
        .until(|frame| is_end(frame) && frame["stop_reason"] != "requires_action")
        .await;
    assert_eq!(said(&seen), "It said 642\n");
    for session in [&chat.session, &waiting] {
        let events = server.client.events(session).await;
        let posted = events.iter().filter(|event| event["type"] == "user.message");
        assert_eq!(posted.count(), 1, "{events:?}");
    }
    server.terminate().await;
    provider.assert_clean();
}

#[tokio::test]
async fn a_cancel_during_the_stop_ends_the_turn_and_with_it_the_wait() {
    let system = patient().await;
    let client = system.client().clone();
    let gate = Gate::new();
    system
        .provider
        .push(Reply::new().text("half").gate(&gate).text("never"));
    let chat = client.session_of(MODEL).await;
    chat.post("go").await;
    soon("the gate", gate.reached()).await;
    system.server.ask_to_stop();
    draining(&client).await;
    let cancelled = client.post(&chat.path("/cancel"), &json!({})).await.good();
    assert_eq!(cancelled["session_status"], "idle");
    let System {
        server,
        provider: _provider,
        options,
        data,
    } = system;
    assert_eq!(server.ended().await.code(), Some(0));
    let server = Server::start(&data, &options).await;
    assert_eq!(chat.at(&server.client).read().await["status"], "idle");
    server.terminate().await;
}
