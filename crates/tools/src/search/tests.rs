//! Each provider against a server that answers as that provider's reference says.

use oma_domain::web::Limits;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use oma_domain::content::joined_text;

use super::*;

/// A provider that notes what it is asked and always answers the same.
async fn server(status: u16, answer: &str) -> (String, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (noted, answer) = (Arc::clone(&asked), answer.to_owned());
    let router = Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
        let header = |name| {
            headers
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
                .unwrap_or_default()
        };
        let (key, bearer) = (header("x-subscription-token"), header("authorization"));
        let body = String::from_utf8(body.to_vec()).unwrap();
        noted
            .lock()
            .unwrap()
            .push(format!("{method} {uri} [{key}{bearer}] {body}"));
        let reply = (StatusCode::from_u16(status).unwrap(), answer.clone());
        async move { reply }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (format!("http://{address}"), asked)
}

fn providers() -> [(Provider, &'static str, &'static str, &'static str); 3] {
    let key = || SecretString::from("s3cret");
    [
        (
            Provider::Brave { key: key() },
            r#"{"type":"search","web":{"type":"search","results":[
                {"title":"One","url":"https://one.example/","description":"First\n result","age":"2 days"},
                {"title":"Two","url":"https://two.example/"}]}}"#,
            "GET /?q=rust+%26+c&count=2&text_decorations=false [s3cret] ",
            r#"{"type":"search"}"#,
        ),
        (
            Provider::Tavily { key: key() },
            r#"{"query":"q","results":[
                {"title":"One","url":"https://one.example/","content":"First result","score":0.9},
                {"title":"Two","url":"https://two.example/","content":null}]}"#,
            r#"POST / [Bearer s3cret] {"query":"rust & c","max_results":2,"search_depth":"basic"}"#,
            r#"{"results":[]}"#,
        ),
        (
            Provider::Searxng,
            r#"{"query":"q","results":[
                {"title":"One","url":"https://one.example/","content":"First  result","engine":"x"},
                {"title":"Two","url":"https://two.example/"},
                {"title":"Three","url":"https://three.example/"}]}"#,
            "GET /search?q=rust+%26+c&format=json [] ",
            r#"{"results":[]}"#,
        ),
    ]
}

fn said(outcome: &Outcome) -> (String, bool) {
    (joined_text(&outcome.content), outcome.is_error)
}

#[tokio::test]
async fn each_provider_is_asked_and_read() {
    for (provider, answer, request, nothing) in providers() {
        let (url, asked) = server(200, answer).await;
        let search = Search::new(provider.clone(), Some(&url)).unwrap();
        let outcome = search
            .run(
                &json!({"query": " rust & c ", "max_results": 2}),
                &Limits::default(),
            )
            .await;
        let expected = "1. One\n   https://one.example/\n   First result\n2. Two\n   https://two.example/\n";
        assert_eq!(said(&outcome), (expected.to_owned(), false));
        assert_eq!(*asked.lock().unwrap(), [request]);
        assert!(!format!("{search:?}").contains("s3cret"));

        let (url, _) = server(200, nothing).await;
        let search = Search::new(provider, Some(&url)).unwrap();
        let outcome = search.run(&json!({"query": "x"}), &Limits::default()).await;
        assert_eq!(said(&outcome), ("Nothing was found for \"x\".".to_owned(), false));
    }
}

#[tokio::test]
async fn failures_are_told_without_secrets() {
    let huge = " ".repeat(MAX_BODY + 1);
    for (status, answer, expected) in [
        (401, "s3cret is wrong", "refuses the server's key"),
        (403, "", "refuses the server's key"),
        (429, "", "no more searches now"),
        (500, "", "failed with status 500"),
        (302, "", "failed with status 302"),
        (200, "<html>", "could not be understood"),
        (200, "{\"results\": 3}", "could not be understood"),
        (200, &huge, "too long"),
    ] {
        let (url, _) = server(status, answer).await;
        let search = Search::new(
            Provider::Tavily {
                key: SecretString::from("s3cret"),
            },
            Some(&url),
        )
        .unwrap();
        let (text, is_error) = said(&search.run(&json!({"query": "x"}), &Limits::default()).await);
        assert!(
            is_error && text.contains(expected) && !text.contains("s3cret"),
            "{status}: {text}"
        );
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let search = Search::new(Provider::Searxng, Some(&url)).unwrap();
    assert_eq!(
        said(&search.run(&json!({"query": "x"}), &Limits::default()).await).0,
        "The search provider could not be reached."
    );
}

#[test]
fn addresses() {
    let key = || SecretString::from("k");
    for (provider, url, expected) in [
        (
            Provider::Brave { key: key() },
            None,
            Ok("https://api.search.brave.com/res/v1/web/search"),
        ),
        (
            Provider::Tavily { key: key() },
            None,
            Ok("https://api.tavily.com/search"),
        ),
        (
            Provider::Searxng,
            Some("http://10.0.0.1:8080/searx"),
            Ok("http://10.0.0.1:8080/searx"),
        ),
        (Provider::Searxng, None, Err("SearXNG needs an address")),
        (Provider::Searxng, Some("searx.example"), Err("not a usable URL")),
        (
            Provider::Searxng,
            Some("ftp://searx.example"),
            Err("must begin with http"),
        ),
    ] {
        match (Search::new(provider, url), expected) {
            (Ok(search), Ok(expected)) => assert_eq!(search.url.as_str(), expected),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (result, expected) => panic!("{url:?}: {result:?} {expected:?}"),
        }
    }
    let request = searxng::request(&Client::new(), &Url::parse("http://h/searx/").unwrap(), "q")
        .build()
        .unwrap();
    assert_eq!(request.url().path(), "/searx/search");
    let request = searxng::request(&Client::new(), &Url::parse("http://h/searx/search").unwrap(), "q")
        .build()
        .unwrap();
    assert_eq!(request.url().path(), "/searx/search");
}

#[test]
fn long_results_are_cut() {
    let hit = Hit {
        title: "t".repeat(500),
        url: "https://e.example/".to_owned(),
        content: Some("é ".repeat(2_000)),
    };
    let text = show("q", &[hit]);
    assert!(text.chars().count() < 300 + MAX_SNIPPET + 50, "{text}");
}

#[test]
fn results_and_queries_keep_to_the_agent_s_limits() {
    let limits = Limits {
        allowed: vec!["a.org/docs".into()],
        blocked: Vec::new(),
        ..Limits::default()
    };
    assert!(is_admitted("https://www.a.org/docs/x", &limits));
    for url in [
        "https://a.org/",
        "https://b.org/docs",
        "not a url",
        "mailto:x@a.org",
    ] {
        assert!(!is_admitted(url, &limits), "{url}");
    }
    let place = oma_domain::web::Location {
        city: Some("Graz".into()),
        country: Some("AT".into()),
        ..oma_domain::web::Location::default()
    };
    assert_eq!(located("rain", Some(&place)), "rain (Graz, AT)");
    assert_eq!(located("rain", None), "rain");
}
