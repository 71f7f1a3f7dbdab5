//! OpenAI's Chat Completions API, as OpenAI and most other providers speak it.
//!
//! What they add differs (thoughts, effort, usage, cost); [`crate::provider`] holds who does what.

mod decode;
mod request;
mod usage;

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::HeaderMap;

use crate::adapter::Adapter;
use crate::optional::Optional;
use crate::registry::Target;
use crate::request::{ModelStream, Request};
use crate::{Error, answer};

/// A model behind the Chat Completions API.
pub(crate) struct ChatCompletions {
    target: Arc<Target>,
    /// The parameters that say how hard to think.
    effort: Optional,
}

impl ChatCompletions {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target: Arc::new(target),
            effort: Optional::new(refuses_effort),
        }
    }

    async fn attempt(&self, request: &Request, with_effort: bool) -> Result<ModelStream, Error> {
        let body = request::build(&self.target, request, with_effort);
        let url = format!("{}/chat/completions", self.target.base_url);
        let decoder = decode::Decoder::new(Arc::clone(&self.target));
        answer::ask(&self.target, &url, &body, HeaderMap::new(), decoder).await
    }
}

#[async_trait]
impl Adapter for ChatCompletions {
    fn target(&self) -> &Target {
        &self.target
    }

    async fn ask(&self, request: &Request) -> Result<ModelStream, Error> {
        let attempt = |with_effort| self.attempt(request, with_effort);
        self.effort.ask(&self.target.name, attempt).await
    }
}

/// Whether a request was refused for the parameters that say how hard to think.
fn refuses_effort(error: &Error) -> bool {
    let message = error.failure.message.to_lowercase();
    let parameters = [
        "reasoning_effort",
        "reasoningeffort",
        "reasoning.effort",
        "enable_thinking",
        "thinking_budget",
    ];
    let named = parameters.iter().any(|name| message.contains(name));
    matches!(error.status, Some(400 | 422)) && (named || message.contains("does not support thinking"))
}

/// A decoder of this protocol, for tests of what they have in common.
#[cfg(any(test, fuzzing))]
pub(crate) fn decoder(target: Arc<Target>) -> impl answer::Decoder<Frame = String> {
    decode::Decoder::new(target)
}
