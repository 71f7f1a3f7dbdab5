//! Work items as workers read them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oma_domain::work::{State, Work};
use oma_engine::Queue;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use crate::dialects::claude::time;

/// An item; with its token only in the answer that hands it out.
pub(super) fn work(work: &Work, token: Option<&SecretString>) -> Value {
    json!({
        "id": work.id.as_str(),
        "type": "work",
        "environment_id": work.environment.as_str(),
        "data": {"type": "session", "id": work.session.as_str()},
        "state": work.state.as_str(),
        "metadata": work.metadata,
        "secret": token.map(secret),
        "created_at": time::value(work.created_at),
        "acknowledged_at": time::optional(work.acknowledged_at),
        "started_at": time::optional(work.started_at),
        "latest_heartbeat_at": time::optional(work.heartbeat_at),
        "stop_requested_at": time::optional(work.stop_requested_at),
        "stopped_at": time::optional(work.stopped_at),
    })
}

/// The envelope that workers expect their token in.
fn secret(token: &SecretString) -> String {
    let envelope = json!({"sessions_token": token.expose_secret()});
    URL_SAFE_NO_PAD.encode(envelope.to_string())
}

/// The answer to a heartbeat.
pub(super) fn beat(work: &Work) -> Value {
    json!({
        "type": "work_heartbeat",
        // Whoever is told to stop before the first one is told when that was.
        "last_heartbeat": time::value(work.heartbeat_at.or(work.stop_requested_at).unwrap_or(work.created_at)),
        "lease_extended": matches!(work.state, State::Starting | State::Active),
        "state": work.state.as_str(),
        "ttl_seconds": work.lease_ms / 1_000,
    })
}

/// How an item stands, for whoever has lost it.
pub(super) fn lease(work: &Work) -> Value {
    json!({
        "last_heartbeat": time::optional(work.heartbeat_at),
        "lease_extended": false,
        "state": work.state.as_str(),
        "ttl_seconds": work.lease_ms / 1_000,
    })
}

/// How much waits.
pub(super) fn stats(queue: &Queue) -> Value {
    json!({
        "type": "work_queue_stats",
        "depth": queue.stats.queued,
        "pending": queue.stats.pending,
        "oldest_queued_at": time::optional(queue.stats.oldest),
        "workers_polling": queue.workers,
    })
}
