//! The stream of the Gemini API: each event is a whole response with the next parts.

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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    candidates: Vec<Candidate>,
    usage_metadata: Option<UsageMetadata>,
    prompt_feedback: Option<PromptFeedback>,
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<Content>,
    finish_reason: Option<String>,
    finish_message: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    parts: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    text: Option<String>,
    #[serde(default)]
    thought: bool,
    thought_signature: Option<String>,
    function_call: Option<FunctionCall>,
}

#[derive(Deserialize)]
struct FunctionCall {
    id: Option<String>,
    name: String,
    args: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback {
    block_reason: Option<String>,
    block_reason_message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct UsageMetadata {
    prompt_token_count: u64,
    cached_content_token_count: u64,
    candidates_token_count: u64,
    thoughts_token_count: u64,
    tool_use_prompt_token_count: u64,
}

pub(super) struct Decoder {
    target: Arc<Target>,
    assembly: Assembly,
    usage: Option<Usage>,
    finish: Option<(String, Option<String>)>,
    blocked: Option<String>,
}

impl Decoder {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self {
            target,
            assembly: Assembly::default(),
            usage: None,
            finish: None,
            blocked: None,
        }
    }

    fn part(&mut self, part: Part, out: &mut Vec<Chunk>) -> Result<(), Error> {
        let rules = self.target.rules();
        let mut signed = Map::new();
        if let Some(signature) = part.thought_signature {
            signed.insert("thoughtSignature".to_owned(), signature.into());
        }
        if let Some(call) = part.function_call {
            let id = call.id.unwrap_or_default();
            if !id.is_empty() {
                signed.insert("hasId".to_owned(), true.into());
            }
            let at = self.assembly.begin_tool(&id, &call.name, out)?;
            if let Some(args) = call.args.filter(|args| !args.is_null()) {
                self.assembly.arguments(at, &args.to_string())?;
            }
            self.assembly.set_opaque(at, rules.opaque(signed));
            return Ok(());
        }
        let text = part.text.unwrap_or_default();
        if part.thought {
            return self.assembly.thinking(&text, out);
        }
        self.assembly.text(&text, out)?;
        // A signature may come after the text that it belongs to, with a part of its own.
        if let Some(at) = self.assembly.last_text().filter(|_| !signed.is_empty()) {
            self.assembly.set_opaque(at, rules.opaque(signed));
        }
        Ok(())
    }
}

impl answer::Decoder for Decoder {
    type Frame = String;

    fn frame(&mut self, frame: String, out: &mut Vec<Chunk>) -> Result<Progress, Error> {
        let response: Response = answer::json(&frame)?;
        if let Some(error) = response.error {
            return Err(answer::reported(&error));
        }
        if let Some(wire) = response.usage_metadata {
            let cache_read = wire.cached_content_token_count.min(wire.prompt_token_count);
            self.usage = Some(Usage {
                input: (wire.prompt_token_count - cache_read)
                    .saturating_add(wire.tool_use_prompt_token_count),
                output: wire
                    .candidates_token_count
                    .saturating_add(wire.thoughts_token_count),
                cache_read,
                cache_write: 0,
            });
        }
        if let Some(PromptFeedback {
            block_reason: Some(reason),
            block_reason_message,
        }) = response.prompt_feedback
        {
            let because = block_reason_message
                .map(|message| format!(": {message}"))
                .unwrap_or_default();
            self.blocked = Some(format!("the provider blocked the prompt ({reason}){because}"));
        }
        if let Some(candidate) = response.candidates.into_iter().next() {
            for part in candidate.content.into_iter().flat_map(|content| content.parts) {
                self.part(part, out)?;
            }
            if let Some(reason) = candidate.finish_reason {
                self.finish = Some((reason, candidate.finish_message));
            }
        }
        Ok(Progress::Open)
    }

    /// The protocol has no end mark but the reason why the answer is finished.
    fn complete_at_end(&self) -> bool {
        self.finish.is_some() || self.blocked.is_some()
    }

    /// Each event says what has been consumed so far.
    fn tally(&self) -> Tally {
        Tally {
            usage: self.usage,
            cost: None,
            is_final: self.complete_at_end(),
        }
    }

    fn finish(self) -> Result<Answer, Error> {
        let stop = match (self.blocked, self.finish) {
            (Some(explanation), _) => ReplyStop::Refusal {
                explanation: Some(explanation),
            },
            (None, Some((reason, message))) => stop(&reason, message, self.assembly.is_empty())?,
            (None, None) => ReplyStop::Done,
        };
        Ok(Answer {
            blocks: self.assembly.finish(&stop),
            stop,
        })
    }
}

fn stop(reason: &str, message: Option<String>, is_empty: bool) -> Result<ReplyStop, Error> {
    let because = message
        .as_deref()
        .map(|message| format!(": {message}"))
        .unwrap_or_default();
    let failed = format!("the model's answer failed ({reason}){because}");
    match reason {
        "STOP" => Ok(ReplyStop::Done),
        "MAX_TOKENS" => Ok(ReplyStop::MaxTokens),
        "SAFETY" | "RECITATION" | "LANGUAGE" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "ESCALATION"
        | "MODEL_ARMOR" => Ok(ReplyStop::Refusal {
            explanation: Some(format!("the provider stopped the answer ({reason}){because}")),
        }),
        "MISSING_THOUGHT_SIGNATURE" | "PUP_LIMITED_DISABLED" => {
            Err(Error::fatal(FailureKind::ModelRequestFailed, failed))
        }
        // The model wrote a call that is none; it mostly gets it right when it is asked again.
        "MALFORMED_FUNCTION_CALL" | "MALFORMED_RESPONSE" | "UNEXPECTED_TOOL_CALL" => {
            Err(Error::passing(FailureKind::ModelRequestFailed, failed))
        }
        _ if is_empty => Err(Error::passing(FailureKind::ModelRequestFailed, failed)),
        _ => Ok(ReplyStop::Done),
    }
}
