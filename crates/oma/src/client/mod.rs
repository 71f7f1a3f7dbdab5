//! The HTTP client of the command line: requests, errors, the event stream.
//!
//! Invariant: every wait is bounded; the token is a `secrecy` type and is only ever put into the
//! `Authorization` header (a parent token into its own) of requests to the server that the user named (redirects are not followed).

mod error;
mod list;
pub(crate) mod stream;

pub(crate) use error::{Error, Refusal};
pub(crate) use list::Slice;

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, Response, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an ordinary request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest answer that is read.
const MAX_ANSWER: usize = 256 << 20;

/// How to reach the server.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Connection {
    /// The server's address
    #[arg(
        long,
        global = true,
        env = "OPENCLAW_URL",
        default_value = "http://127.0.0.1:8080",
        help_heading = "Connection"
    )]
    url: Url,
    /// A file with the API token; without it the token is taken from OPENCLAW_API_TOKEN
    #[arg(
        long,
        global = true,
        env = "OPENCLAW_API_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    token_file: Option<PathBuf>,
}

/// A client of one server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<SecretString>,
    /// A parent token, in place of the API token.
    parent: Option<SecretString>,
}

/// A request.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    method: Method,
    path: Vec<&'a str>,
    query: Vec<(&'a str, String)>,
    headers: HeaderMap,
    body: Body,
    timeout: Option<Duration>,
}

#[derive(Debug)]
enum Body {
    None,
    Json(Value),
    Bytes(Vec<u8>),
}

impl<'a> Request<'a> {
    /// A request for a path, given by its segments.
    #[must_use]
    pub(crate) fn new(method: Method, path: &[&'a str]) -> Self {
        Self {
            method,
            path: path.to_vec(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: Body::None,
            timeout: Some(REQUEST_TIMEOUT),
        }
    }

    /// `GET`.
    #[must_use]
    pub(crate) fn get(path: &[&'a str]) -> Self {
        Self::new(Method::GET, path)
    }

    /// `POST` with a JSON body.
    #[must_use]
    pub(crate) fn post(path: &[&'a str], body: Value) -> Self {
        Self::new(Method::POST, path).json(body)
    }

    /// `DELETE`.
    #[must_use]
    pub(crate) fn delete(path: &[&'a str]) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// With a JSON body.
    #[must_use]
    pub(crate) fn json(mut self, body: Value) -> Self {
        self.body = Body::Json(body);
        self
    }

    /// With a body of bytes.
    #[must_use]
    pub(crate) fn bytes(mut self, body: Vec<u8>) -> Self {
        self.body = Body::Bytes(body);
        self
    }

    /// With a query parameter.
    #[must_use]
    pub(crate) fn query(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// With another time limit.
    #[must_use]
    pub(crate) fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Without a time limit; whoever reads the answer keeps time.
    #[must_use]
    pub(crate) fn unlimited(mut self) -> Self {
        self.timeout = None;
        self
    }

    /// With a header.
    ///
    /// # Errors
    /// [`Error::Unusable`] when the value can't be one.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Result<Self, Error> {
        let value = HeaderValue::from_str(value)
            .map_err(|_| Error::Unusable(format!("`{value}` can't be the value of the header {name}")))?;
        self.headers.insert(name, value);
        Ok(self)
    }
}

impl Client {
    /// A client for the server that the arguments and the environment name.
    ///
    /// # Errors
    /// [`Error::Unusable`] when the address or the token can't be used.
    pub(crate) fn connect(connection: &Connection) -> Result<Self, Error> {
        let token = match &connection.token_file {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                Error::Unusable(format!("{}: it can't be read: {error}", path.display()))
            })?),
            None => std::env::var("OPENCLAW_API_TOKEN").ok(),
        };
        let token = token
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty())
            .map(SecretString::from);
        Self::new(connection.url.clone(), token)
    }

    /// A client for a server.
    ///
    /// # Errors
    /// [`Error::Unusable`] when the address can't be used.
    pub(crate) fn new(base: Url, token: Option<SecretString>) -> Result<Self, Error> {
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(Error::Unusable(format!(
                "`{base}` is not an http or https address"
            )));
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("oma/", env!("CARGO_PKG_VERSION")));
        // A proxy for the web is never the way to a server on this machine.
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let http = builder
            .build()
            .map_err(|error| Error::Unusable(format!("no HTTP client can be made: {error}")))?;
        Ok(Self {
            http,
            base,
            token,
            parent: None,
        })
    }

    /// A client that has nothing but a parent token.
    ///
    /// # Errors
    /// [`Error::Unusable`] when the address can't be used.
    pub(crate) fn for_parent(base: Url, token: SecretString) -> Result<Self, Error> {
        Ok(Self {
            parent: Some(token),
            ..Self::new(base, None)?
        })
    }

    /// The server's address.
    #[must_use]
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// Makes a request and returns the answer when it is a success.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn open(&self, request: Request<'_>) -> Result<Response, Error> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(&request.path);
        }
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        let mut builder = self.http.request(request.method, url).headers(request.headers);
        if let Some(token) = &self.token {
            builder = builder.bearer_auth(token.expose_secret());
        }
        if let Some(token) = &self.parent {
            builder = builder.header("x-openclaw-parent-token", token.expose_secret());
        }
        if let Some(timeout) = request.timeout {
            builder = builder.timeout(timeout);
        }
        builder = match request.body {
            Body::None => builder,
            Body::Json(value) => builder.json(&value),
            Body::Bytes(bytes) => builder
                .header("content-type", "application/octet-stream")
                .body(bytes),
        };
        let response = builder
            .send()
            .await
            .map_err(|error| Error::unreachable(&self.base, error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = self.body(response).await.unwrap_or_default();
        Err(Error::Refused(Box::new(Refusal::from_answer(status, &body))))
    }

    /// Makes a request and returns the answer's bytes.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn bytes(&self, request: Request<'_>) -> Result<Vec<u8>, Error> {
        let response = self.open(request).await?;
        self.body(response).await
    }

    /// Makes a request and returns the answer's JSON.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn json(&self, request: Request<'_>) -> Result<Value, Error> {
        let bytes = self.bytes(request).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::Protocol(format!(
                "{} did not answer with JSON ({error}); is it this service?",
                self.base
            ))
        })
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| Error::unreachable(&self.base, error))?
        {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(Error::Protocol(format!(
                    "the answer is larger than {MAX_ANSWER} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}
