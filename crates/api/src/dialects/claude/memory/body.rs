//! What clients send about memory stores and memories.

use oma_domain::memory::{Content, Path, Sha, StoreSpec};
use oma_engine::MemoryEdit;
use serde_json::Value;

use crate::dialects::claude::body::{
    MetadataChanges, merged, metadata, metadata_changes, nullable, object, parse,
};
use crate::fault::Result;
use crate::validate::Tree;
use crate::validate::checks::{expected, one_of, text};

/// The longest name of a store, in characters.
const NAME: usize = 255;
/// The longest description of a store, in characters.
const DESCRIPTION: usize = 1_024;

const FIELDS: &[&str] = &["name", "description", "metadata"];

/// Reads a store to create.
pub(super) fn create(value: &Value) -> Result<StoreSpec> {
    parse(value, FIELDS, |object| {
        let name = object.required("name", name);
        let description = nullable(object, "description", text(0, DESCRIPTION));
        let metadata = nullable(object, "metadata", metadata);
        Some(StoreSpec {
            name: name?,
            description: description?.unwrap_or_default(),
            metadata: metadata?.unwrap_or_default(),
        })
    })
}

fn name(value: &Value, issues: &mut Tree) -> Option<String> {
    let name = text(1, NAME)(value, issues)?;
    if name.chars().any(char::is_control) {
        issues.push("String must not contain control characters");
        return None;
    }
    Some(name)
}

/// An update of a store. What is not sent, or null, stays.
#[derive(Debug, Clone)]
pub(super) struct UpdateStore {
    name: Option<String>,
    description: Option<String>,
    metadata: MetadataChanges,
}

/// Reads an update.
pub(super) fn update(value: &Value) -> Result<UpdateStore> {
    parse(value, FIELDS, |object| {
        let name = nullable(object, "name", name);
        let description = nullable(object, "description", text(0, DESCRIPTION));
        let metadata = nullable(object, "metadata", metadata_changes);
        Some(UpdateStore {
            name: name?,
            description: description?,
            metadata: metadata?.unwrap_or_default(),
        })
    })
}

impl UpdateStore {
    /// Lays it over a definition.
    pub(super) fn apply(self, mut spec: StoreSpec) -> StoreSpec {
        spec.name = self.name.unwrap_or(spec.name);
        spec.description = self.description.unwrap_or(spec.description);
        spec.metadata = merged(spec.metadata, self.metadata);
        spec
    }
}

/// Reads a memory to create.
pub(super) fn new_memory(value: &Value) -> Result<(Path, Content)> {
    parse(value, &["content", "path"], |object| {
        let path = object.required("path", path);
        let content = object.required("content", |value, issues| match value {
            // The SDKs' type allows it.
            Value::Null => content(&Value::String(String::new()), issues),
            value => content(value, issues),
        });
        Some((path?, content?))
    })
}

/// Reads an update of a memory.
pub(super) fn edit(value: &Value) -> Result<MemoryEdit> {
    parse(value, &["content", "path", "precondition"], |object| {
        let path = nullable(object, "path", path);
        let content = nullable(object, "content", content);
        let precondition = nullable(object, "precondition", precondition);
        Some(MemoryEdit {
            path: path?,
            content: content?,
            expected: precondition?,
        })
    })
}

fn path(value: &Value, issues: &mut Tree) -> Option<Path> {
    let Value::String(text) = value else {
        issues.push(expected("string", value));
        return None;
    };
    Path::parse(text)
        .map_err(|invalid| issues.push(invalid.to_string()))
        .ok()
}

fn content(value: &Value, issues: &mut Tree) -> Option<Content> {
    let text = text(0, oma_domain::memory::MAX_CONTENT)(value, issues)?;
    Content::new(text)
        .map_err(|large| issues.push(large.to_string()))
        .ok()
}

fn precondition(value: &Value, issues: &mut Tree) -> Option<Sha> {
    object(&["type", "content_sha256"], |object| {
        let kind = object.required("type", one_of(&["content_sha256"]));
        let sha = object.required("content_sha256", |value, issues| {
            let sha = value.as_str().and_then(Sha::parse);
            if sha.is_none() {
                issues.push(SHA);
            }
            sha
        });
        kind?;
        sha
    })(value, issues)
}

/// What a digest has to be.
pub(super) const SHA: &str = "must be 64 hexadecimal digits in lower case";
