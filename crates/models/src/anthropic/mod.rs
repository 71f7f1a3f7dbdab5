//! Anthropic's Messages API.
//!
//! Written here and not taken from a multi-provider library (`genai` was the candidate): the answer has to
//! come as deltas with stable block indexes where `genai` hands out cumulative tool calls, thinking signatures
//! and redacted thoughts must return verbatim, cache marks have to sit at exact places, and `genai` 0.7 turns
//! on tokio's `test-util` feature in production builds. The same goes for the other adapters.

mod decode;
mod request;

pub(crate) use request::budget;
#[cfg(feature = "bedrock")]
pub(crate) use request::thinking;

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderValue};

use crate::adapter::Adapter;
use crate::registry::Target;
use crate::request::{ModelStream, Request};
use crate::{Error, answer};

/// The version of the API that is spoken.
pub(crate) const VERSION: &str = "2023-06-01";

/// Lets models that think by budget think between tool uses.
pub(crate) const INTERLEAVED: &str = "interleaved-thinking-2025-05-14";

/// A model behind the Messages API.
pub(crate) struct Messages {
    target: Arc<Target>,
}

impl Messages {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target: Arc::new(target),
        }
    }

    /// The address; operators give the base with and without the version segment.
    fn url(&self) -> String {
        let base = &self.target.base_url;
        let version = if base.ends_with("/v1") { "" } else { "/v1" };
        format!("{base}{version}/messages")
    }
}

#[async_trait]
impl Adapter for Messages {
    fn target(&self) -> &Target {
        &self.target
    }

    async fn ask(&self, request: &Request) -> Result<ModelStream, Error> {
        let built = request::build(&self.target, request);
        let mut headers = HeaderMap::new();
        if built.interleaved {
            headers.insert("anthropic-beta", HeaderValue::from_static(INTERLEAVED));
        }
        let decoder = decode::Decoder::new(Arc::clone(&self.target));
        answer::ask(&self.target, &self.url(), &built.body, headers, decoder).await
    }
}

/// A decoder of this protocol, for tests of what they have in common.
#[cfg(any(test, fuzzing))]
pub(crate) fn decoder(target: Arc<Target>) -> impl answer::Decoder<Frame = String> {
    decode::Decoder::new(target)
}
