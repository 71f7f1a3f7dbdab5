//! OpenAI Chat Completions.

use serde_json::{Value, json};

use super::{Check, Flow, Writer, malformed_sse, sse};
use crate::reply::{Step, Stop};
use crate::view::{Role, View};

pub(super) fn check(check: &mut Check<'_>) -> View {
    let body = check.body;
    check.that(body["stream"] == true, "stream is not true");
    let model = body["model"].as_str().unwrap_or_default();
    check.that(!model.is_empty(), "there is no model");
    for tool in body["tools"].as_array().into_iter().flatten() {
        check.that(tool["type"] == "function", "a tool is no function");
        check.tool_name(&tool["function"]["name"]);
        check.schema(
            &tool["function"]["name"].to_string(),
            &tool["function"]["parameters"],
        );
    }
    check.tool_choice(&body["tool_choice"], &["auto", "none"], &body["tools"]);
    // These providers refuse a tool call without the thoughts before it.
    let wants_reasoning = ["deepseek", "kimi"].iter().any(|name| model.contains(name));
    let is_mistral = model.contains("mistral");
    let mut view = View::default();
    for (at, message) in body["messages"].as_array().into_iter().flatten().enumerate() {
        match message["role"].as_str() {
            Some("system" | "developer") => {
                check.that(at == 0, "a system message stands behind others");
                let parts = message["content"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|part| &part["text"]);
                let texts: Vec<&Value> = std::iter::once(&message["content"]).chain(parts).collect();
                let has_text = texts
                    .iter()
                    .any(|text| text.as_str().is_some_and(|text| !text.trim().is_empty()));
                check.that(has_text, "the system message is empty");
            }
            Some("user") => user(check, &mut view, &message["content"]),
            Some("assistant") => assistant(check, &mut view, message, wants_reasoning, is_mistral),
            Some("tool") => {
                check.that(
                    message["content"].is_string(),
                    "a tool message's content is no text",
                );
                let text = message["content"].as_str().unwrap_or_default().to_owned();
                let id = message["tool_call_id"].as_str().unwrap_or_default();
                view.turn(Role::User).result(id, text);
            }
            other => check.fail(format!("there is no role {other:?}")),
        }
    }
    view.check(false, check.violations);
    view
}

fn user(check: &mut Check<'_>, view: &mut View, content: &Value) {
    let turn = view.turn(Role::User);
    if let Some(text) = content.as_str() {
        turn.texts.push(text.to_owned());
        return;
    }
    for part in content.as_array().into_iter().flatten() {
        match part["type"].as_str() {
            Some("text") => turn
                .texts
                .push(part["text"].as_str().unwrap_or_default().to_owned()),
            Some("image_url") => {
                turn.media += 1;
                check.that(part["image_url"]["url"].is_string(), "an image has no address");
            }
            Some("file") => {
                turn.media += 1;
                check.that(part["file"]["file_data"].is_string(), "a file has no data");
            }
            other => check.fail(format!("there is no content part {other:?}")),
        }
    }
}

fn assistant(
    check: &mut Check<'_>,
    view: &mut View,
    message: &Value,
    wants_reasoning: bool,
    is_mistral: bool,
) {
    let turn = view.turn(Role::Model);
    check.that(
        turn.texts.is_empty() && turn.calls.is_empty(),
        "two assistant messages stand side by side",
    );
    if let Some(text) = message["content"].as_str() {
        turn.texts.push(text.to_owned());
    }
    let calls = message["tool_calls"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    check.that(
        message.get("tool_calls").is_none() || !calls.is_empty(),
        "tool_calls is an empty list",
    );
    for call in calls {
        check.that(call["type"] == "function", "a tool call is no function");
        check.tool_name(&call["function"]["name"]);
        check.call_id(&call["id"]);
        let id = call["id"].as_str().unwrap_or_default();
        check.that(
            !is_mistral || id.len() == 9,
            "a tool call id has not nine characters",
        );
        let arguments = call["function"]["arguments"]
            .as_str()
            .and_then(|it| serde_json::from_str::<Value>(it).ok());
        check.that(
            arguments.is_some_and(|it| it.is_object()),
            "a tool call's arguments are no JSON object",
        );
        turn.calls.push(id.to_owned());
    }
    if wants_reasoning && !calls.is_empty() {
        let present = message["reasoning_content"]
            .as_str()
            .is_some_and(|text| !text.is_empty());
        check.that(
            present,
            "reasoning_content is missing in an assistant message with tool calls",
        );
    }
}

pub(super) fn write(writer: &mut Writer<'_>) {
    let reply = writer.reply;
    let chunk = |delta: Value, finish: Value| {
        json!({
            "id": "chatcmpl-fake",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "fake",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        })
    };
    writer.data(&chunk(json!({"role": "assistant", "content": ""}), Value::Null));
    let mut calls = 0;
    let mut at = 0;
    while let Some(step) = reply.steps.get(at) {
        match step {
            Step::Thinking(text) => {
                for piece in writer.pieces(text) {
                    writer.data(&chunk(json!({"reasoning_content": piece}), Value::Null));
                }
            }
            // The protocol has no thought that can't be read.
            Step::Redacted(_) => {}
            Step::Text(text) => {
                for piece in writer.pieces(text) {
                    writer.data(&chunk(json!({"content": piece}), Value::Null));
                }
            }
            Step::Tool { .. } => {
                let count = tools(writer, at, calls, &chunk);
                calls += count;
                at += count - 1;
            }
            Step::Error { kind, message } => {
                writer.data(&json!({"error": {"message": message, "type": kind, "code": kind}}));
                return;
            }
            other => {
                if writer.common(other, malformed_sse()) == Flow::End {
                    return;
                }
            }
        }
        at += 1;
    }
    let finish = match &reply.stop {
        Stop::Done if calls > 0 => "tool_calls",
        Stop::Done => "stop",
        Stop::MaxTokens => "length",
        Stop::Refusal(explanation) => {
            writer.data(&chunk(json!({"refusal": explanation}), Value::Null));
            "stop"
        }
    };
    writer.data(&chunk(json!({}), finish.into()));
    if let Some(usage) = reply.usage {
        let prompt = usage.input + usage.cache_read + usage.cache_write;
        let mut wire = json!({
            "prompt_tokens": prompt,
            "completion_tokens": usage.output,
            "total_tokens": prompt + usage.output,
            "prompt_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
            "completion_tokens_details": {"reasoning_tokens": usage.thinking},
        });
        if let Some(cost) = reply.cost {
            wire["cost"] = cost.into();
        }
        let mut last = chunk(json!({}), Value::Null);
        last["choices"] = json!([]);
        last["usage"] = wire;
        writer.data(&last);
    }
    writer.frames.push(sse(None, "[DONE]"));
}

/// Writes consecutive tool calls with their pieces interleaved, and returns how many there were.
fn tools(
    writer: &mut Writer<'_>,
    start: usize,
    first: usize,
    chunk: &impl Fn(Value, Value) -> Value,
) -> usize {
    let steps = &writer.reply.steps[start..];
    let group: Vec<(&String, &Value)> = steps
        .iter()
        .map_while(|step| match step {
            Step::Tool { name, input } => Some((name, input)),
            _ => None,
        })
        .collect();
    let mut pieces = Vec::new();
    for (at, (name, input)) in group.iter().enumerate() {
        let id = writer.call_id(start + at);
        let function = json!({"name": name, "arguments": ""});
        let call = json!({"index": first + at, "id": id, "type": "function", "function": function});
        writer.data(&chunk(json!({"tool_calls": [call]}), Value::Null));
        pieces.push(writer.pieces(&input.to_string()));
    }
    for round in 0..pieces.iter().map(Vec::len).max().unwrap_or_default() {
        for (at, pieces) in pieces.iter().enumerate() {
            if let Some(piece) = pieces.get(round) {
                let call = json!({"index": first + at, "function": {"arguments": piece}});
                writer.data(&chunk(json!({"tool_calls": [call]}), Value::Null));
            }
        }
    }
    group.len()
}
