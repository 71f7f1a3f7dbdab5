//! The tools by which a coordinator has others work in threads.

use std::sync::Arc;

use oma_domain::Agent;
use oma_domain::multiagent::{CREATE_AGENT, LIST_AGENTS, SEND_TO_AGENT};
use oma_domain::session::{Input, OpenTool, Outcome, State};
use oma_models::ToolSpec;
use oma_runtime::{Port, PortError, Recipient, SessionInfo};
use oma_tools::Toolbox;
use serde_json::{Value, json};

use crate::inline::Own;

/// The longest message, in characters.
const MAX_MESSAGE: usize = 1_000_000;
/// What a model says that wants the newest thread of an agent.
const LATEST: &str = "latest";

/// Whether it is one of these tools, and the session has them.
pub(crate) fn is_one(session: &SessionInfo, name: &str) -> bool {
    ([LIST_AGENTS, SEND_TO_AGENT].contains(&name) && session.coordinates()) || creates(session, name)
}

/// Whether it is the tool that defines agents on the fly, and the session has it.
pub(crate) fn creates(session: &SessionInfo, name: &str) -> bool {
    name == CREATE_AGENT && session.may_define()
}

/// The tools as the model is told of them.
pub(crate) fn definitions(session: &SessionInfo, toolbox: &Toolbox) -> Vec<ToolSpec> {
    if !session.coordinates() {
        return Vec::new();
    }
    let mut all = vec![list_definition(), send_definition(session)];
    if session.may_define() {
        all.push(create_definition(&Own::of(session, toolbox)));
    }
    all
}

fn list_definition() -> ToolSpec {
    ToolSpec {
        name: LIST_AGENTS.to_owned(),
        description: "Lists the agents that you can send messages to, with what they are for, and the threads in which \
they work, with where each stands."
            .to_owned(),
        input_schema: json!({"type": "object", "properties": {}, "additionalProperties": false}),
    }
}

fn send_definition(session: &SessionInfo) -> ToolSpec {
    let names: Vec<&str> = session.members().map(|agent| agent.shown_name()).collect();
    let mut description =
        "Sends a message to another agent and returns what it answers. The agent works in a thread of its \
own: it knows nothing but the messages that you send to this thread, and shares your workspace."
            .to_owned();
    if !names.is_empty() {
        description.push_str(" Without `thread` the message begins a new thread.");
    }
    if session.may_define() {
        description.push_str(" An agent that you have created is sent further messages in its thread.");
    }
    description.push_str(" Several messages at once to several threads are worked on side by side.");
    let agent = match names.as_slice() {
        [] => "The name of the agent, as you have given it.".to_owned(),
        names => format!("The id or the name of the agent: {}.", names.join(", ")),
    };
    ToolSpec {
        name: SEND_TO_AGENT.to_owned(),
        description,
        input_schema: json!({
            "type": "object",
            "properties": {
                "agent": {
                    "type": "string",
                    "description": agent
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
    }
}

fn create_definition(own: &Own<'_>) -> ToolSpec {
    let (mut properties, mut required) = own.schema();
    let message = json!({"type": "string", "description": "The first message: what it is to do."});
    properties.insert("message".to_owned(), message);
    required.push("message");
    ToolSpec {
        name: CREATE_AGENT.to_owned(),
        description: format!(
            "Creates an agent for a task, sends it a first message and returns what it answers. The agent works in a thread \
of its own: it knows nothing but its system prompt and the messages that you send to it, and shares your workspace. The \
answer names its thread, to which {SEND_TO_AGENT} sends further messages. Several agents that are created at once work side \
by side."
        ),
        input_schema: json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false
        }),
    }
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
        .filter(|(_, thread)| !thread.is_over && !thread.ends_with_answer());
    let threads: Vec<Value> = live
        .map(|(id, thread)| {
            json!({
                "thread": id.thread_name(),
                // What was defined on the fly has no id of its own.
                "agent": if thread.agent.is_inline() { &thread.agent_name } else { thread.agent.as_str() },
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

/// Defines an agent, sends it a message and waits for what becomes of it; gives the input that ends the tool use.
pub(crate) async fn create(port: &dyn Port, own: &Own<'_>, tool: &OpenTool) -> Result<Input, PortError> {
    metrics::counter!("tool_uses_total", "tool" => CREATE_AGENT).increment(1);
    match parse_creation(own, &tool.input) {
        Ok((agent, message)) => {
            let to = Recipient::Defined(Arc::new(agent));
            port.send(&tool.id, to, message).await
        }
        Err(refusal) => match port.state().0.thread_of(&tool.id) {
            // What was good once may not be any more, where the server offers other tools since. Its thread works on.
            Some((thread, _)) => {
                let to = Recipient::Thread(thread.thread_name());
                let message = tool.input.get("message").and_then(Value::as_str);
                port.send(&tool.id, to, message.unwrap_or_default()).await
            }
            None => Ok(Input::FinishTool {
                tool_use: tool.id.clone(),
                outcome: Outcome::error(refusal),
                sandbox: None,
            }),
        },
    }
}

/// The agent that is defined, and its first message.
///
/// # Errors
/// What is wrong, in words for the model.
fn parse_creation<'v>(own: &Own<'_>, input: &'v Value) -> Result<(Agent, &'v str), String> {
    const FIELDS: [&str; 6] = ["name", "description", "system", "tools", "skills", "message"];
    let mut fields = input.as_object().into_iter().flat_map(|fields| fields.keys());
    if let Some(unknown) = fields.find(|field| !FIELDS.contains(&field.as_str())) {
        let known = FIELDS.join(", ");
        return Err(format!("{CREATE_AGENT} has no field {unknown:?}, only: {known}."));
    }
    let message = filled(CREATE_AGENT, input, "message")?;
    bounded(message)?;
    Ok((own.define(input)?, message))
}

/// A text that must be there.
fn filled<'v>(tool: &str, input: &'v Value, field: &str) -> Result<&'v str, String> {
    let value = input.get(field).and_then(Value::as_str);
    value
        .filter(|text| !text.trim().is_empty())
        .ok_or_else(|| format!("{tool} needs a text for {field:?}."))
}

/// Refuses a message that is too long.
fn bounded(message: &str) -> Result<(), String> {
    match message.chars().count() > MAX_MESSAGE {
        true => Err(format!("A message may have at most {MAX_MESSAGE} characters.")),
        false => Ok(()),
    }
}

/// The recipient and the message.
///
/// # Errors
/// What is wrong, in words for the model.
fn parse(input: &Value) -> Result<(Recipient, &str), String> {
    let text = |field: &str| filled(SEND_TO_AGENT, input, field);
    let (agent, message) = (text("agent")?, text("message")?);
    bounded(message)?;
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
