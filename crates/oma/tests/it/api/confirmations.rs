//! Tool uses that ask first: answered in any order, across kills of the server, or not at all.

use serde_json::{Value, json};

use crate::system::System;
use crate::system::client::{Chat, is_end, said};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

/// A session whose fetches ask first, and the ids of three of them that wait. Fetches of an address that no
/// guard lets through need no sandbox and no network.
async fn three_asked(system: &System, policy: Value) -> (Chat, Vec<String>) {
    let agent = system
        .client()
        .agent(json!({"model": MODEL, "tools": ["web_fetch"], "permissionPolicy": policy}))
        .await;
    let session = system.client().session(&agent).await;
    let client = system.client().clone();
    let chat = Chat {
        client,
        agent,
        session,
    };
    let fetch = |host: &str| json!({"tool": "web_fetch", "input": {"url": format!("http://{host}/")}});
    let script = json!([
        [fetch("127.0.0.1"), fetch("127.0.0.2"), fetch("127.0.0.3")],
        {"text": "seen: {{last_tool_result}}"},
    ]);
    chat.play(&script).await;
    let mut frames = chat.follow().await;
    let mut ids = Vec::new();
    while ids.len() < 3 {
        let frame = frames.next().await;
        if frame["type"] == "agent.tool_confirmation_request" {
            ids.push(frame["approval_id"].as_str().expect("an id").to_owned());
        }
    }
    (chat, ids)
}

async fn answer(system: &System, chat: &Chat, id: &str, result: &str, message: Option<&str>) -> u16 {
    let mut body = json!({"type": "user.tool_confirmation", "toolUseId": id, "result": result});
    if let Some(message) = message {
        body["denyMessage"] = message.into();
    }
    system.client().post(&chat.path("/events"), &body).await.status
}

#[tokio::test]
async fn confirmations_survive_kills_and_come_in_any_order() {
    let system = System::start().await;
    // A prefix asks for the fetches, as it would for the tools of an MCP server.
    let (chat, ids) = three_asked(&system, json!({"type": "always_ask", "tools": ["web_*"]})).await;
    let system = system.crash().await;
    assert_eq!(answer(&system, &chat, &ids[1], "allow", None).await, 200);
    let system = system.crash().await;
    assert_eq!(answer(&system, &chat, &ids[0], "allow", None).await, 200);
    assert_ne!(
        answer(&system, &chat, &ids[0], "deny", None).await,
        200,
        "answered already"
    );
    let system = system.crash().await;
    assert_eq!(
        answer(&system, &chat, &ids[2], "deny", Some("use the local copy")).await,
        200
    );
    let chat = chat.at(system.client());
    let events = chat.follow().await.until(is_end).await;
    let results: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "agent.tool_result")
        .collect();
    assert_eq!(results.len(), 3, "{results:?}");
    let of = |id: &str| {
        let is_it = |result: &&&Value| result["tool_call_id"] == id;
        results
            .iter()
            .find(is_it)
            .map(|result| result["content"].to_string())
    };
    let denied = of(&ids[2]).unwrap_or_else(|| panic!("{results:?}"));
    assert!(denied.contains("use the local copy"), "{denied}");
    // The model was told, too.
    let asked = system.provider.requests();
    let last = asked.last().expect("a request").body.to_string();
    assert!(last.contains("use the local copy"), "{last}");
    assert!(said(&events).starts_with("seen: "));
    system.stop().await;
}

#[tokio::test]
async fn a_confirmation_that_nobody_gives_is_denied_also_after_a_kill() {
    let system = System::start().await;
    let policy = json!({"type": "always_ask", "timeoutMs": 1500});
    let (chat, ids) = three_asked(&system, policy.clone()).await;
    let agent = system
        .client()
        .get(&format!("/v1/agents/{}", chat.agent))
        .await
        .good();
    assert_eq!(agent["permission_policy"], policy);
    let system = system.crash().await;
    let chat = chat.at(system.client());
    let events = chat.follow().await.until(is_end).await;
    let lapsed = events.iter().filter(|event| {
        event["type"] == "agent.tool_result" && event["content"].to_string().contains("Nobody confirmed")
    });
    assert_eq!(lapsed.count(), 3, "{events:?}");
    assert_ne!(
        answer(&system, &chat, &ids[0], "allow", None).await,
        200,
        "too late"
    );
    system.stop().await;
}
