//! The stream of the Chat Completions API.

use std::collections::BTreeMap;
use std::sync::Arc;

use oma_domain::event::FailureKind;
use oma_domain::session::ReplyStop;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::usage;
use crate::Error;
use crate::answer::{self, Answer, Progress, Tally};
use crate::assembly::Assembly;
use crate::registry::Target;
use crate::request::Chunk;
use crate::sse::malformed;

/// The data of the last event.
const DONE: &str = "[DONE]";

/// The most pieces of opaque reasoning of an answer.
const MAX_DETAILS: usize = 4096;

#[derive(Deserialize)]
struct Piece {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Value>,
    /// Groq's place for usage.
    x_groq: Option<Value>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Delta>,
    finish_reason: Option<String>,
    /// Moonshot's place for usage.
    usage: Option<Value>,
    /// OpenRouter's place for an error of the provider behind it.
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Delta {
    /// A string, or Mistral's list of parts.
    #[serde(default)]
    content: Value,
    reasoning_content: Option<String>,
    /// A string; other shapes are not text.
    #[serde(default)]
    reasoning: Value,
    reasoning_details: Option<Vec<Value>>,
    refusal: Option<String>,
    tool_calls: Option<Vec<ToolCall>>,
}

#[derive(Deserialize)]
struct ToolCall {
    index: Option<u64>,
    id: Option<String>,
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: Option<String>,
    /// A string of JSON; some servers send the object itself.
    #[serde(default)]
    arguments: Value,
}

/// A tool call whose pieces arrive.
struct Call {
    id: String,
    /// Where it stands in the answer, once its name is known.
    at: Option<usize>,
    /// Arguments that came before the name.
    early: String,
}

pub(super) struct Decoder {
    target: Arc<Target>,
    assembly: Assembly,
    /// By the provider's index.
    calls: BTreeMap<u64, Call>,
    details: Vec<Value>,
    refusal: String,
    usage: Option<Value>,
    finish: Option<String>,
}

impl Decoder {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self {
            target,
            assembly: Assembly::default(),
            calls: BTreeMap::new(),
            details: Vec::new(),
            refusal: String::new(),
            usage: None,
            finish: None,
        }
    }

    fn delta(&mut self, delta: Delta, out: &mut Vec<Chunk>) -> Result<(), Error> {
        let reasoning = delta
            .reasoning_content
            .as_deref()
            .or(delta.reasoning.as_str())
            .unwrap_or_default();
        self.assembly.thinking(reasoning, out)?;
        for detail in delta.reasoning_details.into_iter().flatten() {
            if reasoning.is_empty() {
                let text = detail["text"]
                    .as_str()
                    .or(detail["summary"].as_str())
                    .unwrap_or_default();
                self.assembly.thinking(text, out)?;
            }
            self.detail(detail)?;
        }
        match &delta.content {
            Value::String(text) => self.assembly.text(text, out)?,
            Value::Array(parts) => {
                for part in parts {
                    self.part(part, out)?;
                }
            }
            _ => {}
        }
        if let Some(refusal) = &delta.refusal {
            self.refusal.push_str(refusal);
        }
        for call in delta.tool_calls.into_iter().flatten() {
            self.call(call, out)?;
        }
        Ok(())
    }

    /// A part of Mistral's list: text, or a thought that is itself a list of texts.
    fn part(&mut self, part: &Value, out: &mut Vec<Chunk>) -> Result<(), Error> {
        match part["type"].as_str() {
            Some("text") => self.assembly.text(part["text"].as_str().unwrap_or_default(), out),
            Some("thinking") => {
                for piece in part["thinking"].as_array().into_iter().flatten() {
                    self.assembly
                        .thinking(piece["text"].as_str().unwrap_or_default(), out)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Opaque reasoning arrives in pieces: texts of the same kind and index are joined, the rest is set.
    fn detail(&mut self, detail: Value) -> Result<(), Error> {
        let Value::Object(detail) = detail else {
            return Ok(());
        };
        let same = |last: &Value| {
            last.get("type") == detail.get("type")
                && last.get("index") == detail.get("index")
                && last.get("index").is_some()
        };
        if let Some(Value::Object(last)) = self.details.last_mut().filter(|last| same(last)) {
            for (key, value) in detail {
                match (last.get_mut(&key), value) {
                    (Some(Value::String(have)), Value::String(more)) if key == "text" || key == "summary" => {
                        have.push_str(&more);
                    }
                    (_, Value::Null) => {}
                    (_, value) => {
                        last.insert(key, value);
                    }
                }
            }
            return Ok(());
        }
        if self.details.len() >= MAX_DETAILS {
            return Err(malformed("more pieces of reasoning than an answer can have"));
        }
        self.details.push(Value::Object(detail));
        Ok(())
    }

    fn call(&mut self, piece: ToolCall, out: &mut Vec<Chunk>) -> Result<(), Error> {
        let id = piece.id.unwrap_or_default();
        let (name, arguments) = match piece.function {
            Some(function) => (function.name.unwrap_or_default(), function.arguments),
            None => (String::new(), Value::Null),
        };
        let newest = self.calls.last_key_value().map(|(index, _)| *index);
        let next = newest.map_or(Some(0), |index| index.checked_add(1));
        let next = next.ok_or_else(|| malformed("a tool call's index is out of bounds"))?;
        let index = match piece.index {
            // Some servers number every call 0; another id with a name shows that it is another call.
            Some(index) => match self.calls.get(&index) {
                Some(have) if !id.is_empty() && !have.id.is_empty() && have.id != id && !name.is_empty() => {
                    next
                }
                _ => index,
            },
            // Without a number, a name begins a call and anything else belongs to the newest one.
            None if name.is_empty() => newest.ok_or_else(|| malformed("arguments without a tool call"))?,
            None => next,
        };
        let call = self.calls.entry(index).or_insert_with(|| Call {
            id: String::new(),
            at: None,
            early: String::new(),
        });
        if call.id.is_empty() {
            call.id = id;
        }
        let arguments = match arguments {
            Value::Null => String::new(),
            Value::String(text) => text,
            other => other.to_string(),
        };
        match call.at {
            Some(at) => self.assembly.arguments(at, &arguments),
            None if name.is_empty() => {
                call.early.push_str(&arguments);
                Ok(())
            }
            None => {
                let at = self.assembly.begin_tool(&call.id, &name, out)?;
                call.at = Some(at);
                let early = std::mem::take(&mut call.early);
                self.assembly.arguments(at, &early)?;
                self.assembly.arguments(at, &arguments)
            }
        }
    }
}

impl answer::Decoder for Decoder {
    type Frame = String;

    fn frame(&mut self, frame: String, out: &mut Vec<Chunk>) -> Result<Progress, Error> {
        if frame.trim() == DONE {
            return Ok(Progress::Complete);
        }
        let piece: Piece = answer::json(&frame)?;
        if let Some(error) = piece.error.filter(|error| !error.is_null()) {
            return Err(answer::reported(&error));
        }
        let groq = piece
            .x_groq
            .and_then(|mut it| it.get_mut("usage").map(Value::take));
        for usage in [piece.usage, groq].into_iter().flatten().filter(Value::is_object) {
            self.usage = Some(usage);
        }
        // One answer is asked for, so there is one choice.
        if let Some(choice) = piece.choices.into_iter().next() {
            if let Some(error) = choice.error.filter(|error| !error.is_null()) {
                return Err(answer::reported(&error));
            }
            if let Some(delta) = choice.delta {
                self.delta(delta, out)?;
            }
            if let Some(usage) = choice.usage.filter(Value::is_object) {
                self.usage = Some(usage);
            }
            self.finish = choice.finish_reason.or(self.finish.take());
        }
        Ok(Progress::Open)
    }

    /// Not every server sends the end mark, but each says why the answer is finished.
    fn complete_at_end(&self) -> bool {
        self.finish.is_some()
    }

    fn tally(&self) -> Tally {
        let usage = self.usage.as_ref();
        Tally {
            usage: usage.and_then(usage::counts),
            cost: usage.and_then(usage::cost),
            is_final: self.finish.is_some(),
        }
    }

    fn finish(mut self) -> Result<Answer, Error> {
        if self.calls.values().any(|call| call.at.is_none()) {
            return Err(malformed("a tool call without a name"));
        }
        let stop = stop(self.finish.as_deref().unwrap_or("stop"), &self.refusal)?;
        let rules = self.target.rules();
        for at in self.assembly.thinking_indexes() {
            self.assembly.set_opaque(at, rules.opaque(Map::new()));
        }
        if let Some(last) = self.assembly.last().filter(|_| !self.details.is_empty()) {
            let details = Value::Array(self.details);
            let data = Map::from_iter([("reasoning_details".to_owned(), details)]);
            self.assembly.set_opaque(last, rules.opaque(data));
        }
        Ok(Answer {
            blocks: self.assembly.finish(&stop),
            stop,
        })
    }
}

fn stop(reason: &str, refusal: &str) -> Result<ReplyStop, Error> {
    let explanation = (!refusal.is_empty()).then(|| refusal.to_owned());
    Ok(match reason {
        "length" | "model_length" | "max_tokens" => ReplyStop::MaxTokens,
        "content_filter" => ReplyStop::Refusal { explanation },
        "insufficient_system_resource" | "error" => {
            let message = format!("the provider broke the answer off ({reason})");
            return Err(Error::passing(FailureKind::ModelOverloaded, message));
        }
        _ if explanation.is_some() => ReplyStop::Refusal { explanation },
        _ => ReplyStop::Done,
    })
}
