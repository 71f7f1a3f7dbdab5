//! OpenAI's Chat Completions API, as OpenAI and most other providers speak it.
//!
//! What they add differs (thoughts, effort, usage, cost); [`crate::provider`] holds who does what.

mod decode;
mod request;
mod usage;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use reqwest::header::HeaderMap;

use crate::registry::Target;
use crate::request::{ModelStream, Request};
use crate::{Error, Model, answer};

/// A model behind the Chat Completions API.
pub(crate) struct ChatCompletions {
    target: Arc<Target>,
    /// Whether the model knows the parameters that say how hard to think. Names don't tell that of every
    /// provider's models, so one that refuses them is asked without from that moment on.
    knows_effort: AtomicBool,
}

impl ChatCompletions {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target: Arc::new(target),
            knows_effort: AtomicBool::new(true),
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
impl Model for ChatCompletions {
    fn name(&self) -> &str {
        &self.target.name
    }

    fn context_window(&self) -> u64 {
        self.target.context_window
    }

    async fn stream(&self, request: &Request) -> Result<ModelStream, Error> {
        let with_effort = self.knows_effort.load(Ordering::Relaxed);
        let result = self.attempt(request, with_effort).await;
        match &result {
            Err(error) if with_effort && refuses_effort(error) => {
                tracing::info!(
                    model = self.target.name,
                    reason = error.failure.message,
                    "the model can't be told how hard to think; asking without"
                );
                self.knows_effort.store(false, Ordering::Relaxed);
                self.attempt(request, false).await
            }
            _ => result,
        }
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
#[cfg(test)]
pub(crate) fn decoder(target: Arc<Target>) -> impl answer::Decoder<Frame = String> {
    decode::Decoder::new(target)
}
