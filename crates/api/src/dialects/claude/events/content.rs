//! Content blocks of messages and of tool results.

use oma_domain::ContentBlock;
use oma_domain::content::Source;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Value, json};

use crate::dialects::claude::body::{object, only};
use crate::dialects::openclaw::events::body::block as shared;
use crate::limits;
use crate::validate::checks::{boolean, list, one_of, text};
use crate::validate::{Object, Tree};

/// The blocks of a message; at least one.
pub(super) fn of_message(value: &Value, issues: &mut Tree) -> Option<Vec<ContentBlock>> {
    list(1, limits::BLOCKS, block)(value, issues)
}

/// The blocks of a tool's result; there need not be any.
pub(super) fn of_result(value: &Value, issues: &mut Tree) -> Option<Vec<ContentBlock>> {
    let block = |value: &Value, issues: &mut Tree| {
        let mut object = Object::of(value, issues)?;
        match object.peek("type").and_then(Value::as_str) {
            Some("search_result") => search_result(&mut object),
            // Tools may well say nothing.
            Some("text") if object.peek("text").and_then(Value::as_str) == Some("") => {
                only(&mut object, &["type", "text"]);
                Some(ContentBlock::text(""))
            }
            _ => block(value, issues),
        }
    };
    list(0, limits::BLOCKS, block)(value, issues)
}

fn block(value: &Value, issues: &mut Tree) -> Option<ContentBlock> {
    let mut object = Object::of(value, issues)?;
    let fields: &[&str] = match object.peek("type").and_then(Value::as_str) {
        Some("text") => &["type", "text"],
        Some("image") => &["type", "source"],
        Some("document") => &["type", "source", "title", "context"],
        _ => return shared(value, issues),
    };
    only(&mut object, fields);
    let from_file = object.peek("source").and_then(|source| source.get("type")) == Some(&json!("file"));
    if from_file {
        // Those of events have been replaced by their bytes already.
        let problem = "A file can't be named here";
        object.issues().at("source").at("type").push(problem);
        return None;
    }
    // Here null says the same as nothing.
    match value.as_object() {
        Some(map) if map.values().any(Value::is_null) => {
            let mut map = map.clone();
            map.retain(|_, value| !value.is_null());
            shared(&Value::Object(map), issues)
        }
        _ => shared(value, issues),
    }
}

/// What a search found.
fn search_result(found: &mut Object<'_>) -> Option<ContentBlock> {
    only(found, &["type", "source", "title", "content", "citations"]);
    let source = found.required("source", text(0, limits::URL));
    let title = found.required("title", text(0, limits::MESSAGE));
    let lines = found.required(
        "content",
        list(0, limits::BLOCKS, |value, issues| {
            object(&["type", "text"], |object| {
                let kind = object.required("type", one_of(&["text"]));
                let text = object.required("text", text(0, limits::MESSAGE));
                kind?;
                text
            })(value, issues)
        }),
    );
    let citations = found.optional("citations", |value, issues| {
        object(&["enabled"], |object| object.optional("enabled", boolean))(value, issues)
    });
    Some(ContentBlock::SearchResult {
        source: source?,
        title: title?,
        content: lines?,
        citations: citations?.flatten().unwrap_or_default(),
    })
}

/// A text of a system message.
pub(super) fn of_system(value: &Value, issues: &mut Tree) -> Option<ContentBlock> {
    object(&["type", "text"], |object| {
        let kind = object.required("type", one_of(&["text"]));
        let text = object.required("text", text(1, limits::MESSAGE));
        kind?;
        text.map(ContentBlock::text)
    })(value, issues)
}

/// An outcome as clients read it, but for its id.
pub(crate) fn outcome(description: &str, rubric: &str, max_iterations: u32) -> Value {
    json!({
        "type": "user.define_outcome",
        "description": description,
        "rubric": {"type": "text", "content": rubric},
        "max_iterations": max_iterations,
    })
}

/// Blocks as clients read them.
pub(crate) fn view(blocks: &[ContentBlock]) -> Value {
    blocks.iter().map(block_view).collect()
}

/// The same, written at once.
pub(super) struct Blocks<'a>(pub(super) &'a [ContentBlock]);

impl Serialize for Blocks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Block))
    }
}

struct Block<'a>(&'a ContentBlock);

impl Serialize for Block<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ContentBlock::Text { text } = self.0 else {
            return block_view(self.0).serialize(serializer);
        };
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("type", "text")?;
        map.serialize_entry("text", text)?;
        map.end()
    }
}

fn block_view(block: &ContentBlock) -> Value {
    match block {
        ContentBlock::Text { text } => json!({"type": "text", "text": text}),
        ContentBlock::Image { source } => json!({"type": "image", "source": self::source(source)}),
        ContentBlock::Document {
            source,
            title,
            context,
        } => json!({
            "type": "document",
            "source": self::source(source),
            "title": title,
            "context": context,
        }),
        ContentBlock::SearchResult {
            source,
            title,
            content,
            citations,
        } => {
            let texts: Vec<Value> = content
                .iter()
                .map(|text| json!({"type": "text", "text": text}))
                .collect();
            json!({
                "type": "search_result",
                "source": source,
                "title": title,
                "content": texts,
                "citations": {"enabled": citations},
            })
        }
    }
}

fn source(source: &Source) -> Value {
    match source {
        Source::Base64 { media_type, data } => {
            json!({"type": "base64", "media_type": media_type, "data": data})
        }
        Source::Text { data } => json!({"type": "text", "media_type": "text/plain", "data": data}),
        Source::Url { url } => json!({"type": "url", "url": url}),
    }
}
