//! Language models: one request type, one stream of answers, an adapter for each provider's wire protocol.
//!
//! [`Registry::resolve`] turns `provider/model` into a [`Model`]. Adapters carry what the providers need back
//! (thinking signatures, encrypted reasoning) as [`Opaque`] data, and report usage and errors in one shape.
//!
//! Invariant: an answer is complete or an error; a stream that is cut, stalls or ends without the provider's
//! own end mark is an error, never a short answer.
//! Invariant: keys are `secrecy` types and appear in no error, log line or debug output.
//!
//! Where it sits: above `domain`; only the native runtime uses it.

pub mod error;
pub mod request;

pub use error::Error;
pub use request::{AssistantBlock, Chunk, Completion, Message, ModelStream, Request, ToolSpec, UserBlock};

use async_trait::async_trait;

/// One model of one provider, ready to be asked.
#[async_trait]
pub trait Model: Send + Sync {
    /// Its full name, `provider/model`.
    fn name(&self) -> &str;

    /// The most tokens that a request and its answer may have together.
    fn context_window(&self) -> u64;

    /// Makes a request. Returns when the provider has begun to answer. One attempt: the caller decides
    /// about retries from [`Error::retryable`] and [`Error::retry_after`].
    ///
    /// # Errors
    /// [`Error`], with the provider's own message.
    async fn stream(&self, request: &Request) -> Result<ModelStream, Error>;
}
