//! Content that a protocol can't carry, as text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oma_domain::ContentBlock;
use oma_domain::content::Source;

use crate::conversation::is_blank;

/// What stands in front of a failed tool's output where the protocol has no mark for failure.
pub(crate) const FAILED: &str = "[The tool failed]";

/// The blocks that are not empty texts, which providers refuse.
pub(crate) fn readable(content: &[ContentBlock]) -> impl Iterator<Item = &ContentBlock> {
    content
        .iter()
        .filter(|block| !matches!(block, ContentBlock::Text { text } if is_blank(text)))
}

/// A document's text, when it is one: plain text, or base64 of a text type.
pub(crate) fn document_text(source: &Source) -> Option<String> {
    match source {
        Source::Text { data } => Some(data.clone()),
        Source::Base64 { media_type, data } if is_text(media_type) => {
            String::from_utf8(STANDARD.decode(data).ok()?).ok()
        }
        Source::Base64 { .. } | Source::Url { .. } => None,
    }
}

fn is_text(media_type: &str) -> bool {
    let plain = media_type.split(';').next().unwrap_or_default().trim();
    plain.starts_with("text/") || matches!(plain, "application/json" | "application/xml" | "application/yaml")
}

/// A block as text, for protocols without that kind of content.
pub(crate) fn as_text(block: &ContentBlock) -> String {
    match block {
        ContentBlock::Text { text } => text.clone(),
        ContentBlock::SearchResult { .. } => block.as_text().unwrap_or_default().into_owned(),
        ContentBlock::Image { source } => format!("[image: {}]", described(source)),
        ContentBlock::Document {
            source,
            title,
            context,
        } => {
            let title = title
                .as_deref()
                .map(|title| format!(" \"{title}\""))
                .unwrap_or_default();
            let context = context
                .as_deref()
                .map(|context| format!(" ({context})"))
                .unwrap_or_default();
            match document_text(source) {
                Some(text) => format!("Document{title}{context}:\n{text}"),
                None => format!("[document{title}{context}: {}]", described(source)),
            }
        }
    }
}

fn described(source: &Source) -> String {
    match source {
        Source::Base64 { media_type, .. } => format!("{media_type}, which this model's API can't take"),
        Source::Text { .. } => "plain text".to_owned(),
        Source::Url { url } => url.clone(),
    }
}

/// A tool result's text, marked when the tool failed.
pub(crate) fn result_text<'a>(content: impl IntoIterator<Item = &'a ContentBlock>, is_error: bool) -> String {
    let texts = content.into_iter().map(as_text).filter(|text| !is_blank(text));
    let mut all: Vec<String> = Vec::new();
    if is_error {
        all.push(FAILED.to_owned());
    }
    all.extend(texts);
    all.join("\n")
}

/// A system message in the midst of a conversation, for protocols that have none.
pub(crate) fn system_text(text: &str) -> String {
    format!("<system-message>\n{text}\n</system-message>")
}

/// A base64 source as a `data:` address.
pub(crate) fn data_url(media_type: &str, data: &str) -> String {
    format!("data:{media_type};base64,{data}")
}

/// A tool's schema as every provider takes it: an object whose type is `object`.
pub(crate) fn object_schema(schema: &serde_json::Value) -> serde_json::Value {
    let mut object = schema.as_object().cloned().unwrap_or_default();
    if object.get("type").and_then(serde_json::Value::as_str) != Some("object") {
        object.insert("type".to_owned(), "object".into());
    }
    object
        .entry("properties")
        .or_insert_with(|| serde_json::json!({}));
    object.into()
}
