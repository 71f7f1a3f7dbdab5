//! Chat completions: real tokens, clients that leave, sticky sessions that are busy.

use futures_util::StreamExt as _;
use oma_fake_provider::{Gate, Reply, Step};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::system::client::{Client, is_end};
use crate::system::stream::raw;
use crate::system::{System, soon};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

/// How a chat answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    Streamed,
}

fn ask(client: &Client, agent: &str, key: Option<&str>, form: Form) -> RequestBuilder {
    let body = json!({
        "model": "any",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": form == Form::Streamed,
        "stream_options": {"include_usage": true},
    });
    let request = client
        .request(Method::POST, "/v1/chat/completions")
        .header("x-openclaw-agent-id", agent)
        .json(&body);
    match key {
        Some(key) => request.header("x-openclaw-session-key", key),
        None => request,
    }
}

/// The chunks of a streamed answer until those seen are what is wanted, or up to the end mark.
async fn until(
    chunks: &mut (impl futures_util::Stream<Item = Result<sse_stream::Sse, String>> + Unpin),
    wanted: impl Fn(&[Value]) -> bool,
) -> Vec<Value> {
    let mut seen = Vec::new();
    while !wanted(&seen) {
        let chunk = soon("a piece of an answer", chunks.next())
            .await
            .expect("it goes on")
            .expect("readable");
        let data = chunk.data.expect("every chunk has data");
        if data == "[DONE]" {
            return seen;
        }
        seen.push(serde_json::from_str(&data).expect("JSON"));
    }
    seen
}

/// The text that chunks join into.
fn content(chunks: &[Value]) -> String {
    chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect()
}

#[tokio::test]
async fn tokens_come_as_the_model_says_them() {
    let system = System::start().await;
    let agent = system.client().agent(json!({"model": MODEL})).await;
    let gate = Gate::new();
    system.provider.push(
        Reply::new()
            .text("Before the gate")
            .gate(&gate)
            .text(" and after."),
    );
    let response = soon(
        "an answer",
        ask(system.client(), &agent, None, Form::Streamed).send(),
    )
    .await
    .expect("an answer");
    let mut stream = raw(response);
    let mut chunks = until(&mut stream, |seen| content(seen) == "Before the gate").await;
    gate.open();
    chunks.extend(until(&mut stream, |_| false).await);
    // Two blocks of one answer are two paragraphs.
    assert_eq!(
        content(&chunks).split_whitespace().collect::<Vec<_>>().join(" "),
        "Before the gate and after.",
        "{chunks:?}"
    );
    let reasons: Vec<&str> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["finish_reason"].as_str())
        .collect();
    assert_eq!(reasons, ["stop"], "{chunks:?}");
    let usage = &chunks.last().expect("one")["usage"];
    assert_eq!(
        (
            &usage["prompt_tokens"],
            &usage["completion_tokens"],
            &usage["total_tokens"]
        ),
        (&json!(100), &json!(20), &json!(120)),
        "{chunks:?}"
    );
    assert!(
        soon("the end", stream.next()).await.is_none(),
        "nothing follows the end mark"
    );
    system.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_stops_its_turn_and_a_busy_session_says_so() {
    let system = System::start().await;
    let client = system.client();
    let agent = client.agent(json!({"model": MODEL})).await;
    for form in [Form::Streamed, Form::Whole] {
        let key = format!("sticky-{form:?}");
        system
            .provider
            .push(Reply::new().text("a beginning").step(Step::Stall));
        let served = system.provider.served();
        let request = tokio::spawn(ask(client, &agent, Some(&key), form).send());
        soon("the model request", system.provider.wait_for_requests(served + 1)).await;
        let mut frames = client.follow(&key).await;
        let busy = client.send(ask(client, &agent, Some(&key), Form::Whole)).await;
        assert_eq!(busy.status, 409, "{}", busy.text());
        assert!(busy.json()["error"]["message"].is_string());
        // The connection breaks when the answer, or the wait for it, is dropped.
        match form {
            Form::Streamed => drop(
                soon("a head", request)
                    .await
                    .expect("no panic")
                    .expect("an answer"),
            ),
            Form::Whole => request.abort(),
        }
        let events = frames.until(is_end).await;
        assert_eq!(
            events.last().expect("one")["stop_reason"],
            "interrupted",
            "{events:?}"
        );
        let next = client
            .send(ask(client, &agent, Some(&key), Form::Whole))
            .await
            .good();
        assert_eq!(next["choices"][0]["message"]["content"], "hello");
    }
    system.stop().await;
}

#[tokio::test]
async fn a_failing_provider_is_an_error_in_both_forms() {
    let system = System::start().await;
    let client = system.client();
    let agent = client.agent(json!({"model": MODEL})).await;
    for form in [Form::Whole, Form::Streamed] {
        system
            .provider
            .push(Reply::failure(400, "invalid_request_error", "no such thing"));
        let answer = client.send(ask(client, &agent, None, form)).await;
        assert!(
            answer.status >= 500 && answer.text().contains("no such thing"),
            "{form:?}: {} {}",
            answer.status,
            answer.text()
        );
    }
    // Nothing is wrong with the next one.
    assert_eq!(
        client.send(ask(client, &agent, None, Form::Whole)).await.status,
        200
    );
    system.stop().await;
}
