//! The `web_search` tool. There is none unless the operator has configured a provider.
//!
//! The provider's address is the operator's choice and may be in the operator's own network, so it is not
//! dialled through the guard, which is there for addresses that users name. Nothing that a user gives gets into
//! the address but the query.

mod brave;
mod searxng;
mod tavily;

use std::time::Duration;

use oma_domain::ContentBlock;
use oma_domain::session::Outcome;
use oma_domain::web;
use oma_sandbox::input::from_object;
use reqwest::{Client, RequestBuilder, Url};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::toolbox::Definition;

/// How long a search may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The longest answer of a provider, in bytes.
const MAX_BODY: usize = 4 << 20;

/// The longest query, in characters.
const MAX_QUERY: usize = 400;

/// Results when the call names no number.
const DEFAULT_RESULTS: usize = 8;

/// The most results.
const MAX_RESULTS: usize = 20;

/// Characters of a result's text that are shown.
const MAX_SNIPPET: usize = 1_000;

/// Who searches.
#[derive(Debug, Clone)]
pub enum Provider {
    /// Brave Search.
    Brave {
        /// The subscription token.
        key: SecretString,
    },
    /// Tavily.
    Tavily {
        /// The API key.
        key: SecretString,
    },
    /// A SearXNG instance that gives JSON.
    Searxng,
}

impl Provider {
    fn name(&self) -> &'static str {
        match self {
            Self::Brave { .. } => "Brave",
            Self::Tavily { .. } => "Tavily",
            Self::Searxng => "SearXNG",
        }
    }

    fn default_url(&self) -> Option<&'static str> {
        match self {
            Self::Brave { .. } => Some(brave::URL),
            Self::Tavily { .. } => Some(tavily::URL),
            Self::Searxng => None,
        }
    }
}

/// Why a provider can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The provider has no address of its own, and none is configured.
    #[error("{0} needs an address")]
    NoUrl(&'static str),
    /// The address is not one.
    #[error("the search provider's address is not a usable URL: {0}")]
    Url(String),
    /// No client can be made, for want of certificates for example.
    #[error("no client for the search provider can be made: {0}")]
    Client(String),
}

/// A provider, ready to be asked.
#[derive(Debug)]
pub struct Search {
    provider: Provider,
    url: Url,
    client: Client,
}

/// One result, as most providers spell it. Its text may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Hit {
    title: String,
    url: String,
    content: Option<String>,
}

/// The results of an answer, as most providers give them.
fn results(body: &[u8]) -> serde_json::Result<Vec<Hit>> {
    #[derive(Deserialize)]
    struct Answer {
        results: Vec<Hit>,
    }
    serde_json::from_slice(body).map(|answer: Answer| answer.results)
}

/// The input of `web_search`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    query: String,
    #[serde(default)]
    max_results: Option<usize>,
}

pub(crate) fn definition() -> Definition {
    Definition {
        name: "web_search".to_owned(),
        description:
            "Searches the web. Gives titles, addresses and excerpts; read a page itself with web_fetch."
                .to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "What to search for."},
                "max_results": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MAX_RESULTS,
                    "description": "How many results to give; 8 when left out."
                },
            },
            "required": ["query"],
            "additionalProperties": false,
        }),
    }
}

impl Search {
    /// A search with this provider, at `url` where it is not at its usual address.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn new(provider: Provider, url: Option<&str>) -> Result<Self, Unusable> {
        let text = url
            .or(provider.default_url())
            .ok_or(Unusable::NoUrl(provider.name()))?;
        let url = Url::parse(text).map_err(|error| Unusable::Url(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(Unusable::Url("it must begin with http:// or https://".to_owned()));
        }
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| Unusable::Client(error.to_string()))?;
        Ok(Self {
            provider,
            url,
            client,
        })
    }

    /// Checks a call's input.
    pub(crate) fn check(input: &Value) -> Result<(), String> {
        parse(input).map(drop)
    }

    pub(crate) async fn run(&self, input: &Value, web: &web::Limits) -> Outcome {
        match self.search(input, web).await {
            Ok(text) => Outcome {
                content: vec![ContentBlock::text(text)],
                is_error: false,
            },
            Err(message) => Outcome::error(message),
        }
    }

    async fn search(&self, input: &Value, web: &web::Limits) -> Result<String, String> {
        let Input { query, max_results } = parse(input)?;
        let count = max_results.unwrap_or(DEFAULT_RESULTS);
        let (client, url) = (&self.client, &self.url);
        // Of those that may be shown there should be enough.
        let filtered = !web.allowed.is_empty() || !web.blocked.is_empty();
        let asked = if filtered { MAX_RESULTS } else { count };
        let place = web.location.as_ref();
        let request = match &self.provider {
            Provider::Brave { key } => brave::request(client, url, key, &query, asked, place),
            Provider::Tavily { key } => {
                tavily::request(client, url, key, &located(&query, place), asked, web)
            }
            Provider::Searxng => searxng::request(client, url, &located(&query, place)),
        };
        let body = self.send(request).await?;
        let hits = match &self.provider {
            Provider::Brave { .. } => brave::read(&body),
            Provider::Tavily { .. } | Provider::Searxng => results(&body),
        };
        let mut hits = hits.map_err(|error| {
            tracing::error!(%error, provider = self.provider.name(), "a search answer could not be read");
            "The search provider's answer could not be understood.".to_owned()
        })?;
        hits.retain(|hit| !filtered || is_admitted(&hit.url, web));
        hits.truncate(count);
        Ok(show(&query, &hits))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Vec<u8>, String> {
        let name = self.provider.name();
        let failed = |error: reqwest::Error| {
            // Without the URL, in which the query stands.
            let error = error.without_url();
            tracing::warn!(%error, provider = name, "a search failed");
            match error.is_timeout() {
                true => format!(
                    "The search provider did not answer within {} seconds.",
                    TIMEOUT.as_secs()
                ),
                false => "The search provider could not be reached.".to_owned(),
            }
        };
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        if !status.is_success() {
            tracing::warn!(%status, provider = name, "a search was refused");
            return Err(match status.as_u16() {
                401 | 403 => {
                    "The search provider refuses the server's key; only the operator can help.".to_owned()
                }
                402 | 429 | 432 => "The search provider allows no more searches now; try later.".to_owned(),
                code => format!("The search provider failed with status {code}."),
            });
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            if body.len() + piece.len() > MAX_BODY {
                return Err("The search provider's answer is too long.".to_owned());
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

/// Whether a result may be shown.
fn is_admitted(url: &str, web: &web::Limits) -> bool {
    Url::parse(url).is_ok_and(|url| web.admit(url.host_str().unwrap_or_default(), url.path()))
}

/// A query that names the place, for providers that can't be told it otherwise.
fn located(query: &str, place: Option<&web::Location>) -> String {
    let Some(place) = place else {
        return query.to_owned();
    };
    let parts = [&place.city, &place.region, &place.country];
    let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    if parts.is_empty() {
        return query.to_owned();
    }
    format!("{query} ({})", parts.join(", "))
}

fn parse(input: &Value) -> Result<Input, String> {
    let invalid = |reason: &str| format!("invalid input for `web_search`: {reason}");
    let mut input: Input = from_object(input).map_err(|reason| invalid(&reason))?;
    input.query = input.query.trim().to_owned();
    if input.query.is_empty() {
        return Err(invalid("query: must not be empty"));
    }
    if input.query.chars().count() > MAX_QUERY {
        return Err(invalid(&format!(
            "query: at most {MAX_QUERY} characters are allowed"
        )));
    }
    if input
        .max_results
        .is_some_and(|count| count == 0 || count > MAX_RESULTS)
    {
        return Err(invalid(&format!("max_results: must be from 1 to {MAX_RESULTS}")));
    }
    Ok(input)
}

fn show(query: &str, hits: &[Hit]) -> String {
    if hits.is_empty() {
        return format!("Nothing was found for {query:?}.");
    }
    let mut text = String::new();
    for (index, hit) in hits.iter().enumerate() {
        let title = one_line(&hit.title, 300);
        let url = one_line(&hit.url, 2_000);
        let snippet = one_line(hit.content.as_deref().unwrap_or_default(), MAX_SNIPPET);
        text.push_str(&format!("{}. {title}\n   {url}\n", index + 1));
        if !snippet.is_empty() {
            text.push_str(&format!("   {snippet}\n"));
        }
    }
    text
}

fn one_line(text: &str, max: usize) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    match line.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests;
