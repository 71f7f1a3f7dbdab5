//! The queue: messages that were accepted while the session was busy.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::content::ContentBlock;
use crate::event::ThreadRef;
use crate::id::{EventId, KeyId};
use crate::thinking::ThinkingLevel;
use crate::trace::TraceParent;

/// The most messages that may wait for a busy session.
pub const MAX_QUEUE: usize = 256;

/// The most bytes of content that may wait for a busy session.
pub const MAX_QUEUE_BYTES: usize = 64 << 20;

/// A message that was accepted while the session was busy. It is not in the log yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// The id that its event will have.
    pub id: EventId,
    /// What it says.
    pub content: Vec<ContentBlock>,
    /// A model for this and later turns.
    pub model: Option<String>,
    /// A thinking level for this and later turns.
    pub thinking_level: Option<ThinkingLevel>,
    /// The trace of the request that posted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
    /// The key that posted it, which is charged for its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charged: Option<KeyId>,
    /// In a thread: the coordinator that sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ThreadRef>,
    /// What accompanies it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemNote>,
}

/// A system message that accompanies something that a client posts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemNote {
    /// The id that its event will have.
    pub id: EventId,
    /// What it says: texts only.
    pub content: Vec<ContentBlock>,
}

/// A change to the durable queue.
#[derive(Debug, Clone, PartialEq)]
pub enum QueueChange {
    /// A message was added at the end.
    Push(Arc<Queued>),
    /// The oldest message left: its turn starts in this very transaction.
    Pop(EventId),
    /// All messages left.
    Clear,
}
