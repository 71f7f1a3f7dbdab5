//! Tavily: `POST /search`.

use reqwest::{Client, RequestBuilder, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

pub(super) const URL: &str = "https://api.tavily.com/search";

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
