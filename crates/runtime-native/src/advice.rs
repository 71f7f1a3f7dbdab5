//! The tool by which an agent asks its advisor.
//!
//! The advisor is a model with a context of its own. It is shown the agent's instructions and the newest of what was said and
//! done, and answers in a thread that ends with its advice.

use oma_domain::Seq;
use oma_domain::multiagent::CONSULT_ADVISOR;
use oma_domain::session::{Input, OpenTool, Outcome};
use oma_models::ToolSpec;
use oma_runtime::{Port, PortError, Recipient, SessionInfo};
use serde_json::{Value, json};

use crate::Native;
use crate::dossier::{bounded, newest};

/// The longest question, in characters.
const MAX_QUESTION: usize = 20_000;
/// The longest instructions of an agent that its advisor is shown whole, in bytes.
const MAX_INSTRUCTIONS: usize = 16_000;
/// The most of the work that an advisor is shown, in bytes.
const MAX_WORK: u64 = 300_000;
/// The same for a model of which nothing is known.
const CAUTIOUS_WORK: u64 = 30_000;

/// Whether it is this tool, and the session has it.
pub(crate) fn is_it(session: &SessionInfo, name: &str) -> bool {
    name == CONSULT_ADVISOR && session.is_advised()
}

/// The tool as the model is told of it.
pub(crate) fn definition(session: &SessionInfo) -> Option<ToolSpec> {
    session.is_advised().then(|| ToolSpec {
        name: CONSULT_ADVISOR.to_owned(),
        description: "Asks your advisor, another model, what it thinks of the work so far. It is shown your instructions \
and what was said and done in this session, but sees no files and does nothing itself. Ask before you commit yourself to \
an approach, when you are stuck, and before you say that you are done."
            .to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": {
                "question": {
                    "type": "string",
                    "description": "What you want to know in particular, if anything."
                }
            },
            "additionalProperties": false
        }),
    })
}

/// Asks the advisor and waits for its advice; gives the input that ends the tool use.
pub(crate) async fn consult(
    native: &Native,
    session: &SessionInfo,
    port: &dyn Port,
    tool: &OpenTool,
) -> Result<Input, PortError> {
    metrics::counter!("tool_uses_total", "tool" => CONSULT_ADVISOR).increment(1);
    let question = match parse(&tool.input) {
        Ok(question) => question,
        Err(message) => {
            return Ok(Input::FinishTool {
                tool_use: tool.id.clone(),
                outcome: Outcome::error(message),
                sandbox: None,
            });
        }
    };
    // A model that can't be had is found out by the advisor's thread, which says why.
    let model = session
        .agent
        .advisor()
        .and_then(|name| native.models.resolve(name).ok());
    // A byte and a half for each token of its window: far less than what a token takes, so the rest has room.
    let room = model.map_or(CAUTIOUS_WORK, |model| {
        (model.context_window() / 2).saturating_mul(3).min(MAX_WORK)
    });
    let bytes = usize::try_from(room).unwrap_or(usize::MAX);
    let (_, head) = port.state();
    let (work, cut) = newest(port, Seq(0), head, bytes, |_| {}).await?;
    let message = message(&session.agent.spec.instructions, &work, cut, question);
    port.send(&tool.id, Recipient::Advisor, &message).await
}

/// What the advisor is told.
fn message(instructions: &str, work: &[String], cut: bool, question: Option<&str>) -> String {
    let mut parts = Vec::new();
    if !instructions.is_empty() {
        let instructions = bounded(instructions, MAX_INSTRUCTIONS);
        parts.push(format!("The agent's instructions:\n{instructions}"));
    }
    let left_out = if cut {
        " (what came before is left out)"
    } else {
        ""
    };
    parts.push(format!("What was said and done so far{left_out}:"));
    parts.extend(work.iter().cloned());
    parts.push(match question {
        Some(question) => format!("The agent asks you:\n{question}"),
        None => "The agent asks for your advice.".to_owned(),
    });
    parts.join("\n\n")
}

/// The question, if there is one.
///
/// # Errors
/// What is wrong, in words for the model.
fn parse(input: &Value) -> Result<Option<&str>, String> {
    match input.get("question") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(question)) if question.chars().count() > MAX_QUESTION => {
            Err(format!("A question may have at most {MAX_QUESTION} characters."))
        }
        Some(Value::String(question)) => {
            Ok(Some(question.as_str()).filter(|question| !question.trim().is_empty()))
        }
        Some(_) => Err(format!(
            "{CONSULT_ADVISOR} needs a text for \"question\", if anything."
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_checked() {
        let long = "x".repeat(MAX_QUESTION + 1);
        for (input, parsed) in [
            (json!({}), Ok(None)),
            (json!({"question": null}), Ok(None)),
            (json!({"question": " "}), Ok(None)),
            (json!({"question": "how?"}), Ok(Some("how?"))),
            (json!({"question": 1}), Err(())),
            (json!({"question": long}), Err(())),
        ] {
            assert_eq!(parse(&input).map_err(|_| ()), parsed, "{input}");
        }
    }

    #[test]
    fn the_advisor_is_told_what_there_is() {
        let work = ["The user said:\ngo".to_owned()];
        assert_eq!(
            message("Be good.", &work, false, Some("how?")),
            "The agent's instructions:\nBe good.\n\nWhat was said and done so far:\n\nThe user said:\ngo\n\n\
             The agent asks you:\nhow?"
        );
        assert_eq!(
            message("", &work, true, None),
            "What was said and done so far (what came before is left out):\n\nThe user said:\ngo\n\n\
             The agent asks for your advice."
        );
        let long = "x".repeat(2 * MAX_INSTRUCTIONS);
        assert!(message(&long, &[], false, None).len() < 2 * MAX_INSTRUCTIONS);
    }
}
