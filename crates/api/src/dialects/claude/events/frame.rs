//! Frames: events as clients read them.

use std::sync::Arc;

use oma_domain::event::Body;
use oma_domain::{ContentBlock, Timestamp};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;

use super::content;
use crate::dialects::claude::time;

/// An event as clients read it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    /// Its type.
    pub(crate) kind: &'static str,
    /// Its id.
    pub(crate) id: String,
    /// Its place among the frames of its event.
    pub(crate) index: usize,
    pub(super) fields: Fields,
    pub(super) at: Timestamp,
}

/// What an event has besides its id, its type and its time.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fields {
    /// These.
    Worded(Value),
    /// Its content, and nothing else. Most of a log is that, so it is worded where it is written.
    Content(Arc<Body>),
}

/// The content of an event whose fields are nothing else.
pub(super) fn content_of(body: &Body) -> Option<&[ContentBlock]> {
    match body {
        Body::SystemMessage { content, .. }
        | Body::UserMessage { content, from: None }
        | Body::AgentMessage { content, .. } => Some(content),
        _ => None,
    }
}

impl Serialize for Frame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("type", self.kind)?;
        match &self.fields {
            Fields::Worded(fields) => {
                for (name, value) in fields.as_object().into_iter().flatten() {
                    map.serialize_entry(name, value)?;
                }
            }
            Fields::Content(body) => {
                let blocks = content_of(body).unwrap_or_default();
                map.serialize_entry("content", &content::Blocks(blocks))?;
            }
        }
        map.serialize_entry("processed_at", &time::text(self.at))?;
        map.end()
    }
}
