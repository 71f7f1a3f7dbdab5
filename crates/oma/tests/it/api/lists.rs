//! Lists: pages of what grows, shrinks and is read from both ends.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::system::System;
use crate::system::client::Client;

/// The ids of a list, page by page; `meanwhile` happens after each page.
async fn pages(
    client: &Client,
    path: &str,
    key: &str,
    limit: usize,
    meanwhile: impl AsyncFn(usize),
) -> Vec<String> {
    let mut ids = Vec::new();
    let mut after = String::new();
    for number in 0.. {
        let join = if path.contains('?') { '&' } else { '?' };
        let page = client
            .get(&format!("{path}{join}limit={limit}&after={after}"))
            .await
            .good();
        let (list, id) = rows(&page, key);
        assert!(list.len() <= limit && page["count"] == list.len(), "{page}");
        ids.extend(list.iter().map(|row| row[id].as_str().expect("an id").to_owned()));
        match page["next"].as_str() {
            Some(next) => {
                assert_eq!(page["has_more"], true);
                next.clone_into(&mut after);
            }
            None => {
                assert_eq!(page["has_more"], false);
                return ids;
            }
        }
        meanwhile(number).await;
    }
    ids
}

fn rows<'a>(page: &'a Value, key: &str) -> (&'a Vec<Value>, &'static str) {
    let id = match key {
        "agents" => "agent_id",
        "environments" => "environment_id",
        "sessions" => "session_id",
        _ => "event_id",
    };
    (page[key].as_array().expect("rows"), id)
}

#[tokio::test]
async fn pages_of_a_growing_list_have_everything_once_and_in_order() {
    let system = System::start().await;
    let client = system.client();
    let agent = client.agent(json!({"model": "scripted/echo"})).await;
    let mut sessions = Vec::new();
    for _ in 0..23 {
        sessions.push(client.session(&agent).await);
    }
    let mut agents = vec![agent.clone()];
    for _ in 0..11 {
        agents.push(client.agent(json!({"model": "scripted/echo"})).await);
    }
    for limit in [1, 5, 23, 24, 1000] {
        assert_eq!(
            pages(client, "/v1/sessions", "sessions", limit, async |_| {}).await,
            sessions,
            "{limit}"
        );
        assert_eq!(
            pages(client, "/v1/agents", "agents", limit, async |_| {}).await,
            agents,
            "{limit}"
        );
    }
    let mut backwards = pages(client, "/v1/sessions?order=desc", "sessions", 5, async |_| {}).await;
    backwards.reverse();
    assert_eq!(backwards, sessions);
    assert_eq!(
        pages(
            client,
            "/v1/sessions?agent_id=agt_nobody",
            "sessions",
            5,
            async |_| {}
        )
        .await,
        [""; 0]
    );

    // New ones come while it is read: all that was there is there, and nothing twice.
    let grown = pages(client, "/v1/sessions", "sessions", 4, async |number| {
        if number < 3 {
            client.session(&agent).await;
        }
    })
    .await;
    assert_eq!(&grown[..23], sessions);
    assert_eq!(grown.len(), 26);
    // Some go while it is read, the cursor's own row among them.
    let shrunk = pages(client, "/v1/sessions", "sessions", 4, async |number| {
        client
            .delete(&format!("/v1/sessions/{}", grown[number]))
            .await
            .good();
    })
    .await;
    assert_eq!(shrunk, grown);
    system.stop().await;
}

#[tokio::test]
async fn pages_of_events_join_into_the_log_while_it_grows() {
    let system = System::start().await;
    let chat = system.client().session_of("anthropic/claude-sonnet-4-5").await;
    let script = json!([[{"thinking": "hm"}, {"text": "one"}, {"tool": "bash", "input": {"command": "true"}}], {"text": "two"}]);
    for _ in 0..4 {
        chat.turn(&script).await;
    }
    let path = chat.path("/events");
    let all = system.client().get(&path).await.good();
    let (all, id) = rows(&all, "events");
    let all: Vec<&str> = all
        .iter()
        .map(|event| event[id].as_str().expect("an id"))
        .collect();
    assert_eq!(all.len(), 4 * 8, "{all:?}");
    for limit in [1, 3, 7, 100] {
        assert_eq!(
            pages(system.client(), &path, "events", limit, async |_| {}).await,
            all,
            "{limit}"
        );
        let mut backwards = pages(
            system.client(),
            &format!("{path}?order=desc"),
            "events",
            limit,
            async |_| {},
        )
        .await;
        backwards.reverse();
        assert_eq!(backwards, all, "{limit}");
    }
    let grown = pages(system.client(), &path, "events", 10, async |number| {
        if number < 2 {
            chat.turn(&script).await;
        }
    })
    .await;
    assert_eq!(&grown[..all.len()], all);
    assert_eq!(grown.len(), 6 * 8);
    // Cursors of other sessions are unknown here.
    let other = system.client().session_of("scripted/echo").await;
    let foreign = system
        .client()
        .get(&other.path(&format!("/events?after={}", all[0])))
        .await;
    assert_eq!(foreign.status, 400, "{}", foreign.text());
    system.stop().await;
}

#[tokio::test]
async fn what_is_made_at_once_is_all_there() {
    let system = System::start().await;
    let client = system.client();
    let made = join_all((0..40).map(|_| client.agent(json!({"model": "scripted/echo"})))).await;
    let mut listed = pages(client, "/v1/agents", "agents", 7, async |_| {}).await;
    listed.sort();
    let mut made = made;
    made.sort();
    assert_eq!(listed, made);
    // Concurrent updates of one version: one wins, the others are told.
    let path = format!("/v1/agents/{}", made[0]);
    let updates = join_all((0..10).map(|number| {
        let (client, path) = (client.clone(), path.clone());
        async move {
            let body = json!({"version": 1, "instructions": format!("by {number}")});
            client
                .send(client.request(reqwest::Method::PATCH, &path).json(&body))
                .await
        }
    }))
    .await;
    let won = updates.iter().filter(|answer| answer.status == 200).count();
    let lost = updates
        .iter()
        .filter(|answer| answer.status == 409 && answer.code() == "version_conflict")
        .count();
    assert_eq!((won, lost), (1, 9));
    assert_eq!(client.get(&format!("{path}/versions")).await.good()["count"], 2);
    system.stop().await;
}
