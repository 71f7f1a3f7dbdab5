//! Amazon Bedrock's ConverseStream API.
//!
//! Requests carry an API key (`AWS_BEARER_TOKEN_BEDROCK`) or are signed with AWS credentials; answers are
//! binary event streams. Behind the cargo feature `bedrock`, because of AWS's libraries for these two.

mod decode;
mod frames;
mod request;
mod sign;

use std::sync::Arc;

use async_trait::async_trait;
use oma_domain::event::FailureKind;
use reqwest::header::HeaderMap;

use crate::adapter::Adapter;
use crate::http::path_segment;
use crate::registry::Target;
use crate::request::{ModelStream, Request};
use crate::{Error, answer};

/// A model behind the ConverseStream API.
pub(crate) struct Converse {
    target: Arc<Target>,
}

impl Converse {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target: Arc::new(target),
        }
    }

    /// The address. A model's id may be an ARN, so everything that isn't plain is escaped.
    fn url(&self) -> String {
        let model = path_segment(&self.target.model);
        format!("{}/model/{model}/converse-stream", self.target.base_url)
    }
}

#[async_trait]
impl Adapter for Converse {
    fn target(&self) -> &Target {
        &self.target
    }

    async fn ask(&self, request: &Request) -> Result<ModelStream, Error> {
        let body = answer::encoded(&request::build(&self.target, request))?;
        let url = self.url();
        let headers = match (&self.target.config.api_key, &self.target.config.aws) {
            (None, Some(credentials)) => {
                sign::headers(credentials, &url, &body, std::time::SystemTime::now())
                    .map_err(|message| Error::fatal(FailureKind::ModelAuthentication, message))?
            }
            _ => HeaderMap::new(),
        };
        let bytes = self.target.endpoint.post(&url, body, headers).await?;
        let decoder = decode::Decoder::new(Arc::clone(&self.target));
        Ok(answer::stream_of(
            Box::pin(frames::events(bytes)),
            decoder,
            &self.target,
        ))
    }
}

/// The pieces of an answer whose bytes arrive like this, for tests.
#[cfg(any(test, fuzzing))]
pub(crate) fn stream_of(bytes: crate::http::Body, target: &Arc<Target>) -> ModelStream {
    let decoder = decode::Decoder::new(Arc::clone(target));
    answer::stream_of(Box::pin(frames::events(bytes)), decoder, target)
}

/// The pieces of an answer that consists of these events, each a kind and its payload, for tests.
#[cfg(any(test, fuzzing))]
pub(crate) fn stream_of_events(
    events: Vec<(String, serde_json::Value)>,
    target: &Arc<Target>,
) -> ModelStream {
    let decoder = decode::Decoder::new(Arc::clone(target));
    let frames = events.into_iter().map(|(kind, payload)| {
        Ok(frames::Frame {
            is_exception: kind.ends_with("Exception"),
            kind,
            payload,
        })
    });
    answer::stream_of(Box::pin(futures_util::stream::iter(frames)), decoder, target)
}
