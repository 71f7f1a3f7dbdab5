//! What keys and workspaces may consume in a month.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::command_line::oma;
use crate::system::client::{Answer, Client, is_end};
use crate::system::{System, soon};
use crate::tenants::{key, workspace};

const TOKEN: &str = "canary-api-token-5d19";

async fn start() -> System {
    System::start_with(|options| options.token(TOKEN)).await
}

/// Some 400 tokens: the model answers with as many, fewer than the least that a request is made for.
fn words() -> String {
    "word ".repeat(320)
}

/// Posts a message and waits for the end of its turn, if it is accepted.
async fn say(client: &Client, session: &str, content: &str) -> Answer {
    let path = format!("/v1/sessions/{session}/events");
    let posted = client.post(&path, &json!({ "content": content })).await;
    if posted.status == 200 {
        let mut frames = client.follow(session).await;
        let event = posted.json()["event_id"].clone();
        frames.until(|frame| frame["event_id"] == event).await;
        frames.until(is_end).await;
    }
    posted
}

/// Says little in a new session until the budget leaves too little even for that. How much a request needs shows when it
/// is to be made, so the last message is accepted and its turn ends at once; the next one is refused.
async fn use_up(client: &Client, agent: &str) -> String {
    let session = client.session(agent).await;
    for _ in 0..20 {
        say(client, &session, "hello").await.good();
        let read = client.get(&format!("/v1/sessions/{session}")).await.good();
        if read["stop_reason"] == "budget_reached" {
            return session;
        }
    }
    panic!("there is no end of it");
}

/// What was consumed for each key.
async fn consumed(client: &Client) -> BTreeMap<String, u64> {
    let usage = client.get("/v1/usage").await.good();
    let mut sums = BTreeMap::new();
    for row in usage["usage"].as_array().expect("rows") {
        let of = |field: &str| row[field].as_u64().expect("a number");
        let tokens =
            of("input_tokens") + of("output_tokens") + of("cache_read_tokens") + of("cache_write_tokens");
        let key = row["key_id"].as_str().unwrap_or("none").to_owned();
        *sums.entry(key).or_default() += tokens;
    }
    sums
}

async fn patch(client: &Client, path: &str, body: Value) -> Answer {
    client.send(client.request(Method::PATCH, path).json(&body)).await
}

#[tokio::test]
async fn sessions_side_by_side_and_their_children_stay_within_a_keys_budget() {
    const CAP: u64 = 30_000;
    let system = start().await;
    let operator = system.client();
    let body = json!({"name": "capped", "scope": "write", "maxTokensPerMonth": CAP});
    let (capped, client) = key(operator, &body).await;
    let echo = operator.agent(json!({"model": "scripted/echo"})).await;
    let call = json!({"tool": "call_agent", "input": {"agent": echo, "task": words()}});
    let usage = json!({"usage": {"input": 100, "output": 100}});
    let script = json!([[[call, call, usage], [{"text": "done"}, usage]]]);
    let body = json!({
        "model": "scripted/script",
        "instructions": script.to_string(),
        "tools": ["glob"],
        "callableAgents": [echo],
        "maxSubagentDepth": 1,
    });
    let boss = operator.agent(body).await;
    let talk = |agent: String| {
        let client = client.clone();
        async move {
            let session = client.session(&agent).await;
            for _ in 0..100 {
                let answer = say(&client, &session, &words()).await;
                if answer.status == 429 {
                    return answer.code();
                }
            }
            panic!("there is no end of it");
        }
    };
    let agents = [&echo, &boss, &echo, &boss, &echo, &boss];
    let talks = agents.map(|agent| talk(agent.clone()));
    for code in soon("the end of the budget", futures_util::future::join_all(talks)).await {
        assert_eq!(code, "quota_exceeded");
    }
    let sums = consumed(operator).await;
    let sum = sums[&capped];
    assert!(sum <= CAP, "{sum} of {CAP}");
    // How much is left depends on who came last and how much that request could have taken.
    assert!(
        sum > CAP / 4 * 3,
        "{sum} of {CAP}: nothing was left that could have been used"
    );
    assert_eq!(
        sums.keys().collect::<Vec<_>>(),
        [&capped],
        "children are charged to the same key"
    );

    // The command shows the same.
    let shown = |arguments: &[&str]| {
        let output = oma(arguments)
            .env("OPENCLAW_URL", operator.url())
            .env("OPENCLAW_API_TOKEN", TOKEN)
            .output()
            .expect("it runs");
        String::from_utf8(output.stdout).expect("text")
    };
    let listed: Value = serde_json::from_str(&shown(&["usage", "--since", "2d", "--json"])).expect("JSON");
    let rows = operator.get("/v1/usage").await.good();
    assert_eq!(listed["usage"], rows["usage"]);
    let table = shown(&["usage", "--agent", &echo]);
    assert!(table.contains(&capped) && !table.contains(&boss), "{table}");

    // It says which budget it is, for whoever holds the key; others go on.
    let session = use_up(&client, &echo).await;
    let refused = say(&client, &session, "hello").await;
    assert!(refused.text().contains("API key"), "{}", refused.text());
    say(operator, &session, "hello").await.good();
    assert!(
        consumed(operator).await["none"] > 0,
        "who posts is charged, not who opened"
    );

    // A restarted server knows what was consumed; raising the budget lets the key go on. The old session may get an
    // answer all the same: since the operator's turn its requests are measured, which were guessed generously before.
    let before = consumed(operator).await;
    let system = system.crash().await;
    let client = client.at(system.client());
    assert_eq!(consumed(system.client()).await, before);
    let session = use_up(&client, &echo).await;
    assert_eq!(say(&client, &session, "hello").await.code(), "quota_exceeded");
    let sum = consumed(system.client()).await[&capped];
    assert!(sum <= CAP, "{sum} of {CAP}");
    let path = format!("/v1/keys/{capped}");
    let raised = patch(system.client(), &path, json!({"maxTokensPerMonth": CAP + 5_000}))
        .await
        .good();
    assert_eq!(raised["max_tokens_per_month"], CAP + 5_000);
    say(&client, &session, "hello").await.good();
    let cleared = patch(system.client(), &path, json!({"maxTokensPerMonth": null}))
        .await
        .good();
    assert_eq!(cleared["max_tokens_per_month"], Value::Null);
    for _ in 0..10 {
        say(&client, &session, &words()).await.good();
    }
    system.stop().await;
}

#[tokio::test]
async fn a_workspace_has_a_budget_that_only_the_operator_changes() {
    const CAP: u64 = 3_000;
    let system = start().await;
    let operator = system.client();
    let body = json!({"name": "capped", "maxTokensPerMonth": CAP, "maxCostUsdPerMonth": 12.5});
    let made = operator.post("/v1/workspaces", &body).await.good();
    assert_eq!(
        (&made["max_tokens_per_month"], &made["max_cost_usd_per_month"]),
        (&json!(CAP), &json!(12.5))
    );
    let id = made["workspace_id"].as_str().expect("an id");
    let admin = json!({"name": "admin", "scope": "admin", "workspaceId": id});
    let (_, one) = key(operator, &admin).await;
    let (_, two) = key(operator, &admin).await;
    let agent = one.agent(json!({"model": "scripted/echo"})).await;
    let session = one.session(&agent).await;
    let mut last = None;
    for turn in 0..20 {
        let client = if turn % 2 == 0 { &one } else { &two };
        let answer = say(client, &session, &words()).await;
        if answer.status != 200 {
            last = Some(answer);
            break;
        }
    }
    let refused = last.expect("an end of the budget");
    assert_eq!(refused.code(), "quota_exceeded");
    assert!(refused.text().contains("workspace"), "{}", refused.text());
    let sum: u64 = consumed(&one).await.values().sum();
    assert!(sum <= CAP, "{sum}");
    let path = format!("/v1/workspaces/{id}");
    assert_eq!(
        patch(&one, &path, json!({"maxTokensPerMonth": null}))
            .await
            .status,
        403
    );
    // Another workspace's is none of its business.
    let other = workspace(operator, "other").await;
    let (_, neighbour) = key(
        operator,
        &json!({"name": "n", "scope": "admin", "workspaceId": other}),
    )
    .await;
    let theirs = neighbour.agent(json!({"model": "scripted/echo"})).await;
    let session_there = neighbour.session(&theirs).await;
    say(&neighbour, &session_there, &words()).await.good();
    patch(operator, &path, json!({"maxTokensPerMonth": CAP * 2}))
        .await
        .good();
    say(&one, &session, "hello").await.good();
    let trail = operator.get("/v1/audit?action=workspace.update").await.good();
    assert_eq!(trail["events"][0]["target"], id);
    assert_eq!(trail["events"][0]["metadata"]["max_tokens_per_month"], CAP * 2);
    system.stop().await;
}

#[tokio::test]
async fn bad_budgets_are_refused_by_name() {
    let system = start().await;
    let operator = system.client();
    let (id, _) = key(operator, &json!({"name": "k", "scope": "read"})).await;
    let path = format!("/v1/keys/{id}");
    for (body, field) in [
        (json!({"maxTokensPerMonth": 0}), "maxTokensPerMonth"),
        (json!({"maxTokensPerMonth": "5"}), "maxTokensPerMonth"),
        (json!({"maxTokensPerMonth": 1.5}), "maxTokensPerMonth"),
        (json!({"maxCostUsdPerMonth": 0}), "maxCostUsdPerMonth"),
        (json!({"maxCostUsdPerMonth": -1}), "maxCostUsdPerMonth"),
        (json!({"maxCostUsdPerMonth": "1"}), "maxCostUsdPerMonth"),
    ] {
        let answer = patch(operator, &path, body.clone()).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "invalid_request"),
            "{body}"
        );
        assert!(answer.json()["details"][field].is_object(), "{}", answer.text());
    }
    let run = |arguments: &[&str]| {
        let output = oma(arguments)
            .env("OPENCLAW_URL", operator.url())
            .env("OPENCLAW_API_TOKEN", TOKEN)
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let shown = run(&[
        "key",
        "budget",
        &id,
        "--max-cost-per-month",
        "2.5",
        "--max-tokens-per-month",
        "1000",
    ]);
    assert!(shown.contains("$2.5000, 1000 tokens"), "{shown}");
    let shown = run(&["key", "budget", &id, "--max-cost-per-month", "none"]);
    assert!(shown.contains("1000 tokens") && !shown.contains('$'), "{shown}");
    let made = run(&[
        "workspace",
        "create",
        "w",
        "--max-tokens-per-month",
        "7",
        "--json",
    ]);
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let id = made["workspace_id"].as_str().expect("an id");
    let shown = run(&["workspace", "budget", id, "--max-tokens-per-month", "none"]);
    assert!(shown.contains("any"), "{shown}");
    system.stop().await;
}
