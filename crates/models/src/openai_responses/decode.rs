//! The stream of the Responses API.

use std::collections::HashMap;
use std::sync::Arc;

use oma_domain::event::FailureKind;
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
#[serde(tag = "type")]
enum Event {
    #[serde(rename = "response.output_item.added")]
    ItemAdded { output_index: u64, item: Value },
    #[serde(rename = "response.output_item.done")]
    ItemDone { output_index: u64, item: Value },
    #[serde(rename = "response.output_text.delta")]
    TextDelta { output_index: u64, delta: String },
    #[serde(rename = "response.refusal.delta")]
    RefusalDelta { delta: String },
    #[serde(
        rename = "response.reasoning_summary_text.delta",
        alias = "response.reasoning_text.delta"
    )]
    ReasoningDelta {
        output_index: u64,
        #[serde(alias = "content_index")]
        summary_index: Option<u64>,
        delta: String,
    },
    #[serde(rename = "response.function_call_arguments.delta")]
    ArgumentsDelta { output_index: u64, delta: String },
    #[serde(rename = "response.completed")]
    Completed { response: Value },
    #[serde(rename = "response.incomplete")]
    Incomplete { response: Value },
    #[serde(rename = "response.failed")]
    Failed { response: Value },
    #[serde(rename = "error")]
    Error {
        #[serde(flatten)]
        error: Map<String, Value>,
    },
    #[serde(other)]
    Other,
}

/// An item that has begun and not ended.
enum Open {
    /// Whether any of its text has arrived.
    Message {
        has_text: bool,
    },
    Reasoning {
        at: usize,
        part: Option<u64>,
    },
    Call {
        at: usize,
    },
}

pub(super) struct Decoder {
    target: Arc<Target>,
    assembly: Assembly,
    open: HashMap<u64, Open>,
    refusal: String,
    usage: Option<Usage>,
    stop: ReplyStop,
}

impl Decoder {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self {
            target,
            assembly: Assembly::default(),
            open: HashMap::new(),
            refusal: String::new(),
            usage: None,
            stop: ReplyStop::Done,
        }
    }

    fn added(&mut self, index: u64, item: &Value, out: &mut Vec<Chunk>) -> Result<(), Error> {
        self.assembly.break_block();
        let text = |key: &str| item[key].as_str().unwrap_or_default();
        let open = match text("type") {
            "message" => Open::Message { has_text: false },
            "reasoning" => Open::Reasoning {
                at: self.assembly.begin_thinking()?,
                part: None,
            },
            "function_call" => Open::Call {
                at: self.assembly.begin_tool(text("call_id"), text("name"), out)?,
            },
            // Built-in tools of the provider are not asked for; their items mean nothing to us.
            _ => return Ok(()),
        };
        self.open.insert(index, open);
        Ok(())
    }

    fn done(&mut self, index: u64, item: &Value, out: &mut Vec<Chunk>) -> Result<(), Error> {
        match self.open.remove(&index) {
            Some(Open::Message { has_text }) => {
                let parts = item["content"].as_array().map(Vec::as_slice).unwrap_or_default();
                if !has_text {
                    for part in parts {
                        self.assembly
                            .text(part["text"].as_str().unwrap_or_default(), out)?;
                    }
                }
                if let (Some(at), Some(phase)) = (self.assembly.last_text(), item["phase"].as_str()) {
                    let data = Map::from_iter([("phase".to_owned(), phase.into())]);
                    self.assembly.set_opaque(at, self.target.rules().opaque(data));
                }
            }
            // Without its encrypted content an item could only be found in OpenAI's store, which is not used.
            Some(Open::Reasoning { at, .. }) if item["encrypted_content"].is_string() => {
                let kept = item
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter(|(key, value)| *key != "status" && !value.is_null());
                let item: Map<String, Value> =
                    kept.map(|(key, value)| (key.clone(), value.clone())).collect();
                let data = Map::from_iter([("item".to_owned(), item.into())]);
                self.assembly.set_opaque(at, self.target.rules().opaque(data));
            }
            Some(Open::Call { at }) if !self.assembly.has_arguments(at) => {
                self.assembly
                    .arguments(at, item["arguments"].as_str().unwrap_or_default())?;
            }
            _ => {}
        }
        Ok(())
    }

    fn reasoning(
        &mut self,
        index: u64,
        part: Option<u64>,
        delta: &str,
        out: &mut Vec<Chunk>,
    ) -> Result<(), Error> {
        let Some(Open::Reasoning { part: last, .. }) = self.open.get_mut(&index) else {
            return Err(malformed("a thought that belongs to no item"));
        };
        let is_next = last.is_some() && *last != part;
        *last = part;
        if is_next {
            // Each part of a summary is a paragraph.
            self.assembly.thinking("\n\n", out)?;
        }
        self.assembly.thinking(delta, out)
    }

    fn count(&mut self, response: &Value) {
        let Some(usage) = response.get("usage").filter(|usage| usage.is_object()) else {
            return;
        };
        let count = |at: &str| usage.pointer(at).and_then(Value::as_u64).unwrap_or_default();
        let total = count("/input_tokens");
        let cache_read = count("/input_tokens_details/cached_tokens").min(total);
        let cache_write = count("/input_tokens_details/cache_write_tokens").min(total - cache_read);
        let input = total - cache_read - cache_write;
        self.usage = Some(Usage {
            input,
            output: count("/output_tokens"),
            cache_read,
            cache_write,
        });
    }
}

impl answer::Decoder for Decoder {
    type Frame = String;

    fn frame(&mut self, frame: String, out: &mut Vec<Chunk>) -> Result<Progress, Error> {
        match answer::json::<Event>(&frame)? {
            Event::ItemAdded { output_index, item } => self.added(output_index, &item, out)?,
            Event::ItemDone { output_index, item } => self.done(output_index, &item, out)?,
            Event::TextDelta { output_index, delta } => match self.open.get_mut(&output_index) {
                Some(Open::Message { has_text }) => {
                    *has_text = true;
                    self.assembly.text(&delta, out)?;
                }
                _ => return Err(malformed("text that belongs to no message")),
            },
            Event::RefusalDelta { delta } => self.refusal.push_str(&delta),
            Event::ReasoningDelta {
                output_index,
                summary_index,
                delta,
            } => {
                self.reasoning(output_index, summary_index, &delta, out)?;
            }
            Event::ArgumentsDelta { output_index, delta } => match self.open.get(&output_index) {
                Some(Open::Call { at }) => self.assembly.arguments(*at, &delta)?,
                _ => return Err(malformed("arguments that belong to no tool call")),
            },
            Event::Completed { response } => {
                self.count(&response);
                return Ok(Progress::Complete);
            }
            Event::Incomplete { response } => {
                self.count(&response);
                let reason = response
                    .pointer("/incomplete_details/reason")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                self.stop = match reason {
                    "content_filter" => ReplyStop::Refusal { explanation: None },
                    "max_output_tokens" => ReplyStop::MaxTokens,
                    other => {
                        let message = format!("the provider left the answer incomplete ({other})");
                        return Err(Error::passing(FailureKind::ModelOverloaded, message));
                    }
                };
                return Ok(Progress::Complete);
            }
            Event::Failed { response } => {
                self.count(&response);
                return Err(answer::reported(&response["error"]));
            }
            Event::Error { error } => return Err(answer::reported(&Value::Object(error))),
            Event::Other => {}
        }
        Ok(Progress::Open)
    }

    /// Usage comes with the end only.
    fn tally(&self) -> Tally {
        Tally {
            usage: self.usage,
            cost: None,
            is_final: self.usage.is_some(),
        }
    }

    fn finish(self) -> Result<Answer, Error> {
        // An answer that its limit cut off has an item that never ended.
        if !self.open.is_empty() && self.stop == ReplyStop::Done {
            return Err(malformed("an end inside an item"));
        }
        let stop = match self.stop {
            ReplyStop::Done if !self.refusal.is_empty() => ReplyStop::Refusal {
                explanation: Some(self.refusal),
            },
            other => other,
        };
        Ok(Answer {
            blocks: self.assembly.finish(&stop),
            stop,
        })
    }
}
