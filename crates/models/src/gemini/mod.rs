//! Google's Gemini API (`streamGenerateContent`).

mod decode;
mod request;

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::HeaderMap;

use crate::registry::Target;
use crate::request::{ModelStream, Request};
use crate::{Error, Model, answer};

/// A model behind the Gemini API.
pub(crate) struct GenerateContent {
    target: Arc<Target>,
}

impl GenerateContent {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target: Arc::new(target),
        }
    }

    /// The address; operators give the base with and without the version segment.
    fn url(&self) -> String {
        let base = &self.target.base_url;
        let last = base.rsplit('/').next().unwrap_or_default();
        let version = if last.starts_with("v1") { "" } else { "/v1beta" };
        let model = self
            .target
            .model
            .strip_prefix("models/")
            .unwrap_or(&self.target.model);
        format!("{base}{version}/models/{model}:streamGenerateContent?alt=sse")
    }
}

#[async_trait]
impl Model for GenerateContent {
    fn name(&self) -> &str {
        &self.target.name
    }

    fn context_window(&self) -> u64 {
        self.target.context_window
    }

    async fn stream(&self, request: &Request) -> Result<ModelStream, Error> {
        let body = request::build(&self.target, request);
        let decoder = decode::Decoder::new(Arc::clone(&self.target));
        answer::ask(&self.target, &self.url(), &body, HeaderMap::new(), decoder).await
    }
}

/// A decoder of this protocol, for tests of what they have in common.
#[cfg(test)]
pub(crate) fn decoder(target: Arc<Target>) -> impl answer::Decoder<Frame = String> {
    decode::Decoder::new(target)
}
