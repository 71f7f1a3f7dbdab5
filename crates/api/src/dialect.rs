//! Which wire dialect a request speaks. Decided here, once, before routing; no handler looks at it again.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use serde_json::Value;
use tower::Service;

use crate::dialects::{claude, openai, openclaw};
use crate::fault::Fault;

/// The path of the one route that speaks the OpenAI dialect alone.
pub const CHAT_PATH: &str = "/v1/chat/completions";

/// A wire dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The reference system's API; whatever is not one of the others.
    Openclaw,
    /// The Claude Managed Agents API: an `anthropic-version` header under `/v1/`.
    Claude,
    /// OpenAI's chat completions.
    Openai,
}

impl Dialect {
    /// The dialect that a request speaks.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let path = request.uri().path();
        if path.starts_with("/v1/") && request.headers().contains_key("anthropic-version") {
            Self::Claude
        } else if path == CHAT_PATH {
            Self::Openai
        } else {
            Self::Openclaw
        }
    }

    /// The status that tells a client of this dialect about a fault.
    #[must_use]
    pub fn status(self, fault: &Fault) -> StatusCode {
        match self {
            Self::Openclaw | Self::Openai => fault.status(),
            Self::Claude => claude::error::status(fault),
        }
    }

    /// Whether its clients have to be told that trying again can't help.
    #[must_use]
    pub fn is_definite(self, fault: &Fault) -> bool {
        self == Self::Claude && claude::error::is_definite(fault)
    }

    /// The body that tells a client of this dialect about a fault.
    #[must_use]
    pub fn render(self, fault: &Fault, request_id: &str) -> Value {
        match self {
            Self::Openclaw => openclaw::error::body(fault),
            Self::Claude => claude::error::body(fault, request_id),
            Self::Openai => openai::error::body(fault),
        }
    }
}

/// Sends each request to the router of its dialect.
#[derive(Clone)]
pub(crate) struct Dispatch {
    native: Router,
    claude: Router,
}

impl Dispatch {
    pub(crate) fn new(native: Router, claude: Router) -> Self {
        Self { native, claude }
    }
}

impl Service<Request> for Dispatch {
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routers are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let dialect = Dialect::of(&request);
        request.extensions_mut().insert(dialect);
        match dialect {
            Dialect::Claude => self.claude.call(request),
            Dialect::Openclaw | Dialect::Openai => self.native.call(request),
        }
    }
}
