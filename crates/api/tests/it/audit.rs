//! The audit trail where clients don't behave.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use serde_json::{Value, json};

use crate::server::{Server, request};

async fn trail(server: &Server) -> Vec<Value> {
    let request = request("GET", "/v1/audit?limit=1000").header("authorization", "Bearer s3cret");
    let answer = server.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["events"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_client_that_leaves_is_recorded() {
    let server = Server::start().await;
    let never = futures_util::stream::pending::<Result<Bytes, Infallible>>();
    let call = request("POST", "/v1/agents")
        .body(Body::from_stream(never))
        .unwrap();
    tokio::select! {
        biased;
        _ = server.open(call) => panic!("the body never ends"),
        () = tokio::task::yield_now() => {}
    }
    // The entry is written behind the back of the client, who is gone.
    let entry = loop {
        if let Some(entry) = trail(&server).await.pop() {
            break entry;
        }
    };
    assert_eq!(
        (&entry["action"], &entry["outcome"], &entry["actor"]),
        (&json!("agent.create"), &json!("client_gone"), &json!("local"))
    );
}

#[tokio::test]
async fn strangers_can_not_fill_the_trail() {
    let server = Server::with(|config| config.api_token = Some("s3cret".into())).await;
    let begun = std::time::Instant::now();
    for _ in 0..90 {
        let call = request("POST", "/v1/agents").header("authorization", "Bearer wrong");
        assert_eq!(server.send(call.body(Body::empty()).unwrap()).await.status, 401);
    }
    let recorded = trail(&server).await.len() as u64;
    let fresh = begun.elapsed().as_secs() + 1;
    assert!((60..=60 + fresh).contains(&recorded), "{recorded}");
    // Looking is not recorded at all, nor is a path that no route has.
    server.raw("POST", "/v1/nothing", "{}").await;
    assert!(trail(&server).await.len() as u64 <= 60 + begun.elapsed().as_secs() + 1);
}
