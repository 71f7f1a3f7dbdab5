//! Kills the server while schedules have deployments run, at the moments at which runs are committed: each time of each
//! schedule has one run, whole, and told of.
//!
//! All schedules have the same time, and it comes once, so that the server makes many runs one after the other. The test
//! lasts for as long as the minute has left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use super::deployments::{Notice, claude, post, receiver};
use crate::system::System;
use crate::system::client::{Client, is_end};

/// How many schedules there are.
const SCHEDULES: usize = 200;
/// How many kills there are at the least while runs are still to be made.
const KILLS: usize = 5;
/// After how many notices there is a kill, at the most.
const BETWEEN: usize = 5;
/// By how much the moment of a kill differs, in microseconds.
const GIVE: u64 = 3_000;
/// How long making the deployments may take, in seconds.
const HEAD_START: u64 = 20;
/// How long a notice may take to come: the first one until the minute is over, and any of them when its delivery has
/// failed twice, as on a slow machine it may; the server pauses for up to two minutes then.
const PATIENCE: Duration = Duration::from_secs(200);

async fn get(client: &Client, path: &str) -> Value {
    client.send(claude(client, Method::GET, path)).await.good()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// All runs that were made.
async fn runs(client: &Client) -> Vec<Value> {
    let listed = get(client, "/v1/deployment_runs?limit=1000").await;
    assert_eq!(listed["next_page"], Value::Null, "more than a thousand runs");
    listed["data"].as_array().expect("a list").clone()
}

async fn heard_soon(notices: &mut UnboundedReceiver<Notice>) -> Notice {
    let notice = timeout(PATIENCE, notices.recv()).await;
    notice.expect("a notice comes").expect("it listens")
}

/// The first full minute after the head start, as the time of a daily schedule.
fn daily() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let minutes = (now + HEAD_START).div_ceil(60);
    format!("{} {} * * *", minutes % 60, minutes / 60 % 24)
}

/// Makes the deployments; gives the time to come of each.
async fn deploy(client: &Client) -> BTreeMap<String, String> {
    let agent = json!({"name": "A", "model": "scripted/echo"});
    let agent = post(client, "/v1/agents", agent).await;
    let environment = post(client, "/v1/environments", json!({"name": "e"})).await;
    let hello = json!([{"type": "user.message", "content": [{"type": "text", "text": "hello"}]}]);
    let deployment = json!({
        "name": "D", "agent": agent["id"], "environment_id": environment["id"], "initial_events": hello,
        "schedule": {"type": "cron", "expression": daily(), "timezone": "UTC"},
    });
    let mut first = BTreeMap::new();
    for _ in 0..SCHEDULES {
        let made = post(client, "/v1/deployments", deployment.clone()).await;
        first.insert(text(&made["id"]), text(&made["schedule"]["upcoming_runs_at"][0]));
    }
    first
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_time_of_a_schedule_has_one_run() {
    let seed = std::env::var("OMA_CRASH_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let mut random = StdRng::seed_from_u64(seed);
    let (url, mut notices) = receiver().await;
    let mut system = System::start_with(|options| {
        options
            .set("OPENCLAW_DIAL_ALLOW", "127.0.0.1")
            .set("OPENCLAW_SCHEDULE_JITTER_MS", "0")
    })
    .await;
    let hook = json!({"url": url, "enabled_events": ["deployment_run.started"]});
    post(system.client(), "/v1/organizations/webhooks", hook).await;
    let expected = deploy(system.client()).await;

    // The runs that were told of, by the delivery that told of them.
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    let mut note = |(delivery, run): Notice| {
        let before = told.entry(run).or_insert_with(|| delivery.clone());
        assert_eq!(*before, delivery, "a notice keeps its id");
        told.len()
    };
    // It is killed as long as there is a run to make.
    let (mut kills, mut heard) = (0, 0);
    while runs(system.client()).await.len() < SCHEDULES {
        for _ in 0..random.random_range(1..=BETWEEN) {
            heard = note(heard_soon(&mut notices).await);
        }
        tokio::time::sleep(Duration::from_micros(random.random_range(0..GIVE))).await;
        system = system.crash().await;
        kills += 1;
    }
    assert!(kills >= KILLS, "the runs were made between {kills} kills");
    while heard < SCHEDULES {
        heard = note(heard_soon(&mut notices).await);
    }

    let client = system.client();
    let listed = runs(client).await;
    let mut times: BTreeMap<String, String> = BTreeMap::new();
    let mut sessions = BTreeSet::new();
    for run in &listed {
        assert_eq!(run["error"], Value::Null, "{run}");
        let time = text(&run["trigger_context"]["scheduled_at"]);
        let before = times.insert(text(&run["deployment_id"]), time);
        assert_eq!(before, None, "a second run: {run}");
        assert!(told.contains_key(run["id"].as_str().expect("an id")), "{run}");
        let session = text(&run["session_id"]);
        client.follow(&session).await.until(is_end).await;
        let log = get(client, &format!("/v1/sessions/{session}/events")).await;
        let log = log["data"].as_array().expect("a list");
        for kind in ["user.message", "agent.message", "session.status_idle"] {
            let found = log.iter().filter(|event| event["type"] == kind).count();
            assert_eq!(found, 1, "{kind}: {log:?}");
        }
        sessions.insert(session);
    }
    assert_eq!(times, expected, "each time has its run, and no other");
    assert_eq!(sessions.len(), SCHEDULES, "each run has a session of its own");
    let mut opened = 0;
    let mut page = "/v1/sessions?limit=100".to_owned();
    loop {
        let sessions = get(client, &page).await;
        opened += sessions["data"].as_array().map_or(0, Vec::len);
        match sessions["next_page"].as_str() {
            Some(next) => page = format!("/v1/sessions?limit=100&page={next}"),
            None => break,
        }
    }
    assert_eq!(opened, SCHEDULES, "no session without a run");
}
