//! Tavily: `POST /search`.

use reqwest::{Client, RequestBuilder, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

use super::Hit;

pub(super) const URL: &str = "https://api.tavily.com/search";

#[derive(Deserialize)]
struct Answer {
    results: Vec<Page>,
}

#[derive(Deserialize)]
struct Page {
    title: String,
    url: String,
    #[serde(default)]
    content: Option<String>,
}

pub(super) fn request(
    client: &Client,
    url: &Url,
    key: &SecretString,
    query: &str,
    count: usize,
) -> RequestBuilder {
    client
        .post(url.clone())
        .bearer_auth(key.expose_secret())
        .json(&json!({"query": query, "max_results": count, "search_depth": "basic"}))
}

pub(super) fn read(body: &[u8]) -> serde_json::Result<Vec<Hit>> {
    let answer: Answer = serde_json::from_slice(body)?;
    let hit = |page: Page| Hit {
        title: page.title,
        url: page.url,
        text: page.content.unwrap_or_default(),
    };
    Ok(answer.results.into_iter().map(hit).collect())
}
