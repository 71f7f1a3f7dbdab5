//! OpenAI's Chat Completions API, as OpenAI and most other providers speak it.
//!
//! What they add differs (thoughts, effort, usage, cost); [`crate::provider`] holds who does what.

mod decode;
mod request;
mod usage;

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::HeaderMap;

use crate::registry::Target;
use crate::request::{ModelStream, Request};
use crate::{Error, Model, answer};

/// A model behind the Chat Completions API.
pub(crate) struct ChatCompletions {
    target: Arc<Target>,
}

impl ChatCompletions {
    pub(crate) fn new(target: Target) -> Self {
        Self { target: Arc::new(target) }
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
        let body = request::build(&self.target, request);
        let url = format!("{}/chat/completions", self.target.base_url);
        let decoder = decode::Decoder::new(Arc::clone(&self.target));
        answer::ask(&self.target, &url, &body, HeaderMap::new(), decoder).await
    }
}
