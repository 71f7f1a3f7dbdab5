//! The fake provider refuses what real ones refuse, and does as its script says.

#![expect(clippy::expect_used, reason = "a failure is to end the test")]

use oma_fake_provider::{FakeProvider, Gate, Reply, Step};
use serde_json::{Value, json};

async fn post(
    provider: &FakeProvider,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> reqwest::Response {
    let mut request = reqwest::Client::new()
        .post(format!("{}{path}", provider.url()))
        .json(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("an answer")
}

type Headers = &'static [(&'static str, &'static str)];

const ANTHROPIC: Headers = &[("x-api-key", "k"), ("anthropic-version", "2023-06-01")];

async fn anthropic(provider: &FakeProvider, messages: Value) -> String {
    let body = json!({"model": "m", "max_tokens": 10, "stream": true, "messages": messages});
    post(provider, "/v1/messages", ANTHROPIC, &body)
        .await
        .text()
        .await
        .expect("a text")
}

/// The text of a Messages stream.
fn text_of(stream: &str) -> String {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = data.map(|data| serde_json::from_str::<Value>(data).expect("json"));
    events
        .filter_map(|event| event["delta"]["text"].as_str().map(str::to_owned))
        .collect()
}

#[tokio::test]
async fn bad_requests_are_recorded() {
    let provider = FakeProvider::start().await.expect("a port");
    let good =
        |messages: Value| json!({"model": "m", "max_tokens": 10, "stream": true, "messages": messages});
    let user = json!({"role": "user", "content": "hi"});
    let thought = |signature: &str| json!({"type": "thinking", "thinking": "hm", "signature": signature});
    let tool = json!({"type": "tool_use", "id": "a", "name": "bash", "input": {}});
    let result = json!({"type": "tool_result", "tool_use_id": "a", "content": []});
    let marked = |text: &str| json!({"type": "text", "text": text, "cache_control": {"type": "ephemeral"}});
    let key: Headers = &[("authorization", "Bearer k")];
    let cases: Vec<(&str, Headers, Value, &str)> = vec![
        ("/v1/messages", &[], good(json!([user])), "no x-api-key"),
        (
            "/v1/messages",
            &[("x-api-key", "k")],
            good(json!([user])),
            "no anthropic-version",
        ),
        (
            "/v1/messages",
            ANTHROPIC,
            json!({"model": "m", "messages": [user]}),
            "stream is not true",
        ),
        (
            "/v1/messages",
            ANTHROPIC,
            good(json!([user, user])),
            "roles do not alternate",
        ),
        (
            "/v1/messages",
            ANTHROPIC,
            good(json!([{"role": "assistant", "content": "x"}, user])),
            "first message is not the user's",
        ),
        (
            "/v1/messages",
            ANTHROPIC,
            good(json!([{"role": "user", "content": [{"type": "text", "text": " "}]}])),
            "empty text",
        ),
        (
            "/v1/messages",
            ANTHROPIC,
            good(json!([user, {"role": "assistant", "content": [tool]}, user])),
            "has results []",
        ),
        (
            "/v1/messages",
            ANTHROPIC,
            good(json!([user, {"role": "assistant", "content": [tool]}])),
            "have no results",
        ),
        (
            "/v1/messages",
            ANTHROPIC,
            good(
                json!([user, {"role": "assistant", "content": [tool]}, {"role": "user", "content": [result, result]}]),
            ),
            "has results [\"a\", \"a\"]",
        ),
        (
            "/v1/messages",
            ANTHROPIC,
            good(
                json!([user, {"role": "assistant", "content": [thought("forged"), tool]}, {"role": "user", "content": [result]}]),
            ),
            "is not that of the thought",
        ),
        (
            "/v1/messages",
            ANTHROPIC,
            good(json!([user, {"role": "assistant", "content": [
                {"type": "tool_use", "id": "toolu_0_1_deadbeef", "name": "bash", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_0_1_deadbeef", "content": []}]}])),
            "does not begin with the thoughts",
        ),
        (
            "/v1/messages",
            ANTHROPIC,
            good(
                json!([{"role": "user", "content": [marked("a"), marked("b"), marked("c"), marked("d"), marked("e")]}]),
            ),
            "more than four cache marks",
        ),
        (
            "/v1/messages",
            ANTHROPIC,
            json!({"model": "m", "max_tokens": 10, "stream": true, "messages": [user],
                   "tools": [{"name": "bash", "input_schema": {"type": "string"}}]}),
            "no object schema",
        ),
        (
            "/v1/messages",
            ANTHROPIC,
            json!({"model": "m", "max_tokens": 1024, "stream": true, "messages": [user],
                   "thinking": {"type": "enabled", "budget_tokens": 2048}}),
            "budget_tokens is out of bounds",
        ),
        (
            "/v1/chat/completions",
            key,
            json!({"model": "kimi-k3", "stream": true, "messages": [user,
                {"role": "assistant", "content": null, "tool_calls": [{"id": "a", "type": "function", "function": {"name": "bash", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "a", "content": "x"}]}),
            "reasoning_content is missing",
        ),
        (
            "/v1/chat/completions",
            key,
            json!({"model": "m", "stream": true, "messages": [user, {"role": "tool", "tool_call_id": "a", "content": "x"}]}),
            "has results [\"a\"]",
        ),
        (
            "/v1/responses",
            key,
            json!({"model": "m", "stream": true, "input": [user]}),
            "store is not false",
        ),
        (
            "/v1beta/models/gemini-3-pro:streamGenerateContent",
            &[("x-goog-api-key", "k")],
            json!({"contents": [{"role": "user", "parts": [{"text": "x"}]}]}),
            "not asked for as events",
        ),
        (
            "/v1beta/models/gemini-3-pro:streamGenerateContent?alt=sse",
            &[("x-goog-api-key", "k")],
            json!({"contents": [
                {"role": "user", "parts": [{"text": "x"}]},
                {"role": "model", "parts": [{"functionCall": {"name": "bash", "args": {}}}]},
                {"role": "user", "parts": [{"functionResponse": {"name": "bash", "response": {"output": ""}}}]}]}),
            "no thought signature",
        ),
        (
            "/model/m/converse-stream",
            &[],
            json!({"messages": [{"role": "user", "content": [{"text": "x"}]}]}),
            "not signed and has no key",
        ),
        ("/v2/elsewhere", &[], json!({}), "no provider has this path"),
    ];
    for (path, headers, body, expected) in cases {
        post(&provider, path, headers, &body).await;
        let violations = provider.take_violations();
        assert!(
            violations.iter().any(|it| it.contains(expected)),
            "{path} {body}: {violations:#?}"
        );
    }
    anthropic(&provider, json!([user])).await;
    provider.assert_clean();
}

#[tokio::test]
async fn the_conversation_drives() {
    let provider = FakeProvider::start().await.expect("a port");
    let script = r#"script:[[{"thinking":"hm"},{"tool":"bash","input":{"command":"ls"}}],
        [{"status":529,"times":2},{"text":"It said {{last_tool_result}}."}]]"#;
    let mut messages = vec![json!({"role": "user", "content": [{"type": "text", "text": script}]})];
    let first = anthropic(&provider, json!(messages)).await;
    assert_eq!(
        first,
        anthropic(&provider, json!(messages)).await,
        "the same request gets the same answer"
    );
    let find = |key: &str| {
        let data = first.lines().filter_map(|line| line.strip_prefix("data: "));
        let events = data.map(|data| serde_json::from_str::<Value>(data).expect("json"));
        let mut found = events.filter_map(|event| {
            let places = ["content_block", "delta"];
            places.iter().find_map(|place| {
                event[place][key]
                    .as_str()
                    .filter(|it| !it.is_empty())
                    .map(str::to_owned)
            })
        });
        found.next().expect(key)
    };
    let (id, signature) = (find("id"), find("signature"));
    messages.push(json!({"role": "assistant", "content": [
        {"type": "thinking", "thinking": "hm", "signature": signature},
        {"type": "tool_use", "id": id, "name": "bash", "input": {"command": "ls"}}]}));
    let result =
        json!({"type": "tool_result", "tool_use_id": id, "content": [{"type": "text", "text": "a file"}]});
    messages.push(json!({"role": "user", "content": [result]}));
    for _ in 0..2 {
        assert!(
            anthropic(&provider, json!(messages))
                .await
                .contains("as scripted"),
            "it fails twice"
        );
    }
    assert_eq!(
        text_of(&anthropic(&provider, json!(messages)).await),
        "It said a file."
    );
    messages.push(json!({"role": "assistant", "content": [{"type": "text", "text": "x"}]}));
    messages.push(json!({"role": "user", "content": [{"type": "text", "text": "plain words"}]}));
    assert_eq!(
        text_of(&anthropic(&provider, json!(messages)).await),
        "plain words",
        "no script: an echo"
    );
    let broken = json!([{"role": "user", "content": "script:[{\"txt\":1}]"}]);
    assert!(
        anthropic(&provider, broken)
            .await
            .contains("the script is not valid: unknown field `txt`")
    );
}

#[tokio::test]
async fn queue_function_and_gate() {
    let provider = FakeProvider::start().await.expect("a port");
    let gate = Gate::new();
    provider.push(Reply::new().text("queued").gate(&gate));
    provider.respond_with(|request| {
        Reply::new().text(&format!("you are {}", request.header("x-api-key").unwrap_or("?")))
    });
    let ask = json!([{"role": "user", "content": "hi"}]);
    let held = async {
        gate.reached().await;
        assert_eq!(provider.requests().len(), 1);
        gate.open();
    };
    let (first, ()) = tokio::join!(anthropic(&provider, ask.clone()), held);
    assert_eq!(text_of(&first), "queued");
    assert_eq!(text_of(&anthropic(&provider, ask).await), "you are k");
    provider.wait_for_requests(2).await;
}

#[tokio::test]
async fn a_cut_breaks_the_connection_after_what_came_before() {
    let provider = FakeProvider::start().await.expect("a port");
    provider.push(
        Reply::new()
            .text("before")
            .chunk(100)
            .step(Step::Cut)
            .text("after"),
    );
    let body = json!({"model": "m", "max_tokens": 10, "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let mut response = post(&provider, "/v1/messages", ANTHROPIC, &body).await;
    let mut seen = String::new();
    let error = loop {
        match response.chunk().await {
            Ok(Some(bytes)) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            Ok(None) => panic!("a proper end"),
            Err(error) => break error,
        }
    };
    assert!(seen.contains("before") && !seen.contains("after"), "{seen}");
    assert!(
        error.is_body() || error.is_decode() || error.is_request(),
        "{error:?}"
    );
}

#[tokio::test]
async fn dropping_with_violations_panics() {
    let provider = FakeProvider::start().await.expect("a port");
    post(&provider, "/v2/elsewhere", &[], &json!({})).await;
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(provider)));
    let message = dropped.expect_err("it panics");
    let message = message.downcast_ref::<String>().expect("a message");
    assert!(message.contains("no provider has this path"), "{message}");
}

/// A child process that does not outlive its test.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        // A child that has ended already is as good as killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_program_serves_a_script_file() {
    use std::io::BufRead as _;

    let folder = std::env::temp_dir().join(format!("fake-provider-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("script.json");
    std::fs::write(
        &file,
        r#"[[{"text":"from the file"},{"chunk":100}],{"status":429,"retry_after":"3"}]"#,
    )
    .expect("a file");
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_fake-provider"))
        .arg(&file)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut child = Child(child);
    let mut url = String::new();
    std::io::BufReader::new(child.0.stdout.take().expect("output"))
        .read_line(&mut url)
        .expect("a line");
    let url = url.trim();
    let client = reqwest::Client::new();
    let ask = || {
        let body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
        client
            .post(format!("{url}/v1/chat/completions"))
            .json(&body)
            .send()
    };
    let first = ask().await.expect("an answer").text().await.expect("a text");
    assert!(
        first.contains("from the file") && first.trim_end().ends_with("data: [DONE]"),
        "{first}"
    );
    let second = ask().await.expect("an answer");
    assert_eq!(
        (
            second.status().as_u16(),
            second.headers()["retry-after"].as_bytes()
        ),
        (429, &b"3"[..])
    );
    let third = ask().await.expect("an answer").text().await.expect("a text");
    assert!(third.contains("hi"), "then it echoes: {third}");
    let requests: Value = client
        .get(format!("{url}/requests"))
        .send()
        .await
        .expect("ok")
        .json()
        .await
        .expect("json");
    assert_eq!(requests.as_array().map(Vec::len), Some(3));
    let violations: Value = client
        .get(format!("{url}/violations"))
        .send()
        .await
        .expect("ok")
        .json()
        .await
        .expect("json");
    assert_eq!(violations, json!([]));
    std::fs::remove_dir_all(&folder).expect("removed");
}
