//! SearXNG: `GET /search?format=json`. The instance must have the `json` format enabled.

use reqwest::{Client, RequestBuilder, Url};

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
