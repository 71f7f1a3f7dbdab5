//! Bedrock ConverseStream.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Check, Flow, Writer};
use crate::event_stream;
use crate::reply::{Step, Stop};
use crate::server::Frame;
use crate::view::{self, Role, View};

/// The most cache points that a request may have.
const MAX_POINTS: usize = 4;

pub(super) fn check(check: &mut Check<'_>) -> View {
    let body = check.body;
    let authorization = check.header("authorization").unwrap_or_default().to_owned();
    let signed = authorization.starts_with("AWS4-HMAC-SHA256 ")
        && ["Credential=", "SignedHeaders=", "Signature="]
            .iter()
            .all(|part| authorization.contains(part))
        && check.header("x-amz-date").is_some();
    check.that(
        signed || authorization.starts_with("Bearer "),
        "the request is not signed and has no key",
    );
    let is_point = |block: &Value| block["cachePoint"].is_object();
    let mut points = 0;
    for tool in body["toolConfig"]["tools"].as_array().into_iter().flatten() {
        if is_point(tool) {
            points += 1;
            continue;
        }
        check.tool_name(&tool["toolSpec"]["name"]);
        check.schema(
            &tool["toolSpec"]["name"].to_string(),
            &tool["toolSpec"]["inputSchema"]["json"],
        );
    }
    // The API can force the use of tools, but not forbid it.
    let choice = &body["toolConfig"]["toolChoice"];
    check.that(
        choice.is_null() || choice["auto"].is_object(),
        "there is no such tool choice",
    );
    points += body["system"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|block| is_point(block))
        .count();
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
        let blocks = message["content"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        points += blocks.iter().filter(|block| is_point(block)).count();
        for block in blocks {
            self::block(check, &mut view, role, block);
        }
    }
    check.that(points <= MAX_POINTS, "there are more than four cache points");
    let uses_tools = view
        .turns
        .iter()
        .any(|turn| !turn.calls.is_empty() || !turn.results.is_empty());
    check.that(
        !uses_tools || body["toolConfig"].is_object(),
        "the history has tool uses, but there is no toolConfig",
    );
    view.check(true, check.violations);
    view
}

fn block(check: &mut Check<'_>, view: &mut View, role: Role, block: &Value) {
    let turn = view.turn(role);
    if let Some(text) = block["text"].as_str() {
        turn.texts.push(text.to_owned());
    } else if block["image"].is_object() || block["document"].is_object() {
        turn.media += 1;
        let media = if block["image"].is_object() {
            &block["image"]
        } else {
            &block["document"]
        };
        check.that(
            media["format"].is_string() && media["source"]["bytes"].is_string(),
            "media without bytes",
        );
    } else if block["toolResult"].is_object() {
        let result = &block["toolResult"];
        let texts = result["content"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|part| part["text"].as_str());
        let texts: Vec<&str> = texts.collect();
        check.that(result["content"].is_array(), "a tool result has no content");
        turn.result(result["toolUseId"].as_str().unwrap_or_default(), texts.join("\n"));
    } else if block["toolUse"].is_object() {
        let call = &block["toolUse"];
        check.tool_name(&call["name"]);
        check.call_id(&call["toolUseId"]);
        check.that(call["input"].is_object(), "a tool use's input is no object");
        turn.calls
            .push(call["toolUseId"].as_str().unwrap_or_default().to_owned());
    } else if block["reasoningContent"].is_object() {
        let reasoning = &block["reasoningContent"];
        if let Some(redacted) = reasoning["redactedContent"].as_str() {
            turn.signature(redacted);
        } else {
            let text = reasoning["reasoningText"]["text"].as_str().unwrap_or_default();
            let signature = reasoning["reasoningText"]["signature"]
                .as_str()
                .unwrap_or_default();
            check.signature(text, signature);
            turn.signature(signature);
        }
    } else if !block["cachePoint"].is_object() {
        check.fail(format!("there is no block {block}"));
    }
}

pub(super) fn write(writer: &mut Writer<'_>) {
    let reply = writer.reply;
    let emit = |writer: &mut Writer<'_>, kind: &str, data: Value| {
        writer
            .frames
            .push(Frame::Bytes(event_stream::message(kind, &data, false)));
    };
    emit(writer, "messageStart", json!({"role": "assistant"}));
    let mut index = 0;
    for (at, step) in reply.steps.iter().enumerate() {
        let delta = |delta: Value| json!({"contentBlockIndex": index, "delta": delta});
        match step {
            Step::Thinking(text) => {
                for piece in writer.pieces(text) {
                    emit(
                        writer,
                        "contentBlockDelta",
                        delta(json!({"reasoningContent": {"text": piece}})),
                    );
                }
                let signature = json!({"reasoningContent": {"signature": view::signature(text)}});
                emit(writer, "contentBlockDelta", delta(signature));
            }
            Step::Redacted(data) => {
                emit(
                    writer,
                    "contentBlockDelta",
                    delta(json!({"reasoningContent": {"redactedContent": data}})),
                );
            }
            Step::Text(text) => {
                for piece in writer.pieces(text) {
                    emit(writer, "contentBlockDelta", delta(json!({"text": piece})));
                }
            }
            Step::Tool { name, input } => {
                let start = json!({"toolUse": {"toolUseId": writer.call_id(at), "name": name}});
                emit(
                    writer,
                    "contentBlockStart",
                    json!({"contentBlockIndex": index, "start": start}),
                );
                for piece in writer.pieces(&input.to_string()) {
                    emit(
                        writer,
                        "contentBlockDelta",
                        delta(json!({"toolUse": {"input": piece}})),
                    );
                }
            }
            Step::Error { kind, message } => {
                let frame = event_stream::message(kind, &json!({"message": message}), true);
                writer.frames.push(Frame::Bytes(frame));
                return;
            }
            other => {
                if writer.common(other, broken()) == Flow::End {
                    return;
                }
                continue;
            }
        }
        if !writer.is_broken_off(at) {
            emit(writer, "contentBlockStop", json!({"contentBlockIndex": index}));
        }
        index += 1;
    }
    let reason = match &reply.stop {
        Stop::Done if reply.wants_tools() => "tool_use",
        Stop::Done => "end_turn",
        Stop::MaxTokens => "max_tokens",
        Stop::Refusal(_) => "content_filtered",
    };
    emit(writer, "messageStop", json!({"stopReason": reason}));
    let mut metadata = json!({"metrics": {"latencyMs": 1}});
    if let Some(usage) = reply.usage {
        metadata["usage"] = json!({
            "inputTokens": usage.input,
            "outputTokens": usage.output,
            "totalTokens": usage.input + usage.output + usage.cache_read + usage.cache_write,
            "cacheReadInputTokens": usage.cache_read,
            "cacheWriteInputTokens": usage.cache_write,
        });
    }
    emit(writer, "metadata", metadata);
}

/// A message whose checksum is wrong.
fn broken() -> Bytes {
    let mut bytes = event_stream::message("contentBlockDelta", &json!({}), false).to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 0xff;
    }
    bytes.into()
}
