//! Contexts that grow beyond the model's window: summarised in time, after the provider's refusal, on request,
//! and through kills. The provider here is as strict about its window as real ones are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use oma_fake_provider::{FakeProvider, Gate, Protocol, Recorded, Reply, Usage};
use reqwest::Method;
use serde_json::{Value, json};

use crate::system::client::{Chat, Client, is_end, said};
use crate::system::{Data, Options, Server, System, soon};

/// The tokens that the provider's window really has.
const WINDOW: u64 = 20_000;

/// The steps of the work: more than fit the window twice.
const STEPS: usize = 36;

/// What the user wants, of which every request has to carry each word.
const TASK: &str = "Do all the steps, one by one. The password is lilac-tortoise-7.";

/// What a request for a summary says.
const ASKS_FOR_SUMMARY: &str = "will be replaced by a summary that you write now";

/// The models of the two protocols, by the names of their providers.
const MODELS: [&str; 2] = ["messages/m", "completions/m"];

/// What became of the requests of a worker.
#[derive(Default)]
struct Seen {
    refused: AtomicU64,
    summaries: AtomicU64,
    /// The tokens of the first request after the newest summary.
    after_summary: AtomicU64,
}

/// A model that knows nothing but what a request carries: it does the step after the last that it sees, and when
/// it is asked for a summary says which one that was.
fn work(provider: &FakeProvider, first_summary: Option<Gate>) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    let notes = Arc::clone(&seen);
    provider.respond_with(move |request| answer(request, &notes, first_summary.as_ref()));
    seen
}

fn answer(request: &Recorded, seen: &Seen, first_summary: Option<&Gate>) -> Reply {
    let messages = request.body["messages"].as_array().expect("messages");
    let tokens = request.body.to_string().len() as u64 / 4;
    if tokens > WINDOW {
        seen.refused.fetch_add(1, Ordering::Relaxed);
        let kind = match request.protocol {
            Protocol::OpenaiChat => "context_length_exceeded",
            _ => "invalid_request_error",
        };
        let message = format!("prompt is too long: {tokens} tokens > {WINDOW} maximum");
        return Reply::failure(400, kind, &message);
    }
    let text = request.body["messages"].to_string();
    let usage = Usage {
        input: tokens,
        output: 50,
        ..Usage::default()
    };
    let reply = Reply::new().usage(Some(usage));
    let done = steps(&text).max().unwrap_or_default();
    if messages
        .last()
        .expect("one")
        .to_string()
        .contains(ASKS_FOR_SUMMARY)
    {
        let number = seen.summaries.fetch_add(1, Ordering::Relaxed);
        seen.after_summary.store(0, Ordering::Relaxed);
        let reply = reply.text("A summary. ");
        let reply = match first_summary.filter(|_| number == 0) {
            Some(gate) => reply.gate(gate),
            None => reply,
        };
        return reply.text(&format!("The last step that was done is step-{done}."));
    }
    let _first = seen
        .after_summary
        .compare_exchange(0, tokens, Ordering::Relaxed, Ordering::Relaxed);
    if !text.contains(TASK) {
        return reply.text("I don't know what to do.");
    }
    if done == STEPS {
        return reply.text("All steps are done.");
    }
    let command = format!("echo step-{0} | tee -a steps; seq 1200", done + 1);
    reply.tool("bash", json!({"command": command}))
}

/// The numbers of the steps that a text mentions.
fn steps(text: &str) -> impl Iterator<Item = usize> + '_ {
    let numbers = text.split("step-").skip(1).map(|rest| {
        rest.split(|char: char| !char.is_ascii_digit())
            .next()
            .unwrap_or_default()
    });
    numbers.filter_map(|digits| digits.parse().ok())
}

/// A system whose models have a window of so many tokens, according to its configuration.
async fn start(window: u64) -> System {
    let provider = FakeProvider::start().await.expect("a free port");
    let data = Data::new();
    let file = data.beside("oma.toml");
    let table = |name: &str, protocol: &str, key: &str, url: &str| {
        format!(
            "[models.providers.{name}]\nprotocol = \"{protocol}\"\nbase_url = \"{url}\"\napi_key_env = \"{key}\"\n"
        )
    };
    // Once for all models of a provider, once for this one.
    let text = [
        table("messages", "anthropic", "ANTHROPIC_API_KEY", &provider.url()),
        format!("context_window = {window}\n"),
        table(
            "completions",
            "openai_chat",
            "OPENAI_API_KEY",
            &provider.openai_url(),
        ),
        format!("[models.providers.completions.model.m]\ncontext_window = {window}\n"),
    ];
    std::fs::write(&file, text.concat()).expect("written");
    let options = Options::with(&provider).set("OPENCLAW_CONFIG", file.to_str().expect("text"));
    let server = Server::start(&data, &options).await;
    System {
        server,
        provider,
        options,
        data,
    }
}

async fn session(client: &Client, model: &str) -> Chat {
    let agent = client.agent(json!({"model": model, "tools": ["bash"]})).await;
    let session = client.session(&agent).await;
    Chat {
        client: client.clone(),
        agent,
        session,
    }
}

/// How often events of a type are among these.
fn count(events: &[Value], kind: &str) -> usize {
    events.iter().filter(|event| event["type"] == kind).count()
}

/// What must hold of a session whose work is done: nothing was forgotten and nothing done twice.
async fn check(chat: &Chat) -> Vec<Value> {
    let events = chat.events().await;
    assert_eq!(
        events.last().expect("one")["stop_reason"],
        "end_turn",
        "{events:?}"
    );
    assert_eq!(said(&events), "All steps are done.", "{events:?}");
    assert_eq!(count(&events, "user.message"), 1);
    assert_eq!(count(&events, "session.status_idle"), 1);
    assert_eq!(count(&events, "agent.tool_use"), STEPS);
    assert_eq!(count(&events, "agent.tool_result"), STEPS);
    let left = chat.client.get(&chat.file_path("steps")).await.text();
    assert_eq!(steps(&left).collect::<Vec<_>>(), (1..=STEPS).collect::<Vec<_>>());
    events
}

#[tokio::test]
async fn a_context_that_is_about_to_overflow_is_summarised_in_time() {
    let system = start(WINDOW).await;
    for model in MODELS {
        let seen = work(&system.provider, None);
        let chat = session(system.client(), model).await;
        chat.post(TASK).await;
        chat.follow().await.until(is_end).await;
        let events = check(&chat).await;
        assert_eq!(
            seen.refused.load(Ordering::Relaxed),
            0,
            "{model}: it was too late"
        );
        let summaries = seen.summaries.load(Ordering::Relaxed);
        assert!(summaries >= 2, "{model}: {summaries} summaries");
        assert_eq!(count(&events, "session.compaction") as u64, summaries, "{model}");
        let after = seen.after_summary.load(Ordering::Relaxed);
        assert!(after < WINDOW / 2, "{model}: {after} tokens after a summary");
    }
    system.stop().await;
}

#[tokio::test]
async fn a_provider_that_says_too_long_is_believed() {
    // Ten times what the provider really takes, as when a proxy cuts it down.
    let system = start(10 * WINDOW).await;
    for model in MODELS {
        let seen = work(&system.provider, None);
        let chat = session(system.client(), model).await;
        chat.post(TASK).await;
        chat.follow().await.until(is_end).await;
        let events = check(&chat).await;
        assert!(
            seen.refused.load(Ordering::Relaxed) > 0,
            "{model}: it never overflowed"
        );
        assert!(count(&events, "session.compaction") >= 2, "{model}");
    }
    system.stop().await;
}

#[tokio::test]
async fn a_message_that_alone_is_too_long_ends_its_turn_and_not_the_session() {
    let system = start(WINDOW).await;
    for model in MODELS {
        let seen = work(&system.provider, None);
        let chat = session(system.client(), model).await;
        let posted = chat.post(&format!("{TASK} {}", "word ".repeat(100_000))).await;
        let mut frames = chat.follow().await;
        frames
            .until(|frame| frame["event_id"] == posted["event_id"])
            .await;
        let rest = frames.until(is_end).await;
        // Either it was cut down to what fits, or the turn failed, in bounded time; the session goes on.
        let requests = seen.refused.load(Ordering::Relaxed) + seen.summaries.load(Ordering::Relaxed);
        assert!(requests < 20, "{model}: {requests} requests: {rest:?}");
        assert_eq!(chat.read().await["status"], "idle", "{model}");
        system.provider.push(Reply::new().text("Here."));
        let again = chat.post("Are you there?").await;
        let mut frames = chat.follow().await;
        frames.until(|frame| frame["event_id"] == again["event_id"]).await;
        let rest = frames.until(is_end).await;
        assert_eq!(
            rest.last().expect("one")["type"],
            "session.status_idle",
            "{rest:?}"
        );
    }
    system.stop().await;
}

#[tokio::test]
async fn a_summary_on_request_takes_the_place_of_the_history() {
    let system = start(WINDOW).await;
    let client = system.client();
    for model in MODELS {
        let chat = session(client, model).await;
        let path = chat.path("/compact");
        let compact = async || client.post(&path, &json!({})).await;
        let refused = compact().await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (409, "nothing_to_compact")
        );
        chat.turn(&json!([
            {"tool": "bash", "input": {"command": "echo a red herring"}},
            {"text": "The door is blue."},
        ]))
        .await;

        // While a turn is at work there is nothing to be had.
        let gate = Gate::new();
        system.provider.push(Reply::new().text("One moment.").gate(&gate));
        chat.post("wait").await;
        let mut frames = chat.follow().await;
        soon("the gate", gate.reached()).await;
        let refused = compact().await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "session_busy"));
        gate.open();
        frames
            .until(|frame| frame["type"] == "agent.message" && frame["content"] == "One moment.")
            .await;
        frames.until(is_end).await;

        // A provider that refuses leaves everything as it was.
        system
            .provider
            .push(Reply::failure(400, "invalid_request_error", "no such thing"));
        let refused = compact().await;
        assert_eq!((refused.status, refused.code().as_str()), (502, "compact_failed"));
        assert!(refused.text().contains("no such thing"), "{}", refused.text());
        assert_eq!(count(&chat.events().await, "session.compaction"), 0);

        system
            .provider
            .push(Reply::new().text("They talked about a door, which is blue."));
        let served = system.provider.served();
        let compacted = compact().await.good();
        assert_eq!(
            compacted,
            json!({"session_id": chat.session, "session_status": "idle", "compacted": true})
        );
        assert_eq!(system.provider.served(), served + 1);
        let asked = system.provider.requests().pop().expect("one");
        let messages = asked.body["messages"].to_string();
        for part in ["a red herring", "The door is blue.", ASKS_FOR_SUMMARY] {
            assert!(messages.contains(part), "{part} in {messages}");
        }
        let events = chat.events().await;
        let summary = events
            .iter()
            .find(|event| event["type"] == "session.compaction")
            .expect("one");
        assert_eq!(summary["content"], "They talked about a door, which is blue.");
        assert!(is_end(events.last().expect("one")), "{events:?}");

        // What comes next builds on the summary, and on nothing else.
        chat.turn(&json!([{"text": "Still blue."}])).await;
        let asked = system.provider.requests().pop().expect("one").body["messages"].to_string();
        assert!(
            asked.contains("which is blue") && !asked.contains("herring"),
            "{asked}"
        );
    }
    system.stop().await;
}

#[tokio::test]
async fn a_kill_in_mid_summary_loses_neither_the_work_nor_the_request() {
    let mut system = start(WINDOW).await;
    for model in MODELS {
        // In the middle of a turn: first while the summary arrives, then right after it was committed.
        let gate = Gate::new();
        let seen = work(&system.provider, Some(gate.clone()));
        let chat = session(system.client(), model).await;
        chat.post(TASK).await;
        soon("the summary's beginning", gate.reached()).await;
        system = system.crash().await;
        let chat = chat.at(system.client());
        chat.follow()
            .await
            .until(|frame| frame["type"] == "session.compaction")
            .await;
        system = system.crash().await;
        let chat = chat.at(system.client());
        chat.follow().await.until(is_end).await;
        let events = check(&chat).await;
        assert_eq!(seen.refused.load(Ordering::Relaxed), 0);
        // One that was cut off, and one for each that is in the log.
        let summaries = seen.summaries.load(Ordering::Relaxed);
        assert_eq!(
            count(&events, "session.compaction") as u64 + 1,
            summaries,
            "{model}"
        );

        // On request: whoever asked does not hear of it any more, but it is carried out, once.
        let gate = Gate::new();
        let seen = work(&system.provider, Some(gate.clone()));
        let request = system.client().request(Method::POST, &chat.path("/compact"));
        let asked = tokio::spawn(Client::try_send(request));
        soon("the summary's beginning", gate.reached()).await;
        let before = chat.events().await;
        let last = before.last().expect("one")["event_id"].as_str();
        system = system.crash().await;
        assert!(
            soon("the end of the request", asked)
                .await
                .expect("no panic")
                .is_err()
        );
        let chat = chat.at(system.client());
        let frames = chat.client.try_follow(&chat.session, last, false).await;
        let events = frames.expect("a stream").until(is_end).await;
        assert_eq!(count(&events, "session.compaction"), 1, "{events:?}");
        assert_eq!(seen.summaries.load(Ordering::Relaxed), 2);
        assert_eq!(chat.read().await["status"], "idle");
        let compacted = system
            .client()
            .post(&chat.path("/compact"), &json!({}))
            .await
            .good();
        assert_eq!(compacted["compacted"], true);
    }
    system.stop().await;
}
