//! Answers in OpenAI's shape.

use oma_domain::EventId;
use oma_domain::usage::Usage as Counted;
use serde::Serialize;
use utoipa::ToSchema;

/// A whole answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChatCompletion {
    /// `chatcmpl-` and the id of the message's event.
    id: String,
    /// Always `chat.completion`.
    object: &'static str,
    /// Seconds since the epoch.
    created: i64,
    /// The model that answered.
    model: String,
    choices: [Choice; 1],
    usage: Usage,
}

/// The one choice of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Choice {
    /// Always 0.
    index: u32,
    message: Message,
    /// `stop`, `length` or `content_filter`.
    finish_reason: &'static str,
}

/// What the agent said last.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Message {
    /// Always `assistant`.
    role: &'static str,
    /// Empty when the turn ended without a message.
    content: String,
}

/// What all model requests of the turn consumed.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(super) struct Usage {
    /// All input, cached or not.
    prompt_tokens: u64,
    /// All output, thinking included.
    completion_tokens: u64,
    /// Both.
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
}

/// What of the input a cache served.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(super) struct PromptDetails {
    /// Tokens read from a cache.
    cached_tokens: u64,
}

impl Usage {
    pub(super) fn of(usage: &Counted) -> Self {
        Self {
            prompt_tokens: usage.total_input(),
            completion_tokens: usage.output,
            total_tokens: usage.total(),
            prompt_tokens_details: PromptDetails {
                cached_tokens: usage.cache_read,
            },
        }
    }
}

impl ChatCompletion {
    pub(super) fn new(
        event: &EventId,
        model: String,
        content: String,
        finish_reason: &'static str,
        usage: &Counted,
    ) -> Self {
        let message = Message {
            role: "assistant",
            content,
        };
        Self {
            id: format!("chatcmpl-{event}"),
            object: "chat.completion",
            created: now_seconds(),
            model,
            choices: [Choice {
                index: 0,
                message,
                finish_reason,
            }],
            usage: Usage::of(usage),
        }
    }
}

/// A piece of an answer.
#[derive(Debug, Serialize)]
pub(super) struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    choices: Vec<ChunkChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Debug, Serialize)]
struct ChunkChoice<'a> {
    index: u32,
    delta: ChunkDelta<'a>,
    finish_reason: Option<&'static str>,
}

#[derive(Debug, Default, Serialize)]
struct ChunkDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

/// What all chunks of one answer share.
#[derive(Debug, Clone)]
pub(super) struct ChunkHead {
    pub(super) id: String,
    pub(super) created: i64,
    pub(super) model: String,
}

impl ChunkHead {
    pub(super) fn role(&self) -> Chunk<'_> {
        self.chunk(
            ChunkDelta {
                role: Some("assistant"),
                content: Some(""),
            },
            None,
        )
    }

    pub(super) fn text<'a>(&'a self, text: &'a str) -> Chunk<'a> {
        self.chunk(
            ChunkDelta {
                role: None,
                content: Some(text),
            },
            None,
        )
    }

    pub(super) fn finish(&self, reason: &'static str) -> Chunk<'_> {
        self.chunk(ChunkDelta::default(), Some(reason))
    }

    pub(super) fn usage(&self, usage: &Counted) -> Chunk<'_> {
        Chunk {
            choices: Vec::new(),
            usage: Some(Usage::of(usage)),
            ..self.role()
        }
    }

    fn chunk<'a>(&'a self, delta: ChunkDelta<'a>, finish_reason: Option<&'static str>) -> Chunk<'a> {
        Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            choices: vec![ChunkChoice {
                index: 0,
                delta,
                finish_reason,
            }],
            usage: None,
        }
    }
}

/// Now, in seconds since the epoch.
pub(super) fn now_seconds() -> i64 {
    oma_engine::now().as_millis() / 1000
}
