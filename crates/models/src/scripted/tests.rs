//! The built-in models as the runtime uses them.

use futures_util::StreamExt;
use oma_domain::ContentBlock;
use oma_domain::session::ReplyStop;
use oma_domain::thinking::ThinkingLevel;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::request::{AssistantBlock, Chunk, Completion, Message, UserBlock};

fn request(system: &str, messages: Vec<Message>) -> Request {
    Request {
        system: system.to_owned(),
        messages,
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        thinking: ThinkingLevel::Off,
        max_tokens: None,
        cache_key: String::new(),
    }
}

fn say(text: &str) -> Message {
    Message::User(vec![UserBlock::Content(ContentBlock::text(text))])
}

fn result(text: &str) -> Message {
    Message::User(vec![UserBlock::ToolResult {
        call_id: "x".to_owned(),
        name: "bash".to_owned(),
        content: vec![ContentBlock::text(text)],
        is_error: false,
    }])
}

fn answer() -> Message {
    Message::Assistant(vec![AssistantBlock::Text {
        text: "…".to_owned(),
        opaque: None,
    }])
}

/// The answer, after checking that its pieces joined are its blocks.
async fn ask(model: &str, request: &Request) -> Result<Completion, Error> {
    let mut stream = resolve(model, Prices::default())?.stream(request).await?;
    let mut joined: Vec<String> = Vec::new();
    while let Some(chunk) = stream.next().await {
        match chunk? {
            Chunk::Text { index, text } | Chunk::Thinking { index, text } => {
                joined.resize(joined.len().max(index + 1), String::new());
                joined[index].push_str(&text);
            }
            Chunk::ToolUse { index, .. } => joined.resize(index + 1, String::new()),
            Chunk::Done(completion) => {
                for (at, block) in completion.blocks.iter().enumerate() {
                    if let AssistantBlock::Text { text, .. } | AssistantBlock::Thinking { text, .. } = block {
                        assert_eq!(joined.get(at).map(String::as_str).unwrap_or_default(), text);
                    }
                }
                assert!(stream.next().await.is_none(), "nothing after the end");
                return Ok(*completion);
            }
        }
    }
    panic!("a stream without an end");
}

async fn text(system: &str, messages: Vec<Message>) -> String {
    let completion = ask("script", &request(system, messages))
        .await
        .expect("an answer");
    let texts = completion.blocks.iter().map(|block| match block {
        AssistantBlock::Text { text, .. } => text.clone(),
        AssistantBlock::Thinking { text, .. } => format!("({text})"),
        AssistantBlock::ToolUse {
            call_id, name, input, ..
        } => format!("{call_id}:{name}{input}"),
    });
    texts.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn they_cost_what_the_operator_says() {
    let own = crate::price::Overrides::parse("[\"scripted/echo\"]\ninput = 3\noutput = 4").expect("valid");
    let prices = own.0["scripted/echo"].prices();
    let model = resolve("echo", prices.clone()).expect("built in");
    assert_eq!(model.price(1_000), prices.most(1_000));
    assert!(model.price(1_000).is_some());
    let mut answer = model
        .stream(&request("", vec![say("hello")]))
        .await
        .expect("answers");
    let mut done = None;
    while let Some(piece) = answer.next().await {
        if let Chunk::Done(completion) = piece.expect("no failure") {
            done = Some(completion);
        }
    }
    let Completion { usage, cost, .. } = *done.expect("an end");
    assert_eq!(cost, prices.cost(&usage));
    assert!(cost.is_some());
    assert_eq!(
        resolve("echo", Prices::default()).expect("built in").price(1),
        None
    );
}

#[tokio::test]
async fn echo_repeats_the_last_text() {
    let messages = vec![
        say("first"),
        answer(),
        say("the last {{last_user}} text, which is a little longer"),
    ];
    let completion = ask("echo", &request("", messages)).await.expect("an answer");
    assert_eq!(
        completion.blocks,
        [AssistantBlock::Text {
            text: "the last {{last_user}} text, which is a little longer".to_owned(),
            opaque: None
        }]
    );
    assert_eq!((completion.usage.output, completion.cost), (14, None));
}

#[tokio::test]
async fn a_script_is_followed_by_position() {
    let script = r#"You are a test.
```script
{"turns": [
  [ [{"thinking": "hm"}, {"tool": "bash", "input": {"command": "echo {{last_user}}"}}], {"text": "It said {{last_tool_result}}."} ],
  [ {"text": "Second: {{last_user}}"} ]
]}
```
More words."#;
    let first = vec![say("one")];
    assert_eq!(
        text(script, first.clone()).await,
        r#"(hm) call_0_1:bash{"command":"echo one"}"#
    );
    let mut second = first;
    second.extend([answer(), answer(), result("ok")]);
    assert_eq!(text(script, second.clone()).await, "It said ok.");
    second.push(answer());
    assert_eq!(text(script, second.clone()).await, "(end of script)");
    second.push(say("two"));
    assert_eq!(text(script, second.clone()).await, "Second: two");
    second.extend([answer(), say("three")]);
    assert_eq!(
        text(script, second).await,
        "Second: three",
        "the last turn repeats"
    );
    assert_eq!(
        text(script, vec![]).await,
        r#"(hm) call_0_1:bash{"command":"echo "}"#,
        "no message at all"
    );
}

#[tokio::test]
async fn a_turn_that_failed_counts() {
    let script = r#"[[{"text": "one"}], [{"text": "two"}], [{"text": "three"}]]"#;
    // Nothing answered the first message.
    assert_eq!(text(script, vec![say("a"), say("b")]).await, "two");
    assert_eq!(
        text(script, vec![say("a"), say("b"), answer(), say("c")]).await,
        "three"
    );
}

#[tokio::test]
async fn a_script_without_a_fence_may_stand_among_other_lines() {
    assert_eq!(text(r#"[[{"text": "a"}]]"#, vec![say("x")]).await, "a");
    assert_eq!(
        text(
            "Rules:\n[not json\n [[{\"text\": \"b\"}]]\nThe end.",
            vec![say("x")]
        )
        .await,
        "b"
    );
}

#[tokio::test]
async fn a_summary_follows_no_script() {
    let messages = vec![say("one"), answer(), say("two"), answer(), say("Summarise.")];
    let script = r#"[[{"text": "from the script"}]]"#;
    for (model, system) in [("script", script), ("script", "no script"), ("echo", "")] {
        let request = Request {
            tool_choice: ToolChoice::Avoid,
            ..request(system, messages.clone())
        };
        let answer = ask(model, &request).await.expect("a summary");
        let expected = AssistantBlock::Text {
            text: "The user said:\n- one\n- two".to_owned(),
            opaque: None,
        };
        assert_eq!(answer.blocks, [expected], "{model} {system}");
    }
}

#[tokio::test]
async fn ends_and_usage_can_be_scripted() {
    let script = r#"[[[{"text": "half"}, {"usage": {"input": 5, "output": 6, "cache_read": 7}}, {"stop": "max_tokens"}]],
        [[{"stop": "refusal", "explanation": "no"}]]]"#;
    let first = ask("script", &request(script, vec![say("a")]))
        .await
        .expect("an answer");
    assert_eq!(
        (first.usage.input, first.usage.cache_read, first.stop),
        (5, 7, ReplyStop::MaxTokens)
    );
    let second = ask("script", &request(script, vec![say("a"), answer(), say("b")]))
        .await
        .expect("an answer");
    assert_eq!(
        second.stop,
        ReplyStop::Refusal {
            explanation: Some("no".to_owned())
        }
    );
}

#[tokio::test]
async fn failures_can_be_scripted() {
    let early = r#"[[[{"error": {"kind": "rate_limited", "retry_after_ms": 1500}}]]]"#;
    let error = ask("script", &request(early, vec![say("a")]))
        .await
        .expect_err("fails");
    assert_eq!(error.failure.kind, FailureKind::ModelRateLimited);
    assert_eq!(
        (error.retryable, error.retry_after),
        (true, Some(std::time::Duration::from_millis(1500)))
    );
    let late = r#"[[[{"text": "some"}, {"error": {"kind": "context_overflow", "message": "full"}}]]]"#;
    let mut stream = resolve("script", Prices::default())
        .expect("a model")
        .stream(&request(late, vec![say("a")]))
        .await
        .expect("begins");
    assert!(matches!(stream.next().await, Some(Ok(Chunk::Text { .. }))));
    let error = stream.next().await.expect("an item").expect_err("fails");
    assert_eq!((error.failure.message.as_str(), error.retryable), ("full", false));
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn delays_are_kept() {
    let script =
        r#"{"turns": [[[{"delay_ms": 300}, {"text": "abcd"}]]], "chunk_chars": 2, "chunk_delay_ms": 100}"#;
    let begun = tokio::time::Instant::now();
    ask("script", &request(script, vec![say("a")]))
        .await
        .expect("an answer");
    assert_eq!(begun.elapsed(), std::time::Duration::from_millis(500));
}

#[tokio::test]
async fn mistakes_are_explained() {
    for (script, part) in [
        ("Be nice.", "needs a script"),
        ("```script\n[[]]", "has no end"),
        (
            "```script\n[[{\"text\": 1}]]\n```",
            "turn 1, reply 1, step 1: invalid type",
        ),
        (
            r#"[[{"text": "a", "thinking": "b"}]]"#,
            "turn 1, reply 1, step 1: a step has exactly one of",
        ),
        (
            r#"[[[{"text": "a"}, {"says": "b"}]]]"#,
            "turn 1, reply 1, step 2: unknown field `says`",
        ),
        (r#"[[{"input": {}}]]"#, "belongs to a `tool`"),
        (r#"[[{"tool": "bash", "input": []}]]"#, "an object as its `input`"),
        (r#"[[{"delay_ms": 99999999}]]"#, "at most 600000 ms"),
        (r#"{"turns": []}"#, "no turns"),
        (r#"{"turns": [[]], "chunk_chars": 0}"#, "at least 1"),
        (r#"[5]"#, "turn 1 is not a list"),
    ] {
        let error = ask("script", &request(script, vec![say("a")]))
            .await
            .expect_err(script);
        assert!(
            error.failure.message.contains(part),
            "{script}: {}",
            error.failure.message
        );
        assert_eq!(
            (error.failure.kind, error.retryable),
            (FailureKind::ModelRequestFailed, false)
        );
    }
}

#[tokio::test]
async fn graders_follow_the_script_in_the_rubric() {
    let verdict = |completion: &Completion| match completion.blocks.as_slice() {
        [AssistantBlock::ToolUse { name, input, .. }] => (name.clone(), input.clone()),
        other => panic!("{other:?}"),
    };
    let grading = |rubric: &str, verdicts: usize| {
        let mut messages = vec![say(rubric)];
        for _ in 0..verdicts {
            messages.extend([answer(), say("revised")]);
        }
        Request {
            tools: vec![crate::ToolSpec {
                name: VERDICT_TOOL.to_owned(),
                description: String::new(),
                input_schema: json!({"type": "object"}),
            }],
            // The instructions are the agent's and count for nothing here.
            ..request("[[{\"text\": \"I am no grader\"}]]", messages)
        }
    };
    let script = "- good\n```script\n[[{\"verdict\": \"needs_revision\", \"explanation\": \"no\"}], \
                  [{\"verdict\": \"satisfied\"}]]\n```";
    for (model, rubric, verdicts, expected) in [
        (
            "script",
            script,
            0,
            json!({"result": "needs_revision", "explanation": "no"}),
        ),
        (
            "echo",
            script,
            1,
            json!({"result": "satisfied", "explanation": ""}),
        ),
        (
            "script",
            script,
            5,
            json!({"result": "satisfied", "explanation": ""}),
        ),
    ] {
        let completion = ask(model, &grading(rubric, verdicts)).await.expect("an answer");
        assert_eq!(
            verdict(&completion),
            (VERDICT_TOOL.to_owned(), expected),
            "{model} {verdicts}"
        );
    }
    let without = ask("script", &grading("- [ ] is good\n[x] is short", 0))
        .await
        .expect("an answer");
    assert_eq!(verdict(&without).1["result"], "satisfied");
    let broken = ask(
        "echo",
        &grading("```script\n[[{\"verdict\": \"great\"}]]\n```", 0),
    )
    .await;
    assert!(
        broken
            .expect_err("a mistake")
            .failure
            .message
            .contains("unknown variant")
    );
}

proptest! {
    #[test]
    fn no_script_makes_it_panic(script in "[\\[\\]{}\"a-z:,0-9 `\n]{0,80}|\\PC{0,60}") {
        let _ = script::find(&script);
        let _ = script::find(&format!("```script\n{script}\n```"));
        let found = script::find(&json!([[{"text": script}]]).to_string());
        prop_assert!(found.expect("valid").is_some());
    }
}
