//! The SDK's HTTP client over the dial guard.
//!
//! Each request asks the guard for a client of its URL's origin and the token source for the token of now. The
//! SDK's own handling of answers is used as it is; what is added is what it leaves out: redirects within the
//! origin, one more try with another token after a 401, bounds on whole streams, and causes without secrets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, LOCATION};
use http::{HeaderName, HeaderValue};
use oma_egress::target::Target;
use oma_egress::{Guard, dial};
use oma_runtime::SessionInfo;
use reqwest::Client;
use rmcp::model::{ClientJsonRpcMessage, ClientRequest};
use rmcp::transport::streamable_http_client::{
    StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse, StreamableHttpResponseLimits,
};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::error::Error;
use crate::secrets::Secrets;
use crate::streams::{Allowance, Events, bounded};
use crate::token::TokenSource;

/// The most redirects that are followed.
const MAX_REDIRECTS: usize = 3;

/// The header that names the protocol's own session.
const SESSION: &str = "mcp-session-id";

/// How long a redirect's own answer may take.
const REDIRECT_TIMEOUT: Duration = Duration::from_secs(5);

type Failed = StreamableHttpError<Error>;

/// The HTTP side of one connection to a server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Remote {
    inner: Arc<Inner>,
}

struct Inner {
    guard: Arc<Guard>,
    tokens: Arc<dyn TokenSource>,
    session: SessionInfo,
    secrets: Arc<Secrets>,
    /// Where the server is; another address after redirects.
    url: Mutex<Url>,
    /// Why the latest request failed.
    cause: Mutex<Option<Error>>,
    streams: Allowance,
}

/// What one request is made with.
struct Dial {
    client: Client,
    url: Url,
    token: Option<SecretString>,
}

/// What goes with a request beside what is of the dial.
#[derive(Clone, Copy)]
struct Sent<'a> {
    session: Option<&'a str>,
    headers: &'a HashMap<HeaderName, HeaderValue>,
}

impl Dial {
    fn uri(&self) -> Arc<str> {
        self.url.as_str().into()
    }

    fn bearer(&self) -> Option<String> {
        self.token.as_ref().map(|token| token.expose_secret().to_owned())
    }

    /// The agent's own headers, whose `Authorization` gives way to a token.
    fn headers(&self, mut headers: HashMap<HeaderName, HeaderValue>) -> HashMap<HeaderName, HeaderValue> {
        if self.token.is_some() {
            headers.remove(&AUTHORIZATION);
        }
        headers
    }
}

impl Remote {
    pub(crate) fn new(
        guard: Arc<Guard>,
        tokens: Arc<dyn TokenSource>,
        session: SessionInfo,
        secrets: Arc<Secrets>,
        url: Url,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                guard,
                tokens,
                session,
                secrets,
                url: Mutex::new(url),
                cause: Mutex::default(),
                streams: Allowance::default(),
            }),
        }
    }

    /// Why the latest request failed, if it did.
    pub(crate) fn cause(&self) -> Option<Error> {
        self.inner
            .cause
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn url(&self) -> Url {
        self.inner
            .url
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn dial(&self) -> Result<Dial, Error> {
        let inner = &self.inner;
        let (client, url) = inner
            .guard
            .client_for(self.url().as_str())
            .map_err(|error| Error::connection(error.to_string()))?;
        let token = inner
            .tokens
            .bearer_for(&inner.session, url.as_str())
            .await
            .map_err(Error::authentication)?;
        if let Some(token) = &token {
            inner.secrets.add(token);
        }
        Ok(Dial { client, url, token })
    }

    /// Whether a request that was refused may be made again, because there is another token now.
    async fn has_other_token(&self, refused: &Dial) -> Result<bool, Error> {
        let Some(old) = &refused.token else {
            return Ok(false);
        };
        let Inner { tokens, session, .. } = &*self.inner;
        let url = refused.url.as_str();
        let renewed = tokens.refused(session, url, old).await;
        renewed.map_err(Error::authentication)?;
        let now = tokens
            .bearer_for(session, url)
            .await
            .map_err(Error::authentication)?;
        Ok(now.is_some_and(|token| token.expose_secret() != old.expose_secret()))
    }

    /// Finds out where a server that redirects wants to be asked, and asks there from now on. Only the same
    /// origin will do: what is sent to a server is meant for it alone.
    ///
    /// The SDK does not tell where, so the request is made again for that. It may be carried out this time, by a
    /// server that is several, so a call is not.
    async fn follow(&self, dial: &Dial, message: &ClientJsonRpcMessage, sent: Sent<'_>) -> Result<(), Error> {
        if is_call(message) {
            return Err(Error::connection("it redirects a call, and calls are sent once"));
        }
        let mut request = dial
            .client
            .post(dial.url.clone())
            .timeout(REDIRECT_TIMEOUT)
            .header(ACCEPT, "application/json, text/event-stream")
            .json(message);
        for (name, value) in dial.headers(sent.headers.clone()) {
            request = request.header(name, value);
        }
        if let Some(session) = sent.session {
            request = request.header(SESSION, session);
        }
        if let Some(token) = &dial.token {
            request = request.bearer_auth(token.expose_secret());
        }
        let response = request
            .send()
            .await
            .map_err(|error| Error::connection(dial::failed(&error).to_string()))?;
        if !matches!(response.status().as_u16(), 307 | 308) {
            return Err(Error::connection(
                "it redirects a request and not the same one again",
            ));
        }
        let nowhere = || Error::connection("it redirects to something that is not a usable URL");
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok());
        let next = dial
            .url
            .join(location.ok_or_else(nowhere)?)
            .map_err(|_| nowhere())?;
        let target = |url: Url| Target::from_url(url).map_err(|_| nowhere());
        let (here, there) = (target(dial.url.clone())?, target(next)?);
        if !here.same_origin(&there) {
            return Err(Error::connection(
                "it redirects to another origin, where nothing is sent",
            ));
        }
        *self.inner.url.lock().unwrap_or_else(PoisonError::into_inner) = there.url;
        Ok(())
    }

    /// Notes and returns a failure, without secrets.
    fn fail(&self, failed: StreamableHttpError<reqwest::Error>) -> Failed {
        let scrub = |text: String| self.inner.secrets.scrub(text);
        let (cause, failed) = match failed {
            // These two are for the SDK: it makes a new session, or goes on without a stream.
            StreamableHttpError::SessionExpired => (
                Error::connection("its session has expired"),
                StreamableHttpError::SessionExpired,
            ),
            StreamableHttpError::ServerDoesNotSupportSse => {
                return StreamableHttpError::ServerDoesNotSupportSse;
            }
            StreamableHttpError::Client(error) => {
                let cause = Error::connection(scrub(dial::failed(&error).to_string()));
                (cause.clone(), StreamableHttpError::Client(cause))
            }
            other => {
                let cause = match status(&other) {
                    Some(401) => Error::authentication("it wants credentials, or refuses these (HTTP 401)"),
                    Some(403) => Error::authentication("it refuses these credentials (HTTP 403)"),
                    _ => Error::connection(scrub(other.to_string())),
                };
                (cause.clone(), StreamableHttpError::Client(cause))
            }
        };
        self.note(cause);
        failed
    }

    fn note(&self, cause: Error) {
        *self.inner.cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
    }

    fn refuse(&self, cause: Error) -> Failed {
        self.note(cause.clone());
        StreamableHttpError::Client(cause)
    }
}

/// The HTTP status that an error tells of.
fn status(error: &StreamableHttpError<reqwest::Error>) -> Option<u16> {
    match error {
        StreamableHttpError::AuthRequired(_) => Some(401),
        StreamableHttpError::InsufficientScope(_) => Some(403),
        StreamableHttpError::HttpStatus(error) => Some(error.status),
        StreamableHttpError::Client(error) => error.status().map(|status| status.as_u16()),
        StreamableHttpError::UnexpectedServerResponse(text) => {
            text.strip_prefix("HTTP ")?.get(..3)?.parse().ok()
        }
        _ => None,
    }
}

/// Whether it calls a tool.
fn is_call(message: &ClientJsonRpcMessage) -> bool {
    let ClientJsonRpcMessage::Request(request) = message else {
        return false;
    };
    matches!(request.request, ClientRequest::CallToolRequest(_))
}

impl StreamableHttpClient for Remote {
    type Error = Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failed> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(uri, message, session, auth, headers, limits)
            .await
    }

    async fn post_message_with_response_limits(
        &self,
        _: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        _: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, Failed> {
        let (mut redirects, mut renewed) = (0, false);
        loop {
            let dial = self.dial().await.map_err(|error| self.refuse(error))?;
            let posted = dial
                .client
                .post_message_with_response_limits(
                    dial.uri(),
                    message.clone(),
                    session.clone(),
                    dial.bearer(),
                    dial.headers(headers.clone()),
                    limits,
                )
                .await;
            let error = match posted {
                Ok(StreamableHttpPostResponse::Sse(events, session)) => {
                    return Ok(StreamableHttpPostResponse::Sse(bounded(events), session));
                }
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match status(&error) {
                // A refused or redirected request has not been acted on.
                Some(401) if !renewed => {
                    renewed = true;
                    match self.has_other_token(&dial).await {
                        Ok(true) => {}
                        Ok(false) => return Err(self.fail(error)),
                        Err(cause) => return Err(self.refuse(cause)),
                    }
                }
                Some(307 | 308) if redirects < MAX_REDIRECTS => {
                    let sent = Sent {
                        session: session.as_deref(),
                        headers: &headers,
                    };
                    self.follow(&dial, &message, sent)
                        .await
                        .map_err(|error| self.refuse(error))?;
                    redirects += 1;
                }
                _ => return Err(self.fail(error)),
            }
        }
    }

    async fn delete_session(
        &self,
        _: Arc<str>,
        session: Arc<str>,
        _: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failed> {
        let dial = self.dial().await.map_err(|error| self.refuse(error))?;
        dial.client
            .delete_session(dial.uri(), session, dial.bearer(), dial.headers(headers))
            .await
            .map_err(|error| self.fail(error))
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        auth: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<Events, Failed> {
        let max = StreamableHttpResponseLimits::default().max_sse_event_size;
        self.get_stream_with_max_sse_event_size(uri, session, last_event, auth, headers, max)
            .await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        _: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        _: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
        max: usize,
    ) -> Result<Events, Failed> {
        let streams = &self.inner.streams;
        if !streams.open().await {
            // The SDK takes this as final, and goes on without a stream.
            tracing::warn!(session = %self.inner.session.id, "an MCP server ends its event stream all the time; it gets no further one");
            return Err(StreamableHttpError::ServerDoesNotSupportSse);
        }
        let dial = self.dial().await.map_err(|error| self.refuse(error))?;
        dial.client
            .get_stream_with_max_sse_event_size(
                dial.uri(),
                session,
                last_event,
                dial.bearer(),
                dial.headers(headers),
                max,
            )
            .await
            .map(|events| streams.bound(events))
            .map_err(|error| self.fail(error))
    }
}
