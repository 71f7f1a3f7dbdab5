//! Open tool uses: those without a result, and what they wait for.

use serde::{Deserialize, Serialize};

use crate::id::EventId;
use crate::time::Timestamp;

/// A tool use without a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenTool {
    /// Its event.
    pub id: EventId,
    /// The tool.
    pub name: String,
    /// Its arguments.
    pub input: serde_json::Value,
    /// Whether it may run.
    pub gate: Gate,
    /// While it waits for a confirmation: when it counts as denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks_until: Option<Timestamp>,
    /// Whether it is a built-in tool that a worker of the developer's carries out, once it may run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remote: bool,
    /// Whether it is an MCP server's; states of earlier versions don't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_server: Option<bool>,
}

/// Whether a tool use may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// It may.
    Open,
    /// It waits for a confirmation.
    Asking,
    /// It was confirmed while others still wait.
    Confirmed,
    /// A client or a worker carries it out, and its result is awaited.
    Client,
    /// It waits for a thread or several, and all of these wait for clients.
    Thread,
}

impl Gate {
    /// Whether a client has to do something before the tool use can go on.
    #[must_use]
    pub fn awaits_client(self) -> bool {
        matches!(self, Self::Asking | Self::Client | Self::Thread)
    }
}
