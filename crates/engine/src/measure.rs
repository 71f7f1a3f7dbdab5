//! Metrics of what happens to sessions. `docs/metrics.md` says what each means.

use std::time::Duration;

use oma_domain::event::{Body, StopReason};
use oma_domain::session::{Rejection, State};
use oma_domain::{Event, Timestamp};

/// A transition was committed.
pub(crate) fn transition(before: &State, after: &State, events: &[Event], at: Timestamp) {
    for event in events {
        metrics::counter!("session_events_total", "type" => event.body.kind()).increment(1);
        if let Body::StatusIdle { stop_reason, .. } = &*event.body {
            match stop_reason {
                StopReason::Failed { .. } => metrics::counter!("session_run_failures_total").increment(1),
                StopReason::BudgetReached { cap } => over_budget(cap.as_str()),
                StopReason::EndTurn
                | StopReason::MaxTokens
                | StopReason::Refusal { .. }
                | StopReason::Interrupted
                | StopReason::RequiresAction { .. } => {}
            }
        }
    }
    let ended = before
        .turn()
        .filter(|turn| after.turn().map(|turn| &turn.id) != Some(&turn.id));
    if let Some(turn) = ended {
        let took = Duration::from_millis(at.millis_since(turn.started_at));
        metrics::histogram!("session_run_duration_seconds").record(took);
    }
}

/// An input was refused.
pub(crate) fn rejection(rejection: &Rejection) {
    if let Rejection::QuotaExceeded(cap) = rejection {
        over_budget(cap.as_str());
    }
}

fn over_budget(kind: &'static str) {
    metrics::counter!("quota_rejections_total", "kind" => kind).increment(1);
}

/// A turn that a stop or a crash had cut off goes on, with so many messages behind it.
pub(crate) fn resumed(waiting: usize) {
    metrics::counter!("startup_turns_resumed_total").increment(1);
    metrics::counter!("startup_queue_drained_total").increment(waiting as u64);
}
