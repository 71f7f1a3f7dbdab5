//! Events of workflow runs, as clients read them.

use oma_domain::workflow::{Ending, Error, Phase, Status};
use oma_domain::{WorkflowPhaseId, WorkflowRunId};
use serde_json::{Value, json};

/// A run begins.
pub(super) fn created(run: &WorkflowRunId, name: &str, description: Option<&str>, phases: &[Phase]) -> Value {
    let phases = phases.iter().zip(0..).map(|(phase, index)| {
        json!({
            "id": WorkflowPhaseId::of(run, index).as_str(),
            "name": phase.name,
            "description": phase.description,
        })
    });
    json!({
        "workflow_run_id": run.as_str(),
        "name": name,
        "description": description,
        "phases": phases.collect::<Vec<_>>(),
    })
}

/// Where a run stands, with the type of the event that says so.
pub(super) fn status(run: &WorkflowRunId, status: &Status) -> (&'static str, Value) {
    let mut fields = json!({"workflow_run_id": run.as_str()});
    let kind = match status {
        Status::Running => "workflow_run.status_running",
        Status::Idle => "workflow_run.status_idle",
        Status::Ended { result } => {
            fields["result"] = match result {
                Ending::Completed => json!({"type": "completed"}),
                Ending::Stopped => json!({"type": "stopped"}),
                Ending::Error { error } => json!({"type": "error", "error": self::error(error)}),
            };
            "workflow_run.status_ended"
        }
    };
    (kind, fields)
}

/// Why a run could not begin or go on.
pub(super) fn error(error: &Error) -> Value {
    json!({"type": error.kind.as_str(), "message": error.message})
}
