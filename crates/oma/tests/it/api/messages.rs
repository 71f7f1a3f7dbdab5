//! Messages: idempotency over restarts, the queue, overrides, pictures, budgets.

use oma_fake_provider::{Gate, Protocol, Reply};
use reqwest::Method;
use serde_json::{Value, json};

use crate::system::client::is_end;
use crate::system::{System, soon};

const MODEL: &str = "anthropic/claude-sonnet-4-5";

#[tokio::test]
async fn a_repeated_request_takes_effect_once_also_after_a_crash() {
    let system = System::start().await;
    let keyed = |system: &System, path: &str, key: &str, body: &Value| {
        let request = system
            .client()
            .request(Method::POST, path)
            .header("idempotency-key", key)
            .json(body);
        let client = system.client().clone();
        async move { client.send(request).await }
    };
    let body = json!({"model": MODEL});
    let agent = keyed(&system, "/v1/agents", "a", &body).await.good();
    let open = json!({"agentId": agent["agent_id"]});
    let session = keyed(&system, "/v1/sessions", "s", &open).await.good();
    let path = format!(
        "/v1/sessions/{}/events",
        session["session_id"].as_str().expect("an id")
    );
    let message = json!({"content": "once"});
    let posted = keyed(&system, &path, "m", &message).await.good();
    let system = system.crash().await;
    assert_eq!(keyed(&system, "/v1/agents", "a", &body).await.good(), agent);
    let again = keyed(&system, "/v1/sessions", "s", &open).await.good();
    assert_eq!(again["session_id"], session["session_id"]);
    for _ in 0..3 {
        assert_eq!(
            keyed(&system, &path, "m", &message).await.good()["event_id"],
            posted["event_id"]
        );
    }
    // Another request under the same key is a mistake; the same key elsewhere is another key.
    for (path, key, body) in [
        ("/v1/agents", "a", json!({"model": "scripted/echo"})),
        ("/v1/sessions", "s", json!({"agentId": "agt_x"})),
        (&path, "m", json!({"content": "twice"})),
    ] {
        let answer = keyed(&system, path, key, &body).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (422, "idempotency_key_reused"),
            "{path}"
        );
    }
    assert_eq!(system.client().get("/v1/agents").await.good()["count"], 1);
    assert_eq!(system.client().get("/v1/sessions").await.good()["count"], 1);
    let id = session["session_id"].as_str().expect("an id");
    system.client().follow(id).await.until(is_end).await;
    let events = system.client().events(id).await;
    assert_eq!(
        events
            .iter()
            .filter(|event| event["type"] == "user.message")
            .count(),
        1
    );
    // At the same moment, too.
    let racing = (0..8).map(|_| keyed(&system, &path, "race", &message));
    let answers = futures_util::future::join_all(racing).await;
    let first = answers[0].good();
    assert!(
        answers
            .iter()
            .all(|answer| answer.good()["event_id"] == first["event_id"])
    );
    let session = system.client().get(&format!("/v1/sessions/{id}")).await.good();
    assert_eq!(session["turns"], 2, "{session}");
    system.stop().await;
}

#[tokio::test]
async fn waiting_messages_get_turns_of_their_own_in_order() {
    let system = System::start().await;
    let chat = system.client().session_of(MODEL).await;
    let gate = Gate::new();
    system.provider.push(Reply::new().text("first").gate(&gate));
    let posted = chat.post("one").await;
    assert_eq!(
        (&posted["session_status"], &posted["queued"]),
        (&json!("starting"), &json!(false))
    );
    soon("the gate", gate.reached()).await;
    for number in 0..5 {
        let posted = chat.post(&format!("waiting {number}")).await;
        assert_eq!(
            (&posted["session_status"], &posted["queued"]),
            (&json!("running"), &json!(true))
        );
    }
    assert_eq!(chat.read().await["turns"], 6);
    let said = |events: &[Value]| -> Vec<String> {
        let kinds = ["user.message", "agent.message"];
        let said = events
            .iter()
            .filter(|event| kinds.contains(&event["type"].as_str().expect("a type")));
        said.map(|event| event["content"].as_str().expect("text").to_owned())
            .collect()
    };
    assert_eq!(
        said(&chat.events().await),
        ["one"],
        "what waits is not in the log yet"
    );
    // Waiting messages outlive the server.
    let system = system.crash().await;
    let chat = chat.at(system.client());
    system.provider.push(Reply::new().text("first, again"));
    gate.open();
    let mut frames = chat.follow().await;
    frames.until(is_end).await;
    let mut expected = vec!["one".to_owned(), "first, again".to_owned()];
    for number in 0..5 {
        // The fake provider echoes.
        expected.extend([format!("waiting {number}"), format!("waiting {number}")]);
    }
    let mut found = said(&chat.events().await);
    // Whether the first request was made again before or after the second answer was put in place is a matter
    // of microseconds.
    if found.get(1).is_some_and(|answer| answer == "one") {
        "first, again".clone_into(&mut found[1]);
    }
    assert_eq!(found, expected);
    // The last reply may still be in the queue of the provider.
    drop(system.provider.take_violations());
    system.server.terminate().await;
}

#[tokio::test]
async fn too_many_waiting_messages_are_refused_and_a_cancel_drops_them() {
    let system = System::start().await;
    let chat = system.client().session_of(MODEL).await;
    let gate = Gate::new();
    system.provider.push(Reply::new().text("busy").gate(&gate));
    chat.post("one").await;
    soon("the gate", gate.reached()).await;
    let body = json!({"content": "wait"});
    let mut accepted = 0;
    let refused = loop {
        let answer = system.client().post(&chat.path("/events"), &body).await;
        if answer.status != 200 {
            break answer;
        }
        accepted += 1;
    };
    assert_eq!(
        (refused.status, refused.code().as_str(), accepted),
        (429, "queue_full", 256)
    );
    system
        .client()
        .post(&chat.path("/cancel"), &json!({}))
        .await
        .good();
    let events = chat.events().await;
    let interrupt = events
        .iter()
        .find(|event| event["type"] == "user.interrupt")
        .expect("one");
    assert_eq!(interrupt["content"], "256 waiting messages were dropped");
    assert_eq!(
        events
            .iter()
            .filter(|event| event["type"] == "user.message")
            .count(),
        1
    );
    gate.open();
    system.stop().await;
}

#[tokio::test]
async fn a_model_that_a_message_names_stays() {
    let system = System::start().await;
    let chat = system.client().session_of(MODEL).await;
    chat.turn(
        &json!([[{"thinking": "hm"}, {"tool": "bash", "input": {"command": "echo hi"}}], {"text": "one"}]),
    )
    .await;
    let post = |body: Value| {
        let (client, path) = (system.client().clone(), chat.path("/events"));
        async move { client.post(&path, &body).await }
    };
    post(json!({"content": "two", "model": "openai/gpt-5", "thinkingLevel": "high"}))
        .await
        .good();
    let mut frames = chat.follow().await;
    frames
        .until(|frame| frame["type"] == "session.model_change")
        .await;
    frames.until(is_end).await;
    chat.post("three").await;
    frames.until(is_end).await;
    let system = system.crash().await;
    let chat = chat.at(system.client());
    chat.post("four").await;
    let mut frames = chat.follow().await;
    frames
        .until(|frame| frame["type"] == "user.message" && frame["content"] == "four")
        .await;
    frames.until(is_end).await;
    let protocols: Vec<Protocol> = system
        .provider
        .requests()
        .iter()
        .map(|request| request.protocol)
        .collect();
    let expected = [
        Protocol::Anthropic,
        Protocol::Anthropic,
        Protocol::OpenaiChat,
        Protocol::OpenaiChat,
        Protocol::OpenaiChat,
    ];
    assert_eq!(protocols, expected);
    let last = system.provider.requests().pop().expect("one");
    assert_eq!(last.body["model"], "gpt-5");
    let events = chat.events().await;
    let count = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
    assert_eq!(
        (
            count("session.model_change"),
            count("session.thinking_level_change")
        ),
        (1, 1)
    );
    assert_eq!(events.last().expect("one")["type"], "session.status_idle");
    system.stop().await;
}

#[tokio::test]
async fn pictures_and_documents_reach_the_provider() {
    let system = System::start().await;
    let client = system.client();
    let png =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let content = json!([
        {"type": "text", "text": "What is this?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png}},
        {"type": "image", "source": {"type": "url", "url": "https://pictures.example/a.png"}},
        {"type": "document", "source": {"type": "text", "data": "a document's text"}, "title": "Notes"},
    ]);
    for model in [MODEL, "openai/gpt-5"] {
        let chat = client.session_of(model).await;
        client
            .post(&chat.path("/events"), &json!({"content": content}))
            .await
            .good();
        chat.follow().await.until(is_end).await;
        let sent = system.provider.requests().pop().expect("one").body.to_string();
        for part in [
            "What is this?",
            png,
            "https://pictures.example/a.png",
            "a document's text",
        ] {
            assert!(sent.contains(part), "{model}: {part} in {sent}");
        }
        let events = chat.events().await;
        let message = events
            .iter()
            .find(|event| event["type"] == "user.message")
            .expect("one");
        assert_eq!(
            message["content"],
            "What is this?\n[image: image/png]\n[image: https://pictures.example/a.png]\n[document: Notes]"
        );
        assert_eq!(chat.read().await["status"], "idle");
    }
    system.stop().await;
}

#[tokio::test]
async fn a_budget_holds_across_requests_and_restarts_until_it_is_raised() {
    let system = System::start().await;
    let agent = system
        .client()
        .agent(json!({"model": MODEL, "tools": ["glob"], "quota": {"maxTokensPerSession": 6_000}}))
        .await;
    let session = system.client().session(&agent).await;
    let path = format!("/v1/sessions/{session}/events");
    let end_of = async |system: &System, answer: &crate::system::client::Answer| {
        let posted = answer.good()["event_id"].clone();
        let mut frames = system.client().follow(&session).await;
        frames.until(|frame| frame["event_id"] == posted).await;
        frames.until(is_end).await.pop().expect("an end")
    };
    let script = json!([[{"text": "much"}, {"usage": {"input": 5_000, "output": 20}}]]);
    let long = json!({"content": format!("script:{script}")});
    let answer = system.client().post(&path, &long).await;
    end_of(&system, &answer).await;
    // The answer was limited to what was left.
    let limit = |system: &System| {
        let asked = system.provider.requests();
        asked.last().expect("a request").body["max_tokens"]
            .as_u64()
            .expect("a limit")
    };
    assert!((512..6_000).contains(&limit(&system)), "{}", limit(&system));
    // Another request with that history would not fit. The first message finds that out, the next are refused.
    let answer = system.client().post(&path, &json!({"content": "two"})).await;
    let end = end_of(&system, &answer).await;
    assert!(end["content"].to_string().contains("budget"), "{end}");
    assert_eq!(system.provider.requests().len(), 1);
    let answer = system.client().post(&path, &json!({"content": "three"})).await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "quota_exceeded"));
    let system = system.crash().await;
    let answer = system.client().post(&path, &json!({"content": "four"})).await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "quota_exceeded"));
    let read = system
        .client()
        .get(&format!("/v1/sessions/{session}"))
        .await
        .good();
    assert_eq!(read["tokens"], json!({"input": 5_000, "output": 20}));
    // Raised, it goes on with the next message.
    let request = system
        .client()
        .request(Method::PATCH, &format!("/v1/agents/{agent}"))
        .json(&json!({"version": 1, "quota": {"maxTokensPerSession": 60_000}}));
    system.client().send(request).await.good();
    let answer = system.client().post(&path, &json!({"content": "five"})).await;
    end_of(&system, &answer).await;
    assert!(limit(&system) < 60_000 - 5_020, "{}", limit(&system));
    system.stop().await;
}
