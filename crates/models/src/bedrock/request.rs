//! A request in the Converse form.

use std::borrow::Cow;

use oma_domain::ContentBlock;
use oma_domain::content::Source;
use serde_json::{Map, Value, json};

use crate::conversation::{self, Rules, Turn, is_blank};
use crate::registry::Target;
use crate::request::{AssistantBlock, Request, ToolSpec, UserBlock};
use crate::{anthropic, capability, media};

pub(super) fn build(target: &Target, request: &Request) -> Value {
    let rules = target.rules();
    let turns = conversation::normalise(&request.messages, &rules);
    let is_claude = target.model.contains("claude");
    let caches = is_claude || target.model.contains("nova");
    let default_max = is_claude.then(|| capability::claude(&target.model).max_output);
    let max_tokens = request.max_tokens.or(target.max_output_tokens).or(default_max);

    let mut body = Map::new();
    if !is_blank(&request.system) {
        let mut system = vec![json!({"text": request.system})];
        if caches {
            system.push(cache_point());
        }
        body.insert("system".to_owned(), system.into());
    }
    body.insert("messages".to_owned(), messages(&turns, &rules, caches).into());
    let specs = conversation::tools(&request.tools, &turns);
    if !specs.is_empty() {
        let tools: Vec<Value> = specs.iter().map(tool).collect();
        body.insert("toolConfig".to_owned(), json!({"tools": tools}));
    }
    if let Some(max_tokens) = max_tokens {
        body.insert("inferenceConfig".to_owned(), json!({"maxTokens": max_tokens}));
    }
    if is_claude {
        let (mut fields, interleaved) =
            anthropic::thinking(&target.model, request, max_tokens.unwrap_or_default(), &turns);
        if interleaved {
            fields.insert("anthropic_beta".to_owned(), json!([anthropic::INTERLEAVED]));
        }
        if !fields.is_empty() {
            body.insert("additionalModelRequestFields".to_owned(), fields.into());
        }
    }
    body.into()
}

fn cache_point() -> Value {
    json!({"cachePoint": {"type": "default"}})
}

fn tool(tool: &ToolSpec) -> Value {
    let mut spec =
        json!({"name": tool.name, "inputSchema": {"json": media::object_schema(&tool.input_schema)}});
    if !is_blank(&tool.description) {
        spec["description"] = tool.description.clone().into();
    }
    json!({"toolSpec": spec})
}

/// The same places for cache points as Anthropic's API gets them: see there.
fn messages(turns: &[Turn<'_>], rules: &Rules<'_>, caches: bool) -> Vec<Value> {
    let marks = if caches {
        conversation::cached_turns(turns)
    } else {
        Vec::new()
    };
    let mut documents = 0;
    let mut all = Vec::with_capacity(turns.len());
    for (at, turn) in turns.iter().enumerate() {
        all.push(match turn {
            Turn::User(blocks) => {
                let mut content = user(blocks, &mut documents);
                if marks.contains(&at) {
                    content.push(cache_point());
                }
                json!({"role": "user", "content": content})
            }
            Turn::Assistant(blocks) => {
                let content: Vec<Value> = blocks
                    .iter()
                    .filter_map(|block| assistant(block, rules))
                    .collect();
                json!({"role": "assistant", "content": content})
            }
        });
    }
    all
}

fn user(blocks: &[Cow<'_, UserBlock>], documents: &mut usize) -> Vec<Value> {
    let mut content = Vec::with_capacity(blocks.len() + 1);
    for block in blocks {
        content.push(match &**block {
            UserBlock::Content(block) => part(block, documents),
            UserBlock::System(text) => json!({"text": media::system_text(text)}),
            UserBlock::ToolResult {
                call_id,
                content,
                is_error,
                ..
            } => {
                let readable = media::readable(content);
                let parts: Vec<Value> = readable.map(|block| part(block, documents)).collect();
                let status = if *is_error { "error" } else { "success" };
                json!({"toolResult": {"toolUseId": call_id, "content": parts, "status": status}})
            }
        });
    }
    // The API refuses a document without any text beside it.
    let has_document = content.iter().any(|part| part["document"].is_object());
    if has_document && content.iter().all(|part| !part["text"].is_string()) {
        content.push(json!({"text": "See the document."}));
    }
    content
}

fn part(block: &ContentBlock, documents: &mut usize) -> Value {
    match block {
        ContentBlock::Image {
            source: Source::Base64 { media_type, data },
        } => match image_format(media_type) {
            Some(format) => json!({"image": {"format": format, "source": {"bytes": data}}}),
            None => json!({"text": media::as_text(block)}),
        },
        ContentBlock::Document {
            source: source @ Source::Base64 { media_type, data },
            title,
            ..
        } if media::document_text(source).is_none() => {
            let Some(format) = document_format(media_type) else {
                return json!({"text": media::as_text(block)});
            };
            *documents += 1;
            let name = document_name(title.as_deref(), *documents);
            json!({"document": {"format": format, "name": name, "source": {"bytes": data}}})
        }
        other => json!({"text": media::as_text(other)}),
    }
}

fn image_format(media_type: &str) -> Option<&'static str> {
    Some(match media_type {
        "image/png" => "png",
        "image/jpeg" | "image/jpg" => "jpeg",
        "image/gif" => "gif",
        "image/webp" => "webp",
        _ => return None,
    })
}

fn document_format(media_type: &str) -> Option<&'static str> {
    Some(match media_type {
        "application/pdf" => "pdf",
        "application/msword" => "doc",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document" => "docx",
        "application/vnd.ms-excel" => "xls",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" => "xlsx",
        _ => return None,
    })
}

/// A document's name as the API takes it: unique, of letters, digits, spaces, hyphens and brackets.
fn document_name(title: Option<&str>, number: usize) -> String {
    let allowed = |ch: char| ch.is_ascii_alphanumeric() || "-()[]".contains(ch);
    let words: String = title
        .unwrap_or_default()
        .chars()
        .map(|ch| if allowed(ch) { ch } else { ' ' })
        .collect();
    let title: Vec<&str> = words.split_whitespace().collect();
    let title: String = title.join(" ").chars().take(100).collect();
    if title.is_empty() {
        format!("document {number}")
    } else {
        format!("{title} ({number})")
    }
}

fn assistant(block: &AssistantBlock, rules: &Rules<'_>) -> Option<Value> {
    match block {
        AssistantBlock::Text { text, .. } => Some(json!({"text": text})),
        AssistantBlock::ToolUse {
            call_id, name, input, ..
        } => Some(json!({"toolUse": {"toolUseId": call_id, "name": name, "input": input}})),
        AssistantBlock::Thinking { text, opaque } => {
            let own = rules.own(opaque.as_ref())?;
            if let Some(data) = own["redacted"].as_str() {
                return Some(json!({"reasoningContent": {"redactedContent": data}}));
            }
            let mut reasoning = json!({"text": text});
            if let Some(signature) = own["signature"].as_str() {
                reasoning["signature"] = signature.into();
            }
            Some(json!({"reasoningContent": {"reasoningText": reasoning}}))
        }
    }
}
