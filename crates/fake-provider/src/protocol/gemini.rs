//! Gemini.

use serde_json::{Value, json};

use super::{Check, Flow, Writer, malformed_sse};
use crate::reply::{Step, Stop};
use crate::view::{self, Role, View};

/// What Google accepts in place of a signature that another model's tool use doesn't have.
const FOREIGN: &str = "skip_thought_signature_validator";

pub(super) fn check(check: &mut Check<'_>) -> View {
    let body = check.body;
    check.that(
        check.header("x-goog-api-key").is_some(),
        "there is no x-goog-api-key",
    );
    check.that(
        check.path.contains("alt=sse"),
        "the answer is not asked for as events",
    );
    check.that(!check.path.contains("key="), "the key stands in the address");
    for tool in body["tools"].as_array().into_iter().flatten() {
        for declaration in tool["functionDeclarations"].as_array().into_iter().flatten() {
            check.tool_name(&declaration["name"]);
            check.schema(
                &declaration["name"].to_string(),
                &declaration["parametersJsonSchema"],
            );
        }
    }
    let mode = &body["toolConfig"]["functionCallingConfig"]["mode"];
    check.tool_choice(mode, &["AUTO", "NONE"], &body["tools"]);
    let signed = check.path.contains("gemini-3") || check.path.contains("gemini-4");
    let mut view = View::default();
    let mut last_role = None;
    // Calls have no ids, so they are told apart by their place.
    let mut calls: Vec<(String, String)> = Vec::new();
    for (at, content) in body["contents"].as_array().into_iter().flatten().enumerate() {
        let role = match content["role"].as_str() {
            Some("user") => Role::User,
            Some("model") => Role::Model,
            other => {
                check.fail(format!("there is no role {other:?}"));
                continue;
            }
        };
        check.that(last_role != Some(role), "roles do not alternate");
        last_role = Some(role);
        let parts = content["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
        match role {
            Role::Model => calls = model(check, &mut view, at, parts, signed),
            Role::User => user(check, &mut view, parts, std::mem::take(&mut calls)),
        }
    }
    view.check(false, check.violations);
    view
}

fn model(
    check: &mut Check<'_>,
    view: &mut View,
    at: usize,
    parts: &[Value],
    signed: bool,
) -> Vec<(String, String)> {
    let turn = view.turn(Role::Model);
    let mut calls = Vec::new();
    for part in parts {
        if let Some(text) = part["text"].as_str() {
            turn.texts.push(text.to_owned());
        }
        let call = &part["functionCall"];
        if call.is_null() {
            continue;
        }
        check.tool_name(&call["name"]);
        check.that(call["args"].is_object(), "a call's arguments are no object");
        let signature = part["thoughtSignature"].as_str();
        let own = view::signature(&format!(
            "{}{}",
            call["name"].as_str().unwrap_or_default(),
            call["args"]
        ));
        match signature {
            None => check.that(
                !signed || !calls.is_empty(),
                "a turn's first call has no thought signature",
            ),
            Some(it) => check.that(it == own || it == FOREIGN, "a call has another call's signature"),
        }
        let id = format!("{at}_{}", calls.len());
        turn.calls.push(id.clone());
        calls.push((call["name"].as_str().unwrap_or_default().to_owned(), id));
    }
    calls
}

fn user(check: &mut Check<'_>, view: &mut View, parts: &[Value], mut calls: Vec<(String, String)>) {
    let turn = view.turn(Role::User);
    for part in parts {
        if let Some(text) = part["text"].as_str() {
            turn.texts.push(text.to_owned());
        }
        turn.media += usize::from(part["inlineData"].is_object() || part["fileData"].is_object());
        let response = &part["functionResponse"];
        if response.is_null() {
            continue;
        }
        let name = response["name"].as_str().unwrap_or_default();
        check.that(
            response["response"].is_object(),
            "a function response is no object",
        );
        let output = response["response"]["output"]
            .as_str()
            .or(response["response"]["error"].as_str());
        // Responses stand in the order of their calls.
        if calls.first().is_some_and(|(called, _)| called == name) {
            let (_, id) = calls.remove(0);
            turn.result(&id, output.unwrap_or_default().to_owned());
        } else {
            check.fail(format!("the response of {name} answers no call"));
        }
    }
}

pub(super) fn write(writer: &mut Writer<'_>) {
    let reply = writer.reply;
    let response = |part: Value| {
        json!({
            "candidates": [{"content": {"role": "model", "parts": [part]}, "index": 0}],
            "usageMetadata": {"promptTokenCount": 1},
            "modelVersion": "fake",
        })
    };
    let mut is_first_call = true;
    for step in &reply.steps {
        match step {
            Step::Thinking(text) => {
                for piece in writer.pieces(text) {
                    writer.data(&response(json!({"text": piece, "thought": true})));
                }
            }
            // The protocol has no thought that can't be read.
            Step::Redacted(_) => {}
            Step::Text(text) => {
                for piece in writer.pieces(text) {
                    writer.data(&response(json!({"text": piece})));
                }
            }
            Step::Tool { name, input } => {
                let mut part = json!({"functionCall": {"name": name, "args": input}});
                if is_first_call {
                    part["thoughtSignature"] = view::signature(&format!("{name}{input}")).into();
                }
                is_first_call = false;
                writer.data(&response(part));
            }
            Step::Error { kind, message } => {
                writer.data(&json!({"error": {"code": 503, "message": message, "status": kind}}));
                return;
            }
            other => {
                if writer.common(other, malformed_sse()) == Flow::End {
                    return;
                }
            }
        }
    }
    let (reason, message) = match &reply.stop {
        Stop::Done => ("STOP", None),
        Stop::MaxTokens => ("MAX_TOKENS", None),
        Stop::Refusal(explanation) => ("SAFETY", Some(explanation)),
    };
    let mut last = response(json!({"text": ""}));
    last["candidates"][0]["finishReason"] = reason.into();
    if let Some(message) = message {
        last["candidates"][0]["finishMessage"] = message.clone().into();
    }
    if let Some(usage) = reply.usage {
        last["usageMetadata"] = json!({
            "promptTokenCount": usage.input + usage.cache_read,
            "cachedContentTokenCount": usage.cache_read,
            "candidatesTokenCount": usage.output - usage.thinking.min(usage.output),
            "thoughtsTokenCount": usage.thinking,
            "totalTokenCount": usage.input + usage.cache_read + usage.output,
        });
    }
    writer.data(&last);
}
