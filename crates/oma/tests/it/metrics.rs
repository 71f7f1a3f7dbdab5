//! Metrics and the log: after known things have happened each says what it should, and what is documented is what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use oma_api::telemetry::catalogue::{self, Kind, METRICS, Values};
use oma_fake_provider::{Reply, Step};
use reqwest::Method;
use serde_json::json;

use crate::system::client::{Client, is_end};
use crate::system::{System, soon};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

/// A sample: its name, its labels but for `service`, its value.
type Sample = (String, BTreeMap<String, String>, f64);

/// What a name, with a label if one is given, should say.
type Expected<'a> = (&'a str, Option<(&'a str, &'a str)>, f64);

/// All samples of `/metrics`.
async fn samples(client: &Client) -> Vec<Sample> {
    let text = client.get("/metrics").await.text();
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(sample).collect()
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = series.split_once('{').expect("labels");
    let labels = labels.strip_suffix("\"}").expect("the end of the labels");
    let labels = labels.split("\",").map(|label| {
        let (name, value) = label.split_once("=\"").expect("a label");
        (name.to_owned(), value.to_owned())
    });
    let mut labels: BTreeMap<String, String> = labels.collect();
    assert_eq!(
        labels.remove("service").as_deref(),
        Some("openclaw-managed-agents")
    );
    (name.to_owned(), labels, value.parse().expect("a number"))
}

/// The sum of the samples with this name and label.
fn value(samples: &[Sample], name: &str, label: Option<(&str, &str)>) -> f64 {
    let is_it = |(found, labels, _): &&Sample| {
        found == name && label.is_none_or(|(key, value)| labels.get(key).is_some_and(|it| it == value))
    };
    let found: Vec<f64> = samples.iter().filter(is_it).map(|(_, _, value)| *value).collect();
    assert!(!found.is_empty(), "there is no {name} {label:?}");
    found.iter().sum()
}

#[track_caller]
fn expect(samples: &[Sample], expected: &[Expected<'_>]) {
    for (name, label, expected) in expected {
        assert_eq!(value(samples, name, *label), *expected, "{name} {label:?}");
    }
}

/// A run of a deployment that can't be: its environment is archived.
async fn failed_run(client: &Client, agent: &str) {
    let post = async |path: &str, body: serde_json::Value| {
        let request = client
            .request(Method::POST, path)
            .header("anthropic-version", "2023-06-01");
        client.send(request.json(&body)).await.good()
    };
    let environment = post("/v1/environments", json!({"name": "gone"})).await;
    let environment = environment["id"].as_str().expect("an id");
    let hello = json!({"type": "user.message", "content": [{"type": "text", "text": "hello"}]});
    let deployment = json!({
        "name": "vain", "agent": agent, "environment_id": environment, "initial_events": [hello],
    });
    let deployment = post("/v1/deployments", deployment).await;
    post(&format!("/v1/environments/{environment}/archive"), json!({})).await;
    let deployment = deployment["id"].as_str().expect("an id");
    let run = post(&format!("/v1/deployments/{deployment}/run"), json!({})).await;
    assert_eq!(run["error"]["type"], "environment_archived_error", "{run}");
}

#[tokio::test]
async fn what_happened_is_counted_and_all_of_it_is_documented() {
    let mut prices = tempfile::NamedTempFile::new().expect("a file");
    writeln!(prices, "[\"{MODEL}\"]\ninput = 1.0\noutput = 1.0").expect("written");
    let path = prices.path().to_str().expect("text");
    let system = System::start_with(|options| options.set("OPENCLAW_PRICE_FILE", path)).await;
    let client = system.client();
    // Before anything has happened, what can be told beforehand is there.
    let early = samples(client).await;
    let is_closed = |values: &Values| matches!(values, Values::OneOf(_));
    for metric in METRICS
        .iter()
        .filter(|metric| metric.labels.iter().all(|label| is_closed(&label.values)))
    {
        let name = match metric.kind {
            Kind::Counter | Kind::Gauge => metric.name.to_owned(),
            Kind::Histogram(_) => format!("{}_count", metric.name),
        };
        value(&early, &name, None);
    }

    // Two turns; the second one's command finds the sandbox of the first's.
    let chat = client.session_of(MODEL).await;
    chat.run("true").await;
    chat.run("true").await;
    // A failure, a cancel, and a budget that is too small for anything.
    system
        .provider
        .push(Reply::failure(400, "invalid_request_error", "no"));
    chat.turn(&json!([{"text": "never said"}])).await;
    system
        .provider
        .push(Reply::new().text("a piece").step(Step::Stall));
    let mut frames = soon("a stream", client.try_follow(&chat.session, None, true))
        .await
        .expect("a stream");
    chat.post("stall").await;
    frames.until(|frame| frame["type"] == "agent.message_delta").await;
    client.post(&chat.path("/cancel"), &json!({})).await.good();
    frames.until(is_end).await;
    let agent = client
        .agent(json!({"model": MODEL, "quota": {"maxTokensPerSession": 600}}))
        .await;
    let poor = client.session(&agent).await;
    let say = |text: &str| json!({ "content": text });
    client
        .post(&format!("/v1/sessions/{poor}/events"), &say("too much"))
        .await
        .good();
    client.follow(&poor).await.until(is_end).await;
    let refused = client
        .post(&format!("/v1/sessions/{poor}/events"), &say("again"))
        .await;
    assert_eq!(refused.status, 429);
    failed_run(client, &agent).await;

    let now = samples(client).await;
    let session = chat.read().await;
    // Nobody said what the cancelled request consumed; budgets reckon with it all the same.
    assert!(session["unreported"]["tokens"].as_u64() > Some(0), "{session}");
    assert_eq!(session["cost_usd"], serde_json::Value::Null);
    let number = |field: &str| session["tokens"][field].as_f64().expect("a number");
    let tokens = number("input") + number("output");
    expect(
        &now,
        &[
            ("agents_created_total", None, 2.0),
            ("session_run_duration_seconds_count", None, 5.0),
            ("session_run_failures_total", None, 1.0),
            ("session_events_total", Some(("type", "user.message")), 5.0),
            ("quota_rejections_total", Some(("kind", "tokens")), 2.0),
            ("quota_rejections_total", Some(("kind", "cost")), 0.0),
            ("model_requests_total", Some(("outcome", "ok")), 4.0),
            ("model_requests_total", Some(("outcome", "cancelled")), 1.0),
            (
                "model_requests_total",
                Some(("outcome", "model_request_failed_error")),
                1.0,
            ),
            ("model_requests_total", Some(("provider", "anthropic")), 6.0),
            ("model_request_duration_seconds_count", None, 4.0),
            ("model_first_token_seconds_count", None, 5.0),
            ("model_requests_unpriced_total", None, 1.0),
            ("tool_uses_total", Some(("tool", "bash")), 2.0),
            ("container_boot_duration_seconds_count", None, 1.0),
            ("pool_acquire_total", Some(("source", "active")), 1.0),
            ("pool_acquire_total", Some(("source", "adopt")), 0.0),
            ("pool_active_containers", None, 1.0),
            ("pool_warm_containers", None, 0.0),
            (
                "deployment_runs_total",
                Some(("outcome", "environment_archived_error")),
                1.0,
            ),
            ("turns_active", None, 0.0),
            ("turns_waiting", None, 0.0),
            ("pool_waiting", None, 0.0),
            ("model_tokens_total", None, tokens),
            ("model_cost_nanousd_total", None, tokens * 1e3),
            ("audit_write_failures_total", None, 0.0),
            ("startup_turns_resumed_total", None, 0.0),
        ],
    );
    // The first command's sandbox was started when the model had begun to use the tool, or for the command.
    let (warm, cold) = (
        value(&now, "pool_acquire_total", Some(("source", "warm"))),
        value(&now, "pool_acquire_total", Some(("source", "spawn"))),
    );
    assert_eq!(warm + cold, 1.0);
    expect(
        &now,
        &[
            ("pool_cold_starts_total", None, cold),
            ("pool_spawn_duration_seconds_count", None, cold),
        ],
    );
    let commits = value(&now, "store_commit_duration_seconds_count", None);
    assert!(commits > 0.0 && value(&now, "store_commit_batch_size_sum", None) >= commits);
    assert!(value(&now, "http_streams_open", None) <= 2.0);
    assert!(
        value(
            &now,
            "http_request_duration_seconds_count",
            Some(("method", "GET"))
        ) > 0.0
    );

    // Whatever is there is documented, labels included, and whatever is documented is there.
    let mut seen = BTreeSet::new();
    for (sample, labels, _) in &now {
        let family = ["", "_bucket", "_sum", "_count"]
            .iter()
            .find_map(|ending| catalogue::find(sample.strip_suffix(ending)?));
        let metric = family.unwrap_or_else(|| panic!("{sample} is not documented"));
        seen.insert(metric.name);
        let documented: BTreeSet<&str> = metric.labels.iter().map(|label| label.name).collect();
        let found: BTreeSet<&str> = labels
            .keys()
            .map(String::as_str)
            .filter(|name| *name != "le")
            .collect();
        assert_eq!(found, documented, "{sample}");
        for label in metric.labels {
            if let Values::OneOf(values) = label.values {
                assert!(
                    values.contains(&labels[label.name].as_str()),
                    "{sample}: {labels:?}"
                );
            }
        }
    }
    for metric in METRICS {
        assert!(
            seen.contains(metric.name),
            "{} is documented and not there",
            metric.name
        );
    }
    system.stop().await;
}

#[tokio::test]
async fn a_restart_is_counted() {
    let system = System::start().await;
    let chat = system.client().session_of(MODEL).await;
    let idle = system.client().session_of(MODEL).await;
    idle.run("true").await;
    system.provider.push(Reply::new().step(Step::Stall));
    chat.post("stall").await;
    soon("the model request", system.provider.wait_for_requests(3)).await;
    chat.play(&json!([{"text": "the one that waited"}])).await;
    let system = system.crash().await;
    let chat = chat.at(system.client());
    let mut frames = chat.follow().await;
    frames
        .until(|frame| frame["content"] == "the one that waited")
        .await;
    frames.until(is_end).await;
    idle.at(system.client()).run("true").await;
    expect(
        &samples(system.client()).await,
        &[
            ("startup_turns_resumed_total", None, 1.0),
            ("startup_queue_drained_total", None, 1.0),
            ("startup_adoptions_total", Some(("outcome", "reattached")), 1.0),
            (
                "startup_adoptions_total",
                Some(("outcome", "reattach_failed")),
                0.0,
            ),
            (
                "startup_adoptions_total",
                Some(("outcome", "stopped_orphan")),
                0.0,
            ),
            ("pool_acquire_total", Some(("source", "adopt")), 1.0),
            ("container_boot_duration_seconds_count", None, 0.0),
        ],
    );
    system.stop().await;
}

#[tokio::test]
async fn openmetrics_comes_when_it_is_asked_for() {
    let system = System::start().await;
    let client = system.client();
    client
        .session_of(MODEL)
        .await
        .turn(&json!([{"text": "hello"}]))
        .await;
    let request = client.request(Method::GET, "/metrics").header(
        "accept",
        "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
    );
    let answer = client.send(request).await;
    assert_eq!(
        answer.headers["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let text = answer.text();
    assert!(text.ends_with("\n# EOF\n") && !text.contains("\n\n"), "{text}");
    for line in [
        "# TYPE model_requests counter",
        "# HELP model_requests Model requests, each attempt by itself.",
        "# TYPE turns_active gauge",
        "# TYPE container_boot_duration_seconds histogram",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(
        text.contains("model_requests_total{") && text.contains("le=\"1.0\"}"),
        "{text}"
    );
    system.stop().await;
}

#[tokio::test]
async fn lines_of_the_log_name_whose_they_are() {
    // What happens in a request and what happens later, at levels that keep more and less of what is around it.
    for (level, message) in [("warn", "a model request failed"), ("debug", "answered")] {
        let system = System::start_with(|options| options.set("OPENCLAW_LOG_LEVEL", level)).await;
        let chat = system.client().session_of(MODEL).await;
        system
            .provider
            .push(Reply::failure(400, "invalid_request_error", "no"));
        chat.turn(&json!([{"text": "never said"}])).await;
        let client = system.client();
        let request = client
            .request(Method::GET, &chat.path(""))
            .header("x-request-id", "mine");
        client.send(request).await.good();
        let (agent, session) = (chat.agent.clone(), chat.session.clone());
        let log = system.stop().await.log();
        let lines = log.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        let is_it = |line: &serde_json::Value| {
            line["message"] == message && (level == "warn" || line["request_id"] == "mine")
        };
        let line: serde_json::Value = lines.into_iter().find(is_it).expect("the line");
        assert_eq!(line["session_id"], session, "{line}");
        assert_eq!(line["workspace_id"], "wrk_default", "{line}");
        if level == "warn" {
            assert_eq!(line["agent_id"], agent, "{line}");
        }
    }
}
