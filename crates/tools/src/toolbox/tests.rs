//! The tools as an agent has them, over a real server for those that fetch.

use super::*;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use oma_domain::ContentBlock;
use oma_domain::content::{Source, joined_text};
use oma_domain::policy::PermissionPolicy;
use oma_egress::Rule;
use serde_json::json;
use std::time::Duration;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n...";

fn spec(tools: &[&str], permission_policy: PermissionPolicy) -> Spec {
    let spec = json!({
        "model": "scripted/echo", "instructions": "", "tools": tools, "permission_policy": permission_policy,
        "callable_agents": [], "max_subagent_depth": 0, "mcp_servers": {}, "thinking_level": "off", "channels": {},
    });
    serde_json::from_value(spec).unwrap()
}

fn searching() -> Arc<Config> {
    let search = Search::new(search::Provider::Searxng, Some("http://127.0.0.1:1/")).unwrap();
    Arc::new(Config::new(
        Policy::default(),
        &FetchLimits::default(),
        Some(search),
    ))
}

fn names(toolbox: &Toolbox) -> Vec<String> {
    toolbox.definitions().into_iter().map(|tool| tool.name).collect()
}

#[test]
fn an_agent_has_what_it_chose_and_may_use() {
    let all = [
        "bash",
        "read",
        "write",
        "edit",
        "glob",
        "grep",
        "web_fetch",
        "web_search",
    ];
    assert_eq!(crate::known_names(), all);
    let allow = || PermissionPolicy::AlwaysAllow;
    let deny = |tools: &[&str]| PermissionPolicy::Deny {
        tools: tools.iter().map(ToString::to_string).collect(),
    };
    for (chosen, policy, config, expected) in [
        (&[][..], allow(), searching(), &all[..]),
        (&[], allow(), Arc::default(), &all[..7]),
        (&["grep", "bash"], allow(), Arc::default(), &["bash", "grep"]),
        (
            &[],
            deny(&["bash", "web_fetch"]),
            Arc::default(),
            &["read", "write", "edit", "glob", "grep"],
        ),
        (&["bash"], deny(&["bash"]), Arc::default(), &[]),
        (&["web_search"], allow(), Arc::default(), &[]),
        (
            &[],
            PermissionPolicy::AlwaysAsk {
                tools: None,
                timeout_ms: None,
            },
            searching(),
            &all[..],
        ),
    ] {
        assert_eq!(
            names(&Toolbox::new(&spec(chosen, policy), &config)),
            expected,
            "{chosen:?}"
        );
    }
}

#[test]
fn places_and_checks() {
    let toolbox = Toolbox::new(
        &spec(
            &["bash", "web_fetch", "web_search"],
            PermissionPolicy::AlwaysAllow,
        ),
        &searching(),
    );
    for (name, place) in [
        ("bash", Place::Sandbox),
        ("web_fetch", Place::Server),
        ("web_search", Place::Server),
        ("read", Place::Unknown),
        ("sing", Place::Unknown),
    ] {
        assert_eq!(toolbox.place(name), place, "{name}");
    }
    for (name, input, expected) in [
        ("bash", json!({"command": "ls"}), Ok(())),
        ("bash", json!({}), Err("command: is required")),
        (
            "read",
            json!({"file_path": "a"}),
            Err("The tools are: bash, web_fetch, web_search."),
        ),
        ("web_fetch", json!({"url": "https://example.com/"}), Ok(())),
        (
            "web_fetch",
            json!({"url": "https://example.com/", "max_chars": 10}),
            Ok(()),
        ),
        ("web_fetch", json!({}), Err("missing field `url`")),
        (
            "web_fetch",
            json!({"url": "https://example.com/", "max_chars": 0}),
            Err("max_chars"),
        ),
        (
            "web_fetch",
            json!({"url": "https://example.com/", "prompt": "x"}),
            Err("unknown field `prompt`"),
        ),
        (
            "web_fetch",
            json!({"url": "example.com"}),
            Err("relative URL without a base"),
        ),
        (
            "web_fetch",
            json!({"url": "file:///etc/passwd"}),
            Err("only http and https"),
        ),
        (
            "web_fetch",
            json!({"url": "http://169.254.169.254/"}),
            Err("it is not public"),
        ),
        (
            "web_fetch",
            json!({"url": "http://example.com:22/"}),
            Err("only ports 80 and 443"),
        ),
        ("web_search", json!({"query": "x", "max_results": 20}), Ok(())),
        (
            "web_search",
            json!({"query": " "}),
            Err("query: must not be empty"),
        ),
        (
            "web_search",
            json!({"query": "x", "max_results": 21}),
            Err("max_results: must be from 1 to 20"),
        ),
    ] {
        match (toolbox.validate(name, &input), expected) {
            (Ok(()), Ok(())) => {}
            (Err(message), Err(expected)) => assert!(message.contains(expected), "{name} {input}: {message}"),
            (result, _) => panic!("{name} {input}: {result:?}"),
        }
    }
}

/// What a schema names is what the parser takes, and the other way round.
#[test]
fn schemas_and_parsers_agree() {
    let toolbox = Toolbox::new(&spec(&[], PermissionPolicy::AlwaysAllow), &searching());
    for tool in toolbox.definitions() {
        let properties = tool.input_schema["properties"].as_object().unwrap();
        let sample = |name: &str| match (name, properties[name]["type"].as_str().unwrap()) {
            ("url", _) => json!("https://example.com/"),
            ("output_mode", _) => json!("count"),
            ("new_string", _) => json!("other"),
            (_, "string") => json!("text"),
            (_, "integer") => json!(1),
            (_, "boolean") => json!(true),
            (_, "array") => json!([1, 2]),
            (name, kind) => panic!("{}.{name}: {kind}", tool.name),
        };
        let full: serde_json::Map<_, _> = properties
            .keys()
            .map(|name| (name.clone(), sample(name)))
            .collect();
        toolbox
            .validate(&tool.name, &Value::Object(full.clone()))
            .unwrap();
        assert_eq!(tool.input_schema["additionalProperties"], json!(false));
        let required: Vec<&str> = tool.input_schema["required"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        for name in properties.keys() {
            let mut without = full.clone();
            without.remove(name);
            let taken = toolbox.validate(&tool.name, &Value::Object(without)).is_ok();
            assert_eq!(
                taken,
                !required.contains(&name.as_str()),
                "{} without {name}",
                tool.name
            );
        }
        let mut more = full;
        more.insert("surplus".to_owned(), json!(1));
        let message = toolbox.validate(&tool.name, &Value::Object(more)).unwrap_err();
        // The parser names its fields, which are those of the schema.
        let named = properties
            .keys()
            .all(|name| message.contains(&format!("`{name}`")));
        assert!(
            named && message.matches('`').count() == 2 * (properties.len() + 2),
            "{message}"
        );
    }
}

async fn serve(router: Router) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

#[tokio::test]
async fn pages_are_fetched_and_shown() {
    let typed = |media: &'static str, body: &'static [u8]| {
        get(move || async move { ([(header::CONTENT_TYPE, media)], body) })
    };
    let router = Router::new()
        .route(
            "/page",
            typed(
                "text/html",
                b"<title>A page</title><h1>Head</h1><p>See <a href=/other>this</a>.</p>",
            ),
        )
        .route("/moved", get(|| async { Redirect::to("/page") }))
        .route("/away", get(|| async { Redirect::to("http://10.0.0.1/") }))
        .route("/json", typed("application/json", b"{\"a\": 1}"))
        .route("/empty", typed("text/html", b""))
        .route("/png", typed("image/png", PNG))
        .route("/pdf", typed("application/pdf", b"%PDF-1.7"))
        .route("/zip", typed("application/zip", b"PK\x03\x04"))
        .route("/long", get(|| async { "é".repeat(150_000) }))
        .route("/huge", get(|| async { "x".repeat(2 << 20) }))
        .route(
            "/missing",
            get(|| async { (StatusCode::NOT_FOUND, "no such thing").into_response() }),
        )
        .route("/slow", get(std::future::pending::<()>));
    let address = serve(router).await;
    let policy = Policy {
        allow: vec![address.to_string().parse::<Rule>().unwrap()],
    };
    let with_timeout = |timeout| {
        let limits = FetchLimits {
            timeout,
            max_bytes: 1 << 20,
        };
        let config = Arc::new(Config::new(policy.clone(), &limits, None));
        Toolbox::new(&spec(&[], PermissionPolicy::AlwaysAllow), &config)
    };
    let patient = with_timeout(Duration::from_secs(60));
    let hasty = with_timeout(Duration::from_millis(200));
    let fetch = async |path: &str, max_chars: Option<usize>| {
        let input = json!({"url": format!("http://{address}{path}"), "max_chars": max_chars});
        let toolbox = if path == "/slow" { &hasty } else { &patient };
        toolbox.validate("web_fetch", &input).unwrap();
        toolbox.run_on_server("web_fetch", &input).await
    };
    let page =
        format!("URL: http://{address}/page\nTitle: A page\n\n# Head\n\nSee [this](http://{address}/other).");
    for (path, max_chars, is_error, expected) in [
        ("/page", None, false, page.as_str()),
        ("/moved", None, false, &page),
        (
            "/page",
            Some(6),
            false,
            "\n\n# Head\n\n[The text goes on: it has ",
        ),
        ("/json", None, false, "\n\n{\"a\": 1}"),
        ("/empty", None, false, "[The page has no text.]"),
        ("/huge", None, false, "xxx\n\n[The page goes on; it is too large"),
        (
            "/away",
            None,
            true,
            "10.0.0.1:80 may not be reached: it is not public",
        ),
        ("/zip", None, true, "is not text (application/zip, 4 bytes)"),
        (
            "/missing",
            None,
            true,
            "answered with status 404 Not Found.\n\nno such thing",
        ),
        ("/slow", None, true, "no complete answer within 200ms"),
    ] {
        let outcome = fetch(path, max_chars).await;
        let text = joined_text(&outcome.content);
        assert_eq!(outcome.is_error, is_error, "{path}: {text}");
        assert!(text.contains(expected), "{path}: {text}");
    }
    let long = joined_text(&fetch("/long", None).await.content);
    assert_eq!(
        long.chars().filter(|c| *c == 'é').count(),
        150_000,
        "spilling is the caller's work"
    );
    let image = fetch("/png", None).await;
    assert!(matches!(
        &image.content[1],
        ContentBlock::Image { source: Source::Base64 { media_type, .. } } if media_type == "image/png"
    ));
    let pdf = fetch("/pdf", None).await;
    assert!(
        matches!(&pdf.content[1], ContentBlock::Document { title: Some(title), .. } if title.ends_with("/pdf"))
    );
}

#[tokio::test]
async fn the_guard_stands_even_without_a_check() {
    let toolbox = Toolbox::new(
        &spec(&["web_fetch"], PermissionPolicy::AlwaysAllow),
        &Arc::default(),
    );
    for url in [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://[::ffff:10.0.0.1]/",
        "http://0x7f.1:6379/",
    ] {
        let outcome = toolbox.run_on_server("web_fetch", &json!({"url": url})).await;
        assert!(
            outcome.is_error && joined_text(&outcome.content).contains("may not be reached"),
            "{outcome:?}"
        );
    }
    for name in ["bash", "web_search", "sing"] {
        assert!(toolbox.run_on_server(name, &json!({})).await.is_error);
    }
}
