//! A request in the Responses form.

use std::borrow::Cow;

use oma_domain::ContentBlock;
use oma_domain::content::Source;
use oma_domain::thinking::ThinkingLevel;
use serde_json::{Map, Value, json};

use crate::conversation::{self, Rules, Turn, is_blank};
use crate::media;
use crate::registry::Target;
use crate::request::{AssistantBlock, Request, ToolChoice, UserBlock};

/// The longest cache key that the API takes, in bytes.
const MAX_CACHE_KEY: usize = 64;

pub(super) fn build(target: &Target, request: &Request, summaries: bool) -> Value {
    let rules = target.rules();
    let mut input = Vec::new();
    for turn in &conversation::normalise(&request.messages, &rules) {
        match turn {
            Turn::User(blocks) => user(blocks, &mut input),
            Turn::Assistant(blocks) => assistant(blocks, &rules, &mut input),
        }
    }
    let mut body = Map::new();
    body.insert("model".to_owned(), target.model.clone().into());
    if !is_blank(&request.system) {
        body.insert("instructions".to_owned(), request.system.clone().into());
    }
    body.insert("input".to_owned(), input.into());
    body.insert("stream".to_owned(), true.into());
    body.insert("store".to_owned(), false.into());
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            let parameters = media::object_schema(&tool.input_schema);
            json!({
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": parameters,
                "strict": false,
            })
        });
        body.insert("tools".to_owned(), tools.collect());
        if request.tool_choice != ToolChoice::Auto {
            body.insert("tool_choice".to_owned(), "none".into());
        }
    }
    if let Some(max) = request.max_tokens.or(target.max_output_tokens) {
        body.insert("max_output_tokens".to_owned(), max.into());
    }
    if !request.cache_key.is_empty() {
        let end = request.cache_key.floor_char_boundary(MAX_CACHE_KEY);
        body.insert("prompt_cache_key".to_owned(), request.cache_key[..end].into());
    }
    let model = target.model.to_lowercase();
    if reasons(&model) {
        body.insert("include".to_owned(), json!(["reasoning.encrypted_content"]));
        let mut reasoning = Map::new();
        if let Some(effort) = effort(&model, request.thinking) {
            reasoning.insert("effort".to_owned(), effort.into());
        }
        if summaries && request.thinking != ThinkingLevel::Off {
            reasoning.insert("summary".to_owned(), "auto".into());
        }
        if !reasoning.is_empty() {
            body.insert("reasoning".to_owned(), reasoning.into());
        }
    }
    body.into()
}

/// Whether the model is one that reasons; the others refuse the parameters for it.
fn reasons(model: &str) -> bool {
    let family = model.strip_prefix("ft:").unwrap_or(model);
    let o_series = family
        .strip_prefix('o')
        .is_some_and(|rest| rest.starts_with(|ch: char| ch.is_ascii_digit()));
    o_series
        || family.starts_with("codex")
        || gpt_version(family).is_some_and(|version| version >= (5, 0)) && !family.contains("-chat")
}

/// What an OpenAI model is told about effort; `None` to leave it at its default.
pub(crate) fn effort(model: &str, level: ThinkingLevel) -> Option<&'static str> {
    if !reasons(model) {
        return None;
    }
    let version = gpt_version(model);
    match level {
        // The o-series can't be told not to think, and neither can the pro models.
        ThinkingLevel::Off if model.contains("-pro") => None,
        ThinkingLevel::Off => match version {
            Some(version) if version >= (5, 1) && !model.contains("codex") => Some("none"),
            Some((5, 0)) if !model.contains("codex") => Some("minimal"),
            _ => Some("low"),
        },
        ThinkingLevel::Xhigh if version.is_some_and(|it| it >= (5, 2)) || model.contains("codex-max") => {
            Some("xhigh")
        }
        ThinkingLevel::Xhigh => Some("high"),
        other => Some(other.as_str()),
    }
}

/// The version in `gpt-5.2-codex`, `gpt-6-sol`, `gpt-4.1-mini`, `gpt-4o`.
fn gpt_version(model: &str) -> Option<(u32, u32)> {
    let version = model.strip_prefix("gpt-")?;
    let end = version
        .find(|ch: char| !ch.is_ascii_digit() && ch != '.')
        .unwrap_or(version.len());
    let mut numbers = version[..end].split('.').map(|part| part.parse::<u32>().ok());
    Some((numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

fn user(blocks: &[Cow<'_, UserBlock>], input: &mut Vec<Value>) {
    let mut content = Vec::new();
    for block in blocks {
        match &**block {
            UserBlock::Content(block) => content.push(part(block)),
            UserBlock::System(text) => {
                let before = std::mem::take(&mut content);
                if !before.is_empty() {
                    input.push(json!({"type": "message", "role": "user", "content": before}));
                }
                let said = json!([{"type": "input_text", "text": text}]);
                input.push(json!({"type": "message", "role": "system", "content": said}));
            }
            UserBlock::ToolResult {
                call_id,
                content: result,
                is_error,
                ..
            } => {
                let is_media = |block: &&ContentBlock| part(block)["type"] != "input_text";
                let output = if result.iter().any(|block| is_media(&block)) {
                    let failed = is_error.then(|| json!({"type": "input_text", "text": media::FAILED}));
                    let readable = media::readable(result).map(part);
                    failed.into_iter().chain(readable).collect()
                } else {
                    Value::String(media::result_text(result, *is_error))
                };
                input.push(json!({"type": "function_call_output", "call_id": call_id, "output": output}));
            }
        }
    }
    if !content.is_empty() {
        input.push(json!({"type": "message", "role": "user", "content": content}));
    }
}

fn part(block: &ContentBlock) -> Value {
    match block {
        ContentBlock::Image {
            source: Source::Base64 { media_type, data },
        } => {
            json!({"type": "input_image", "image_url": media::data_url(media_type, data)})
        }
        ContentBlock::Image {
            source: Source::Url { url },
        } => json!({"type": "input_image", "image_url": url}),
        ContentBlock::Document {
            source: Source::Url { url },
            ..
        } => json!({"type": "input_file", "file_url": url}),
        ContentBlock::Document {
            source: source @ Source::Base64 { media_type, data },
            title,
            ..
        } if media::document_text(source).is_none() => {
            let name = title.clone().unwrap_or_else(|| "document.pdf".to_owned());
            json!({"type": "input_file", "filename": name, "file_data": media::data_url(media_type, data)})
        }
        other => json!({"type": "input_text", "text": media::as_text(other)}),
    }
}

fn assistant(blocks: &[Cow<'_, AssistantBlock>], rules: &Rules<'_>, input: &mut Vec<Value>) {
    for block in blocks {
        match &**block {
            AssistantBlock::Text { text, opaque } => {
                let content = json!([{"type": "output_text", "text": text}]);
                let mut message = json!({"type": "message", "role": "assistant", "content": content});
                // Newer models mark their messages as commentary or final answer and want that back.
                if let Some(phase) = rules.own(opaque.as_ref()).and_then(|own| own["phase"].as_str()) {
                    message["phase"] = phase.into();
                }
                input.push(message);
            }
            AssistantBlock::Thinking { opaque, .. } => {
                input.extend(
                    rules
                        .own(opaque.as_ref())
                        .map(|own| own["item"].clone())
                        .filter(Value::is_object),
                );
            }
            AssistantBlock::ToolUse {
                call_id,
                name,
                input: arguments,
                ..
            } => input.push(json!({
                "type": "function_call",
                "call_id": call_id,
                "name": name,
                "arguments": arguments.to_string(),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_is_told_what_it_understands() {
        use ThinkingLevel::{High, Off, Xhigh};
        for (model, off, high, xhigh) in [
            ("gpt-4o", None, None, None),
            ("gpt-4.1-mini", None, None, None),
            ("gpt-5", Some("minimal"), Some("high"), Some("high")),
            ("gpt-5.1", Some("none"), Some("high"), Some("high")),
            ("gpt-5.2", Some("none"), Some("high"), Some("xhigh")),
            ("gpt-6-sol", Some("none"), Some("high"), Some("xhigh")),
            ("gpt-5-pro", None, Some("high"), Some("high")),
            ("gpt-5-codex", Some("low"), Some("high"), Some("high")),
            ("gpt-5.1-codex-max", Some("low"), Some("high"), Some("xhigh")),
            ("gpt-5-chat-latest", None, None, None),
            ("o4-mini", Some("low"), Some("high"), Some("high")),
        ] {
            let all = [Off, High, Xhigh].map(|level| effort(model, level));
            assert_eq!(all, [off, high, xhigh], "{model}");
        }
    }
}
