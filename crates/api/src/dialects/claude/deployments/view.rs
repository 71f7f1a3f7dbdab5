//! Deployments and runs as clients read them.

use oma_domain::deployment::{InitialEvent, Outcome, Pause, Resource, Run, Trigger};
use oma_domain::{AgentId, Deployment, VaultId};
use oma_engine::Engine;
use serde_json::{Value, json};

use crate::dialects::claude::{events, sessions, time};

/// A deployment.
pub(super) fn deployment(engine: &Engine, deployment: &Deployment) -> Value {
    let spec = &deployment.spec;
    let schedule = spec.schedule.as_ref().map(|schedule| {
        let upcoming = engine.upcoming_runs(deployment).into_iter().map(time::value);
        json!({
            "type": "cron",
            "expression": schedule.cron.as_str(),
            "timezone": schedule.timezone,
            "last_run_at": time::optional(deployment.last_run_at),
            "upcoming_runs_at": upcoming.collect::<Vec<_>>(),
        })
    });
    // An archived one is shown as active: what it is is said by `archived_at`.
    let paused = deployment.paused.filter(|_| deployment.archived_at.is_none());
    json!({
        "id": deployment.id.as_str(),
        "type": "deployment",
        "name": spec.name,
        "description": spec.description,
        "agent": reference(&spec.agent, spec.agent_version),
        "environment_id": spec.environment.as_str(),
        "initial_events": spec.initial_events.iter().map(initial_event).collect::<Vec<_>>(),
        "schedule": schedule,
        "resources": spec.resources.iter().map(resource).collect::<Vec<_>>(),
        "vault_ids": spec.vaults.iter().map(VaultId::as_str).collect::<Vec<_>>(),
        "budget": sessions::limit(spec.budget.and_then(|budget| budget.max_cost)),
        "metadata": spec.metadata,
        "status": if paused.is_some() { "paused" } else { "active" },
        "paused_reason": paused.map(|pause| match pause {
            Pause::Manual => json!({"type": "manual"}),
            Pause::Error(kind) => json!({"type": "error", "error": {"type": kind.as_str()}}),
        }),
        "created_at": time::value(deployment.created_at),
        "updated_at": time::value(deployment.updated_at),
        "archived_at": time::optional(deployment.archived_at),
    })
}

fn reference(agent: &AgentId, version: u32) -> Value {
    json!({"type": "agent", "id": agent.as_str(), "version": version})
}

/// What sessions are given, without what is secret.
fn resource(resource: &Resource) -> Value {
    match resource {
        Resource::File { file, mount_path } => json!({
            "type": "file",
            "file_id": file.as_str(),
            "mount_path": mount_path,
        }),
        Resource::Repository {
            url,
            checkout,
            mount_path,
            token: _,
        } => json!({
            "type": "github_repository",
            "url": url,
            "checkout": checkout,
            "mount_path": mount_path,
        }),
        Resource::MemoryStore {
            store,
            access,
            instructions,
        } => json!({
            "type": "memory_store",
            "memory_store_id": store.as_str(),
            "access": access.as_str(),
            "instructions": instructions,
        }),
    }
}

fn initial_event(event: &InitialEvent) -> Value {
    match event {
        InitialEvent::Message { content } => {
            json!({"type": "user.message", "content": events::content(content)})
        }
        InitialEvent::DefineOutcome {
            description,
            rubric,
            max_iterations,
        } => events::outcome(description, rubric, *max_iterations),
        InitialEvent::System { content } => {
            json!({"type": "system.message", "content": events::content(content)})
        }
    }
}

/// A run.
pub(super) fn run(run: &Run) -> Value {
    let (session, error) = match &run.outcome {
        Outcome::Session(session) => (Some(session.as_str()), None),
        Outcome::Failed { kind, message } => {
            let error = json!({"type": kind.as_str(), "message": message});
            (None, Some(error))
        }
    };
    json!({
        "id": run.id.as_str(),
        "type": "deployment_run",
        "deployment_id": run.deployment.as_str(),
        "agent": reference(&run.agent, run.agent_version),
        "session_id": session,
        "error": error,
        "trigger_context": match run.trigger {
            Trigger::Manual => json!({"type": "manual"}),
            Trigger::Schedule { scheduled_at } => {
                json!({"type": "schedule", "scheduled_at": time::value(scheduled_at)})
            }
        },
        "created_at": time::value(run.created_at),
    })
}
