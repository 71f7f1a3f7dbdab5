//! How a session's events look in a terminal: one compact line each, tool results in a few.

use serde_json::Value;

use crate::print::{Output, Style, plain};
use crate::table::clip;

/// How many lines of a tool's result are shown.
const RESULT_LINES: usize = 4;
/// How wide a line about a tool gets.
const WIDTH: usize = 100;

/// What an event looks like; `None` for events that say nothing to people.
#[must_use]
pub(crate) fn render(event: &Value, output: &Output) -> Option<String> {
    let content = event["content"].as_str().unwrap_or_default();
    let kind = event["type"].as_str().unwrap_or_default();
    let line = match kind {
        "user.message" => format!("{} {}", output.paint(Style::Bold, "›"), plain(content)),
        "user.interrupt" => output.paint(Style::Yellow, "cancelled"),
        "user.tool_confirmation" => {
            output.paint(Style::Dim, &format!("confirmation: {}", clip(content, WIDTH)))
        }
        "agent.message" => plain(content).into_owned(),
        "agent.thinking" if content.is_empty() => return None,
        "agent.thinking" => output.paint(Style::Dim, &plain(content)),
        "agent.tool_use" => tool_use(event, output),
        "agent.tool_result" => tool_result(event, output),
        "agent.tool_confirmation_request" => output.paint(
            Style::Yellow,
            &format!("waits for a confirmation: {}", call(event)),
        ),
        "agent.error" | "session.error" => output.paint(Style::Red, &format!("error: {}", plain(content))),
        "session.status_failed" => {
            let reason = if content.is_empty() { "" } else { ": " };
            output.paint(Style::Red, &format!("failed{reason}{}", plain(content)))
        }
        "session.status_idle" | "session.status_running" | "session.status_starting" => {
            let status = kind.trim_start_matches("session.status_");
            output.paint(Style::Dim, &format!("[{status}]"))
        }
        "session.model_change" | "session.thinking_level_change" => {
            let what = if kind == "session.model_change" {
                "model"
            } else {
                "thinking"
            };
            output.paint(Style::Dim, &format!("[{what}: {}]", clip(content, WIDTH)))
        }
        "session.environment_build" => {
            let style = if event["is_error"] == true {
                Style::Red
            } else {
                Style::Dim
            };
            output.paint(style, &format!("[environment] {}", plain(content)))
        }
        "session.compaction" => {
            output.paint(Style::Dim, &format!("[history summarised]\n{}", plain(content)))
        }
        other => output.paint(
            Style::Dim,
            &format!("[{}] {}", plain(other), clip(content, WIDTH)),
        ),
    };
    Some(line)
}

/// A tool use on one line: `▸ bash  ls -la`.
#[must_use]
pub(crate) fn tool_use(event: &Value, output: &Output) -> String {
    let name = tool_name(event);
    let arguments = clip(&arguments(event), WIDTH.saturating_sub(name.len()));
    format!(
        "{} {}",
        output.paint(Style::Cyan, &format!("▸ {name}")),
        output.paint(Style::Dim, &arguments)
    )
}

/// A tool use as plain text.
#[must_use]
pub(crate) fn call(event: &Value) -> String {
    format!("{} {}", tool_name(event), clip(&arguments(event), WIDTH))
}

/// The first lines of a tool's result.
#[must_use]
pub(crate) fn tool_result(event: &Value, output: &Output) -> String {
    let content = event["content"].as_str().unwrap_or_default().trim_end();
    let style = if event["is_error"] == Value::Bool(true) {
        Style::Red
    } else {
        Style::Dim
    };
    let count = content.lines().count();
    // A line left out is replaced by one that says so, so a single one is shown instead.
    let shown = if count <= RESULT_LINES + 1 {
        count
    } else {
        RESULT_LINES
    };
    let mut lines: Vec<String> = content
        .lines()
        .take(shown)
        .map(|line| output.paint(style, &format!("  {}", clip_line(line))))
        .collect();
    if count > shown {
        lines.push(output.paint(Style::Dim, &format!("  … {} more lines", count - shown)));
    }
    if lines.is_empty() {
        lines.push(output.paint(Style::Dim, "  (no output)"));
    }
    lines.join("\n")
}

/// A line cut to the width, its indentation kept.
fn clip_line(line: &str) -> String {
    let plain = plain(line).replace('\t', "    ");
    let indentation: String = plain.chars().take_while(|char| *char == ' ').take(40).collect();
    format!(
        "{indentation}{}",
        clip(&plain, WIDTH.saturating_sub(indentation.len()))
    )
}

fn tool_name(event: &Value) -> String {
    let name = event["tool_name"].as_str().or_else(|| event["content"].as_str());
    clip(name.unwrap_or("tool"), 40)
}

/// What a tool is asked to do: the one argument that says most, else all of them.
fn arguments(event: &Value) -> String {
    let Some(arguments) = event["tool_arguments"].as_object() else {
        return String::new();
    };
    let telling = ["command", "file_path", "pattern", "url", "query"]
        .iter()
        .find_map(|name| arguments.get(*name)?.as_str());
    match telling {
        Some(text) => text.to_owned(),
        None if arguments.is_empty() => String::new(),
        None => Value::Object(arguments.clone()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLAIN: Output = Output {
        json: false,
        color: false,
        color_remarks: false,
    };

    #[test]
    fn events_are_compact() {
        let long = (1..=9)
            .map(|line| format!("line {line}"))
            .collect::<Vec<_>>()
            .join("\n");
        for (event, shown) in [
            (
                json!({"type": "user.message", "content": "hello"}),
                Some("› hello"),
            ),
            (
                json!({"type": "agent.message", "content": "hi\n\x1b[2Jthere"}),
                Some("hi\n\u{fffd}[2Jthere"),
            ),
            (json!({"type": "agent.thinking", "content": ""}), None),
            (
                json!({"type": "agent.tool_use", "tool_name": "bash", "tool_arguments": {"command": "ls\n-la"}}),
                Some("▸ bash ls -la"),
            ),
            (
                json!({"type": "agent.tool_use", "content": "glob", "tool_arguments": {"a": 1}}),
                Some("▸ glob {\"a\":1}"),
            ),
            (
                json!({"type": "agent.tool_result", "content": long}),
                Some("  line 1\n  line 2\n  line 3\n  line 4\n  … 5 more lines"),
            ),
            (
                json!({"type": "agent.tool_result", "content": ""}),
                Some("  (no output)"),
            ),
            (
                json!({"type": "session.status_failed", "content": "no key"}),
                Some("failed: no key"),
            ),
            (
                json!({"type": "session.new_kind", "content": "x"}),
                Some("[session.new_kind] x"),
            ),
        ] {
            assert_eq!(render(&event, &PLAIN).as_deref(), shown, "{event}");
        }
    }
}
