//! Reading a script.

use std::time::Duration;

use oma_domain::event::FailureKind;
use oma_domain::outcome::{VERDICT_TOOL, Verdict};
use oma_domain::usage::Usage;
use serde::Deserialize;
use serde_json::{Value, json};

/// The longest script, in bytes.
const MAX_SCRIPT: usize = 256 * 1024;

/// The most steps of a reply.
const MAX_STEPS: usize = 1000;

/// The longest delay.
const MAX_DELAY: Duration = Duration::from_secs(600);

/// How many places of a system prompt are tried for a script that has no fence.
const MAX_CANDIDATES: usize = 64;

/// The fence's first line.
const FENCE: &str = "```script";

/// A whole script.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Script {
    /// What happens after each message of the user.
    pub(super) turns: Vec<Vec<Vec<Step>>>,
    /// Characters of a piece of text.
    pub(super) chunk_chars: usize,
    /// The wait after each piece.
    pub(super) chunk_delay: Duration,
}

/// One thing that a reply does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Thinking(String),
    Text(String),
    Tool {
        name: String,
        input: Value,
    },
    Delay(Duration),
    Error {
        kind: FailureKind,
        message: String,
        retry_after: Option<Duration>,
    },
    Usage(Usage),
    MaxTokens,
    Refusal(Option<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    turns: Vec<Value>,
    #[serde(default = "default_chunk")]
    chunk_chars: usize,
    #[serde(default)]
    chunk_delay_ms: u64,
}

fn default_chunk() -> usize {
    24
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    thinking: Option<String>,
    text: Option<String>,
    tool: Option<String>,
    input: Option<Value>,
    delay_ms: Option<u64>,
    error: Option<RawError>,
    usage: Option<RawUsage>,
    stop: Option<Stop>,
    verdict: Option<Verdict>,
    explanation: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawError {
    kind: ErrorKind,
    message: Option<String>,
    retry_after_ms: Option<u64>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum ErrorKind {
    Overloaded,
    RateLimited,
    RequestFailed,
    Unavailable,
    Authentication,
    Billing,
    ContextOverflow,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct RawUsage {
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stop {
    MaxTokens,
    Refusal,
}

/// What is said when there is no script.
pub(super) const MISSING: &str =
    "scripted/script needs a script: write it as the agent's instructions, as JSON or in a ```script block";

/// Finds and reads the script in a system prompt: in a fence, or as JSON that begins a line.
pub(super) fn find(system: &str) -> Result<Option<Script>, String> {
    if let Some(script) = in_fence(system) {
        return script
            .map(Some)
            .map_err(|error| format!("the script in the agent's instructions: {error}"));
    }
    let mut first_error = None;
    let starts = std::iter::once(0).chain(system.match_indices('\n').map(|(at, _)| at + 1));
    let starts = starts
        .filter(|at| system[*at..].trim_start_matches(' ').starts_with(['{', '[']))
        .take(MAX_CANDIDATES);
    for start in starts {
        match read(&system[start..]) {
            Ok(script) => return Ok(Some(script)),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    match first_error {
        Some(error) => Err(format!("the script in the agent's instructions: {error}")),
        None => Ok(None),
    }
}

/// Reads the script in a text's fence, if there is one.
pub(super) fn in_fence(text: &str) -> Option<Result<Script, String>> {
    let (_, after) = text.split_once(FENCE)?;
    Some(match after.find("\n```") {
        Some(end) => read(&after[..end]),
        None => Err("the ```script block has no end".to_owned()),
    })
}

/// Reads the JSON value that the text begins with.
fn read(text: &str) -> Result<Script, String> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = match values.next() {
        Some(Ok(value)) => value,
        Some(Err(error)) => return Err(error.to_string()),
        None => return Err("it is empty".to_owned()),
    };
    if values.byte_offset() > MAX_SCRIPT {
        return Err(format!("it is longer than {MAX_SCRIPT} bytes"));
    }
    let options = match value {
        Value::Array(turns) => Options {
            turns,
            chunk_chars: default_chunk(),
            chunk_delay_ms: 0,
        },
        other => serde_json::from_value(other).map_err(|error| error.to_string())?,
    };
    if options.chunk_chars == 0 {
        return Err("chunk_chars must be at least 1".to_owned());
    }
    if options.turns.is_empty() {
        return Err("it has no turns".to_owned());
    }
    let turns = options
        .turns
        .into_iter()
        .enumerate()
        .map(|(at, turn)| read_turn(at + 1, turn));
    Ok(Script {
        turns: turns.collect::<Result<_, _>>()?,
        chunk_chars: options.chunk_chars,
        chunk_delay: delay(options.chunk_delay_ms)?,
    })
}

fn read_turn(turn: usize, value: Value) -> Result<Vec<Vec<Step>>, String> {
    let Value::Array(replies) = value else {
        return Err(format!("turn {turn} is not a list of replies"));
    };
    let replies = replies.into_iter().enumerate().map(|(at, reply)| {
        let place = format!("turn {turn}, reply {}", at + 1);
        let steps = match reply {
            Value::Array(steps) => steps,
            step @ Value::Object(_) => vec![step],
            _ => return Err(format!("{place} is neither a step nor a list of steps")),
        };
        if steps.len() > MAX_STEPS {
            return Err(format!("{place} has more than {MAX_STEPS} steps"));
        }
        let steps = steps.into_iter().enumerate();
        steps
            .map(|(at, step)| read_step(step).map_err(|error| format!("{place}, step {}: {error}", at + 1)))
            .collect::<Result<Vec<Step>, String>>()
    });
    replies.collect()
}

fn read_step(value: Value) -> Result<Step, String> {
    let raw: RawStep = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let RawStep {
        thinking,
        text,
        tool,
        input,
        delay_ms,
        error,
        usage,
        stop,
        verdict,
        explanation,
    } = raw;
    if input.is_some() && tool.is_none() {
        return Err("`input` belongs to a `tool`".to_owned());
    }
    if explanation.is_some() && !matches!(stop, Some(Stop::Refusal)) && verdict.is_none() {
        return Err("`explanation` belongs to `\"stop\": \"refusal\"` or a `verdict`".to_owned());
    }
    let mut steps = Vec::new();
    steps.extend(thinking.map(Step::Thinking));
    steps.extend(text.map(Step::Text));
    if let Some(name) = tool {
        let input = input.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        if !input.is_object() || name.trim().is_empty() {
            return Err("a `tool` has a name, and an object as its `input`".to_owned());
        }
        steps.push(Step::Tool { name, input });
    }
    steps.extend(verdict.map(|verdict| Step::Tool {
        name: VERDICT_TOOL.to_owned(),
        input: json!({
            "result": verdict.as_str(),
            "explanation": explanation.clone().unwrap_or_default(),
        }),
    }));
    if let Some(millis) = delay_ms {
        steps.push(Step::Delay(delay(millis)?));
    }
    if let Some(error) = error {
        let (kind, message) = error.kind.defaults();
        steps.push(Step::Error {
            kind,
            message: error.message.unwrap_or_else(|| message.to_owned()),
            retry_after: error.retry_after_ms.map(delay).transpose()?,
        });
    }
    steps.extend(usage.map(|usage| {
        let RawUsage {
            input,
            output,
            cache_read,
            cache_write,
        } = usage;
        Step::Usage(Usage {
            input,
            output,
            cache_read,
            cache_write,
        })
    }));
    steps.extend(stop.map(|stop| match stop {
        Stop::MaxTokens => Step::MaxTokens,
        Stop::Refusal => Step::Refusal(explanation),
    }));
    match (steps.pop(), steps.is_empty()) {
        (Some(step), true) => Ok(step),
        _ => Err(
            "a step has exactly one of `thinking`, `text`, `tool`, `delay_ms`, `error`, `usage`, `stop` and `verdict`"
                .to_owned(),
        ),
    }
}

fn delay(millis: u64) -> Result<Duration, String> {
    let delay = Duration::from_millis(millis);
    if delay > MAX_DELAY {
        Err(format!("a delay is at most {} ms", MAX_DELAY.as_millis()))
    } else {
        Ok(delay)
    }
}

impl ErrorKind {
    fn defaults(self) -> (FailureKind, &'static str) {
        match self {
            Self::Overloaded => (FailureKind::ModelOverloaded, "the scripted model is overloaded"),
            Self::RateLimited => (
                FailureKind::ModelRateLimited,
                "the scripted model limits the rate",
            ),
            Self::RequestFailed => (
                FailureKind::ModelRequestFailed,
                "the scripted model refuses the request",
            ),
            Self::Unavailable => (
                FailureKind::ModelUnavailable,
                "the scripted model is not available",
            ),
            Self::Authentication => (
                FailureKind::ModelAuthentication,
                "the scripted model refuses the key",
            ),
            Self::Billing => (FailureKind::Billing, "the scripted account is out of credit"),
            Self::ContextOverflow => (FailureKind::ContextOverflow, "the scripted context is full"),
        }
    }
}
