//! The tool as the model is told of it, and what the model asks for with it.

use oma_domain::workflow::{MAX_PHASES, Phase, RUN_WORKFLOW};
use oma_models::ToolSpec;
use oma_runtime::SessionInfo;
use oma_workflow::MAX_PROGRAM;
use serde_json::{Value, json};

/// The longest name of a run or a phase, in characters.
const MAX_NAME: usize = 256;
/// The longest description of either, in characters.
const MAX_DESCRIPTION: usize = 2_048;

const DESCRIPTION: &str = "Runs a program that has other agents work, and returns the program's result. Use it where many \
agents work on parts of something, where one's work depends on what others have found, or where something is to be tried \
until it is good enough. The agents share your workspace, and know nothing but the prompt that the program gives them. \
Several runs at once go on side by side.";

const LANGUAGE: &str = "The program, a Rhai script. Its functions:
- agent(#{agent: \"NAME\", prompt: \"TEXT\"}) has an agent work and gives its answer: a map with `ok` (whether it did the \
work) and `text` (what it said last, or why it failed).
- parallel([#{...}, #{...}]) does the same for several agents at once and gives their answers in the same order.
- phase(\"NAME\") says that one of the phases begins.
- parse_json(text) and to_json(value).
Variables (let), if, switch, for x in list, while, loop, break, fn, try/catch, arrays, maps (#{a: 1}) and `text ${value}` in \
backticks are there. Functions and closures see only their parameters, so fill lists in loops: let jobs = []; for t in \
topics { jobs.push(#{agent: \"scout\", prompt: `Look into ${t}`}); } let found = parallel(jobs); There are no files, network, \
clock, chance, print or modules. The value of the last expression is the run's result: a text, or a value that is given as \
JSON.";

const INLINE: &str = "
An agent may also be defined where it is called: agent(#{name: \"NAME\", system: \"SYSTEM PROMPT\", prompt: \"TEXT\"}), with \
`tools` and `skills` (lists of names of yours) where it is not to have all of your own.";

/// Whether it is this tool, and the session has it.
pub(crate) fn is_it(session: &SessionInfo, name: &str) -> bool {
    name == RUN_WORKFLOW && session.workflows().is_some()
}

/// The tool as the model is told of it.
pub(crate) fn definition(session: &SessionInfo) -> Option<ToolSpec> {
    let inline = if session.workflows()?.inline { INLINE } else { "" };
    let names: Vec<&str> = session.callees().map(|agent| agent.shown_name()).collect();
    let agents = match names.as_slice() {
        [] => String::new(),
        names => format!("\nThe agents that it can name: {}.", names.join(", ")),
    };
    let phase = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "description": {"type": "string"}
        },
        "required": ["name"],
        "additionalProperties": false
    });
    Some(ToolSpec {
        name: RUN_WORKFLOW.to_owned(),
        description: DESCRIPTION.to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "description": "What the run is called."},
                "description": {"type": "string", "description": "What it is for."},
                "phases": {
                    "type": "array",
                    "items": phase,
                    "description": "The parts that people see it go through, in order, if it has any."
                },
                "program": {"type": "string", "description": format!("{LANGUAGE}{inline}{agents}")}
            },
            "required": ["name", "program"],
            "additionalProperties": false
        }),
    })
}

/// What a model asks for.
pub(super) struct Wanted<'v> {
    pub(super) name: &'v str,
    pub(super) description: Option<&'v str>,
    pub(super) phases: Vec<Phase>,
    pub(super) program: &'v str,
}

/// # Errors
/// What is wrong, in words for the model.
pub(super) fn parse(input: &Value) -> Result<Wanted<'_>, String> {
    let name = text(input, "name", MAX_NAME)?.ok_or_else(|| needs("name"))?;
    let description = text(input, "description", MAX_DESCRIPTION)?;
    let program = text(input, "program", MAX_PROGRAM)?.ok_or_else(|| needs("program"))?;
    let mut phases: Vec<Phase> = Vec::new();
    match input.get("phases") {
        None | Some(Value::Null) => {}
        Some(Value::Array(items)) if items.len() > MAX_PHASES => {
            return Err(format!("A run may have at most {MAX_PHASES} phases."));
        }
        Some(Value::Array(items)) => {
            for item in items {
                let name = text(item, "name", MAX_NAME)?.ok_or_else(|| needs("name of each phase"))?;
                if phases.iter().any(|phase| phase.name == name) {
                    return Err(format!("There are two phases called {name:?}."));
                }
                phases.push(Phase {
                    name: name.to_owned(),
                    description: text(item, "description", MAX_DESCRIPTION)?.map(str::to_owned),
                });
            }
        }
        Some(_) => {
            return Err(format!(
                "{RUN_WORKFLOW} needs a list for \"phases\", if anything."
            ));
        }
    }
    Ok(Wanted {
        name,
        description,
        phases,
        program,
    })
}

fn needs(field: &str) -> String {
    format!("{RUN_WORKFLOW} needs a text for the {field}.")
}

fn text<'v>(input: &'v Value, field: &str, most: usize) -> Result<Option<&'v str>, String> {
    match input.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() > most => {
            Err(format!("The {field} may have at most {most} characters."))
        }
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.trim().is_empty())),
        Some(_) => Err(needs(field)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_checked() {
        let good = json!({"name": "n", "program": "1", "phases": [{"name": "a"}, {"name": "b", "description": "d"}]});
        let wanted = parse(&good).unwrap();
        assert_eq!((wanted.name, wanted.program, wanted.phases.len()), ("n", "1", 2));
        assert!(parse(&json!({"name": "n", "program": "1", "description": null})).is_ok());
        let many: Vec<Value> = (0..=MAX_PHASES).map(|n| json!({"name": n.to_string()})).collect();
        for bad in [
            json!({}),
            json!([]),
            json!({"name": "n"}),
            json!({"program": "1"}),
            json!({"name": " ", "program": "1"}),
            json!({"name": 1, "program": "1"}),
            json!({"name": "n", "program": "1", "phases": "a"}),
            json!({"name": "n", "program": "1", "phases": [{}]}),
            json!({"name": "n", "program": "1", "phases": ["a"]}),
            json!({"name": "n", "program": "1", "phases": [{"name": "a"}, {"name": "a"}]}),
            json!({"name": "n", "program": "1", "phases": many}),
            json!({"name": "x".repeat(MAX_NAME + 1), "program": "1"}),
            json!({"name": "n", "program": "x".repeat(MAX_PROGRAM + 1)}),
            json!({"name": "n", "program": "1", "description": "x".repeat(MAX_DESCRIPTION + 1)}),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }
}
