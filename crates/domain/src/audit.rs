//! The audit trail: who did what, and how it went.

use serde_json::{Map, Value};

use crate::id::{AuditId, WorkspaceId};
use crate::time::Timestamp;

/// A call that changed something, or tried to. It never holds a secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its id.
    pub id: AuditId,
    /// The workspace in which it happened; the default one for callers that nobody knows.
    pub workspace: WorkspaceId,
    /// When it was answered.
    pub at: Timestamp,
    /// The request's id.
    pub request_id: Option<String>,
    /// Who did it, as [`Actor`](crate::Actor) words it; `ip:` and an address for callers that nobody knows.
    pub actor: String,
    /// What was done, for example `agent.create`.
    pub action: String,
    /// The id of what it was done to.
    pub target: Option<String>,
    /// `ok`, or the code of the error.
    pub outcome: String,
    /// More about it.
    pub metadata: Option<Map<String, Value>>,
}
