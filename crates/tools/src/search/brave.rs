//! Brave Search: `GET /res/v1/web/search`.

use oma_domain::web::Location;
use reqwest::{Client, RequestBuilder, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::Hit;

pub(super) const URL: &str = "https://api.search.brave.com/res/v1/web/search";

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    web: Option<Web>,
}

#[derive(Deserialize)]
struct Web {
    #[serde(default)]
    results: Vec<Page>,
}

#[derive(Deserialize)]
struct Page {
    title: String,
    url: String,
    #[serde(default)]
    description: Option<String>,
}

pub(super) fn request(
    client: &Client,
    url: &Url,
    key: &SecretString,
    query: &str,
    count: usize,
    place: Option<&Location>,
) -> RequestBuilder {
    let mut url = url.clone();
    url.query_pairs_mut()
        .append_pair("q", query)
        .append_pair("count", &count.to_string())
        .append_pair("text_decorations", "false");
    let mut request = client
        .get(url)
        .header("X-Subscription-Token", key.expose_secret())
        .header("Accept", "application/json");
    for (name, value) in place.into_iter().flat_map(|place| {
        [
            ("X-Loc-City", &place.city),
            ("X-Loc-State-Name", &place.region),
            ("X-Loc-Country", &place.country),
            ("X-Loc-Timezone", &place.timezone),
        ]
    }) {
        // A header holds ASCII only; what is not is left to the other parts.
        if let Some(value) = value.as_deref().filter(|value| value.is_ascii()) {
            request = request.header(name, value);
        }
    }
    request
}

pub(super) fn read(body: &[u8]) -> serde_json::Result<Vec<Hit>> {
    let answer: Answer = serde_json::from_slice(body)?;
    let results = answer.web.map(|web| web.results).unwrap_or_default();
    let hit = |page: Page| Hit {
        title: page.title,
        url: page.url,
        content: page.description,
    };
    Ok(results.into_iter().map(hit).collect())
}
