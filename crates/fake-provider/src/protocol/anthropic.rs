//! Anthropic Messages.

use serde_json::{Value, json};

use super::{Check, Flow, Writer, malformed_sse};
use crate::reply::{Step, Stop};
use crate::view::{self, Role, View};

/// The most cache marks that a request may have.
const MAX_MARKS: usize = 4;

pub(super) fn check(check: &mut Check<'_>) -> View {
    let body = check.body;
    let has_key = check.header("x-api-key").is_some() || check.header("authorization").is_some();
    check.that(has_key, "there is no x-api-key");
    check.that(
        check.header("anthropic-version") == Some("2023-06-01"),
        "there is no anthropic-version",
    );
    check.that(body["stream"] == true, "stream is not true");
    check.that(body["model"].is_string(), "there is no model");
    let max_tokens = body["max_tokens"].as_u64().unwrap_or_default();
    check.that(max_tokens > 0, "there is no max_tokens");
    thinking(check, max_tokens);

    let mut marks = 0;
    for tool in body["tools"].as_array().into_iter().flatten() {
        check.tool_name(&tool["name"]);
        check.schema(&tool["name"].to_string(), &tool["input_schema"]);
        marks += usize::from(tool["cache_control"].is_object());
    }
    check.tool_choice(&body["tool_choice"]["type"], &["auto", "none"], &body["tools"]);
    if !body["system"].is_null() && !body["system"].is_string() {
        let blocks = body["system"].as_array().map(Vec::as_slice).unwrap_or_default();
        check.that(!blocks.is_empty(), "system is an empty list");
        for block in blocks {
            let is_blank = block["text"].as_str().is_none_or(|text| text.trim().is_empty());
            check.that(!is_blank, "system has an empty text");
            marks += usize::from(block["cache_control"].is_object());
        }
    }
    let mut view = View::default();
    let mut last_role = None;
    for message in body["messages"].as_array().into_iter().flatten() {
        let role = match message["role"].as_str() {
            Some("user") => Role::User,
            Some("assistant") => Role::Model,
            other => {
                check.fail(format!("there is no role {other:?}"));
                continue;
            }
        };
        check.that(last_role != Some(role), "roles do not alternate");
        last_role = Some(role);
        marks += self::message(check, &mut view, role, &message["content"]);
    }
    check.that(marks <= MAX_MARKS, "there are more than four cache marks");
    view.check(true, check.violations);
    view
}

fn thinking(check: &mut Check<'_>, max_tokens: u64) {
    let thinking = &check.body["thinking"];
    match thinking["type"].as_str() {
        None => check.that(thinking.is_null(), "thinking has no type"),
        Some("enabled") => {
            let budget = thinking["budget_tokens"].as_u64().unwrap_or_default();
            check.that(
                budget >= 1024 && budget < max_tokens,
                "budget_tokens is out of bounds",
            );
        }
        Some("adaptive") => check.that(
            thinking.get("budget_tokens").is_none(),
            "adaptive thinking has no budget",
        ),
        Some("disabled") => check.that(
            thinking.get("display").is_none(),
            "disabled thinking has no display",
        ),
        Some(other) => check.fail(format!("there is no thinking of type {other}")),
    }
    let effort = &check.body["output_config"]["effort"];
    let known = ["low", "medium", "high", "xhigh", "max"];
    check.that(
        effort.is_null() || effort.as_str().is_some_and(|it| known.contains(&it)),
        "there is no such effort",
    );
}

/// Checks a message's blocks and returns the number of its cache marks.
fn message(check: &mut Check<'_>, view: &mut View, role: Role, content: &Value) -> usize {
    // Consecutive messages of one role are a violation of their own; here they are one turn.
    let turn = view.turn(role);
    let Some(blocks) = content.as_array() else {
        turn.texts.extend(content.as_str().map(str::to_owned));
        return 0;
    };
    let mut marks = 0;
    for (at, block) in blocks.iter().enumerate() {
        let kind = block["type"].as_str().unwrap_or_default();
        if block["cache_control"].is_object() {
            marks += 1;
            check.that(!kind.contains("thinking"), "a thought has a cache mark");
            check.that(
                at + 1 == blocks.len(),
                "a cache mark stands before the end of a message",
            );
        }
        match (role, kind) {
            (_, "text") => turn
                .texts
                .push(block["text"].as_str().unwrap_or_default().to_owned()),
            (Role::User, "image" | "document") => {
                turn.media += 1;
                check.that(block["source"]["type"].is_string(), "a source has no type");
            }
            (Role::User, "tool_result") => {
                let texts = block["content"].as_array().into_iter().flatten();
                let texts: Vec<&str> = texts.filter_map(|part| part["text"].as_str()).collect();
                check.that(
                    texts.iter().all(|text| !text.trim().is_empty()),
                    "a tool result has an empty text",
                );
                turn.result(
                    block["tool_use_id"].as_str().unwrap_or_default(),
                    texts.join("\n"),
                );
            }
            (Role::Model, "thinking") => {
                let text = block["thinking"].as_str().unwrap_or_default();
                let signature = block["signature"].as_str().unwrap_or_default();
                check.signature(text, signature);
                turn.signature(signature);
                check.that(at + 1 < blocks.len(), "a message ends with a thought");
            }
            (Role::Model, "redacted_thinking") => {
                turn.signature(block["data"].as_str().unwrap_or_default());
                check.that(at + 1 < blocks.len(), "a message ends with a thought");
            }
            (Role::Model, "tool_use") => {
                check.tool_name(&block["name"]);
                check.call_id(&block["id"]);
                check.that(block["input"].is_object(), "a tool use's input is no object");
                turn.calls
                    .push(block["id"].as_str().unwrap_or_default().to_owned());
            }
            (_, other) => check.fail(format!("a message of this role has no block of type {other}")),
        }
    }
    marks
}

pub(super) fn write(writer: &mut Writer<'_>) {
    let reply = writer.reply;
    let usage = reply.usage.unwrap_or_default();
    let mut start = json!({"type": "message_start", "message": {
        "id": "msg_fake", "type": "message", "role": "assistant", "model": "fake", "content": [], "stop_reason": null,
    }});
    if reply.usage.is_some() {
        start["message"]["usage"] = json!({
            "input_tokens": usage.input,
            "cache_read_input_tokens": usage.cache_read,
            "cache_creation_input_tokens": usage.cache_write,
            "output_tokens": 1,
        });
    }
    writer.event("message_start", &start);
    writer.event("ping", &json!({"type": "ping"}));
    let mut index = 0;
    for (at, step) in reply.steps.iter().enumerate() {
        let begin =
            |block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
        let delta = |delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
        match step {
            Step::Thinking(text) => {
                writer.event(
                    "content_block_start",
                    &begin(json!({"type": "thinking", "thinking": "", "signature": ""})),
                );
                for piece in writer.pieces(text) {
                    writer.event(
                        "content_block_delta",
                        &delta(json!({"type": "thinking_delta", "thinking": piece})),
                    );
                }
                let signature = view::signature(text);
                writer.event(
                    "content_block_delta",
                    &delta(json!({"type": "signature_delta", "signature": signature})),
                );
            }
            Step::Redacted(data) => {
                writer.event(
                    "content_block_start",
                    &begin(json!({"type": "redacted_thinking", "data": data})),
                );
            }
            Step::Text(text) => {
                writer.event("content_block_start", &begin(json!({"type": "text", "text": ""})));
                for piece in writer.pieces(text) {
                    writer.event(
                        "content_block_delta",
                        &delta(json!({"type": "text_delta", "text": piece})),
                    );
                }
            }
            Step::Tool { name, input } => {
                let id = writer.call_id(at);
                writer.event(
                    "content_block_start",
                    &begin(json!({"type": "tool_use", "id": id, "name": name, "input": {}})),
                );
                writer.event(
                    "content_block_delta",
                    &delta(json!({"type": "input_json_delta", "partial_json": ""})),
                );
                for piece in writer.pieces(&input.to_string()) {
                    writer.event(
                        "content_block_delta",
                        &delta(json!({"type": "input_json_delta", "partial_json": piece})),
                    );
                }
            }
            Step::Error { kind, message } => {
                writer.event(
                    "error",
                    &json!({"type": "error", "error": {"type": kind, "message": message}}),
                );
                return;
            }
            other => {
                if writer.common(other, malformed_sse()) == Flow::End {
                    return;
                }
                continue;
            }
        }
        if !writer.is_broken_off(at) {
            writer.event(
                "content_block_stop",
                &json!({"type": "content_block_stop", "index": index}),
            );
        }
        index += 1;
    }
    let (reason, details) = match &reply.stop {
        Stop::Done if reply.wants_tools() => ("tool_use", Value::Null),
        Stop::Done => ("end_turn", Value::Null),
        Stop::MaxTokens => ("max_tokens", Value::Null),
        Stop::Refusal(explanation) => ("refusal", json!({"type": "refusal", "explanation": explanation})),
    };
    let delta = json!({"stop_reason": reason, "stop_sequence": null, "stop_details": details});
    let mut end = json!({"type": "message_delta", "delta": delta});
    if reply.usage.is_some() {
        end["usage"] = json!({"output_tokens": usage.output});
    }
    writer.event("message_delta", &end);
    writer.event("message_stop", &json!({"type": "message_stop"}));
}
