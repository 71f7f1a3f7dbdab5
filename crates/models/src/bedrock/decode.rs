//! The stream of the ConverseStream API.

use std::collections::HashMap;
use std::sync::Arc;

use oma_domain::event::FailureKind;
use oma_domain::session::ReplyStop;
use oma_domain::usage::Usage;
use serde_json::{Map, Value};

use super::frames::Frame;
use crate::Error;
use crate::answer::{self, Answer, Progress, Tally};
use crate::assembly::Assembly;
use crate::failure::{self, Report};
use crate::registry::Target;
use crate::request::Chunk;
use crate::sse::malformed;

/// A block that has begun and not ended.
enum Open {
    Text,
    Thinking {
        at: usize,
        signature: String,
        redacted: String,
    },
    ToolUse {
        at: usize,
    },
}

pub(super) struct Decoder {
    target: Arc<Target>,
    assembly: Assembly,
    open: HashMap<u64, Open>,
    usage: Option<Usage>,
    /// Why the answer ended.
    stop: Option<String>,
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

    fn delta(&mut self, index: u64, delta: &Value, out: &mut Vec<Chunk>) -> Result<(), Error> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if let Some(piece) = delta["text"].as_str() {
            // A block of text has no start event.
            self.open.entry(index).or_insert_with(|| {
                self.assembly.break_block();
                Open::Text
            });
            return self.assembly.text(piece, out);
        }
        let reasoning = &delta["reasoningContent"];
        if reasoning.is_object() {
            if !self.open.contains_key(&index) {
                let at = self.assembly.begin_thinking()?;
                self.open.insert(
                    index,
                    Open::Thinking {
                        at,
                        signature: String::new(),
                        redacted: String::new(),
                    },
                );
            }
            let Some(Open::Thinking {
                signature, redacted, ..
            }) = self.open.get_mut(&index)
            else {
                return Err(malformed("a thought inside another block"));
            };
            signature.push_str(&text(&reasoning["signature"]));
            redacted.push_str(&text(&reasoning["redactedContent"]));
            return self.assembly.thinking(&text(&reasoning["text"]), out);
        }
        match (delta["toolUse"]["input"].as_str(), self.open.get(&index)) {
            (Some(piece), Some(Open::ToolUse { at })) => self.assembly.arguments(*at, piece),
            (Some(_), _) => Err(malformed("arguments without a tool use")),
            // What later versions of the API add.
            (None, _) => Ok(()),
        }
    }

    fn end(&mut self, index: u64) {
        let Some(Open::Thinking {
            at,
            signature,
            redacted,
        }) = self.open.remove(&index)
        else {
            return;
        };
        let mut data = Map::new();
        if !redacted.is_empty() {
            data.insert("redacted".to_owned(), redacted.into());
        } else if !signature.is_empty() {
            data.insert("signature".to_owned(), signature.into());
        }
        self.assembly.set_opaque(at, self.target.rules().opaque(data));
    }

    fn count(&mut self, usage: &Value) {
        let count = |key: &str| usage[key].as_u64().unwrap_or_default();
        if usage.is_object() {
            self.usage = Some(Usage {
                input: count("inputTokens"),
                output: count("outputTokens"),
                cache_read: count("cacheReadInputTokens"),
                cache_write: count("cacheWriteInputTokens"),
            });
        }
    }
}

impl answer::Decoder for Decoder {
    type Frame = Frame;

    fn frame(&mut self, frame: Frame, out: &mut Vec<Chunk>) -> Result<Progress, Error> {
        let Frame {
            kind,
            is_exception,
            payload,
        } = frame;
        if is_exception {
            let report = Report::from_json(&payload);
            return Err(failure::in_stream(&Report {
                codes: format!("{kind} {}", report.codes),
                ..report
            }));
        }
        let index = payload["contentBlockIndex"].as_u64().unwrap_or_default();
        match kind.as_str() {
            "contentBlockStart" => {
                let call = &payload["start"]["toolUse"];
                if call.is_object() {
                    let text = |key: &str| call[key].as_str().unwrap_or_default();
                    let at = self.assembly.begin_tool(text("toolUseId"), text("name"), out)?;
                    self.open.insert(index, Open::ToolUse { at });
                }
            }
            "contentBlockDelta" => self.delta(index, &payload["delta"], out)?,
            "contentBlockStop" => self.end(index),
            "messageStop" => {
                let reason = payload["stopReason"].as_str().unwrap_or_default();
                self.stop = Some(reason.to_owned());
            }
            // Usage comes after the end of the message, and is the last event.
            "metadata" => {
                self.count(&payload["usage"]);
                if self.stop.is_some() {
                    return Ok(Progress::Complete);
                }
            }
            _ => {}
        }
        Ok(Progress::Open)
    }

    fn complete_at_end(&self) -> bool {
        self.stop.is_some()
    }

    /// Usage comes after the end only.
    fn tally(&self) -> Tally {
        Tally {
            usage: self.usage,
            cost: None,
            is_final: self.usage.is_some(),
        }
    }

    fn finish(self) -> Result<Answer, Error> {
        let reason = self.stop.ok_or_else(|| malformed("an end without a reason"))?;
        let stop = stop(&reason)?;
        Ok(Answer {
            blocks: self.assembly.finish(&stop),
            stop,
        })
    }
}

fn stop(reason: &str) -> Result<ReplyStop, Error> {
    Ok(match reason {
        "max_tokens" => ReplyStop::MaxTokens,
        "guardrail_intervened" | "content_filtered" | "refusal" => ReplyStop::Refusal {
            explanation: Some(format!("the provider stopped the answer ({reason})")),
        },
        "model_context_window_exceeded" => {
            return Err(answer::out_of_window());
        }
        "malformed_model_output" | "malformed_tool_use" => {
            let message = format!("the model's answer failed ({reason})");
            return Err(Error::passing(FailureKind::ModelRequestFailed, message));
        }
        _ => ReplyStop::Done,
    })
}
