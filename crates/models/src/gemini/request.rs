//! A request in the Gemini form.

use std::borrow::Cow;

use oma_domain::ContentBlock;
use oma_domain::content::Source;
use oma_domain::thinking::ThinkingLevel;
use serde_json::{Map, Value, json};

use crate::conversation::{self, Rules, Turn, is_blank};
use crate::media;
use crate::registry::Target;
use crate::request::{AssistantBlock, Request, ToolChoice, UserBlock};

/// What Google documents for tool uses that another model made: models from Gemini 3 on refuse a tool use
/// without a signature.
const FOREIGN_SIGNATURE: &str = "skip_thought_signature_validator";

pub(super) fn build(target: &Target, request: &Request) -> Value {
    let rules = target.rules();
    let turns = conversation::normalise(&request.messages, &rules);
    let version = version(&target.model);
    let needs_signatures = version.is_none_or(|version| version >= (3, 0));
    let mut contents = Vec::with_capacity(turns.len());
    // Ids go back with results only where the model gave them.
    let mut ids: Vec<String> = Vec::new();
    for turn in &turns {
        contents.push(match turn {
            Turn::User(blocks) => json!({"role": "user", "parts": user(blocks, &ids)}),
            Turn::Assistant(blocks) => {
                ids.clear();
                json!({"role": "model", "parts": model(blocks, &rules, needs_signatures, &mut ids)})
            }
        });
    }
    let mut body = Map::new();
    if !is_blank(&request.system) {
        body.insert(
            "systemInstruction".to_owned(),
            json!({"parts": [{"text": request.system}]}),
        );
    }
    body.insert("contents".to_owned(), contents.into());
    if !request.tools.is_empty() {
        let declarations: Vec<Value> = request
            .tools
            .iter()
            .map(|tool| {
                let schema = media::object_schema(&tool.input_schema);
                json!({"name": tool.name, "description": tool.description, "parametersJsonSchema": schema})
            })
            .collect();
        body.insert(
            "tools".to_owned(),
            json!([{"functionDeclarations": declarations}]),
        );
        // With it the model answers as if it had no tools, so they are no part of the prompt either.
        if request.tool_choice == ToolChoice::None {
            body.insert(
                "toolConfig".to_owned(),
                json!({"functionCallingConfig": {"mode": "NONE"}}),
            );
        }
    }
    let mut generation = Map::new();
    if let Some(max) = request.max_tokens.or(target.max_output_tokens) {
        generation.insert("maxOutputTokens".to_owned(), max.into());
    }
    if let Some(thinking) = thinking(&target.model, version, request.thinking) {
        generation.insert("thinkingConfig".to_owned(), thinking);
    }
    if !generation.is_empty() {
        body.insert("generationConfig".to_owned(), generation.into());
    }
    body.into()
}

/// The version in `gemini-2.5-flash`, `gemini-3-pro-preview`, `models/gemini-3.6-flash`.
fn version(model: &str) -> Option<(u32, u32)> {
    let (_, after) = model.split_once("gemini-")?;
    let number = after.split('-').next()?;
    let mut parts = number.split('.').map(|part| part.parse::<u32>().ok());
    Some((parts.next()??, parts.next().flatten().unwrap_or(0)))
}

/// Levels from Gemini 3 on, budgets in tokens for 2.5, nothing before that.
fn thinking(model: &str, version: Option<(u32, u32)>, level: ThinkingLevel) -> Option<Value> {
    let is_pro = model.contains("pro");
    match version {
        Some(version) if version < (2, 5) => None,
        Some(version) if version < (3, 0) => Some(match level {
            // Pro can't be told not to think; this is its least.
            ThinkingLevel::Off => json!({"thinkingBudget": if is_pro { 128 } else { 0 }}),
            ThinkingLevel::Low => json!({"thinkingBudget": 4_096, "includeThoughts": true}),
            ThinkingLevel::Medium => json!({"thinkingBudget": 8_192, "includeThoughts": true}),
            ThinkingLevel::High | ThinkingLevel::Xhigh => {
                json!({"thinkingBudget": 24_576, "includeThoughts": true})
            }
        }),
        None if !model.contains("gemini") => None,
        _ => Some(match level {
            ThinkingLevel::Off => json!({"thinkingLevel": if is_pro { "low" } else { "minimal" }}),
            ThinkingLevel::Low => json!({"thinkingLevel": "low", "includeThoughts": true}),
            // The first pro model of this generation has no level between low and high.
            ThinkingLevel::Medium if is_pro && version == Some((3, 0)) => {
                json!({"thinkingLevel": "high", "includeThoughts": true})
            }
            ThinkingLevel::Medium => json!({"thinkingLevel": "medium", "includeThoughts": true}),
            ThinkingLevel::High | ThinkingLevel::Xhigh => {
                json!({"thinkingLevel": "high", "includeThoughts": true})
            }
        }),
    }
}

fn user(blocks: &[Cow<'_, UserBlock>], ids: &[String]) -> Vec<Value> {
    let mut parts = Vec::new();
    let mut media = Vec::new();
    for block in blocks {
        match &**block {
            UserBlock::Content(content) => media.push(part(content)),
            UserBlock::System(text) => media.push(json!({"text": media::system_text(text)})),
            UserBlock::ToolResult {
                call_id,
                name,
                content,
                is_error,
            } => {
                // A response is a JSON object, so what isn't text follows after all responses.
                let (texts, others): (Vec<_>, Vec<_>) = content
                    .iter()
                    .partition(|block| part(block).get("text").is_some());
                let key = if *is_error { "error" } else { "output" };
                let mut response = json!({"name": name, "response": {key: media::result_text(texts, false)}});
                if ids.contains(call_id) {
                    response["id"] = call_id.clone().into();
                }
                parts.push(json!({"functionResponse": response}));
                if !others.is_empty() {
                    media.push(json!({"text": format!("From the tool {name}:")}));
                    media.extend(others.into_iter().map(part));
                }
            }
        }
    }
    parts.extend(media);
    parts
}

fn part(block: &ContentBlock) -> Value {
    match block {
        ContentBlock::Image {
            source: Source::Base64 { media_type, data },
        } => {
            json!({"inlineData": {"mimeType": media_type, "data": data}})
        }
        ContentBlock::Document {
            source: source @ Source::Base64 { media_type, data },
            ..
        } if media::document_text(source).is_none() => {
            json!({"inlineData": {"mimeType": media_type, "data": data}})
        }
        ContentBlock::Image {
            source: Source::Url { url },
        } => {
            json!({"fileData": {"mimeType": image_type(url), "fileUri": url}})
        }
        ContentBlock::Document {
            source: Source::Url { url },
            ..
        } => {
            json!({"fileData": {"mimeType": "application/pdf", "fileUri": url}})
        }
        other => json!({"text": media::as_text(other)}),
    }
}

/// An image's type by its address; the API wants one.
fn image_type(url: &str) -> &'static str {
    let path = url.split(['?', '#']).next().unwrap_or_default().to_lowercase();
    match path.rsplit('.').next() {
        Some("png") => "image/png",
        Some("webp") => "image/webp",
        Some("gif") => "image/gif",
        Some("heic") => "image/heic",
        _ => "image/jpeg",
    }
}

fn model(
    blocks: &[Cow<'_, AssistantBlock>],
    rules: &Rules<'_>,
    needs_signatures: bool,
    ids: &mut Vec<String>,
) -> Vec<Value> {
    let mut parts = Vec::new();
    let mut is_first_call = true;
    for block in blocks {
        match &**block {
            AssistantBlock::Text { text, opaque } => {
                let mut part = json!({"text": text});
                if let Some(signature) = rules.own(opaque.as_ref()).map(|own| &own["thoughtSignature"]) {
                    part["thoughtSignature"] = signature.clone();
                }
                parts.push(part);
            }
            // Thoughts themselves are not wanted back; what counts is the signatures of the other parts.
            AssistantBlock::Thinking { .. } => {}
            AssistantBlock::ToolUse {
                call_id,
                name,
                input,
                opaque,
            } => {
                let own = rules.own(opaque.as_ref());
                let mut part = json!({"functionCall": {"name": name, "args": input}});
                if own.is_some_and(|own| own["hasId"] == true) {
                    part["functionCall"]["id"] = call_id.clone().into();
                    ids.push(call_id.clone());
                }
                // Of parallel calls only the first is signed.
                match own.and_then(|own| own["thoughtSignature"].as_str()) {
                    Some(signature) => part["thoughtSignature"] = signature.into(),
                    None if is_first_call && needs_signatures => {
                        part["thoughtSignature"] = FOREIGN_SIGNATURE.into()
                    }
                    None => {}
                }
                is_first_call = false;
                parts.push(part);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_generation_is_told_to_think_in_its_own_way() {
        use ThinkingLevel::{Medium, Off};
        for (model, level, expected) in [
            ("gemini-2.0-flash", Medium, None),
            ("gemini-2.5-flash", Off, Some(json!({"thinkingBudget": 0}))),
            ("gemini-2.5-pro", Off, Some(json!({"thinkingBudget": 128}))),
            (
                "gemini-2.5-pro",
                Medium,
                Some(json!({"thinkingBudget": 8192, "includeThoughts": true})),
            ),
            ("gemini-3-pro-preview", Off, Some(json!({"thinkingLevel": "low"}))),
            (
                "gemini-3-pro-preview",
                Medium,
                Some(json!({"thinkingLevel": "high", "includeThoughts": true})),
            ),
            ("gemini-3.6-flash", Off, Some(json!({"thinkingLevel": "minimal"}))),
            (
                "gemini-3.6-flash",
                Medium,
                Some(json!({"thinkingLevel": "medium", "includeThoughts": true})),
            ),
            ("gemma-3-27b-it", Medium, None),
        ] {
            assert_eq!(
                thinking(model, version(model), level),
                expected,
                "{model} {level:?}"
            );
        }
    }
}
