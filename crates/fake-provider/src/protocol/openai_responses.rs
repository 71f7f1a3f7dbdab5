//! OpenAI Responses.

use serde_json::{Value, json};

use super::{Check, Flow, Writer, malformed_sse};
use crate::reply::{Step, Stop};
use crate::view::{self, Role, View};

pub(super) fn check(check: &mut Check<'_>) -> View {
    let body = check.body;
    check.that(body["stream"] == true, "stream is not true");
    check.that(body["store"] == false, "store is not false");
    check.that(body["model"].is_string(), "there is no model");
    for tool in body["tools"].as_array().into_iter().flatten() {
        check.that(tool["type"] == "function", "a tool is no function");
        check.tool_name(&tool["name"]);
        check.schema(&tool["name"].to_string(), &tool["parameters"]);
    }
    check.tool_choice(&body["tool_choice"], &["auto", "none"], &body["tools"]);
    let mut view = View::default();
    let mut lonely_reasoning = false;
    for item in body["input"].as_array().into_iter().flatten() {
        let kind = item["type"].as_str().unwrap_or("message");
        if lonely_reasoning && kind != "reasoning" {
            let followed = kind == "function_call" || item["role"] == "assistant";
            check.that(followed, "a reasoning item is not followed by what it belongs to");
        }
        lonely_reasoning = kind == "reasoning";
        match kind {
            "message" => message(check, &mut view, item),
            "function_call" => {
                check.tool_name(&item["name"]);
                check.call_id(&item["call_id"]);
                let arguments = item["arguments"]
                    .as_str()
                    .and_then(|it| serde_json::from_str::<Value>(it).ok());
                check.that(
                    arguments.is_some_and(|it| it.is_object()),
                    "a call's arguments are no JSON object",
                );
                view.turn(Role::Model)
                    .calls
                    .push(item["call_id"].as_str().unwrap_or_default().to_owned());
            }
            "function_call_output" => {
                let text = match &item["output"] {
                    Value::String(text) => text.clone(),
                    parts => {
                        let texts = parts
                            .as_array()
                            .into_iter()
                            .flatten()
                            .filter_map(|part| part["text"].as_str());
                        texts.collect::<Vec<_>>().join("\n")
                    }
                };
                view.turn(Role::User)
                    .result(item["call_id"].as_str().unwrap_or_default(), text);
            }
            "reasoning" => reasoning(check, &mut view, item),
            other => check.fail(format!("there is no item {other}")),
        }
    }
    check.that(!lonely_reasoning, "the input ends with a reasoning item");
    view.check(true, check.violations);
    view
}

fn message(check: &mut Check<'_>, view: &mut View, item: &Value) {
    let role = match item["role"].as_str() {
        // What the application says may stand anywhere.
        Some("user" | "system") => Role::User,
        Some("assistant") => Role::Model,
        other => return check.fail(format!("there is no role {other:?}")),
    };
    let turn = view.turn(role);
    for part in item["content"].as_array().into_iter().flatten() {
        match (role, part["type"].as_str().unwrap_or_default()) {
            (Role::User, "input_text") | (Role::Model, "output_text") => {
                turn.texts
                    .push(part["text"].as_str().unwrap_or_default().to_owned());
            }
            (Role::User, "input_image") => {
                turn.media += 1;
                check.that(part["image_url"].is_string(), "an image has no address");
            }
            (Role::User, "input_file") => {
                turn.media += 1;
                let has_source = part["file_data"].is_string() || part["file_url"].is_string();
                check.that(has_source, "a file has no data");
            }
            (_, other) => check.fail(format!("a message of this role has no part {other}")),
        }
    }
}

fn reasoning(check: &mut Check<'_>, view: &mut View, item: &Value) {
    let encrypted = item["encrypted_content"].as_str().unwrap_or_default();
    let texts = item["summary"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|part| part["text"].as_str());
    let text: String = texts.collect::<Vec<_>>().join("\n\n");
    if !encrypted.starts_with("red-") {
        check.signature(&text, encrypted);
    }
    check.that(item["id"].is_string(), "a reasoning item has no id");
    view.turn(Role::Model).signature(encrypted);
}

pub(super) fn write(writer: &mut Writer<'_>) {
    let reply = writer.reply;
    let mut sequence = 0;
    let mut emit = |writer: &mut Writer<'_>, kind: &str, mut data: Value| {
        data["type"] = kind.into();
        data["sequence_number"] = sequence.into();
        sequence += 1;
        writer.event(kind, &data);
    };
    let response =
        |status: &str| json!({"id": "resp_fake", "object": "response", "status": status, "output": []});
    emit(
        writer,
        "response.created",
        json!({"response": response("in_progress")}),
    );
    let mut index = 0;
    for (at, step) in reply.steps.iter().enumerate() {
        let (item_id, item) = match step {
            Step::Thinking(_) | Step::Redacted(_) => (
                format!("rs_{}_{at}", writer.answers),
                json!({"type": "reasoning", "summary": []}),
            ),
            Step::Text(_) => (
                format!("msg_{}_{at}", writer.answers),
                json!({"type": "message", "role": "assistant", "content": []}),
            ),
            Step::Tool { name, .. } => (
                format!("fc_{}_{at}", writer.answers),
                json!({"type": "function_call", "call_id": writer.call_id(at), "name": name, "arguments": ""}),
            ),
            Step::Error { kind, message } => {
                emit(
                    writer,
                    "error",
                    json!({"code": kind, "message": message, "param": null}),
                );
                return;
            }
            other => {
                if writer.common(other, malformed_sse()) == Flow::End {
                    return;
                }
                continue;
            }
        };
        let mut item = item;
        item["id"] = item_id.clone().into();
        item["status"] = "in_progress".into();
        emit(
            writer,
            "response.output_item.added",
            json!({"output_index": index, "item": item}),
        );
        item["status"] = "completed".into();
        match step {
            Step::Thinking(text) => {
                for piece in writer.pieces(text) {
                    let data = json!({"item_id": item_id, "output_index": index, "summary_index": 0, "delta": piece});
                    emit(writer, "response.reasoning_summary_text.delta", data);
                }
                item["summary"] = json!([{"type": "summary_text", "text": text}]);
                item["encrypted_content"] = view::signature(text).into();
            }
            Step::Redacted(data) => item["encrypted_content"] = data.clone().into(),
            Step::Text(text) => {
                for piece in writer.pieces(text) {
                    let data = json!({"item_id": item_id, "output_index": index, "content_index": 0, "delta": piece});
                    emit(writer, "response.output_text.delta", data);
                }
                item["content"] = json!([{"type": "output_text", "text": text, "annotations": []}]);
            }
            Step::Tool { input, .. } => {
                for piece in writer.pieces(&input.to_string()) {
                    let data = json!({"item_id": item_id, "output_index": index, "delta": piece});
                    emit(writer, "response.function_call_arguments.delta", data);
                }
                item["arguments"] = input.to_string().into();
            }
            _ => {}
        }
        if !writer.is_broken_off(at) {
            emit(
                writer,
                "response.output_item.done",
                json!({"output_index": index, "item": item}),
            );
        }
        index += 1;
    }
    let (kind, mut last) = match &reply.stop {
        Stop::Done => ("response.completed", response("completed")),
        Stop::MaxTokens => {
            let mut last = response("incomplete");
            last["incomplete_details"] = json!({"reason": "max_output_tokens"});
            ("response.incomplete", last)
        }
        Stop::Refusal(explanation) => {
            emit(
                writer,
                "response.refusal.delta",
                json!({"output_index": index, "delta": explanation}),
            );
            ("response.completed", response("completed"))
        }
    };
    if let Some(usage) = reply.usage {
        let input = usage.input + usage.cache_read + usage.cache_write;
        last["usage"] = json!({
            "input_tokens": input,
            "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": usage.thinking},
            "total_tokens": input + usage.output,
        });
    }
    emit(writer, kind, json!({"response": last}));
}
