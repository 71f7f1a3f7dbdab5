//! Replies written as JSON.
//!
//! A list of replies; a reply is a step or a list of steps. A step has one of these keys:
//!
//! | step | effect |
//! |---|---|
//! | `{"text": "…"}`, `{"thinking": "…"}`, `{"redacted": "…"}` | says or thinks something |
//! | `{"tool": "bash", "input": {…}}` | uses a tool |
//! | `{"delay_ms": 5}` | waits |
//! | `{"usage": {"input": 1, "output": 2}}` | states the usage; `{"usage": null}` leaves it out |
//! | `{"cost": 0.01}` | states the cost in dollars |
//! | `{"stop": "max_tokens"}`, `{"stop": "refusal"}` | says why the answer ends |
//! | `{"chunk": 3}` | characters of a piece of text |
//! | `{"fault": "cut"}` | `cut`, `stall`, `malformed` or `end_early` at this point |
//! | `{"error": {"type": "overloaded_error", "message": "…"}}` | an error inside the stream |
//! | `{"status": 429, "message": "…", "retry_after": "1", "times": 2}` | a failure; with `times`, only so often |
//!
//! `{{last_user}}` and `{{last_tool_result}}` are replaced in texts and in tools' inputs.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::reply::{Reply, Step, Stop, Usage};
use crate::view::View;

/// What marks a user text that holds a script.
pub const PREFIX: &str = "script:";

/// What is said when the conversation goes on longer than its script.
pub const AT_END: &str = "(end of script)";

/// How often each place of each script has failed.
pub(crate) type Failures = HashMap<String, u32>;

/// The most places whose failures are counted.
const MAX_FAILURES: usize = 100_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    text: Option<String>,
    thinking: Option<String>,
    redacted: Option<String>,
    tool: Option<String>,
    input: Option<Value>,
    delay_ms: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    usage: Option<Option<Usage>>,
    cost: Option<f64>,
    stop: Option<String>,
    chunk: Option<usize>,
    fault: Option<Fault>,
    error: Option<RawError>,
    status: Option<u16>,
    message: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    retry_after: Option<String>,
    times: Option<u32>,
}

/// Tells `null` from absent.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Usage>>, D::Error> {
    Option::<Usage>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Fault {
    Cut,
    Stall,
    Malformed,
    EndEarly,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawError {
    #[serde(rename = "type")]
    kind: String,
    message: String,
}

/// The replies of a script, for a queue. A failure's `times` means nothing there: each reply is given once.
///
/// # Errors
/// What is wrong with it.
pub fn replies(text: &str) -> Result<Vec<Reply>, String> {
    let replies: Vec<Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    replies
        .iter()
        .map(|reply| build(reply, |_| 0, &str::to_owned))
        .collect()
}

/// The reply that the conversation itself asks for.
pub(crate) fn from_conversation(view: &View, failures: &mut Failures) -> Reply {
    let position = view.position();
    let Some(script) = position.last_user.trim_start().strip_prefix(PREFIX) else {
        return Reply::new().text(if position.last_user.is_empty() {
            "(no text)"
        } else {
            &position.last_user
        });
    };
    let replies = match serde_json::from_str::<Vec<Value>>(script) {
        Ok(replies) => replies,
        Err(error) => {
            return Reply::failure(
                400,
                "invalid_request_error",
                &format!("the script is not valid: {error}"),
            );
        }
    };
    let fill = |text: &str| {
        text.replace("{{last_tool_result}}", &position.last_tool_result)
            .replace("{{last_user}}", &position.last_user)
    };
    match replies.get(position.reply) {
        None => Reply::new().text(AT_END),
        Some(reply) => {
            let mut failed = |times: u32| {
                if failures.len() >= MAX_FAILURES {
                    failures.clear();
                }
                let count = failures
                    .entry(format!("{} {script}", position.reply))
                    .or_default();
                *count = count.saturating_add(1).min(times.saturating_add(1));
                *count
            };
            match build(reply, &mut failed, &fill) {
                Ok(reply) => reply,
                Err(error) => Reply::failure(
                    400,
                    "invalid_request_error",
                    &format!("the script is not valid: {error}"),
                ),
            }
        }
    }
}

/// One reply. `failed` counts one more failure at this place and says how many that makes.
fn build(
    value: &Value,
    mut failed: impl FnMut(u32) -> u32,
    fill: &impl Fn(&str) -> String,
) -> Result<Reply, String> {
    let steps = match value {
        Value::Array(steps) => steps.as_slice(),
        step @ Value::Object(_) => std::slice::from_ref(step),
        other => return Err(format!("{other} is no reply")),
    };
    let mut reply = Reply::new();
    for step in steps {
        let raw = RawStep::deserialize(step).map_err(|error| error.to_string())?;
        if let Some(status) = raw.status {
            if raw.times.is_none_or(|times| failed(times) <= times) {
                let message = raw.message.unwrap_or_else(|| "as scripted".to_owned());
                let mut failure =
                    Reply::failure(status, raw.kind.as_deref().unwrap_or("scripted_error"), &message);
                if let Some(wait) = raw.retry_after {
                    failure = failure.header("retry-after", &wait);
                }
                return Ok(failure);
            }
            continue;
        }
        reply.steps.extend(raw.text.map(|text| Step::Text(fill(&text))));
        reply
            .steps
            .extend(raw.thinking.map(|text| Step::Thinking(fill(&text))));
        reply.steps.extend(raw.redacted.map(Step::Redacted));
        if let Some(name) = raw.tool {
            let input = raw.input.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
            reply.steps.push(Step::Tool {
                name,
                input: fill_value(&input, fill),
            });
        }
        reply.steps.extend(
            raw.delay_ms
                .map(|millis| Step::Delay(Duration::from_millis(millis))),
        );
        reply.steps.extend(raw.fault.map(|fault| match fault {
            Fault::Cut => Step::Cut,
            Fault::Stall => Step::Stall,
            Fault::Malformed => Step::Malformed,
            Fault::EndEarly => Step::EndEarly,
        }));
        reply.steps.extend(raw.error.map(|error| Step::Error {
            kind: error.kind,
            message: error.message,
        }));
        if let Some(usage) = raw.usage {
            reply.usage = usage;
        }
        reply.cost = raw.cost.or(reply.cost);
        if let Some(chunk) = raw.chunk {
            reply = reply.chunk(chunk);
        }
        match raw.stop.as_deref() {
            None => {}
            Some("max_tokens") => reply.stop = Stop::MaxTokens,
            Some("refusal") => reply.stop = Stop::Refusal("as scripted".to_owned()),
            Some(other) => return Err(format!("`{other}` is no stop")),
        }
    }
    Ok(reply)
}

fn fill_value(value: &Value, fill: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => fill(text).into(),
        Value::Array(items) => items.iter().map(|item| fill_value(item, fill)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), fill_value(value, fill)))
            .collect(),
        other => other.clone(),
    }
}
