//! SearXNG: `GET /search?format=json`. The instance must have the `json` format enabled.

use reqwest::{Client, RequestBuilder, Url};
use serde::Deserialize;

use super::Hit;

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

/// `url` is the instance's root, or its `/search` already.
pub(super) fn request(client: &Client, url: &Url, query: &str) -> RequestBuilder {
    let mut url = url.clone();
    if !url.path().ends_with("/search") {
        let path = format!("{}/search", url.path().trim_end_matches('/'));
        url.set_path(&path);
    }
    url.query_pairs_mut()
        .append_pair("q", query)
        .append_pair("format", "json");
    client.get(url).header("Accept", "application/json")
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
