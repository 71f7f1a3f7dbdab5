//! Reading a request's body: strictly. Whatever is not known is refused by name, because a client that sends it counts
//! on it.

use std::collections::BTreeMap;

use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use oma_engine::IdempotencyKey;
use serde_json::Value;

use crate::AppState;
use crate::fault::{Fault, Result};
use crate::payload::Payload;
use crate::validate::checks::{expected, text};
use crate::validate::{Change, Object, Tree, clip};

/// The most unknown fields that are named.
const NAMED: usize = 20;
/// The most pairs of metadata.
const METADATA: usize = 16;
/// The most changes of metadata at once: all pairs removed, and as many set.
const METADATA_CHANGES: usize = 2 * METADATA;
/// The longest name in metadata, in characters.
const METADATA_KEY: usize = 64;
/// The longest value in metadata, in characters.
const METADATA_VALUE: usize = 512;

/// A body that is JSON, or empty, which counts as an empty object.
pub(crate) struct Sent {
    pub(crate) value: Value,
    pub(crate) key: Option<IdempotencyKey>,
}

impl FromRequest<AppState> for Sent {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &AppState) -> Result<Self> {
        let (value, key) = Payload::from_request(request, state).await?.into_parts()?;
        Ok(Self { value, key })
    }
}

/// A bad request.
pub(crate) fn bad(message: impl Into<String>) -> Fault {
    Fault::new(StatusCode::BAD_REQUEST, "invalid_request", message)
}

/// Reads a body that is an object with no other fields than these.
pub(crate) fn parse<T>(
    value: &Value,
    fields: &[&str],
    read: impl FnOnce(&mut Object<'_>) -> Option<T>,
) -> Result<T> {
    let mut issues = Tree::default();
    let read = object(fields, read)(value, &mut issues);
    match read {
        Some(read) if issues.is_empty() => Ok(read),
        _ => Err(bad(issues.first())),
    }
}

/// An object with no other fields than these.
pub(crate) fn object<T>(
    fields: &[&str],
    read: impl FnOnce(&mut Object<'_>) -> Option<T>,
) -> impl FnOnce(&Value, &mut Tree) -> Option<T> {
    move |value, issues| {
        let mut object = Object::of(value, issues)?;
        only(&mut object, fields);
        read(&mut object)
    }
}

/// Reports all fields besides these.
pub(crate) fn only(object: &mut Object<'_>, fields: &[&str]) {
    let unknown = object.raw().keys().filter(|key| !fields.contains(&key.as_str()));
    for key in unknown.take(NAMED) {
        object
            .issues()
            .at(&clip(key))
            .push("Extra inputs are not permitted");
    }
}

/// A field that may be missing or null.
pub(crate) fn nullable<T>(
    object: &mut Object<'_>,
    name: &str,
    check: impl FnOnce(&Value, &mut Tree) -> Option<T>,
) -> Option<Option<T>> {
    object.change(name, check).map(|change| match change {
        Change::Set(value) => Some(value),
        Change::Keep | Change::Clear => None,
    })
}

/// Something that this server does not have, unless it is left out, null or empty.
pub(crate) fn unsupported(object: &mut Object<'_>, name: &str) {
    let empty = match object.peek(name) {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    };
    if !empty {
        object
            .issues()
            .at(name)
            .push("This server does not support it yet");
    }
}

/// Metadata of something new.
pub(crate) fn metadata(value: &Value, issues: &mut Tree) -> Option<BTreeMap<String, String>> {
    let changes = metadata_changes(value, issues)?;
    let mut metadata = BTreeMap::new();
    for (name, value) in changes {
        match value {
            Some(value) => {
                metadata.insert(name, value);
            }
            None => {
                issues.at(&name).push(expected("string", &Value::Null));
                return None;
            }
        }
    }
    check_size(&metadata, issues)?;
    Some(metadata)
}

/// Changes of metadata: values to set, and null for what goes.
pub(crate) type MetadataChanges = Vec<(String, Option<String>)>;

/// Reads changes of metadata.
pub(crate) fn metadata_changes(value: &Value, issues: &mut Tree) -> Option<MetadataChanges> {
    let Value::Object(map) = value else {
        issues.push(expected("object", value));
        return None;
    };
    if map.len() > METADATA_CHANGES {
        issues.push(format!("There may be at most {METADATA_CHANGES} changes"));
        return None;
    }
    let mut changes = Vec::new();
    let mut good = true;
    for (name, value) in map {
        if name.is_empty() || name.chars().count() > METADATA_KEY {
            issues
                .at(&clip(name))
                .push(format!("Keys must have 1 to {METADATA_KEY} characters"));
            good = false;
        }
        match value {
            Value::Null => changes.push((name.clone(), None)),
            value => match text(0, METADATA_VALUE)(value, issues.at(&clip(name))) {
                Some(value) => changes.push((name.clone(), Some(value))),
                None => good = false,
            },
        }
    }
    good.then_some(changes)
}

/// Lays changes over metadata.
pub(crate) fn merged(
    mut metadata: BTreeMap<String, String>,
    changes: MetadataChanges,
) -> BTreeMap<String, String> {
    for (name, value) in changes {
        match value {
            Some(value) => metadata.insert(name, value),
            None => metadata.remove(&name),
        };
    }
    metadata
}

/// Whether merged metadata is still small enough.
///
/// # Errors
/// 400 otherwise.
pub(crate) fn bounded(metadata: &BTreeMap<String, String>) -> Result<()> {
    let mut issues = Tree::default();
    match check_size(metadata, issues.at("metadata")) {
        Some(()) => Ok(()),
        None => Err(bad(issues.first())),
    }
}

fn check_size(metadata: &BTreeMap<String, String>, issues: &mut Tree) -> Option<()> {
    if metadata.len() > METADATA {
        issues.push(format!("There may be at most {METADATA} pairs"));
        return None;
    }
    Some(())
}
