//! The tools by which a coordinator has others work in threads.

use oma_domain::multiagent::{LIST_AGENTS, SEND_TO_AGENT};
use oma_domain::session::{Input, OpenTool, Outcome, State};
use oma_models::ToolSpec;
use oma_runtime::{Port, PortError, Recipient, SessionInfo};
use serde_json::{Value, json};

/// The longest message, in characters.
const MAX_MESSAGE: usize = 1_000_000;
/// What a model says that wants the newest thread of an agent.
const LATEST: &str = "latest";

/// Whether it is one of these tools, and the session has them.
pub(crate) fn is_one(session: &SessionInfo, name: &str) -> bool {
    [LIST_AGENTS, SEND_TO_AGENT].contains(&name) && session.coordinates()
}

/// The tools as the model is told of them.
pub(crate) fn definitions(session: &SessionInfo) -> Vec<ToolSpec> {
    if !session.coordinates() {
        return Vec::new();
    }
    let names: Vec<&str> = session.members().map(|agent| agent.shown_name()).collect();
    let list = ToolSpec {
        name: LIST_AGENTS.to_owned(),
        description: "Lists the agents that you can send messages to, with what they are for, and the threads in which \
they work, with where each stands."
            .to_owned(),
        input_schema: json!({"type": "object", "properties": {}, "additionalProperties": false}),
    };
    let send = ToolSpec {
        name: SEND_TO_AGENT.to_owned(),
        description: "Sends a message to another agent and returns what it answers. The agent works in a thread of its \
own: it knows nothing but the messages that you send to this thread, and shares your workspace. Without `thread` the \
message begins a new thread. Several messages at once to several threads are worked on side by side."
            .to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": {
                "agent": {
                    "type": "string",
                    "description": format!("The id or the name of the agent: {}.", names.join(", "))
                },
                "message": {
                    "type": "string",
                    "description": "What it is to do or to know."
                },
                "thread": {
                    "type": "string",
                    "description": format!(
                        "The thread that is to go on, as list_agents names it, or \"{LATEST}\" for the agent's newest one."
                    )
                }
            },
            "required": ["agent", "message"],
            "additionalProperties": false
        }),
    };
    vec![list, send]
}

/// Who may be sent messages, and which threads there are.
pub(crate) fn list(session: &SessionInfo, state: &State) -> Outcome {
    let agents: Vec<Value> = session
        .members()
        .map(|agent| {
            json!({
                "id": agent.id.as_str(),
                "name": agent.shown_name(),
                "description": agent.spec.description,
            })
        })
        .collect();
    let live = state
        .threads
        .iter()
        .filter(|(_, thread)| !thread.is_over && !thread.is_consultation());
    let threads: Vec<Value> = live
        .map(|(id, thread)| {
            json!({
                "thread": id.thread_name(),
                "agent": thread.agent.as_str(),
                "status": if thread.errand.is_some() { "running" } else { "idle" },
            })
        })
        .collect();
    Outcome::text(json!({"agents": agents, "threads": threads}).to_string())
}

/// Sends a message and waits for what becomes of it; gives the input that ends the tool use.
pub(crate) async fn send(port: &dyn Port, tool: &OpenTool) -> Result<Input, PortError> {
    metrics::counter!("tool_uses_total", "tool" => SEND_TO_AGENT).increment(1);
    match parse(&tool.input) {
        Ok((to, message)) => port.send(&tool.id, to, message).await,
        Err(message) => Ok(Input::FinishTool {
            tool_use: tool.id.clone(),
            outcome: Outcome::error(message),
            sandbox: None,
        }),
    }
}

/// The recipient and the message.
///
/// # Errors
/// What is wrong, in words for the model.
fn parse(input: &Value) -> Result<(Recipient, &str), String> {
    let text = |field: &str| {
        let value = input.get(field).and_then(Value::as_str);
        value
            .filter(|text| !text.trim().is_empty())
            .ok_or_else(|| format!("{SEND_TO_AGENT} needs a text for {field:?}."))
    };
    let (agent, message) = (text("agent")?, text("message")?);
    if message.chars().count() > MAX_MESSAGE {
        return Err(format!("A message may have at most {MAX_MESSAGE} characters."));
    }
    let to = match input.get("thread") {
        None | Some(Value::Null) => Recipient::New(agent.to_owned()),
        Some(Value::String(thread)) if thread == LATEST => Recipient::Newest(agent.to_owned()),
        Some(Value::String(thread)) => Recipient::Thread(thread.clone()),
        Some(_) => {
            return Err(format!(
                "{SEND_TO_AGENT} needs a text for \"thread\", if anything."
            ));
        }
    };
    Ok((to, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_checked() {
        let parsed = |input: Value| parse(&input).map(|(to, message)| (to, message.to_owned()));
        let good = |to: Recipient| Ok((to, "do it".to_owned()));
        assert_eq!(
            parsed(json!({"agent": "a", "message": "do it"})),
            good(Recipient::New("a".into()))
        );
        assert_eq!(
            parsed(json!({"agent": "a", "message": "do it", "thread": "latest"})),
            good(Recipient::Newest("a".into()))
        );
        assert_eq!(
            parsed(json!({"agent": "a", "message": "do it", "thread": "sthr_1"})),
            good(Recipient::Thread("sthr_1".into()))
        );
        for bad in [
            json!({}),
            json!({"agent": "a"}),
            json!({"agent": "a", "message": " "}),
            json!({"agent": 1, "message": "x"}),
            json!({"agent": "a", "message": "x", "thread": 1}),
            json!({"agent": "a", "message": "x".repeat(MAX_MESSAGE + 1)}),
        ] {
            assert!(parse(&bad).is_err());
        }
    }
}
