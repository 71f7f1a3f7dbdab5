//! The stream of the Messages API.

use std::collections::HashMap;
use std::sync::Arc;

use oma_domain::session::ReplyStop;
use oma_domain::usage::Usage;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Error;
use crate::answer::{self, Answer, Progress, Tally};
use crate::assembly::Assembly;
use crate::registry::Target;
use crate::request::Chunk;
use crate::sse::malformed;

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    MessageStart {
        message: Started,
    },
    ContentBlockStart {
        index: u64,
        content_block: Block,
    },
    ContentBlockDelta {
        index: u64,
        delta: Delta,
    },
    ContentBlockStop {
        index: u64,
    },
    MessageDelta {
        delta: Ending,
        usage: Option<WireUsage>,
    },
    MessageStop,
    Error {
        error: Value,
    },
    /// Pings, and what later versions of the API add.
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Started {
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text {
        #[serde(default)]
        text: String,
    },
    Thinking {
        #[serde(default)]
        thinking: String,
        #[serde(default)]
        signature: String,
    },
    RedactedThinking {
        data: String,
    },
    ToolUse {
        id: String,
        name: String,
        #[serde(default)]
        input: Value,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Delta {
    #[serde(rename = "text_delta")]
    Text { text: String },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: String },
    #[serde(rename = "signature_delta")]
    Signature { signature: String },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: String },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Ending {
    stop_reason: Option<String>,
    stop_details: Option<StopDetails>,
}

#[derive(Deserialize)]
struct StopDetails {
    explanation: Option<String>,
}

#[derive(Deserialize)]
struct WireUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

/// A block that has begun and not ended.
enum Open {
    Text,
    /// Of a kind that is not ours; so are its deltas.
    Other,
    Thinking {
        at: usize,
        signature: String,
    },
    ToolUse {
        at: usize,
        input: Value,
    },
}

pub(super) struct Decoder {
    target: Arc<Target>,
    assembly: Assembly,
    open: HashMap<u64, Open>,
    usage: Option<Usage>,
    /// Why the answer ended, and what was said about that.
    stop: Option<(String, Option<String>)>,
}

impl Decoder {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self {
            target,
            assembly: Assembly::default(),
            open: HashMap::new(),
            usage: None,
            stop: None,
        }
    }

    /// Counts are cumulative, and some servers behind this protocol leave them zero in one of the two places.
    fn count(&mut self, wire: &WireUsage) {
        let usage = self.usage.get_or_insert_default();
        usage.input = usage.input.max(wire.input_tokens.unwrap_or_default());
        usage.output = usage.output.max(wire.output_tokens.unwrap_or_default());
        usage.cache_read = usage
            .cache_read
            .max(wire.cache_read_input_tokens.unwrap_or_default());
        usage.cache_write = usage
            .cache_write
            .max(wire.cache_creation_input_tokens.unwrap_or_default());
    }

    fn begin(&mut self, index: u64, block: Block, out: &mut Vec<Chunk>) -> Result<(), Error> {
        self.assembly.break_block();
        let open = match block {
            Block::Text { text } => {
                self.assembly.text(&text, out)?;
                Open::Text
            }
            Block::Thinking { thinking, signature } => {
                let at = self.assembly.begin_thinking()?;
                self.assembly.thinking(&thinking, out)?;
                Open::Thinking { at, signature }
            }
            Block::RedactedThinking { data } => {
                let at = self.assembly.begin_thinking()?;
                let data = Map::from_iter([("redacted".to_owned(), data.into())]);
                self.assembly.set_opaque(at, self.target.rules().opaque(data));
                return Ok(());
            }
            Block::ToolUse { id, name, input } => Open::ToolUse {
                at: self.assembly.begin_tool(&id, &name, out)?,
                input,
            },
            Block::Other => Open::Other,
        };
        self.open.insert(index, open);
        Ok(())
    }

    fn delta(&mut self, index: u64, delta: Delta, out: &mut Vec<Chunk>) -> Result<(), Error> {
        match (delta, self.open.get_mut(&index)) {
            (Delta::Text { text }, Some(Open::Text)) => self.assembly.text(&text, out),
            (Delta::Thinking { thinking }, Some(Open::Thinking { .. })) => {
                self.assembly.thinking(&thinking, out)
            }
            (Delta::Signature { signature: piece }, Some(Open::Thinking { signature, .. })) => {
                signature.push_str(&piece);
                Ok(())
            }
            (Delta::InputJson { partial_json }, Some(Open::ToolUse { at, .. })) => {
                self.assembly.arguments(*at, &partial_json)
            }
            (Delta::Other, _) | (_, Some(Open::Other)) => Ok(()),
            _ => Err(malformed("a delta that belongs to no block")),
        }
    }

    fn end(&mut self, index: u64) -> Result<(), Error> {
        match self.open.remove(&index) {
            Some(Open::Thinking { at, signature }) if !signature.is_empty() => {
                let data = Map::from_iter([("signature".to_owned(), signature.into())]);
                self.assembly.set_opaque(at, self.target.rules().opaque(data));
            }
            // Some servers behind this protocol send the whole input with the start.
            Some(Open::ToolUse { at, input })
                if !self.assembly.has_arguments(at)
                    && input.as_object().is_some_and(|input| !input.is_empty()) =>
            {
                self.assembly.arguments(at, &input.to_string())?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl answer::Decoder for Decoder {
    type Frame = String;

    fn frame(&mut self, frame: String, out: &mut Vec<Chunk>) -> Result<Progress, Error> {
        match answer::json::<Event>(&frame)? {
            Event::MessageStart { message } => {
                if let Some(usage) = &message.usage {
                    self.count(usage);
                }
            }
            Event::ContentBlockStart { index, content_block } => self.begin(index, content_block, out)?,
            Event::ContentBlockDelta { index, delta } => self.delta(index, delta, out)?,
            Event::ContentBlockStop { index } => self.end(index)?,
            Event::MessageDelta { delta, usage } => {
                if let Some(usage) = &usage {
                    self.count(usage);
                }
                if let Some(reason) = delta.stop_reason {
                    let explanation = delta.stop_details.and_then(|details| details.explanation);
                    self.stop = Some((reason, explanation));
                }
            }
            Event::MessageStop => return Ok(Progress::Complete),
            Event::Error { error } => return Err(answer::reported(&error)),
            Event::Other => {}
        }
        Ok(Progress::Open)
    }

    fn tally(&self) -> Tally {
        Tally {
            usage: self.usage,
            cost: None,
            is_final: self.stop.is_some(),
        }
    }

    fn finish(self) -> Result<Answer, Error> {
        let (reason, explanation) = self.stop.ok_or_else(|| malformed("an end without a reason"))?;
        let stop = stop(&reason, explanation)?;
        if !self.open.is_empty() {
            return Err(malformed("an end inside a block"));
        }
        Ok(Answer {
            blocks: self.assembly.finish(&stop),
            stop,
        })
    }
}

fn stop(reason: &str, explanation: Option<String>) -> Result<ReplyStop, Error> {
    Ok(match reason {
        "max_tokens" => ReplyStop::MaxTokens,
        "refusal" => ReplyStop::Refusal { explanation },
        // The answer was cut where the window ended; compacting the context is what helps.
        "model_context_window_exceeded" => {
            return Err(answer::out_of_window());
        }
        _ => ReplyStop::Done,
    })
}
