//! A request in the Chat Completions form.

use std::borrow::Cow;

use oma_domain::ContentBlock;
use oma_domain::content::Source;
use oma_domain::thinking::ThinkingLevel;
use serde_json::{Map, Value, json};

use crate::conversation::{self, Rules, Turn, is_blank};
use crate::provider::{EffortStyle, ReasoningBack, UsageStyle};
use crate::registry::Target;
use crate::request::{AssistantBlock, Request, ToolChoice, UserBlock};
use crate::{media, openai_responses};

pub(super) fn build(target: &Target, request: &Request, with_effort: bool) -> Value {
    let rules = target.rules();
    let turns = conversation::normalise(&request.messages, &rules);
    let mut messages = Vec::with_capacity(turns.len() + 1);
    if !is_blank(&request.system) {
        messages.push(json!({"role": "system", "content": request.system}));
    }
    for turn in &turns {
        match turn {
            Turn::User(blocks) => user(blocks, is_openai(target), &mut messages),
            Turn::Assistant(blocks) => messages.push(assistant(blocks, &rules, target.config.reasoning_back)),
        }
    }
    if target.known.usage == UsageStyle::WithCost && target.model.contains("claude") {
        mark_caches(&mut messages);
    }
    let mut body = Map::new();
    body.insert("model".to_owned(), target.model.clone().into());
    body.insert("messages".to_owned(), messages.into());
    body.insert("stream".to_owned(), true.into());
    if target.known.usage != UsageStyle::Unasked {
        body.insert("stream_options".to_owned(), json!({"include_usage": true}));
    }
    if target.known.usage == UsageStyle::WithCost {
        body.insert("usage".to_owned(), json!({"include": true}));
    }
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            let parameters = media::object_schema(&tool.input_schema);
            json!({
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
            })
        });
        body.insert("tools".to_owned(), tools.collect());
        // Many of these servers take the tools out of the prompt then, and Claude's provider behind a router
        // caches messages by this parameter.
        if request.tool_choice == ToolChoice::None {
            body.insert("tool_choice".to_owned(), "none".into());
        }
    }
    if let Some(max) = request.max_tokens.or(target.max_output_tokens) {
        // OpenAI's reasoning models refuse the old name, most others don't know the new one.
        let name = if is_openai(target) {
            "max_completion_tokens"
        } else {
            "max_tokens"
        };
        body.insert(name.to_owned(), max.into());
    }
    if target.known.cache_key && !request.cache_key.is_empty() {
        body.insert("prompt_cache_key".to_owned(), request.cache_key.clone().into());
    }
    if with_effort {
        effort(target, request.thinking, &mut body);
    }
    body.into()
}

/// Whether it is OpenAI itself, and no server that speaks its protocol.
fn is_openai(target: &Target) -> bool {
    target.base_url.contains("//api.openai.com")
}

/// `takes_system` says whether system messages may stand anywhere: many servers want the first message alone to be one.
fn user(blocks: &[Cow<'_, UserBlock>], takes_system: bool, messages: &mut Vec<Value>) {
    let mut content = Vec::new();
    for block in blocks {
        match &**block {
            UserBlock::System(text) if takes_system => {
                said(std::mem::take(&mut content), messages);
                messages.push(json!({"role": "system", "content": text}));
            }
            UserBlock::System(text) => {
                content.push(json!({"type": "text", "text": media::system_text(text)}))
            }
            UserBlock::Content(block) => content.push(part(block)),
            UserBlock::ToolResult {
                call_id,
                name,
                content: result,
                is_error,
            } => {
                // A tool message holds text only, so what else the tool gave follows in the user's message.
                let (media, text): (Vec<_>, Vec<_>) = result.iter().partition(|block| is_media(block));
                let mut text = media::result_text(text, *is_error);
                if !media.is_empty() {
                    content
                        .push(json!({"type": "text", "text": format!("From the tool {name} ({call_id}):")}));
                    content.extend(media.into_iter().map(part));
                    let note = "The media that it gave are in the next message.";
                    text = if text.is_empty() {
                        note.to_owned()
                    } else {
                        format!("{text}\n{note}")
                    };
                }
                messages.push(json!({"role": "tool", "tool_call_id": call_id, "content": text}));
            }
        }
    }
    said(content, messages);
}

/// Adds what the user says, if it is anything.
fn said(content: Vec<Value>, messages: &mut Vec<Value>) {
    match content.as_slice() {
        [] => {}
        // A plain string is understood by every server, a list of parts not by all.
        [only] if only["type"] == "text" => messages.push(json!({"role": "user", "content": only["text"]})),
        _ => messages.push(json!({"role": "user", "content": content})),
    }
}

/// Marks for Claude's prompt cache, which OpenRouter passes on: at the end of the system prompt and of the last
/// two messages that are not the model's. Other models' providers cache by themselves.
fn mark_caches(messages: &mut [Value]) {
    let mut ends = 0;
    for message in messages.iter_mut().rev() {
        let role = message["role"].as_str().unwrap_or_default().to_owned();
        if role == "assistant" || role != "system" && ends == 2 {
            continue;
        }
        ends += usize::from(role != "system");
        let mark = json!({"type": "ephemeral"});
        if role == "tool" {
            message["cache_control"] = mark;
            continue;
        }
        if let Some(text) = message["content"].as_str().map(str::to_owned) {
            message["content"] = json!([{"type": "text", "text": text}]);
        }
        if let Some(last) = message["content"]
            .as_array_mut()
            .and_then(|parts| parts.last_mut())
        {
            last["cache_control"] = mark;
        }
    }
}

/// Whether a block can't be put into a text.
fn is_media(block: &ContentBlock) -> bool {
    match block {
        ContentBlock::Text { .. } | ContentBlock::SearchResult { .. } => false,
        ContentBlock::Image { source } => !matches!(source, Source::Text { .. }),
        ContentBlock::Document { source, .. } => {
            matches!(source, Source::Base64 { .. }) && media::document_text(source).is_none()
        }
    }
}

fn part(block: &ContentBlock) -> Value {
    match block {
        ContentBlock::Image {
            source: Source::Base64 { media_type, data },
        } => {
            json!({"type": "image_url", "image_url": {"url": media::data_url(media_type, data)}})
        }
        ContentBlock::Image {
            source: Source::Url { url },
        } => {
            json!({"type": "image_url", "image_url": {"url": url}})
        }
        ContentBlock::Document {
            source: source @ Source::Base64 { media_type, data },
            title,
            ..
        } if media::document_text(source).is_none() => {
            let name = title.clone().unwrap_or_else(|| "document.pdf".to_owned());
            json!({"type": "file", "file": {"filename": name, "file_data": media::data_url(media_type, data)}})
        }
        other => json!({"type": "text", "text": media::as_text(other)}),
    }
}

fn assistant(blocks: &[Cow<'_, AssistantBlock>], rules: &Rules<'_>, back: ReasoningBack) -> Value {
    let mut texts: Vec<&str> = Vec::new();
    let mut thoughts: Vec<&str> = Vec::new();
    let mut details: Vec<Value> = Vec::new();
    let mut calls: Vec<Value> = Vec::new();
    for block in blocks {
        let (AssistantBlock::Text { opaque, .. }
        | AssistantBlock::Thinking { opaque, .. }
        | AssistantBlock::ToolUse { opaque, .. }) = &**block;
        if let Some(own) = rules.own(opaque.as_ref()) {
            details.extend(own["reasoning_details"].as_array().into_iter().flatten().cloned());
        }
        match &**block {
            AssistantBlock::Text { text, .. } => texts.push(text),
            AssistantBlock::Thinking { text, .. } => thoughts.push(text),
            AssistantBlock::ToolUse {
                call_id, name, input, ..
            } => calls.push(json!({
                "id": call_id,
                "type": "function",
                "function": {"name": name, "arguments": input.to_string()},
            })),
        }
    }
    let mut message = json!({"role": "assistant"});
    // Several servers refuse an absent content, others an empty one beside tool calls.
    message["content"] = if texts.is_empty() {
        Value::Null
    } else {
        texts.join("\n").into()
    };
    let thoughts = thoughts.join("\n");
    match back {
        ReasoningBack::Content | ReasoningBack::RequiredContent if !thoughts.is_empty() => {
            message["reasoning_content"] = thoughts.into();
        }
        // Another model's message has no thoughts to give back; a blank stands for them.
        ReasoningBack::RequiredContent if !calls.is_empty() => message["reasoning_content"] = " ".into(),
        ReasoningBack::Details if !details.is_empty() => message["reasoning_details"] = details.into(),
        _ => {}
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    message
}

fn effort(target: &Target, level: ThinkingLevel, body: &mut Map<String, Value>) {
    let on = level != ThinkingLevel::Off;
    // Above "high" only OpenAI's own servers and OpenRouter know a level.
    let capped = if level == ThinkingLevel::Xhigh {
        "high"
    } else {
        level.as_str()
    };
    let model = target.model.to_lowercase();
    let mut set = |name: &str, value: Value| {
        body.insert(name.to_owned(), value);
    };
    let switch = if on { "enabled" } else { "disabled" };
    match target.config.effort {
        EffortStyle::ReasoningEffort if target.provider == "openai" => {
            if let Some(effort) = openai_responses::effort(&model, level) {
                set("reasoning_effort", effort.into());
            }
        }
        EffortStyle::ReasoningEffort if on => set("reasoning_effort", capped.into()),
        EffortStyle::Reasoning if on => set("reasoning", json!({"effort": level.as_str()})),
        EffortStyle::Deepseek if model.contains("reasoner") => {}
        EffortStyle::Deepseek => {
            set("thinking", json!({"type": switch}));
            if on && !model.contains("chat") {
                set(
                    "reasoning_effort",
                    if level == ThinkingLevel::Xhigh {
                        "max"
                    } else {
                        "high"
                    }
                    .into(),
                );
            }
        }
        EffortStyle::Moonshot if moonshot_switches(&model) => set("thinking", json!({"type": switch})),
        EffortStyle::EnableThinking if !model.contains("thinking") && !model.contains("instruct") => {
            set("enable_thinking", on.into());
            if on {
                set("thinking_budget", crate::anthropic::budget(level).into());
            }
        }
        _ => {}
    }
}

/// Kimi models from k2.5 on think or not as they are told; the older ones do as they are named.
fn moonshot_switches(model: &str) -> bool {
    let Some((_, version)) = model.split_once("kimi-k") else {
        return false;
    };
    let number: String = version
        .chars()
        .take_while(|ch| ch.is_ascii_digit() || *ch == '.')
        .collect();
    !model.contains("thinking") && number.parse::<f32>().is_ok_and(|number| number >= 2.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_newer_kimi_models_are_switched() {
        for (model, expected) in [
            ("kimi-k2.6", true),
            ("kimi-k2.5-preview", true),
            ("kimi-k3", true),
            ("kimi-k2-0905-preview", false),
            ("kimi-k2-thinking", false),
            ("kimi-latest", false),
            ("moonshot-v1-128k", false),
        ] {
            assert_eq!(moonshot_switches(model), expected, "{model}");
        }
    }
}
