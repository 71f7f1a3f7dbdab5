//! Keys, rate limits and the audit trail of the real binary: over restarts, through kills, and from outside.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::command_line::oma;
use crate::system::client::{Answer, Client, is_end};
use crate::system::{System, soon};
use crate::tenants::{key, workspace};

const TOKEN: &str = "canary-api-token-e07a";

async fn start(more: &[(&str, &str)]) -> System {
    System::start_with(|options| {
        more.iter().fold(options.token(TOKEN), |options, (name, value)| {
            options.set(name, value)
        })
    })
    .await
}

async fn status(client: &Client) -> u16 {
    client.get("/v1/agents").await.status
}

/// The same holder at a server that was started anew.
fn at(system: &System, issued: &Value) -> Client {
    Client::new(system.client().url(), issued["secret"].as_str())
}

async fn issue(system: &System, body: Value) -> Value {
    system.client().post("/v1/keys", &body).await.good()
}

#[tokio::test]
async fn keys_survive_crashes_and_their_ends_do_too() {
    let mut system = start(&[]).await;
    let tenant = workspace(system.client(), "tenant").await;
    let lasting = issue(
        &system,
        json!({"name": "a", "scope": "write", "workspaceId": tenant}),
    )
    .await;
    let revoked = issue(&system, json!({"name": "b", "scope": "read"})).await;
    let before = issue(&system, json!({"name": "c", "scope": "read"})).await;
    assert_eq!(status(&at(&system, &revoked)).await, 200);
    let path = format!("/v1/keys/{}", revoked["key_id"].as_str().expect("an id"));
    system.client().delete(&path).await.good();
    assert_eq!(status(&at(&system, &revoked)).await, 401, "at once");
    let rotate = format!("/v1/keys/{}/rotate", before["key_id"].as_str().expect("an id"));
    let after = system
        .client()
        .post(&rotate, &json!({"graceSeconds": 600}))
        .await
        .good();
    for _ in 0..2 {
        for (issued, expected) in [(&lasting, 200), (&revoked, 401), (&before, 200), (&after, 200)] {
            assert_eq!(status(&at(&system, issued)).await, expected, "{issued}");
        }
        let agent = at(&system, &lasting)
            .agent(json!({"model": "scripted/echo"}))
            .await;
        let foreign = system.client().get(&format!("/v1/agents/{agent}")).await;
        assert_eq!(foreign.status, 404, "it still opens its own workspace only");
        system = system.crash().await;
    }
    // No secret is in any file of the server's.
    let data = system.stop().await;
    for issued in [&lasting, &revoked, &before, &after] {
        let secret = issued["secret"].as_str().expect("a secret").as_bytes();
        for file in ["store.db", "store.db-wal"] {
            let bytes = std::fs::read(data.path().join(file)).unwrap_or_default();
            assert!(
                !bytes.windows(secret.len()).any(|window| window == secret),
                "{file}"
            );
        }
        assert!(!data.log().contains(issued["secret"].as_str().expect("a secret")));
    }
}

#[tokio::test]
async fn a_key_ends_at_its_expiry() {
    let system = start(&[]).await;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let ends = u64::try_from(now.as_millis()).expect("small") + 3000;
    let brief = issue(
        &system,
        json!({"name": "brief", "scope": "read", "expiresAt": ends}),
    )
    .await;
    let holder = at(&system, &brief);
    assert_eq!(status(&holder).await, 200);
    soon("the key's end", async { while status(&holder).await == 200 {} }).await;
    assert_eq!(status(&holder).await, 401);
    system.stop().await;
}

#[tokio::test]
async fn a_kill_during_a_rotation_leaves_one_of_two_states() {
    let mut system = start(&[]).await;
    let mut current = issue(&system, json!({"name": "k", "scope": "read"})).await;
    let rotate = format!("/v1/keys/{}/rotate", current["key_id"].as_str().expect("an id"));
    let (mut kept, mut changed) = (0, 0);
    for round in 0..8 {
        let asking = {
            let client = system.client().clone();
            let request = client.request(Method::POST, &rotate).json(&json!({}));
            tokio::spawn(Client::try_send(request))
        };
        // Moments from before the request arrives to after it is answered.
        tokio::time::sleep(Duration::from_micros(round * 1500)).await;
        system = system.crash().await;
        let answer: Option<Answer> = asking.await.expect("no panic").ok();
        let old_works = status(&at(&system, &current)).await == 200;
        match answer.filter(|answer| answer.status == 200) {
            Some(answer) => {
                let rotated = answer.good();
                assert!(!old_works, "the rotation was told, so it holds");
                assert_eq!(status(&at(&system, &rotated)).await, 200);
                current = rotated;
                changed += 1;
            }
            None if old_works => kept += 1,
            None => {
                // It happened, and nobody was told: the operator rotates again.
                changed += 1;
                current = system.client().post(&rotate, &json!({})).await.good();
                assert_eq!(status(&at(&system, &current)).await, 200);
            }
        }
    }
    assert_eq!(kept + changed, 8);
    system.stop().await;
}

#[tokio::test]
async fn a_key_that_is_revoked_or_rotated_reads_on_nowhere() {
    let system = start(&[("OPENCLAW_MAX_STREAMS_PER_KEY", "2")]).await;
    let agent = system
        .client()
        .agent(json!({"model": "anthropic/claude-sonnet-4-5"}))
        .await;
    let session = system.client().session(&agent).await;
    let events = format!("/v1/sessions/{session}/events");
    for end in ["revoke", "rotate"] {
        let (id, reader) = key(system.client(), &json!({"name": end, "scope": "read"})).await;
        let mut stream = reader.follow(&session).await;
        let second = reader.follow(&session).await;
        // That is its share; others have theirs.
        let third = reader.get(&format!("{events}?stream=true")).await;
        assert_eq!((third.status, third.code()), (429, "too_many_streams".to_owned()));
        drop(second);
        let mut others = system.client().follow(&session).await;
        let path = format!("/v1/keys/{id}");
        match end {
            "revoke" => system.client().delete(&path).await.good(),
            _ => {
                let path = format!("{path}/rotate");
                system.client().post(&path, &json!({})).await.good()
            }
        };
        let message = json!({"content": "what the stolen key would hear"});
        let posted = system.client().post(&events, &message).await.good();
        others
            .until(|frame| frame["event_id"] == posted["event_id"])
            .await;
        while let Some(Ok(frame)) = soon("the stream's end", stream.try_next()).await {
            assert_ne!(frame["event_id"], posted["event_id"], "{end}");
        }
        others.until(is_end).await;
    }
    system.stop().await;
}

#[tokio::test]
async fn requests_are_limited_per_key_and_guesses_per_address() {
    let limit = [
        ("OPENCLAW_RATE_LIMIT_RPM", "6"),
        ("OPENCLAW_TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let system = start(&limit).await;
    let (_, one) = key(system.client(), &json!({"name": "one", "scope": "read"})).await;
    let (_, two) = key(system.client(), &json!({"name": "two", "scope": "read"})).await;
    for left in (0..6).rev() {
        let answer = one.get("/v1/agents").await;
        assert_eq!(
            (answer.status, answer.header("x-ratelimit-limit")),
            (200, Some("6"))
        );
        assert_eq!(
            answer.header("x-ratelimit-remaining"),
            Some(left.to_string().as_str())
        );
    }
    let refused = one.get("/v1/agents").await;
    assert_eq!((refused.status, refused.code()), (429, "rate_limited".to_owned()));
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    let wait: u32 = refused
        .header("retry-after")
        .expect("a wait")
        .parse()
        .expect("seconds");
    assert!((1..=10).contains(&wait), "{wait}");
    let message = refused.json()["message"].as_str().expect("text").to_owned();
    assert!(
        message.starts_with("rate limit exceeded (6 req/min). retry in "),
        "{message}"
    );
    let chat = one.post("/v1/chat/completions", &json!({})).await;
    assert_eq!(
        (chat.status, chat.json()["error"]["code"].clone()),
        (429, json!("rate_limited"))
    );
    assert_eq!(status(&two).await, 200, "another key has a bucket of its own");
    for _ in 0..10 {
        assert_eq!(one.get("/healthz").await.status, 200, "probes are not limited");
    }

    // Guessing: each wrong key costs its address a token, whatever it says about others before the proxy.
    let stranger = Client::new(two.url(), None);
    let guess = async |key: &str, from: &str| {
        let request = stranger.request(Method::GET, "/v1/agents").bearer_auth(key);
        stranger
            .send(request.header("x-forwarded-for", from))
            .await
            .status
    };
    let mut seen = Vec::new();
    for number in 0..8 {
        seen.push(guess(&format!("wrong{number}"), "10.9.9.9, 203.0.113.9").await);
    }
    assert_eq!(seen[..6], [401; 6], "{seen:?}");
    assert!(seen[6..].contains(&429), "{seen:?}");
    assert_eq!(
        guess(TOKEN, "203.0.113.9").await,
        429,
        "no guess is looked at, not even the right one"
    );
    assert_eq!(
        guess("wrong", "203.0.113.10").await,
        401,
        "others are not held up"
    );
    let rejected = two.metric("rate_limit_rejections_total").await;
    assert!(rejected >= 2.0, "{rejected}");
    system.stop().await;
}

#[tokio::test]
async fn what_is_done_is_in_the_trail() {
    let system = start(&[]).await;
    let operator = system.client();
    let tenant = workspace(operator, "tenant").await;
    let (id, admin) = key(
        operator,
        &json!({"name": "a", "scope": "admin", "workspaceId": tenant}),
    )
    .await;
    let (reader_id, reader) = key(&admin, &json!({"name": "r", "scope": "read"})).await;
    let agent = admin
        .agent(json!({"model": "scripted/echo", "name": "mine"}))
        .await;
    assert_eq!(admin.post("/v1/agents", &json!({})).await.status, 400);
    assert_eq!(admin.delete("/v1/sessions/ses_none").await.status, 404);
    assert_eq!(reader.delete(&format!("/v1/agents/{agent}")).await.status, 403);
    let session = admin.session(&agent).await;
    let posted = json!({"content": "message-said-5511"});
    admin
        .post(&format!("/v1/sessions/{session}/events"), &posted)
        .await
        .good();
    let wrong = Client::new(operator.url(), Some("wrong"));
    assert_eq!(wrong.post("/v1/agents", &json!({})).await.status, 401);

    let trail = admin.get("/v1/audit").await.good();
    let rows: Vec<(String, String, String, Option<String>)> = trail["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|row| {
            let text = |field: &str| row[field].as_str().expect("text").to_owned();
            let target = row["target"].as_str().map(str::to_owned);
            assert!(row["request_id"].is_string() && row["ts"].is_i64(), "{row}");
            (text("action"), text("outcome"), text("actor"), target)
        })
        .collect();
    let by = |id: &str| format!("key:{id}");
    let row = |action: &str, outcome: &str, actor: &str, target: Option<&str>| {
        (
            action.to_owned(),
            outcome.to_owned(),
            by(actor),
            target.map(str::to_owned),
        )
    };
    assert_eq!(
        rows,
        [
            row("session.event", "ok", &id, Some(&session)),
            row("session.create", "ok", &id, Some(&session)),
            row("agent.delete", "forbidden", &reader_id, Some(&agent)),
            row("session.delete", "session_not_found", &id, Some("ses_none")),
            row("agent.create", "invalid_request", &id, None),
            row("agent.create", "ok", &id, Some(&agent)),
            row("key.create", "ok", &id, Some(&reader_id)),
        ]
    );
    assert_eq!(
        trail["events"][5]["metadata"],
        json!({"model": "scripted/echo", "name": "mine"})
    );
    assert_eq!(reader.get("/v1/audit").await.status, 403);
    let some = admin.get("/v1/audit?action=agent.%25&limit=2").await.good();
    assert_eq!((&some["count"], &some["has_more"]), (&json!(2), &json!(true)));
    let next = some["next"].as_str().expect("a cursor");
    let rest = admin
        .get(&format!("/v1/audit?action=agent.%25&after={next}"))
        .await
        .good();
    assert_eq!(
        (&rest["count"], &rest["events"][0]["target"]),
        (&json!(1), &json!(agent))
    );
    for bad in ["since=soon", "until=1.5", "limit=many", "after=aud_none"] {
        assert_eq!(admin.get(&format!("/v1/audit?{bad}")).await.status, 400, "{bad}");
    }
    // The operator's own workspace has what nobody could be held to.
    let at_the_door = operator.get("/v1/audit").await.good();
    let refused = &at_the_door["events"][0];
    assert_eq!(
        (&refused["action"], &refused["outcome"], &refused["actor"]),
        (
            &json!("agent.create"),
            &json!("unauthorized"),
            &json!("ip:127.0.0.1")
        )
    );
    assert!(
        !trail.to_string().contains("message-said"),
        "what was said is no part of it"
    );

    let verify = || {
        let mut command = oma(&["--json", "audit", "verify", "--data-dir"]);
        command.arg(system.data.path()).output().expect("it runs")
    };
    let while_serving = verify();
    let found: Value = serde_json::from_slice(&while_serving.stdout).expect("JSON");
    assert!(while_serving.status.success() && found["ok"] == true, "{found}");
    let rows = found["rows"].as_u64().expect("a number");
    assert!(rows >= 10, "{found}");

    // Somebody edits the database behind the server's back.
    let system = system.crash().await;
    let data = system.stop().await;
    let path = data.path().join("store.db");
    let mut bytes = std::fs::read(&path).expect("readable");
    let (was, is) = (b"session_not_found", b"session_was_found");
    let place = bytes
        .windows(was.len())
        .position(|window| window == was)
        .expect("in the file");
    bytes[place..place + is.len()].copy_from_slice(is);
    std::fs::write(&path, bytes).expect("writable");
    let mut command = oma(&["--json", "audit", "verify", "--data-dir"]);
    let output = command.arg(data.path()).output().expect("it runs");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (output.status.code(), &found["ok"]),
        (Some(1), &json!(false)),
        "{found}"
    );
    assert!(
        found["broken"]["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("aud_")),
        "{found}"
    );
}

/// Every entry of the trail.
async fn trail(client: &Client) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut after = String::new();
    loop {
        let page = client.get(&format!("/v1/audit?limit=1000{after}")).await.good();
        rows.extend(page["events"].as_array().expect("events").iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return rows,
        }
    }
}

#[tokio::test]
async fn a_kill_leaves_no_change_without_an_entry() {
    let mut system = start(&[]).await;
    let mut told = Vec::new();
    for round in 0..6_u64 {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..40 {
            let body = json!({"model": "scripted/echo"});
            let request = system.client().request(Method::POST, "/v1/agents").json(&body);
            calls.spawn(Client::try_send(request));
        }
        // Moments from before the first change to after some of them.
        tokio::time::sleep(Duration::from_millis(round * 4)).await;
        system = system.crash().await;
        while let Some(call) = calls.join_next().await {
            if let Ok(answer) = call.expect("no panic") {
                told.push(answer.good()["agent_id"].as_str().expect("an id").to_owned());
            }
        }
    }
    let rows = trail(system.client()).await;
    let of = |outcome: &str| rows.iter().filter(|row| row["outcome"] == outcome).count();
    let named: Vec<&str> = rows
        .iter()
        .filter(|row| row["outcome"] == "ok")
        .filter_map(|row| row["target"].as_str())
        .collect();
    for id in &told {
        assert!(
            named.contains(&id.as_str()),
            "{id} was told and is not in the trail"
        );
    }
    let agents = system.client().get("/v1/agents?limit=1000").await.good();
    let agents = agents["count"].as_u64().expect("a number");
    let nameless = agents - named.len() as u64;
    assert!(
        nameless <= of("cut_off") as u64,
        "{agents} agents, {} entries, {} calls were cut off",
        named.len(),
        of("cut_off")
    );
    // Every call that was cut off is told of once.
    let mut requests: Vec<&str> = rows.iter().filter_map(|row| row["request_id"].as_str()).collect();
    requests.sort_unstable();
    let count = requests.len();
    requests.dedup();
    assert_eq!(requests.len(), count);
    system.stop().await;
}
