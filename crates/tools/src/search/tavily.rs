//! Tavily: `POST /search`.

use oma_domain::web::Limits;
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
    web: &Limits,
) -> RequestBuilder {
    let mut body = json!({"query": query, "max_results": count, "search_depth": "basic"});
    // It knows hosts only; what else is asked for is looked at in its answer.
    for (name, sites) in [
        ("include_domains", &web.allowed),
        ("exclude_domains", &web.blocked),
    ] {
        let hosts: Vec<&str> = sites
            .iter()
            .map(|site| site.split('/').next().unwrap_or(site))
            .collect();
        let exact = name == "include_domains" || sites.iter().all(|site| !site.contains('/'));
        if !hosts.is_empty() && exact {
            body[name] = json!(hosts);
        }
    }
    client
        .post(url.clone())
        .bearer_auth(key.expose_secret())
        .json(&body)
}
