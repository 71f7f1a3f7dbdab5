//! Who is let in: every route of the API's own document, with and without the token.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::Value;

use crate::system::client::Client;
use crate::system::{System, raw};

const TOKEN: &str = "canary-api-token-91b4";

/// What anybody may read.
const OPEN: [&str; 8] = [
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    // These answer 501 unless the operator has turned signing up on.
    "/auth/anonymous",
    "/auth/github",
    "/auth/github/callback",
];

/// Every operation of the document: its method, its path with names for ids, and whether the document says that
/// it needs no token.
fn operations(document: &Value) -> Vec<(Method, String, bool)> {
    let mut found = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else {
                continue;
            };
            let open = operation["security"]
                .as_array()
                .is_some_and(|ways| ways.iter().all(|way| way == &serde_json::json!({})));
            found.push((method, path.replace(['{', '}'], ""), open));
        }
    }
    found
}

#[tokio::test]
async fn no_route_is_open_by_mistake() {
    let system = System::start_with(|options| options.token(TOKEN)).await;
    let authority = system.client().authority().to_owned();
    let stranger = Client::new(system.client().url(), None);
    let document = stranger.get("/openapi.json").await.good();
    let operations = operations(&document);
    assert!(operations.len() >= 29, "{operations:?}");
    let declared: BTreeSet<&str> = operations
        .iter()
        .filter(|(.., open)| *open)
        .map(|(_, path, _)| path.as_str())
        .collect();
    assert_eq!(declared, BTreeSet::from(OPEN));

    let credentials: [(&str, String); 9] = [
        ("x-nothing", "x".to_owned()),
        ("authorization", "Bearer wrong".to_owned()),
        ("authorization", format!("Bearer {TOKEN}x")),
        ("authorization", format!("Bearer {}", &TOKEN[..TOKEN.len() - 1])),
        ("authorization", format!("Bearer {}", TOKEN.to_uppercase())),
        ("authorization", format!("Basic {TOKEN}")),
        ("authorization", TOKEN.to_owned()),
        ("authorization", "Bearer".to_owned()),
        ("x-api-key", TOKEN.to_owned()),
    ];
    for (method, path, open) in &operations {
        for (name, value) in &credentials {
            let answer = stranger
                .send(stranger.request(method.clone(), path).header(*name, value))
                .await;
            if *open {
                let expected: &[u16] = if path.starts_with("/auth/") {
                    // Turned off.
                    &[501]
                } else {
                    &[200, 302]
                };
                let text = answer.text();
                assert!(expected.contains(&answer.status), "{method} {path}: {text}");
                continue;
            }
            assert_eq!(
                answer.status,
                401,
                "{method} {path} {name}: {value}: {}",
                answer.text()
            );
            assert!(
                answer
                    .header("www-authenticate")
                    .is_some_and(|way| way.starts_with("Bearer")),
                "{path}"
            );
            let text = answer.text();
            assert!(
                text.contains("unauthorized") || text.contains("invalid_api_key"),
                "{text}"
            );
            assert!(!text.contains(TOKEN), "{text}");
        }
        // With the token it is another matter: nobody is told 401.
        let answer = system
            .client()
            .send(system.client().request(method.clone(), path))
            .await;
        assert_ne!(answer.status, 401, "{method} {path}");
    }

    // The same goes for what is no route, for other spellings of routes, and for other dialects.
    for path in [
        "/v1/agents/",
        "/v1//agents",
        "//v1/agents",
        "/V1/agents",
        "/v1/agents?token=canary-api-token-91b4",
        "/v1/agents;x=/healthz",
        "/healthz/../v1/agents",
        "/healthz/..%2fv1/agents",
        "/healthz%2f..%2fv1%2fagents",
        "/docs/../v1/agents",
        "/%76%31/agents",
        "/v1/agents#/healthz",
        "/v1/no/such/route",
    ] {
        for headers in [
            "",
            "anthropic-version: 2023-06-01\r\n",
            "x-stainless-lang: python\r\n",
        ] {
            for method in ["GET", "POST", "HEAD", "OPTIONS"] {
                let answer = raw::request(&authority, method, path, headers, "").await;
                assert!(
                    matches!(answer.status, 400 | 401 | 404 | 405),
                    "{method} {path}: {}",
                    answer.text
                );
            }
        }
    }
    // Whoever has the token names the resource by the absolute form too; nobody gets around it that way.
    let absolute = format!("http://{authority}/v1/agents");
    assert_eq!(
        raw::request(&authority, "GET", &absolute, "", "").await.status,
        401
    );
    let bearer = format!("authorization: Bearer {TOKEN}\r\n");
    assert_eq!(
        raw::request(&authority, "GET", "/v1/agents", &bearer, "")
            .await
            .status,
        200
    );
    let garbage = "authorization: Bearer \u{fc}\u{0}\r\n";
    assert!(matches!(
        raw::request(&authority, "GET", "/v1/agents", garbage, "")
            .await
            .status,
        400 | 401
    ));

    let data = system.stop().await;
    assert!(!data.log().contains(TOKEN), "the token is in the log");
}
