//! What the adapters of all wire protocols have in common: what is known of a model comes from its target.

use async_trait::async_trait;
use oma_domain::quota::Price;

use crate::registry::Target;
use crate::request::{ModelStream, Request};
use crate::{Error, Model};

/// A model behind one wire protocol.
#[async_trait]
pub(crate) trait Adapter: Send + Sync {
    /// Which model it is, and where.
    fn target(&self) -> &Target;

    /// Makes a request; see [`Model::stream`].
    async fn ask(&self, request: &Request) -> Result<ModelStream, Error>;
}

#[async_trait]
impl<A: Adapter> Model for A {
    fn name(&self) -> &str {
        &self.target().name
    }

    fn context_window(&self) -> u64 {
        self.target().context_window
    }

    fn max_output(&self) -> Option<u64> {
        self.target().max_output()
    }

    fn price(&self, input: u64) -> Option<Price> {
        self.target().prices.most(input)
    }

    async fn stream(&self, request: &Request) -> Result<ModelStream, Error> {
        self.ask(request).await
    }
}
