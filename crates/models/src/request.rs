//! Requests and answers, the same for every provider.

use std::pin::Pin;

use futures_util::Stream;
use oma_domain::ContentBlock;
use oma_domain::event::Opaque;
use oma_domain::session::ReplyStop;
use oma_domain::thinking::ThinkingLevel;
use oma_domain::usage::{Cost, Usage};

use crate::Error;

/// A request for one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The system prompt; empty for none.
    pub system: String,
    /// The conversation, oldest first. Neighbours of the same role are merged by the adapters.
    pub messages: Vec<Message>,
    /// The tools that the model may use.
    pub tools: Vec<ToolSpec>,
    /// Whether it may use them.
    pub tool_choice: ToolChoice,
    /// How hard to think.
    pub thinking: ThinkingLevel,
    /// The most output tokens; the model's own maximum when absent.
    pub max_tokens: Option<u32>,
    /// Names the conversation for providers that route by a cache key.
    pub cache_key: String,
}

/// Whether an answer may use the tools. What a request says about that is often part of what the provider
/// caches it by, so "no" comes in two strengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// It should not. The messages say so, and a parameter says it too where that leaves the prompt cache whole.
    Avoid,
    /// It can't, at the price of the prompt cache, wherever the protocol has a parameter for that.
    None,
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// From the user, or results of tools.
    User(Vec<UserBlock>),
    /// From the model.
    Assistant(Vec<AssistantBlock>),
}

/// A block of a user message.
#[derive(Debug, Clone, PartialEq)]
pub enum UserBlock {
    /// Content.
    Content(ContentBlock),
    /// A tool's result.
    ToolResult {
        /// The provider's id of the call.
        call_id: String,
        /// The tool.
        name: String,
        /// What it gave.
        content: Vec<ContentBlock>,
        /// Whether it failed.
        is_error: bool,
    },
    /// What the application says beside the system prompt, in the midst of the conversation. A message of the role
    /// `system` where the protocol has that, else marked as such.
    System(String),
}

/// A block of a model's message.
#[derive(Debug, Clone, PartialEq)]
pub enum AssistantBlock {
    /// Text.
    Text {
        /// The text.
        text: String,
        /// What the provider wants back with it.
        opaque: Option<Opaque>,
    },
    /// A thought.
    Thinking {
        /// The thought or its summary; empty when hidden.
        text: String,
        /// What the provider wants back with it. A thought whose opaque data belongs to another protocol
        /// is left out of the request.
        opaque: Option<Opaque>,
    },
    /// A tool use.
    ToolUse {
        /// The provider's id of the call.
        call_id: String,
        /// The tool.
        name: String,
        /// Its arguments: a JSON object.
        input: serde_json::Value,
        /// What the provider wants back with it.
        opaque: Option<Opaque>,
    },
}

/// A tool as the model is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// A JSON schema of its arguments.
    pub input_schema: serde_json::Value,
}

/// A piece of an answer. `index` is the position of the block in [`Completion::blocks`]; indexes never go
/// back, and the pieces of one index joined are that block's text.
#[derive(Debug, Clone, PartialEq)]
pub enum Chunk {
    /// More text.
    Text {
        /// Which block.
        index: usize,
        /// The text.
        text: String,
    },
    /// More of a thought.
    Thinking {
        /// Which block.
        index: usize,
        /// The text.
        text: String,
    },
    /// A tool use has begun; its arguments follow with the completion.
    ToolUse {
        /// Which block.
        index: usize,
        /// The tool.
        name: String,
    },
    /// The answer is complete. Always the last piece.
    Done(Box<Completion>),
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Its blocks, in order. Empty text blocks are left out.
    pub blocks: Vec<AssistantBlock>,
    /// What it consumed.
    pub usage: Usage,
    /// What it cost: the provider's own figure, else from the catalogue, else `None`.
    pub cost: Option<Cost>,
    /// Why it ended.
    pub stop: ReplyStop,
}

/// The pieces of an answer as they arrive. Dropping it aborts the request.
pub type ModelStream = Pin<Box<dyn Stream<Item = Result<Chunk, Error>> + Send>>;
