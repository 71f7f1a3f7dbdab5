//! The wire protocols: reading and checking requests, writing answers.

mod anthropic;
mod bedrock;
mod gemini;
mod openai_chat;
mod openai_responses;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use crate::reply::{Refused, Reply, Step, pieces};
use crate::server::Frame;
use crate::view::{self, View};

/// A wire protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI Chat Completions.
    OpenaiChat,
    /// OpenAI Responses.
    OpenaiResponses,
    /// Gemini.
    Gemini,
    /// Bedrock ConverseStream.
    Bedrock,
}

impl Protocol {
    /// The protocol of a path.
    pub(crate) fn of(path: &str) -> Option<Self> {
        if path.ends_with("/v1/messages") {
            Some(Self::Anthropic)
        } else if path.ends_with("/chat/completions") {
            Some(Self::OpenaiChat)
        } else if path.ends_with("/v1/responses") {
            Some(Self::OpenaiResponses)
        } else if path.starts_with("/v1beta/models/") && path.ends_with(":streamGenerateContent") {
            Some(Self::Gemini)
        } else if path.starts_with("/model/") && path.ends_with("/converse-stream") {
            Some(Self::Bedrock)
        } else {
            None
        }
    }
}

/// A request that is being checked.
pub(crate) struct Check<'a> {
    headers: &'a [(String, String)],
    path: &'a str,
    body: &'a Value,
    violations: &'a mut Vec<String>,
}

impl Check<'_> {
    fn fail(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(it, _)| it == name)
            .map(|(_, value)| value.as_str())
    }

    /// Checks that something holds.
    fn that(&mut self, holds: bool, what: &str) {
        if !holds {
            self.fail(what);
        }
    }

    /// Checks a tool's schema.
    fn schema(&mut self, name: &str, schema: &Value) {
        if schema["type"] != "object" {
            self.fail(format!(
                "the schema of the tool {name} is no object schema: {schema}"
            ));
        }
    }

    /// Checks a tool's name.
    fn tool_name(&mut self, name: &Value) {
        let allowed = |ch: char| ch.is_ascii_alphanumeric() || ch == '_' || ch == '-';
        if !name
            .as_str()
            .is_some_and(|it| !it.is_empty() && it.len() <= 64 && it.chars().all(allowed))
        {
            self.fail(format!("{name} is no tool name"));
        }
    }

    /// Checks that a choice of tools is one of a list, and that there are tools to choose from.
    fn tool_choice(&mut self, choice: &Value, known: &[&str], tools: &Value) {
        if choice.is_null() {
            return;
        }
        if !choice.as_str().is_some_and(|it| known.contains(&it)) {
            self.fail(format!("there is no tool choice {choice}"));
        }
        let has_tools = tools.as_array().is_some_and(|tools| !tools.is_empty());
        self.that(has_tools, "there is a tool choice without tools");
    }

    /// Checks a tool use's id by the strictest common rule.
    fn call_id(&mut self, id: &Value) {
        let allowed = |ch: char| ch.is_ascii_alphanumeric() || ch == '_' || ch == '-';
        if !id
            .as_str()
            .is_some_and(|it| !it.is_empty() && it.len() <= 64 && it.chars().all(allowed))
        {
            self.fail(format!("{id} is no tool use id"));
        }
    }

    /// Checks a thought against the signature that was given with it.
    fn signature(&mut self, text: &str, signature: &str) {
        if view::signature(text) != signature {
            self.fail(format!(
                "the signature {signature} is not that of the thought {text:?}"
            ));
        }
    }
}

/// Checks a request and returns its conversation.
pub(crate) fn check(
    protocol: Protocol,
    path: &str,
    headers: &[(String, String)],
    body: &Value,
    violations: &mut Vec<String>,
) -> View {
    let mut check = Check {
        headers,
        path,
        body,
        violations,
    };
    check.that(
        check.header("content-type") == Some("application/json"),
        "the content-type is not application/json",
    );
    match protocol {
        Protocol::Anthropic => anthropic::check(&mut check),
        Protocol::OpenaiChat => openai_chat::check(&mut check),
        Protocol::OpenaiResponses => openai_responses::check(&mut check),
        Protocol::Gemini => gemini::check(&mut check),
        Protocol::Bedrock => bedrock::check(&mut check),
    }
}

/// An error body.
pub(crate) fn failure(protocol: Protocol, refused: &Refused) -> Value {
    let Refused {
        status,
        kind,
        message,
        ..
    } = refused;
    match protocol {
        Protocol::Anthropic => json!({"type": "error", "error": {"type": kind, "message": message}}),
        Protocol::OpenaiChat | Protocol::OpenaiResponses => {
            json!({"error": {"message": message, "type": kind, "param": null, "code": kind}})
        }
        Protocol::Gemini => json!([{"error": {"code": status, "message": message, "status": kind}}]),
        Protocol::Bedrock => json!({"message": message, "__type": kind}),
    }
}

/// An answer's frames.
pub(crate) fn frames(protocol: Protocol, reply: &Reply, answers: usize) -> Vec<Frame> {
    if let Some(raw) = &reply.raw {
        return raw.iter().map(|data| sse(None, data)).collect();
    }
    let mut writer = Writer {
        frames: Vec::new(),
        reply,
        answers,
    };
    match protocol {
        Protocol::Anthropic => anthropic::write(&mut writer),
        Protocol::OpenaiChat => openai_chat::write(&mut writer),
        Protocol::OpenaiResponses => openai_responses::write(&mut writer),
        Protocol::Gemini => gemini::write(&mut writer),
        Protocol::Bedrock => bedrock::write(&mut writer),
    }
    writer.frames
}

fn sse(event: Option<&str>, data: &str) -> Frame {
    let event = event.map(|event| format!("event: {event}\n")).unwrap_or_default();
    Frame::Bytes(Bytes::from(format!("{event}data: {data}\n\n")))
}

/// An answer that is being written.
pub(crate) struct Writer<'a> {
    frames: Vec<Frame>,
    reply: &'a Reply,
    /// How many answers the conversation had before.
    answers: usize,
}

/// Whether an answer goes on after a step.
#[derive(PartialEq, Eq)]
enum Flow {
    Go,
    End,
}

impl Writer<'_> {
    fn data(&mut self, data: &Value) {
        self.frames.push(sse(None, &data.to_string()));
    }

    fn event(&mut self, event: &str, data: &Value) {
        self.frames.push(sse(Some(event), &data.to_string()));
    }

    fn pieces(&self, text: &str) -> Vec<String> {
        pieces(text, self.reply.chunk)
    }

    /// The signatures of the thoughts before a step.
    fn signatures_before(&self, step: usize) -> Vec<String> {
        let before = self.reply.steps.iter().take(step);
        before
            .filter_map(|step| match step {
                Step::Thinking(text) => Some(view::signature(text)),
                Step::Redacted(data) => Some(data.clone()),
                _ => None,
            })
            .collect()
    }

    /// A tool use's id.
    fn call_id(&self, step: usize) -> String {
        view::call_id(self.answers, step, &self.signatures_before(step))
    }

    /// Whether a block that a step began stays open, because the next step breaks the answer off.
    fn is_broken_off(&self, step: usize) -> bool {
        let next = self.reply.steps.get(step + 1);
        matches!(
            next,
            Some(Step::Cut | Step::Stall | Step::EndEarly | Step::Malformed | Step::Error { .. })
        )
    }

    /// The steps that are the same in all protocols; `malformed` is a frame that can't be understood.
    fn common(&mut self, step: &Step, malformed: Bytes) -> Flow {
        match step {
            Step::Gate(gate) => self.frames.push(Frame::Gate(gate.clone())),
            Step::Delay(delay) => self.frames.push(Frame::Delay(*delay)),
            Step::Cut => {
                self.frames.push(Frame::Cut);
                return Flow::End;
            }
            Step::Stall => {
                self.frames.push(Frame::Stall);
                return Flow::End;
            }
            Step::EndEarly => return Flow::End,
            Step::Malformed => self.frames.push(Frame::Bytes(malformed)),
            _ => {}
        }
        Flow::Go
    }
}

/// What a malformed frame looks like in a stream of events.
fn malformed_sse() -> Bytes {
    Bytes::from_static(b"data: {\"broken\n\n")
}
