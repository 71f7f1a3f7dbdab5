//! The tool by which an agent has another one do a task.

use oma_domain::policy::Permission;
use oma_domain::session::CALL_AGENT;
use oma_models::ToolSpec;
use oma_runtime::SessionInfo;
use serde_json::{Value, json};

/// The longest task, in characters.
const MAX_TASK: usize = 1_000_000;

/// Whether the session's agent has the tool.
pub(crate) fn is_offered(session: &SessionInfo) -> bool {
    let spec = &session.agent.spec;
    session.delegation_depth > 0
        && !spec.callable_agents.is_empty()
        && spec.permission_policy.evaluate(CALL_AGENT) != Permission::Deny
}

/// The tool as the model is told of it.
pub(crate) fn definition(session: &SessionInfo) -> Option<ToolSpec> {
    is_offered(session).then(|| ToolSpec {
        name: CALL_AGENT.to_owned(),
        description: "Has another agent do a task and returns its last message. The agent works by itself, in a \
session of its own: it knows nothing but the task that you give it, and has a workspace of its own. Several calls \
at once run side by side."
            .to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": {
                "agent": {
                    "type": "string",
                    "enum": session.agent.spec.callable_agents,
                    "description": "The id of the agent."
                },
                "task": {
                    "type": "string",
                    "description": "What it is to do, with everything that it has to know."
                }
            },
            "required": ["agent", "task"],
            "additionalProperties": false
        }),
    })
}

/// The agent and the task of a call.
///
/// # Errors
/// What is wrong, in words for the model.
pub(crate) fn parse(input: &Value) -> Result<(&str, &str), String> {
    let text = |field: &str| {
        let value = input.get(field).and_then(Value::as_str);
        value
            .filter(|text| !text.trim().is_empty())
            .ok_or_else(|| format!("{CALL_AGENT} needs a text for {field:?}."))
    };
    let (agent, task) = (text("agent")?, text("task")?);
    if task.chars().count() > MAX_TASK {
        return Err(format!("A task may have at most {MAX_TASK} characters."));
    }
    Ok((agent, task))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_checked() {
        let good = json!({"agent": "agt_1", "task": "do it"});
        assert_eq!(parse(&good), Ok(("agt_1", "do it")));
        for bad in [
            json!({}),
            json!([]),
            json!({"agent": "agt_1"}),
            json!({"agent": "agt_1", "task": " "}),
            json!({"agent": 1, "task": "x"}),
            json!({"agent": "agt_1", "task": "x".repeat(MAX_TASK + 1)}),
        ] {
            assert!(parse(&bad).is_err());
        }
    }
}
