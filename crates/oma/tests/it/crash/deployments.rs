//! Kills the server while deployments run and an endpoint is told of it: each run that a client asked for is made once,
//! whole, and told of.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::system::client::{Client, is_end};
use crate::system::{System, soon};

/// How many kills there are.
const KILLS: usize = 25;
/// How many runs are asked for between two of them.
const RUNS: usize = 6;

/// A notice: the id of its delivery, and what it is about.
pub(super) type Notice = (String, String);

/// Takes whatever is sent to it; gives its address and the notices.
pub(super) async fn receiver() -> (String, mpsc::UnboundedReceiver<Notice>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let (sender, notices) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(take(stream, sender.clone()));
        }
    });
    (url, notices)
}

async fn take(mut stream: tokio::net::TcpStream, sender: mpsc::UnboundedSender<Notice>) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    // The body is a JSON object, and the end of the request.
    while !request.ends_with(b"}}") {
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
            // The server was killed in the middle of it.
            _ => return,
        }
    }
    let text = String::from_utf8(request).expect("a text");
    let (_, body) = text.split_once("\r\n\r\n").expect("a body");
    let event: Value = serde_json::from_str(body).expect("JSON");
    let part = |value: &Value| value.as_str().expect("a text").to_owned();
    let answer = b"HTTP/1.1 204 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    // It may have been killed before it hears of this.
    let _gone = stream.write_all(answer).await;
    let _over = sender.send((part(&event["id"]), part(&event["data"]["id"])));
}

pub(super) fn claude(client: &Client, method: Method, path: &str) -> RequestBuilder {
    client
        .request(method, path)
        .header("anthropic-version", "2026-10-21")
}

pub(super) async fn post(client: &Client, path: &str, body: Value) -> Value {
    let answer = client.send(claude(client, Method::POST, path).json(&body)).await;
    answer.good()
}

/// Asks for runs, one for each key; what is answered is kept. Ends with the first answer that is lost.
async fn ask(client: Client, path: String, keys: Vec<String>) -> BTreeMap<String, String> {
    let mut made = BTreeMap::new();
    for key in keys {
        let request = claude(&client, Method::POST, &path).header("idempotency-key", &key);
        let Ok(answer) = Client::try_send(request).await else {
            return made;
        };
        let id = answer.good()["id"].as_str().expect("an id").to_owned();
        made.insert(key, id);
    }
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_and_notices() {
    let seed = std::env::var("OMA_CRASH_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let mut random = StdRng::seed_from_u64(seed);
    let (url, mut notices) = receiver().await;
    let mut system = System::start_with(|options| options.set("OPENCLAW_DIAL_ALLOW", "127.0.0.1")).await;
    let client = system.client();
    let hook = json!({"url": url, "enabled_events": ["deployment_run.started"]});
    post(client, "/v1/organizations/webhooks", hook).await;
    let agent = post(
        client,
        "/v1/agents",
        json!({"name": "A", "model": "scripted/echo"}),
    )
    .await;
    let environment = post(client, "/v1/environments", json!({"name": "e"})).await;
    let hello = json!([{"type": "user.message", "content": [{"type": "text", "text": "hello"}]}]);
    let deployment = json!({
        "name": "D", "agent": agent["id"], "environment_id": environment["id"], "initial_events": hello,
    });
    let deployment = post(client, "/v1/deployments", deployment).await;
    let id = deployment["id"].as_str().expect("an id");
    let path = format!("/v1/deployments/{id}/run");

    let mut runs: BTreeMap<String, String> = BTreeMap::new();
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    let mut note = |(delivery, run): Notice| {
        let before = told.entry(run).or_insert_with(|| delivery.clone());
        assert_eq!(*before, delivery, "a notice keeps its id");
    };
    for kill in 0..KILLS {
        let keys: Vec<String> = (0..RUNS).map(|run| format!("{kill}-{run}")).collect();
        let asking = tokio::spawn(ask(system.client().clone(), path.clone(), keys.clone()));
        // It dies when so many notices have come.
        for _ in 0..random.random_range(1..RUNS) {
            note(soon("a notice", notices.recv()).await.expect("it listens"));
        }
        system = system.crash().await;
        let before = asking.await.expect("it asks");
        // What was answered stays, and what was not can be asked for again.
        let after = ask(system.client().clone(), path.clone(), keys).await;
        assert_eq!(after.len(), RUNS);
        assert!(
            before.iter().all(|(key, run)| after[key] == *run),
            "{before:?} {after:?}"
        );
        runs.extend(after);
    }
    let expected: BTreeSet<&String> = runs.values().collect();
    assert_eq!(expected.len(), KILLS * RUNS, "each key has a run of its own");

    let client = system.client();
    let list = format!("/v1/deployment_runs?deployment_id={id}&limit=1000");
    let listed = client.send(claude(client, Method::GET, &list)).await.good();
    let listed = listed["data"].as_array().expect("a list");
    let ids: BTreeSet<String> = listed
        .iter()
        .map(|run| run["id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(listed.len(), expected.len());
    let mut sessions = BTreeSet::new();
    for run in listed {
        let session = run["session_id"].as_str().expect("a session").to_owned();
        client.follow(&session).await.until(is_end).await;
        let events = format!("/v1/sessions/{session}/events");
        let log = client.send(claude(client, Method::GET, &events)).await.good();
        let kinds: Vec<&str> = log["data"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|event| event["type"].as_str())
            .collect();
        for (kind, count) in [
            ("user.message", 1),
            ("agent.message", 1),
            ("session.status_idle", 1),
        ] {
            let found = kinds.iter().filter(|found| **found == kind).count();
            assert_eq!(found, count, "{kind}: {kinds:?}");
        }
        sessions.insert(session);
    }
    assert_eq!(sessions.len(), listed.len(), "each run has a session of its own");
    let listed = client
        .send(claude(client, Method::GET, "/v1/sessions?limit=100"))
        .await
        .good();
    assert_eq!(listed["data"].as_array().expect("a list").len(), 100);

    while told.len() < expected.len() {
        let (delivery, run) = soon("the last notices", notices.recv())
            .await
            .expect("it listens");
        let before = told.entry(run).or_insert_with(|| delivery.clone());
        assert_eq!(*before, delivery, "a notice keeps its id");
    }
    assert_eq!(told.keys().collect::<BTreeSet<_>>(), expected);
}
