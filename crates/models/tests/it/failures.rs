//! What goes wrong, from every protocol.

use std::time::Duration;

use futures_util::StreamExt;
use oma_domain::event::FailureKind;
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
