//! Model providers that misbehave: the turn ends properly, says why, and other sessions don't notice.

use std::time::{Duration, Instant};

use oma_fake_provider::{FakeProvider, Reply, Step};
use serde_json::{Value, json};

use crate::system::client::{Chat, is_end, said};
use crate::system::{Data, MODEL_KEY, Options, Server, System};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

/// The `agent.error`s of a turn: their kinds, and whether they were tried again.
fn errors(events: &[Value]) -> Vec<(&str, bool)> {
    let errors = events.iter().filter(|event| event["type"] == "agent.error");
    errors
        .map(|event| {
            let kind = event["error_type"].as_str().expect("a kind");
            (kind, event["retrying"].as_bool().expect("a truth value"))
        })
        .collect()
}

/// That another session works as if nothing were wrong.
async fn works(chat: &Chat) {
    let events = chat.turn(&json!([{"text": "unharmed"}])).await;
    assert_eq!(said(&events), "unharmed", "{events:?}");
}

#[tokio::test]
async fn passing_failures_are_tried_again() {
    let system = System::start().await;
    let chat = system.client().session_of(MODEL).await;
    let cases = [
        (
            Reply::failure(500, "api_error", "fell over"),
            "model_overloaded_error",
        ),
        (
            Reply::failure(529, "overloaded_error", "too busy"),
            "model_overloaded_error",
        ),
        (
            Reply::failure(429, "rate_limit_error", "slow down").header("retry-after", "1"),
            "model_rate_limited_error",
        ),
        (
            Reply::new().text("half an ans").step(Step::Cut),
            "model_overloaded_error",
        ),
        (
            Reply::new().text("half an ans").step(Step::EndEarly),
            "model_overloaded_error",
        ),
        (
            Reply::new()
                .text("half an ans")
                .error("overloaded_error", "mid-stream"),
            "model_overloaded_error",
        ),
    ];
    for (reply, kind) in cases {
        let shown = format!("{reply:?}");
        let begun = Instant::now();
        system.provider.push(reply);
        let events = chat.turn(&json!([{"text": "whole"}])).await;
        assert_eq!(errors(&events), [(kind, true)], "{shown}: {events:?}");
        assert_eq!(
            said(&events),
            "whole",
            "nothing of the half answer stays: {events:?}"
        );
        assert_eq!(events.last().expect("one")["stop_reason"], "end_turn");
        if shown.contains("retry-after") {
            assert!(
                begun.elapsed() >= Duration::from_secs(1),
                "the provider's own figure is kept to"
            );
        }
    }
    system.stop().await;
}

#[tokio::test]
async fn lasting_failures_end_the_turn_with_the_providers_own_words() {
    let system = System::start().await;
    let chat = system.client().session_of(MODEL).await;
    for (status, kind, message, error) in [
        (
            400,
            "invalid_request_error",
            "no such parameter",
            "model_request_failed_error",
        ),
        (
            401,
            "authentication_error",
            "invalid x-api-key",
            "model_authentication_error",
        ),
        (
            403,
            "permission_error",
            "not for you",
            "model_authentication_error",
        ),
        (404, "not_found_error", "no such model", "model_unavailable_error"),
        (402, "billing_error", "out of credit", "billing_error"),
    ] {
        system.provider.push(Reply::failure(status, kind, message));
        let events = chat.turn(&json!([{"text": "unreachable"}])).await;
        assert_eq!(errors(&events), [(error, false)], "{status}: {events:?}");
        let last = events.last().expect("one");
        assert_eq!(
            (&last["type"], &last["stop_reason"]),
            (&json!("session.status_failed"), &json!("failed"))
        );
        assert!(
            last["content"].as_str().expect("text").contains(message),
            "{last}"
        );
        let session = chat.read().await;
        assert_eq!(session["status"], "failed");
        assert!(
            session["error"].as_str().expect("text").contains(message),
            "{session}"
        );
        assert!(!format!("{events:?}{session}").contains(MODEL_KEY));
        // The next message starts afresh.
        works(&chat).await;
        assert_eq!(chat.read().await["status"], "idle");
        assert_eq!(chat.read().await["error"], Value::Null);
    }
    let data = system.stop().await;
    assert!(!data.log().contains(MODEL_KEY));
}

#[tokio::test]
async fn a_provider_that_is_not_there_or_not_configured_is_named() {
    let system = System::start_with(|options| {
        // A port that nobody listens on any more.
        options
            .set("MISTRAL_API_KEY", "unused")
            .set("MISTRAL_BASE_URL", "http://127.0.0.1:9")
    })
    .await;
    // An agent may be made before its provider's key is set; its first turn says what to set.
    let chat = system.client().session_of("gemini/gemini-3-pro").await;
    chat.post("go").await;
    let events = chat.follow().await.until(is_end).await;
    assert_eq!(
        errors(&events),
        [("model_unavailable_error", false)],
        "{events:?}"
    );
    let said = events.last().expect("one")["content"].as_str().expect("text");
    assert!(said.contains("GEMINI_API_KEY"), "{events:?}");
    // A provider that nobody knows is refused at once, with those that there are.
    let refused = system
        .client()
        .post("/v1/agents", &json!({"model": "mistrall/large"}))
        .await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_model"));
    let said = refused.json()["details"]["model"]["_errors"][0].to_string();
    for part in ["mistrall", "anthropic", "openai", "scripted"] {
        assert!(said.contains(part), "{said}");
    }
    // One that can't be reached is tried again for a while; a cancel does not wait for that.
    let chat = system.client().session_of("mistral/mistral-large-2512").await;
    chat.post("go").await;
    let mut frames = chat.follow().await;
    let events = frames.until(|frame| frame["type"] == "agent.error").await;
    assert_eq!(errors(&events), [("model_overloaded_error", true)], "{events:?}");
    let begun = Instant::now();
    system
        .client()
        .post(&chat.path("/cancel"), &json!({}))
        .await
        .good();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    system.stop().await;
}

#[tokio::test]
async fn a_stalled_provider_stops_only_its_own_session() {
    let system = System::start_with(|options| options.set("OPENCLAW_MODEL_STALL_TIMEOUT_MS", "1000")).await;
    let client = system.client();
    let stalled = client.session_of(MODEL).await;
    let other = client.session_of(MODEL).await;
    let script = json!([[{"text": "and then"}, {"fault": "stall"}]]);
    stalled.play(&script).await;
    let mut frames = stalled.follow().await;
    frames.until(|frame| frame["type"] == "user.message").await;
    works(&other).await;
    // It is noticed, tried again, and given up in the end; meanwhile others go on.
    let first = frames.until(|frame| frame["type"] == "agent.error").await;
    assert!(errors(&first)[0].1, "{first:?}");
    works(&other).await;
    let rest = frames.until(is_end).await;
    assert_eq!(
        rest.last().expect("one")["type"],
        "session.status_failed",
        "{rest:?}"
    );
    assert!(
        errors(&rest).len() >= 2 && !errors(&rest).last().expect("one").1,
        "{rest:?}"
    );
    let log = stalled.events().await;
    assert!(
        !log.iter().any(|event| event["type"] == "agent.message"),
        "{log:?}"
    );
    works(&stalled).await;
    system.stop().await;
}

#[tokio::test]
async fn a_scripted_turn_that_failed_is_behind_the_next_message() {
    let system = System::start().await;
    let client = system.client();
    let script = json!([
        [[{"error": {"kind": "request_failed", "message": "as told"}}]],
        [{"text": "the second turn"}],
    ]);
    let agent = client
        .agent(json!({"model": "scripted/script", "instructions": script.to_string()}))
        .await;
    let session = client.session(&agent).await;
    let path = format!("/v1/sessions/{session}/events");
    let mut frames = client.follow(&session).await;
    client.post(&path, &json!({"content": "one"})).await.good();
    let failed = frames.until(is_end).await;
    assert_eq!(errors(&failed), [("model_request_failed_error", false)]);
    client.post(&path, &json!({"content": "two"})).await.good();
    assert_eq!(said(&frames.until(is_end).await), "the second turn");
    system.stop().await;
}

/// Each well-known provider needs nothing but its usual variables: its key, and here the fake provider's address.
#[tokio::test]
async fn every_well_known_provider_works_by_its_variables() {
    let provider = FakeProvider::start().await.expect("a free port");
    let (plain, chat) = (provider.url(), provider.openai_url());
    let gemini = format!("{plain}/v1beta");
    let known = [
        ("anthropic", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", &plain),
        ("openai", "OPENAI_API_KEY", "OPENAI_BASE_URL", &chat),
        ("gemini", "GEMINI_API_KEY", "GEMINI_BASE_URL", &gemini),
        (
            "bedrock",
            "AWS_BEARER_TOKEN_BEDROCK",
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
            &plain,
        ),
        ("moonshot", "MOONSHOT_API_KEY", "MOONSHOT_BASE_URL", &chat),
        ("deepseek", "DEEPSEEK_API_KEY", "DEEPSEEK_BASE_URL", &chat),
        ("mistral", "MISTRAL_API_KEY", "MISTRAL_BASE_URL", &chat),
        ("xai", "XAI_API_KEY", "XAI_BASE_URL", &chat),
        ("groq", "GROQ_API_KEY", "GROQ_BASE_URL", &chat),
        ("together", "TOGETHER_API_KEY", "TOGETHER_BASE_URL", &chat),
        ("fireworks", "FIREWORKS_API_KEY", "FIREWORKS_BASE_URL", &chat),
        ("cerebras", "CEREBRAS_API_KEY", "CEREBRAS_BASE_URL", &chat),
        ("openrouter", "OPENROUTER_API_KEY", "OPENROUTER_BASE_URL", &chat),
        ("zenmux", "ZENMUX_API_KEY", "ZENMUX_BASE_URL", &chat),
        ("qwen", "DASHSCOPE_API_KEY", "DASHSCOPE_BASE_URL", &chat),
        ("ollama", "OLLAMA_API_KEY", "OLLAMA_BASE_URL", &chat),
        ("vllm", "VLLM_API_KEY", "VLLM_BASE_URL", &chat),
        ("lmstudio", "LMSTUDIO_API_KEY", "LMSTUDIO_BASE_URL", &chat),
    ];
    let mut options = Options::default().set("AWS_REGION", "eu-west-1");
    for (name, key, address, url) in known {
        options = options.set(key, &format!("{MODEL_KEY}-{name}")).set(address, url);
    }
    let data = Data::new();
    let server = Server::start(&data, &options).await;
    for (name, ..) in known {
        let chat = server.client.session_of(&format!("{name}/some-model")).await;
        let events = chat.turn(&json!([{"text": name}])).await;
        assert_eq!(said(&events), name, "{events:?}");
        let asked = provider.requests();
        let request = asked.last().expect("a request");
        // Each gets its own key and nobody else's.
        let keys = request
            .headers
            .iter()
            .filter(|(_, value)| value.contains(MODEL_KEY));
        let keys: Vec<&str> = keys
            .map(|(_, value)| value.trim_start_matches("Bearer "))
            .collect();
        assert_eq!(keys, [format!("{MODEL_KEY}-{name}")], "{name}");
        let model = request.body["model"].as_str().unwrap_or(&request.path);
        assert!(model.contains("some-model"), "{name}: {model}");
    }
    server.terminate().await;
    provider.assert_clean();
}
