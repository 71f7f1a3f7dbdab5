//! OpenAI's Responses API, without state on OpenAI's side.
//!
//! Nothing is stored there (`store: false`): the reasoning comes back encrypted and is returned verbatim with
//! the next request, so a session depends on no other server's memory.

mod decode;
mod request;

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::HeaderMap;

use crate::adapter::Adapter;
use crate::optional::Optional;
use crate::registry::Target;
use crate::request::{ModelStream, Request};
use crate::{Error, answer};

pub(crate) use request::effort;

/// A model behind the Responses API.
pub(crate) struct Responses {
    target: Arc<Target>,
    /// The wish for summaries of thoughts. An organisation that OpenAI has not verified may not have them from
    /// some models.
    summaries: Optional,
}

impl Responses {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target: Arc::new(target),
            summaries: Optional::new(refuses_summaries),
        }
    }

    async fn attempt(&self, request: &Request, summaries: bool) -> Result<ModelStream, Error> {
        let body = request::build(&self.target, request, summaries);
        let url = format!("{}/responses", self.target.base_url);
        let decoder = decode::Decoder::new(Arc::clone(&self.target));
        answer::ask(&self.target, &url, &body, HeaderMap::new(), decoder).await
    }
}

#[async_trait]
impl Adapter for Responses {
    fn target(&self) -> &Target {
        &self.target
    }

    async fn ask(&self, request: &Request) -> Result<ModelStream, Error> {
        let attempt = |summaries| self.attempt(request, summaries);
        self.summaries.ask(&self.target.name, attempt).await
    }
}

fn refuses_summaries(error: &Error) -> bool {
    let message = &error.failure.message;
    error.status == Some(400)
        && (message.contains("reasoning.summary")
            || message.contains("verified to generate reasoning summaries"))
}

/// A decoder of this protocol, for tests of what they have in common.
#[cfg(any(test, fuzzing))]
pub(crate) fn decoder(target: Arc<Target>) -> impl answer::Decoder<Frame = String> {
    decode::Decoder::new(target)
}
