//! Chat completions.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::server::{Answer, Server, is_rest, request};

fn chat(agent: &str, key: Option<&str>, body: &Value) -> Request<Body> {
    let mut request = request("POST", "/v1/chat/completions").header("x-openclaw-agent-id", agent);
    if let Some(key) = key {
        request = request.header("x-openclaw-session-key", key);
    }
    request.body(Body::from(body.to_string())).unwrap()
}

fn says(text: &str) -> Value {
    json!({"model": "ignored", "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": text}]})
}

fn kind(answer: &Answer) -> (u16, String) {
    (
        answer.status.as_u16(),
        answer.json()["error"]["type"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    )
}

/// The data of each frame of a stream.
fn data(answer: &Answer) -> Vec<Value> {
    answer
        .text()
        .split("\n\n")
        .filter_map(|frame| frame.lines().find_map(|line| line.strip_prefix("data: ")))
        .map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data)))
        .collect()
}

#[tokio::test]
async fn a_whole_answer() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    for (content, output) in [
        (json!("hello"), "re: hello"),
        (
            json!([{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]),
            "re: look",
        ),
        (json!("a tool, please"), "re: a tool, please"),
    ] {
        let body = json!({"messages": [{"role": "user", "content": "old"}, {"role": "assistant", "content": null},
            {"role": "user", "content": content}, {"role": "user", "content": ""}], "temperature": 1, "user": null});
        let answer = server.send(chat(&agent, None, &body)).await;
        let reply = answer.json();
        assert_eq!(answer.status, 200, "{reply}");
        assert_eq!(
            reply["choices"],
            json!([{"index": 0, "message": {"role": "assistant", "content": output}, "finish_reason": "stop"}])
        );
        assert_eq!(
            (&reply["object"], &reply["model"]),
            (&json!("chat.completion"), &json!("test/puppet"))
        );
        let session = answer.headers["x-openclaw-session-id"].to_str().unwrap();
        let event = server
            .events(session, "")
            .await
            .into_iter()
            .rfind(|event| event["type"] == "agent.message")
            .unwrap();
        assert_eq!(
            reply["id"],
            json!(format!("chatcmpl-{}", event["event_id"].as_str().unwrap()))
        );
    }
    let long = server.send(chat(&agent, None, &says("long"))).await.json();
    assert_eq!(long["choices"][0]["finish_reason"], "length");
    assert_eq!(
        long["usage"],
        json!({"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17, "prompt_tokens_details": {"cached_tokens": 2}})
    );
}

#[tokio::test]
async fn a_streamed_answer() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    let mut body = says("hello");
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let answer = server.send(chat(&agent, Some("s1"), &body)).await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    let chunks = data(&answer);
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, "re: hello");
    assert!(
        chunks
            .iter()
            .filter(|chunk| chunk["choices"][0]["delta"]["content"].is_string())
            .count()
            > 2,
        "{chunks:?}"
    );
    let [.., finish, usage, done] = &chunks[..] else {
        panic!("{chunks:?}")
    };
    assert_eq!(
        (&finish["choices"][0]["finish_reason"], done),
        (&json!("stop"), &json!("[DONE]"))
    );
    assert_eq!(
        (&usage["choices"], &usage["usage"]["total_tokens"]),
        (&json!([]), &json!(17))
    );
    assert!(
        chunks[..chunks.len() - 1]
            .iter()
            .all(|chunk| chunk["id"] == chunks[0]["id"])
    );
}

#[tokio::test]
async fn keys_keep_sessions() {
    let server = Server::start().await;
    let (agent, other) = (server.agent(json!({})).await, server.agent(json!({})).await);
    for body in [
        says("one"),
        json!({"messages": says("two")["messages"], "user": "k-1"}),
    ] {
        let key = body["user"].is_null().then_some("k-1");
        assert_eq!(
            server.send(chat(&agent, key, &body)).await.headers["x-openclaw-session-id"],
            "k-1"
        );
    }
    let session = server.get("/v1/sessions/k-1").await.json();
    assert_eq!(
        (&session["turns"], &session["output"]),
        (&json!(2), &json!("re: two"))
    );
    assert_eq!(
        kind(&server.send(chat(&other, Some("k-1"), &says("x"))).await),
        (409, "invalid_request_error".into())
    );
    for key in ["a b", "../x", &"k".repeat(129), "ü"] {
        assert_eq!(
            kind(&server.send(chat(&agent, Some(key), &says("x"))).await),
            (400, "invalid_request_error".into()),
            "{key}"
        );
    }
    // Two first requests at once are one session, and the later one is refused, not queued.
    let (one, two) = tokio::join!(
        server.send(chat(&agent, Some("k-2"), &says("x"))),
        server.send(chat(&agent, Some("k-2"), &says("y")))
    );
    let outcomes = [one.status.as_u16(), two.status.as_u16()];
    assert!(
        outcomes.contains(&200) && outcomes.iter().all(|status| [200, 409].contains(status)),
        "{outcomes:?}"
    );
}

#[tokio::test]
async fn refusals_have_openais_shape() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    let archived = server.agent(json!({})).await;
    server
        .post(&format!("/v1/agents/{archived}/archive"), &json!({}))
        .await;
    let session = server.session(&agent).await;
    server.say(&session, "hang").await;
    for (agent, key, body, code) in [
        ("", None, says("x"), (400, "invalid_request_error")),
        ("agt_none", None, json!({}), (404, "invalid_request_error")),
        (&agent, None, json!({}), (400, "invalid_request_error")),
        (
            &agent,
            None,
            json!({"messages": []}),
            (400, "invalid_request_error"),
        ),
        (
            &agent,
            None,
            json!({"messages": [{"role": ""}]}),
            (400, "invalid_request_error"),
        ),
        (
            &agent,
            None,
            json!({"messages": [{"role": "assistant", "content": "x"}]}),
            (400, "invalid_request_error"),
        ),
        (
            &agent,
            None,
            json!({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}),
            (400, "invalid_request_error"),
        ),
        (
            &agent,
            None,
            json!({"messages": says("x")["messages"], "stream": "yes"}),
            (400, "invalid_request_error"),
        ),
        (&archived, None, says("x"), (409, "invalid_request_error")),
        (&agent, Some(&*session), says("x"), (409, "session_busy")),
        (&agent, None, says("fail"), (500, "run_failed")),
    ] {
        let answer = server.send(chat(agent, key, &body)).await;
        assert_eq!(kind(&answer), (code.0, code.1.to_owned()), "{body}");
        assert_eq!(answer.json()["error"]["param"], Value::Null);
        // Only what has had its turn must not be repeated.
        assert_eq!(
            answer.headers.contains_key("x-should-retry"),
            code.1 == "run_failed",
            "{body}"
        );
    }
    let failed = server.send(chat(&agent, None, &says("fail"))).await.json();
    assert_eq!(failed["error"]["message"], "the provider says no");
    // A stream that fails before it says anything is an answer like any other.
    let mut body = says("fail");
    body["stream"] = json!(true);
    assert_eq!(
        kind(&server.send(chat(&agent, None, &body)).await),
        (500, "run_failed".into())
    );
    let quota = server.agent(json!({"quota": {"maxTokensPerSession": 1}})).await;
    assert_eq!(server.send(chat(&quota, Some("q"), &says("x"))).await.status, 200);
    assert_eq!(
        kind(&server.send(chat(&quota, Some("q"), &says("x"))).await),
        (429, "quota_exceeded".into())
    );
}

#[tokio::test]
async fn a_client_that_leaves_stops_its_turn() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    let mut body = says("hang");
    body["stream"] = json!(true);
    let response = server.open(chat(&agent, Some("left"), &body)).await;
    let mut chunks = response.into_body().into_data_stream();
    chunks.next().await.unwrap().unwrap();
    drop(chunks);
    let frames = server.until("left", "", is_rest).await;
    assert_eq!(frames.last().unwrap().data["stop_reason"], "interrupted");
    // Also while it waits for a whole answer.
    let waiting = tokio::spawn({
        let router = server.router.clone();
        let request = chat(&agent, Some("left-2"), &says("hang"));
        async move {
            tower::ServiceExt::oneshot(router, request)
                .await
                .map(|response| response.status())
        }
    });
    let begun = |frame: &crate::server::Frame| frame.event == "session.status_running";
    loop {
        // A stream of a session at rest does not stay open for long.
        let answer = server.get("/v1/sessions/left-2").await;
        if answer.status == 200 && answer.json()["status"] == "running" {
            break;
        }
        tokio::task::yield_now().await;
    }
    server.until("left-2", "", begun).await;
    waiting.abort();
    server.until("left-2", "", is_rest).await;
}

#[tokio::test]
async fn a_turn_that_takes_too_long_is_stopped() {
    let server = Server::with(|config| config.chat_timeout = Duration::from_millis(50)).await;
    let agent = server.agent(json!({})).await;
    assert_eq!(
        kind(&server.send(chat(&agent, Some("slow"), &says("hang"))).await),
        (504, "timeout".into())
    );
    assert_eq!(
        server.get("/v1/sessions/slow").await.json()["stop_reason"],
        "interrupted"
    );
    let mut body = says("hang");
    body["stream"] = json!(true);
    let answer = server.send(chat(&agent, Some("slow"), &body)).await;
    assert!(answer.text().contains("event: error\n"), "{}", answer.text());
    assert_eq!(data(&answer).last().unwrap()["error"]["type"], "stream_error");
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_answer() {
    let server = Server::start().await;
    let agent = server.agent(json!({})).await;
    let ask = |key: &str, text: &str, stream: bool| {
        let mut body = says(text);
        body["stream"] = json!(stream);
        let (mut parts, body) = chat(&agent, None, &body).into_parts();
        parts.headers.insert("idempotency-key", key.parse().unwrap());
        server.send(Request::from_parts(parts, body))
    };
    let first = ask("c1", "hello", false).await;
    let again = ask("c1", "hello", false).await;
    assert_eq!(first.json()["id"], again.json()["id"]);
    assert_eq!(
        first.headers["x-openclaw-session-id"],
        again.headers["x-openclaw-session-id"]
    );
    assert_eq!(kind(&ask("c1", "other", false).await).0, 422);
    let streamed = ask("c2", "hello", true).await;
    let again = ask("c2", "hello", true).await;
    for answer in [streamed, again] {
        let text: String = data(&answer)
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
            .collect::<String>();
        assert_eq!(text, "re: hello");
    }
}
