//! Keeps the generated documents current: a test compares each with what the code would write.
//! `UPDATE_DOCS=1 cargo nextest run -p oma` writes them instead.

use std::fmt::Write as _;

use clap::CommandFactory as _;

use crate::cli::Cli;

/// Compares a document with its file, or writes it.
pub(crate) fn assert_current(path: &str, text: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(std::path::Path::new(path).parent().expect("a folder")).expect("can be made");
        std::fs::write(path, text).expect("can be written");
        return;
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == text,
        "{path} is not current: run `UPDATE_DOCS=1 cargo nextest run -p oma`"
    );
}

/// The command line in Markdown.
fn markdown() -> String {
    let mut text = String::from(
        "# Command line\n\n<!-- Made from the command line's own help by a test in crates/oma/src/reference.rs; do not \
         edit. -->\n\nEvery command takes `--json`: results go to standard output as JSON, and nothing else goes there. \
         Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.\n",
    );
    let mut root = Cli::command();
    root.build();
    describe(&mut text, &mut root, "oma");
    text
}

fn describe(text: &mut String, command: &mut clap::Command, path: &str) {
    // The environment of whoever runs the test must not show.
    let help = command.clone().term_width(100).render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = write!(
        text,
        "\n## `{path}`\n\n```text\n{}\n```\n",
        help.join("\n").trim()
    );
    for inner in command.get_subcommands_mut() {
        if inner.get_name() == "help" || inner.is_hide_set() {
            continue;
        }
        let path = format!("{path} {}", inner.get_name());
        describe(text, inner, &path);
    }
}

/// The built-in tools in Markdown.
fn tools() -> String {
    let mut text = String::from(
        "# Built-in tools\n\n<!-- Made from the tools' own definitions by a test in crates/oma/src/reference.rs; do not \
         edit. -->\n\nAn agent has all of these unless its `tools` name some of them. This is what models are told, so it \
         is also what `tool_arguments` of an `agent.tool_use` event hold, and what a permission policy's `tools` may name. \
         An input that does not fit, also one with a field that is not listed, is refused with an error that the model \
         reads, and nothing runs. A result that is too long for the model (`sandbox.inline_result_chars`) goes to a file \
         of the workspace, with a preview in its place.\n\nBesides these an agent has the tools of its \
         [MCP servers](mcp.md), called `mcp__server__tool`, and, when it may call other agents, `call_agent` with the \
         fields `agent` (an id) and `task` ([delegation](policies-and-budgets.md)).\n",
    );
    for tool in oma_tools::definitions() {
        let place = if oma_tools::is_sandboxed(&tool.name) {
            "Runs in the session's sandbox."
        } else {
            "Runs in the server, through its dial guard; needs no sandbox."
        };
        let needs = match tool.name.as_str() {
            "web_search" => " Only where `tools.search_provider` is configured.",
            _ => "",
        };
        let _ = write!(
            text,
            "\n## `{}`\n\n{}\n\n{place}{needs}\n\n| Field | Type | Meaning |\n|---|---|---|\n",
            tool.name, tool.description
        );
        let required = tool.input_schema["required"].as_array();
        for (name, field) in tool.input_schema["properties"].as_object().into_iter().flatten() {
            let is_required = required.is_some_and(|names| names.iter().any(|it| it == name));
            let optional = if is_required { "" } else { ", optional" };
            let _ = writeln!(
                text,
                "| `{name}` | {}{optional} | {} |",
                kind(field),
                field["description"]
                    .as_str()
                    .unwrap_or_default()
                    .replace('|', "\\|")
            );
        }
    }
    text
}

/// A field's type in words.
fn kind(field: &serde_json::Value) -> String {
    let quoted = |values: &[serde_json::Value]| {
        let values: Vec<String> = values
            .iter()
            .filter_map(|value| value.as_str())
            .map(|value| format!("`{value}`"))
            .collect();
        values.join(", ")
    };
    match (field["enum"].as_array(), field["type"].as_str()) {
        (Some(values), _) => format!("one of {}", quoted(values)),
        (None, Some("array")) => format!("list of {}s", kind(&field["items"])),
        (None, Some(name)) => name.to_owned(),
        (None, None) => "any".to_owned(),
    }
}

#[test]
fn the_description_of_the_tools_is_current() {
    let names: Vec<String> = oma_tools::definitions()
        .into_iter()
        .map(|tool| tool.name)
        .collect();
    assert_eq!(names, oma_tools::known_names());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/tools.md");
    assert_current(path, &tools());
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn the_command_line_reference_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
    assert_current(path, &markdown());
}

const METRICS: &str = "# Metrics

<!-- Made from the table in crates/api/src/telemetry/catalogue.rs by a test in crates/oma/src/reference.rs; do not edit. -->

`GET /metrics` needs no key and says nothing about what users, models and tools say. It answers in Prometheus' text
format, or in OpenMetrics 1.0 where `Accept` prefers `application/openmetrics-text`, as Prometheus itself asks. With the
feature `otel` the same metrics are exported over OTLP (see [configuration.md](configuration.md)).

Every metric has the label `service=\"openclaw-managed-agents\"`. Labels are bounded: there are no ids, no models and no
paths that clients made up among them. Counters begin at 0 with the process, those whose labels are known beforehand
are there from the start. Costs per session, agent, model, day and key are in `GET /v1/usage`.

";

#[test]
fn the_reference_of_metrics_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    let table = oma_api::telemetry::catalogue::markdown();
    assert_current(path, &format!("{METRICS}{table}"));
}
