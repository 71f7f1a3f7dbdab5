//! What providers do beside the documentation: frames as they were seen on the wire.

use oma_domain::session::ReplyStop;
use oma_fake_provider::Reply;
use oma_models::{AssistantBlock, Completion, Message};
use serde_json::{Value, json};

use crate::harness::{Harness, request, results, say};

async fn raw(model: &str, frames: &[&str]) -> Result<Completion, oma_models::Error> {
    let harness = Harness::start().await;
    harness.provider.push(Reply::raw(frames.iter().copied()));
    harness
        .ask(model, &request(vec![say("hi")]))
        .await
        .map(|answered| answered.completion)
}

fn sketch(completion: &Completion) -> Vec<String> {
    let line = |block: &AssistantBlock| match block {
        AssistantBlock::Text { text, .. } => text.clone(),
        AssistantBlock::Thinking { text, .. } => format!("({text})"),
        AssistantBlock::ToolUse {
            call_id, name, input, ..
        } => format!("{call_id}:{name}{input}"),
    };
    completion.blocks.iter().map(line).collect()
}

#[tokio::test]
async fn chat_streams_of_every_make_are_understood() {
    let cases: Vec<(&str, &[&str], &[&str])> = vec![
        (
            "no end mark, usage on the choice (Moonshot)",
            &[
                r#"{"choices":[{"delta":{"content":"a"}}]}"#,
                r#"{"choices":[{"delta":{},"finish_reason":"stop","usage":{"prompt_tokens":3,"completion_tokens":1}}]}"#,
            ],
            &["a"],
        ),
        (
            "no finish reason, but an end mark",
            &[
                r#"{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#,
                "[DONE]",
            ],
            &["a"],
        ),
        (
            "thoughts in `reasoning` (OpenRouter, Groq)",
            &[
                r#"{"choices":[{"delta":{"reasoning":"hm"}}],"x_groq":{"usage":{"prompt_tokens":3,"completion_tokens":1}}}"#,
                r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}"#,
                "[DONE]",
            ],
            &["(hm)", "a"],
        ),
        (
            "content as a list of parts (Mistral)",
            &[
                r#"{"choices":[{"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]}]}}]}"#,
                r#"{"choices":[{"delta":{"content":[{"type":"text","text":"a"}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#,
                "[DONE]",
            ],
            &["(hm)", "a"],
        ),
        (
            "whole tool calls that are all number 0 (Ollama), arguments as an object, no ids",
            &[
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"x","function":{"name":"bash","arguments":{"a":1}}}]}}]}"#,
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"y","function":{"name":"bash","arguments":"{\"a\":2}"}}]}}]}"#,
                r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#,
                "[DONE]",
            ],
            &[r#"x:bash{"a":1}"#, r#"y:bash{"a":2}"#],
        ),
        (
            "tool calls without index and id",
            &[
                r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"bash","arguments":"{}"}}]}}]}"#,
                r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"bash","arguments":"{\"a\""}}]}}]}"#,
                r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":":2}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#,
                "[DONE]",
            ],
            &["call_0:bash{}", r#"call_1:bash{"a":2}"#],
        ),
        (
            "an id before the name, nulls everywhere",
            &[
                r#"{"choices":[{"delta":{"content":null,"reasoning_content":null,"tool_calls":[{"index":0,"id":"x","function":{"name":null,"arguments":""}}]}}],"usage":null}"#,
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":null,"function":{"name":"bash","arguments":"{}"}}]},"finish_reason":null}]}"#,
                r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#,
                r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#,
                "[DONE]",
            ],
            &["x:bash{}"],
        ),
    ];
    for (name, frames, expected) in cases {
        let completion = raw("groq/some-model", frames)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(sketch(&completion), expected, "{name}");
        assert_eq!(
            (completion.usage.input, completion.usage.output),
            (3, 1),
            "{name}"
        );
    }
}

#[tokio::test]
async fn chat_errors_inside_a_stream_are_errors() {
    for (frames, retryable, message) in [
        (
            vec![
                r#"{"error":{"code":502,"message":"Provider disconnected"},"choices":[{"delta":{"content":""},"finish_reason":"error"}]}"#,
            ],
            true,
            "Provider disconnected",
        ),
        (
            vec![r#"{"choices":[{"delta":{},"error":{"code":400,"message":"bad"}}]}"#],
            false,
            "bad",
        ),
        (
            vec![
                r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"insufficient_system_resource"}]}"#,
                "[DONE]",
            ],
            true,
            "the provider broke the answer off (insufficient_system_resource)",
        ),
        (
            vec![
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"x"}]},"finish_reason":"tool_calls"}]}"#,
                "[DONE]",
            ],
            true,
            "the provider's stream is malformed: a tool call without a name",
        ),
    ] {
        let error = raw("openrouter/x/y", &frames).await.expect_err(message);
        assert_eq!(
            (error.retryable, error.failure.message.as_str()),
            (retryable, message)
        );
    }
}

#[tokio::test]
async fn openrouters_reasoning_details_come_back_verbatim() {
    let harness = Harness::start().await;
    harness.provider.push(Reply::raw([
        r#"{"choices":[{"delta":{"reasoning":"Let ","reasoning_details":[{"type":"reasoning.text","text":"Let ","index":0,"format":"anthropic-claude-v1"}]}}]}"#,
        r#"{"choices":[{"delta":{"reasoning":"me.","reasoning_details":[{"type":"reasoning.text","text":"me.","index":0,"signature":null}]}}]}"#,
        r#"{"choices":[{"delta":{"reasoning_details":[{"type":"reasoning.text","index":0,"signature":"SIG"}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"x","function":{"name":"bash","arguments":"{}"}}]}}]}"#,
        r#"{"choices":[{"delta":{"reasoning_details":[{"type":"reasoning.encrypted","data":"ENC","index":1}]},"finish_reason":"tool_calls"}]}"#,
        "[DONE]",
    ]));
    let model = "openrouter/anthropic/claude-opus-4.7";
    let first = harness
        .ask(model, &request(vec![say("hi")]))
        .await
        .expect("ok")
        .completion;
    assert_eq!(sketch(&first), ["(Let me.)", "x:bash{}"]);
    let messages = vec![
        say("hi"),
        Message::Assistant(first.blocks.clone()),
        results(&first),
    ];
    harness.provider.push(Reply::new().text("ok"));
    harness.ask(model, &request(messages)).await.expect("ok");
    let body = harness.provider.requests().pop().expect("a request").body;
    assert_eq!(
        body["messages"][2]["reasoning_details"],
        json!([
            {"type": "reasoning.text", "text": "Let me.", "index": 0, "format": "anthropic-claude-v1", "signature": "SIG"},
            {"type": "reasoning.encrypted", "data": "ENC", "index": 1},
        ])
    );
    assert_eq!(body["messages"][2].get("reasoning_content"), None);
}

#[tokio::test]
async fn anthropic_streams_of_other_servers_are_understood() {
    let completion = raw(
        "anthropic/claude-opus-4-8",
        &[
            r#"{"type":"message_start","message":{"usage":{"input_tokens":0,"output_tokens":0}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"something_new","index":0}"#,
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"x","name":"bash","input":{"a":1}}}"#,
            r#"{"type":"content_block_stop","index":1}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"input_tokens":9,"output_tokens":4}}"#,
            r#"{"type":"message_stop"}"#,
        ],
    )
    .await
    .expect("understood");
    assert_eq!(
        sketch(&completion),
        [r#"x:bash{"a":1}"#],
        "an empty text is left out"
    );
    assert_eq!((completion.usage.input, completion.usage.output), (9, 4));
}

#[tokio::test]
async fn gemini_blocks_and_breakdowns_are_told_apart() {
    let model = "gemini/gemini-3.6-flash";
    let blocked = raw(
        model,
        &[
            r#"{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},"usageMetadata":{"promptTokenCount":4}}"#,
        ],
    );
    let blocked = blocked.await.expect("a refusal");
    let explanation = "the provider blocked the prompt (PROHIBITED_CONTENT)".to_owned();
    assert_eq!(
        blocked.stop,
        ReplyStop::Refusal {
            explanation: Some(explanation)
        }
    );
    let malformed = raw(
        model,
        &[r#"{"candidates":[{"finishReason":"MALFORMED_FUNCTION_CALL","finishMessage":"bad call"}]}"#],
    );
    let error = malformed.await.expect_err("an error");
    assert!(
        error.retryable && error.failure.message.contains("bad call"),
        "{error}"
    );
    let signed = raw(
        model,
        &[
            r#"{"candidates":[{"content":{"parts":[{"text":"Hello"}]}}]}"#,
            r#"{"candidates":[{"content":{"parts":[{"text":"","thoughtSignature":"S"}]},"finishReason":"STOP"}]}"#,
        ],
    );
    let signed = signed.await.expect("an answer");
    let [
        AssistantBlock::Text {
            opaque: Some(opaque), ..
        },
    ] = signed.blocks.as_slice()
    else {
        panic!("{:?}", signed.blocks);
    };
    assert_eq!(opaque.data["thoughtSignature"], Value::from("S"));
}

/// What the requests for two answers say in a place that the provider refuses at first.
async fn asked_after_a_refusal(model: &str, refusal: Reply, place: &str) -> Vec<Option<String>> {
    let harness = Harness::start().await;
    harness.provider.push(refusal);
    harness.provider.push(Reply::new().text("a"));
    harness.provider.push(Reply::new().text("b"));
    for _ in 0..2 {
        let answer = harness.ask(model, &request(vec![say("hi")])).await;
        assert!(answer.is_ok(), "{:?}", answer.err());
    }
    let requests = harness.provider.requests().into_iter();
    let said = |body: &Value| body.pointer(place).and_then(Value::as_str).map(str::to_owned);
    requests.map(|request| said(&request.body)).collect()
}

#[tokio::test]
async fn summaries_that_openai_refuses_are_left_out_from_then_on() {
    let refusal = "Your organization must be verified to generate reasoning summaries.";
    let refusal = Reply::failure(400, "unsupported_value", refusal);
    let summaries = asked_after_a_refusal("responses/gpt-6-sol", refusal, "/reasoning/summary").await;
    assert_eq!(summaries, [Some("auto".to_owned()), None, None]);
}

#[tokio::test]
async fn a_model_that_can_not_be_told_to_think_is_asked_without() {
    let refusal = "Model grok-4 does not support parameter reasoningEffort.";
    let refusal = Reply::failure(400, "invalid-argument", refusal);
    let efforts = asked_after_a_refusal("xai/grok-4", refusal, "/reasoning_effort").await;
    assert_eq!(efforts, [Some("medium".to_owned()), None, None]);
}

#[tokio::test]
async fn claude_behind_openrouter_gets_its_cache_marks() {
    let harness = Harness::start().await;
    let model = "openrouter/anthropic/claude-opus-4.7";
    harness.provider.push(Reply::new().tool("bash", json!({})));
    let first = harness
        .ask(model, &request(vec![say("hi")]))
        .await
        .expect("ok")
        .completion;
    let messages = vec![
        say("hi"),
        Message::Assistant(first.blocks.clone()),
        results(&first),
    ];
    harness.provider.push(Reply::new().text("ok"));
    harness.ask(model, &request(messages)).await.expect("ok");
    let body = harness.provider.requests().pop().expect("a request").body;
    let mark = json!({"type": "ephemeral"});
    assert_eq!(
        body["messages"][0]["content"],
        json!([{"type": "text", "text": "Be brief.", "cache_control": mark}])
    );
    assert_eq!(
        body["messages"][1]["content"],
        json!([{"type": "text", "text": "hi", "cache_control": mark}])
    );
    assert_eq!(body["messages"][2].get("cache_control"), None);
    assert_eq!(body["messages"][3]["cache_control"], mark);
}

#[tokio::test]
async fn a_models_name_does_not_choose_where_the_key_goes() {
    let harness = Harness::start().await;
    for name in [
        "gemini/../../admin/keys?x=",
        "gemini/a/../b",
        "gemini/a//b",
        "gemini/.",
    ] {
        let refused = harness
            .ask(name, &request(vec![say("hi")]))
            .await
            .expect_err(name);
        assert!(!refused.retryable, "{name}: {refused}");
    }
    assert!(harness.provider.requests().is_empty());
    harness.provider.push(Reply::new().text("hello"));
    let fragment = "gemini/a?key=b#c";
    harness
        .ask(fragment, &request(vec![say("hi")]))
        .await
        .expect("an answer");
    let paths: Vec<String> = harness
        .provider
        .requests()
        .into_iter()
        .map(|got| got.path)
        .collect();
    assert!(
        paths
            .iter()
            .all(|path| !path.contains('#') && path.contains("a%3Fkey%3Db%23c")),
        "{paths:?}"
    );
}
