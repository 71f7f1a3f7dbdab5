//! Google's Gemini API (`streamGenerateContent`).

mod decode;
mod request;

use std::sync::Arc;

use async_trait::async_trait;
use oma_domain::event::FailureKind;
use reqwest::header::HeaderMap;

use crate::adapter::Adapter;
use crate::http::path_segment;
use crate::registry::Target;
use crate::request::{ModelStream, Request};
use crate::{Error, answer};

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

    /// The address; operators give the base with and without the version segment. The model's name comes from
    /// whoever made the agent, and must not choose where on the provider's host the key is sent.
    fn url(&self) -> Result<String, Error> {
        let base = &self.target.base_url;
        let last = base.rsplit('/').next().unwrap_or_default();
        let version = if last.starts_with("v1") { "" } else { "/v1beta" };
        let model = self
            .target
            .model
            .strip_prefix("models/")
            .unwrap_or(&self.target.model);
        let segments: Vec<&str> = model.split('/').collect();
        if segments.iter().any(|segment| ["", ".", ".."].contains(segment)) {
            let message = format!("{} is not the name of a model", self.target.name);
            return Err(Error::fatal(FailureKind::ModelUnavailable, message));
        }
        let model = segments
            .into_iter()
            .map(path_segment)
            .collect::<Vec<_>>()
            .join("/");
        Ok(format!(
            "{base}{version}/models/{model}:streamGenerateContent?alt=sse"
        ))
    }
}

#[async_trait]
impl Adapter for GenerateContent {
    fn target(&self) -> &Target {
        &self.target
    }

    async fn ask(&self, request: &Request) -> Result<ModelStream, Error> {
        let body = request::build(&self.target, request);
        let decoder = decode::Decoder::new(Arc::clone(&self.target));
        answer::ask(&self.target, &self.url()?, &body, HeaderMap::new(), decoder).await
    }
}

/// A decoder of this protocol, for tests of what they have in common.
#[cfg(any(test, fuzzing))]
pub(crate) fn decoder(target: Arc<Target>) -> impl answer::Decoder<Frame = String> {
    decode::Decoder::new(target)
}
