//! What goes wrong, from every protocol.

use std::time::Duration;

use futures_util::StreamExt;
use oma_domain::event::FailureKind;
use oma_domain::usage::{NanoUsd, Spent, Usage};
use oma_fake_provider::{Reply, Step};
use oma_models::{Chunk, Config, Registry};

use crate::harness::{Harness, KEY, MODELS, collect, request, say};

#[tokio::test]
async fn each_failure_has_its_kind_and_the_providers_words() {
    let harness = Harness::start().await;
    let cases = [
        (
            429,
            "rate_limit_error",
            "slow down",
            FailureKind::ModelRateLimited,
            true,
        ),
        (500, "api_error", "oops", FailureKind::ModelOverloaded, true),
        (503, "unavailable", "later", FailureKind::ModelOverloaded, true),
        (
            529,
            "overloaded_error",
            "Overloaded",
            FailureKind::ModelOverloaded,
            true,
        ),
        (
            401,
            "authentication_error",
            "invalid x-api-key",
            FailureKind::ModelAuthentication,
            false,
        ),
        (
            403,
            "permission_error",
            "not for you",
            FailureKind::ModelAuthentication,
            false,
        ),
        (402, "billing", "pay first", FailureKind::Billing, false),
        (
            400,
            "invalid_request_error",
            "Your credit balance is too low",
            FailureKind::Billing,
            false,
        ),
        (
            400,
            "invalid_request_error",
            "prompt is too long: 2 > 1",
            FailureKind::ContextOverflow,
            false,
        ),
        (
            400,
            "invalid_request_error",
            "messages.0 is wrong",
            FailureKind::ModelRequestFailed,
            false,
        ),
        (
            404,
            "not_found_error",
            "model: nope",
            FailureKind::ModelUnavailable,
            false,
        ),
    ];
    for model in MODELS {
        for (status, code, message, kind, retryable) in &cases {
            harness
                .provider
                .push(Reply::failure(*status, code, message).header("retry-after", "7"));
            let error = harness
                .ask(model, &request(vec![say("hi")]))
                .await
                .expect_err(model);
            assert_eq!(
                (
                    error.failure.kind,
                    error.retryable,
                    error.failure.message.as_str(),
                    error.status
                ),
                (*kind, *retryable, *message, Some(*status)),
                "{model}"
            );
            assert_eq!(error.retry_after, Some(Duration::from_secs(7)), "{model}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error() {
    let harness = Harness::start().await;
    let error = || Step::Error {
        kind: "overloaded_error".to_owned(),
        message: "Overloaded".to_owned(),
    };
    for model in MODELS {
        for (name, fault) in [
            ("cut", Step::Cut),
            ("early end", Step::EndEarly),
            ("malformed", Step::Malformed),
            ("error event", error()),
        ] {
            harness
                .provider
                .push(Reply::new().text("some text").step(fault).text("never"));
            let request = request(vec![say("hi")]);
            let mut stream = harness.model(model).stream(&request).await.expect(model);
            let mut text = String::new();
            let error = loop {
                match stream.next().await {
                    Some(Ok(Chunk::Text { text: piece, .. })) => text.push_str(&piece),
                    Some(Err(error)) => break error,
                    other => panic!("{model}, {name}: {other:?}"),
                }
            };
            assert_eq!(text, "some text", "{model}, {name}: what came before is shown");
            assert!(error.retryable, "{model}, {name}: {error}");
            assert!(
                stream.next().await.is_none(),
                "{model}, {name}: nothing follows an error"
            );
            if name == "error event" {
                assert_eq!(
                    (error.failure.kind, error.failure.message.as_str()),
                    (FailureKind::ModelOverloaded, "Overloaded"),
                    "{model}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_stall_is_noticed() {
    let harness = Harness::with_stall(Duration::from_millis(300)).await;
    for model in MODELS {
        harness.provider.push(Reply::new().text("some").step(Step::Stall));
        let error = harness
            .ask(model, &request(vec![say("hi")]))
            .await
            .expect_err(model);
        assert_eq!(error.failure.kind, FailureKind::ModelOverloaded, "{model}");
        assert!(
            error.retryable && error.failure.message.contains("stalled"),
            "{model}: {error}"
        );
    }
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_a_passing_error() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("an address");
    let config = Config::from_env(|name| (name == "OLLAMA_HOST").then(|| free.to_string())).expect("valid");
    let registry = Registry::from_config(config).expect("a registry");
    let error = collect(
        &*registry.resolve("ollama/x").expect("a model"),
        &request(vec![say("hi")]),
    )
    .await
    .expect_err("nobody listens");
    assert_eq!(*error.spent, Spent::Nothing);
    assert_eq!(
        (error.failure.kind, error.retryable),
        (FailureKind::ModelOverloaded, true)
    );
    assert!(
        error
            .failure
            .message
            .starts_with("can't reach the provider at 127.0.0.1"),
        "{error}"
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let harness = Harness::start().await;
    harness
        .provider
        .push(Reply::failure(307, "moved", "elsewhere").header("location", "http://127.0.0.1:1/v1/messages"));
    let error = harness
        .ask(MODELS[0], &request(vec![say("hi")]))
        .await
        .expect_err("refused");
    assert_eq!((error.status, error.retryable), (Some(307), false));
    assert_eq!(harness.provider.requests().len(), 1);
}

#[tokio::test]
async fn no_error_shows_the_key() {
    let harness = Harness::start().await;
    for model in MODELS {
        let quoted = format!("bad key {KEY}");
        harness
            .provider
            .push(Reply::failure(401, "authentication_error", &quoted));
        let error = harness
            .ask(model, &request(vec![say("hi")]))
            .await
            .expect_err(model);
        assert_eq!(error.failure.message, "bad key [redacted]", "{model}");
        harness
            .provider
            .push(Reply::new().error("authentication_error", &quoted));
        let error = harness
            .ask(model, &request(vec![say("hi")]))
            .await
            .expect_err(model);
        assert!(!format!("{error:?}").contains(KEY), "{model}: {error:?}");
    }
}

#[tokio::test]
async fn an_error_page_is_read_only_so_far() {
    let harness = Harness::start().await;
    harness
        .provider
        .push(Reply::failure(500, "api_error", &"x".repeat(500_000)));
    let error = harness
        .ask(MODELS[0], &request(vec![say("hi")]))
        .await
        .expect_err("fails");
    assert!(
        error.failure.message.len() < 3_000,
        "{}",
        error.failure.message.len()
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_has_cost_what_was_reported_at_least() {
    let harness = Harness::with_stall(Duration::from_millis(300)).await;
    for model in MODELS {
        for fault in [Step::Cut, Step::EndEarly, Step::Stall, Step::Malformed] {
            let reply = Reply::new().text("some text").step(fault.clone()).text("never");
            harness.provider.push(reply);
            let error = harness
                .ask(model, &request(vec![say("hi")]))
                .await
                .expect_err(model);
            let Spent::AtLeast { usage, cost, arrived } = *error.spent else {
                panic!("{model}, {fault:?}: {error:?}");
            };
            // Two letters are a token at the most; the answer comes in pieces.
            assert!((5..=9).contains(&arrived), "{model}, {fault:?}: {arrived}");
            let reported = match model.split_once('/') {
                // The first event has the whole input, and each of Gemini's events what there was until then.
                Some(("anthropic", _)) => (100, 1),
                Some(("gemini", _)) => (1, 0),
                _ => (0, 0),
            };
            assert_eq!((usage.input, usage.output), reported, "{model}, {fault:?}");
            assert_eq!(
                cost.is_some(),
                reported.0 > 0,
                "{model}: the price of what is known"
            );
        }
    }
}

#[tokio::test]
async fn a_request_that_is_refused_costs_nothing() {
    let harness = Harness::start().await;
    for model in MODELS {
        for (status, spent) in [
            (429, Spent::Nothing),
            (400, Spent::Nothing),
            (529, Spent::Nothing),
            // A gateway's word, while the provider behind it may be at work.
            (504, Spent::unknown()),
        ] {
            harness.provider.push(Reply::failure(status, "some_error", "no"));
            let error = harness
                .ask(model, &request(vec![say("hi")]))
                .await
                .expect_err(model);
            assert_eq!(*error.spent, spent, "{model}, {status}");
        }
    }
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":7}}}"#;
    for (frames, nothing) in [
        (vec![overloaded], true),
        (vec![start, overloaded], false),
        (vec!["not JSON"], false),
        (vec![], false),
    ] {
        harness.provider.push(Reply::raw(frames.iter().copied()));
        let error = harness
            .ask(MODELS[0], &request(vec![say("hi")]))
            .await
            .expect_err("an error");
        assert_eq!(*error.spent == Spent::Nothing, nothing, "{frames:?}: {error:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_whole_but_unusable_has_its_price() {
    let harness = Harness::start().await;
    let usage = Usage {
        input: 7,
        output: 30,
        ..Usage::default()
    };
    for (model, frames) in [
        (
            "anthropic/claude-opus-4-8",
            vec![
                r#"{"type":"message_start","message":{"usage":{"input_tokens":7,"output_tokens":1}}}"#,
                r#"{"type":"message_delta","delta":{"stop_reason":"model_context_window_exceeded"},"usage":{"output_tokens":30}}"#,
                r#"{"type":"message_stop"}"#,
            ],
        ),
        (
            "deepseek/deepseek-v4-pro",
            vec![
                r#"{"choices":[{"delta":{"content":"a"}}]}"#,
                r#"{"choices":[{"finish_reason":"insufficient_system_resource"}]}"#,
                r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":30}}"#,
                "[DONE]",
            ],
        ),
        (
            "responses/gpt-6-sol",
            vec![
                r#"{"type":"response.created"}"#,
                r#"{"type":"response.failed","response":{"error":{"code":"server_error","message":"oops"},"usage":{"input_tokens":7,"output_tokens":30}}}"#,
            ],
        ),
        (
            "gemini/gemini-3.6-flash",
            vec![
                r#"{"candidates":[{"finishReason":"MALFORMED_FUNCTION_CALL"}],"usageMetadata":{"promptTokenCount":7,"candidatesTokenCount":30}}"#,
            ],
        ),
    ] {
        harness.provider.push(Reply::raw(frames));
        let error = harness
            .ask(model, &request(vec![say("hi")]))
            .await
            .expect_err(model);
        let Spent::All { usage: spent, cost } = *error.spent else {
            panic!("{model}: {error:?}");
        };
        assert_eq!(spent, usage, "{model}");
        assert!(cost.is_some_and(|cost| cost.amount > NanoUsd(0)), "{model}");
    }
}
