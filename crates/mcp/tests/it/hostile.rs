//! Servers that change their mind, repeat what they were sent, or never come to rest.

use std::sync::Arc;
use std::time::Duration;

use oma_domain::content::joined_text;
use oma_mcp::{Config, NoTokens};
use serde_json::json;

use crate::server::Server;
use crate::tests::{hub, hub_with, names, open, ready, session};

#[tokio::test]
async fn a_stream_that_always_ends_is_taken_up_again_without_haste() {
    let server = Server::start().await;
    let hub = hub();
    let handle = open(&hub, &session(json!({"s": {"url": server.url("/restless")}})))
        .unwrap()
        .unwrap();
    let began = std::time::Instant::now();
    assert!(handle.ready().await.troubles.is_empty());
    server.heard_times("GET", 3).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn secrets_are_masked_before_anything_is_cut_and_in_lists_of_tools() {
    let server = Server::start().await;
    let headers = json!({"Authorization": "Bearer canary-12345"});
    let servers = json!({
        "t": {"url": server.url("/telling"), "headers": headers},
        "s": {"url": server.url("/mcp"), "headers": headers},
    });
    let ready = ready(&hub(), servers).await;
    let outcome = ready.tools.call("mcp__s__complain", &json!({})).await;
    let text = joined_text(&outcome.content);
    assert!(
        outcome.is_error && text.contains("xxx") && !text.contains("can"),
        "{text}"
    );

    let told = names(&ready);
    let told: Vec<_> = told.iter().filter(|name| name.starts_with("mcp__t__")).collect();
    assert_eq!(told, [&"mcp__t__tell"]);
    for tool in ready.tools.definitions() {
        let shown = format!("{tool:?}");
        assert!(!shown.contains("cana") && !shown.contains("12345"), "{shown}");
    }
    let schema = &ready.tools.definitions()[ready
        .tools
        .definitions()
        .iter()
        .position(|tool| tool.name == "mcp__t__tell")
        .unwrap()]
    .input_schema;
    assert_eq!(
        schema["properties"]["[secret]"],
        json!({"description": "[secret]", "enum": ["[secret]"]})
    );
}

#[tokio::test]
async fn a_server_that_does_not_list_what_it_changed_is_given_up() {
    let server = Server::start().await;
    let config = Config {
        connect_wait: Duration::from_secs(1),
        ..Config::default()
    };
    let hub = hub_with(Arc::new(NoTokens), config);
    let handle = open(&hub, &session(json!({"s": {"url": server.url("/mute")}})))
        .unwrap()
        .unwrap();
    let mut ready = handle.ready().await;
    while !ready.troubles.is_empty() {
        ready = handle.ready().await;
    }
    assert!(!ready.tools.call("mcp__s__change", &json!({})).await.is_error);
    let asked = server.times("tools/list");
    for _ in 0..2 {
        let ready = handle.ready().await;
        let [trouble] = ready.troubles.as_slice() else {
            panic!("{:?}", ready.troubles)
        };
        assert!(
            trouble.error.to_string().contains("did not list them within"),
            "{trouble:?}"
        );
        assert!(ready.tools.definitions().is_empty());
    }
    assert_eq!(server.times("tools/list"), asked + 1, "only the first one asked");
}

#[tokio::test]
async fn a_redirect_is_looked_into_with_what_was_sent_and_never_for_calls() {
    let server = Server::start().await;
    let hub = hub();
    let headers = json!({"Authorization": "Bearer canary-12345"});
    let guarded = ready(
        &hub,
        json!({"s": {"url": server.url("/moved-guarded"), "headers": headers}}),
    )
    .await;
    assert!(guarded.troubles.is_empty(), "{:?}", guarded.troubles);
    assert!(!guarded.tools.call("mcp__s__echo", &json!({})).await.is_error);

    let calls = server.times("tools/call");
    let moved = ready(&hub, json!({"s": {"url": server.url("/calls-moved")}})).await;
    let outcome = moved.tools.call("mcp__s__echo", &json!({})).await;
    assert!(
        joined_text(&outcome.content).contains("redirects a call"),
        "{outcome:?}"
    );
    assert_eq!(server.times("tools/call"), calls + 1, "it was sent once");
}

#[tokio::test]
async fn a_server_that_breaks_again_and_again_is_given_pauses() {
    let server = Server::start().await;
    let hub = hub();
    let info = session(json!({"s": {"url": server.url("/mcp")}}));
    let handle = open(&hub, &info).unwrap().unwrap();
    for _ in 0..2 {
        let ready = handle.ready().await;
        assert!(ready.troubles.is_empty(), "{:?}", ready.troubles);
        assert!(ready.tools.call("mcp__s__die", &json!({})).await.is_error);
    }
    // Each further one doubles the pause, until there is one that this request comes into.
    let broken = loop {
        let ready = handle.ready().await;
        match ready.troubles.first() {
            Some(trouble) => break trouble.error.to_string(),
            None => assert!(ready.tools.call("mcp__s__die", &json!({})).await.is_error),
        }
    };
    assert!(broken.contains("break soon"), "{broken}");
    // Each turn tries again, whether the loss was noticed by the one before or not.
    for _ in 0..3 {
        let next = open(&hub, &info).unwrap().unwrap();
        let ready = next.ready().await;
        assert!(ready.troubles.is_empty(), "{:?}", ready.troubles);
        assert!(ready.tools.call("mcp__s__die", &json!({})).await.is_error);
    }
}
