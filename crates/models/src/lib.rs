//! Language models: one request type, one stream of answers, an adapter for each provider's wire protocol.
//!
//! [`Registry::resolve`] turns `provider/model` into a [`Model`]. Adapters carry what the providers need back
//! (thinking signatures, encrypted reasoning) as [`Opaque`](oma_domain::event::Opaque) data, and report usage
//! and errors in one shape. [`scripted`] holds the built-in models that need no key.
//!
//! Invariant: an answer is complete or an error; a stream that is cut, stalls or ends without the provider's
//! own end mark is an error, never a short answer.
//! Invariant: keys are `secrecy` types and appear in no error, log line or debug output.
//!
//! Where it sits: above `domain`; only the native runtime uses it.

mod adapter;
mod answer;
mod anthropic;
mod assembly;
#[cfg(feature = "bedrock")]
mod bedrock;
mod capability;
pub mod config;
mod conversation;
pub mod error;
mod failure;
#[cfg(all(any(test, fuzzing), feature = "bedrock"))]
pub mod fuzzing;
mod gemini;
mod http;
mod media;
mod openai_chat;
mod openai_responses;
mod optional;
pub mod price;
mod provider;
mod registry;
pub mod request;
pub mod retry;
pub mod scripted;
mod sse;
mod well_known;

pub use config::{Config, ConfigError, ProviderConfig};
pub use error::Error;
pub use provider::{EffortStyle, Protocol, ReasoningBack};
pub use registry::{ModelInfo, Registry};
pub use request::{
    AssistantBlock, Chunk, Completion, Message, ModelStream, Request, ToolChoice, ToolSpec, UserBlock,
};
pub use well_known::{WellKnown, well_known};

use async_trait::async_trait;
use oma_domain::quota::Price;

/// One model of one provider, ready to be asked.
#[async_trait]
pub trait Model: Send + Sync {
    /// Its full name, `provider/model`.
    fn name(&self) -> &str;

    /// The most tokens that a request and its answer may have together.
    fn context_window(&self) -> u64;

    /// The most output tokens of an answer to a request that does not limit them; `None` when that is unknown.
    fn max_output(&self) -> Option<u64>;

    /// What a request with so many input tokens can cost now at the most; `None` when the price is unknown.
    fn price(&self, input: u64) -> Option<Price>;

    /// Makes a request. Returns when the provider has begun to answer. One attempt: the caller decides
    /// about retries from [`Error::retryable`] and [`Error::retry_after`].
    ///
    /// # Errors
    /// [`Error`], with the provider's own message.
    async fn stream(&self, request: &Request) -> Result<ModelStream, Error>;
}
