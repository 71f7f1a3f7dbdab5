//! The API's description.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::server::Server;

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi.json");

#[test]
fn the_committed_document_is_current() {
    let current = oma_api::openapi::document_text().unwrap();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(COMMITTED, &current).unwrap();
    }
    let committed = std::fs::read_to_string(COMMITTED).unwrap_or_default();
    assert!(
        committed == current,
        "openapi.json is out of date; run this test with UPDATE_OPENAPI=1"
    );
}

#[tokio::test]
async fn the_document_covers_every_route() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let (mut described, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            described.insert(format!("{} {}", method.to_uppercase(), path));
            for needed in ["summary", "tags", "operationId"] {
                assert!(!operation[needed].is_null(), "{method} {path} has no {needed}");
            }
            assert!(
                names.insert(operation["operationId"].to_string()),
                "{method} {path} has another's name"
            );
            // The route exists and takes the method.
            let answer = server
                .raw(&method.to_uppercase(), &path.replace(['{', '}'], ""), "{}")
                .await;
            let missing = answer.status == 405
                || answer.headers["content-type"] == "application/json"
                    && answer.json()["error"] == "not_found";
            assert!(!missing, "{method} {path}");
        }
    }
    // What the description at the root lists is described, too, and nothing is forgotten there.
    let listed: BTreeSet<String> = server.get("/").await.json()["endpoints"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|group| group.as_object().unwrap().values().cloned().collect::<Vec<_>>())
        .map(|route| shape(route.as_str().unwrap()))
        .collect();
    let unlisted = ["GET /", "GET /openapi.json", "GET /v1/models/{}"];
    let described: BTreeSet<String> = described.iter().map(|route| shape(route)).collect();
    let expected: BTreeSet<String> = described
        .into_iter()
        .filter(|route| !unlisted.contains(&route.as_str()))
        .collect();
    assert_eq!(listed, expected);
}

/// A route without the names of its parameters.
fn shape(route: &str) -> String {
    let route = route.split('?').next().unwrap();
    let parts = route
        .split('/')
        .map(|part| if part.starts_with([':', '{']) { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn references_resolve_and_open_routes_say_so() {
    let document = serde_json::to_value(oma_api::openapi::document()).unwrap();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        assert!(
            !document
                .pointer(reference.trim_start_matches('#'))
                .unwrap_or(&Value::Null)
                .is_null(),
            "{reference}"
        );
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        let open = oma_api::auth::OPEN_PATHS.contains(&path.as_str());
        for operation in item.as_object().unwrap().values() {
            assert_eq!(operation.get("security") == Some(&json!([{}])), open, "{path}");
        }
    }
}

/// What all routes may answer is said of each, in the shape that it has there.
#[test]
fn every_route_says_how_it_refuses() {
    let document = serde_json::to_value(oma_api::openapi::document()).unwrap();
    let schema = |reference: &Value| {
        let reference = reference["$ref"]
            .as_str()
            .unwrap()
            .trim_start_matches('#')
            .to_owned();
        let response = document.pointer(&reference).unwrap();
        assert!(
            response["description"]
                .as_str()
                .is_some_and(|text| text.len() > 10),
            "{reference}"
        );
        response["content"]["application/json"]["schema"]["$ref"].clone()
    };
    let mut routes = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        if oma_api::auth::OPEN_PATHS.contains(&path.as_str()) {
            continue;
        }
        let expected = match path.as_str() {
            "/v1/chat/completions" => "#/components/schemas/ChatErrorBody",
            _ => "#/components/schemas/ErrorBody",
        };
        for (method, operation) in item.as_object().unwrap() {
            routes += 1;
            let responses = operation["responses"].as_object().unwrap();
            for status in ["400", "401", "403", "429", "500", "503"] {
                assert!(responses.contains_key(status), "{method} {path} {status}");
            }
            for (status, response) in responses.iter().filter(|(status, _)| !status.starts_with('2')) {
                assert_eq!(schema(response), expected, "{method} {path} {status}");
            }
        }
    }
    assert!(routes > 40, "{routes}");
    let contact = document["info"]["contact"]["url"].as_str().unwrap();
    assert!(contact.starts_with("https://"), "{contact:?}");
    // What checks the statuses of the answers in these tests can fail.
    let request = axum::http::Request::post("/v1/agents").body(()).unwrap();
    let declared = crate::declared::statuses(&request).unwrap();
    assert!(
        declared.contains(&422) && !declared.contains(&404),
        "{declared:?}"
    );
}

fn collect(node: &Value, references: &mut Vec<String>) {
    match node {
        Value::Object(map) => {
            references.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| collect(value, references));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}

/// The schema of a body and what reads it are written in two places: they name the same fields.
#[tokio::test]
async fn schemas_name_the_fields_that_are_read() {
    let server = Server::start().await;
    let document = serde_json::to_value(oma_api::openapi::document()).unwrap();
    let agent = server.agent(json!({})).await;
    let session = server.session(&agent).await;
    // With null or a number every field is wrong, so the answer names all that are read.
    for (schema, method, path, wrong) in [
        ("CreateAgent", "POST", "/v1/agents".to_owned(), json!([])),
        ("UpdateAgent", "PATCH", format!("/v1/agents/{agent}"), json!(true)),
        ("RunAgent", "POST", format!("/v1/agents/{agent}/run"), json!(true)),
        (
            "CreateEnvironment",
            "POST",
            "/v1/environments".to_owned(),
            json!(true),
        ),
        ("OpenSession", "POST", "/v1/sessions".to_owned(), json!(true)),
        ("CreateVault", "POST", "/v1/vaults".to_owned(), json!(true)),
        ("UpdateVault", "PATCH", "/v1/vaults/vlt_x".to_owned(), json!(true)),
        (
            "UpdateCredential",
            "PATCH",
            "/v1/vaults/vlt_x/credentials/crd_x".to_owned(),
            json!(true),
        ),
        (
            "UserMessage",
            "POST",
            format!("/v1/sessions/{session}/events"),
            json!(true),
        ),
        (
            "Confirmation",
            "POST",
            format!("/v1/sessions/{session}/events"),
            json!(true),
        ),
    ] {
        let fields = document["components"]["schemas"][schema]["properties"]
            .as_object()
            .unwrap_or_else(|| panic!("{schema}"));
        let mut body: Value = fields
            .keys()
            .map(|name| (name.clone(), wrong.clone()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        if schema == "UserMessage" {
            body["type"] = json!("user.message");
        }
        if schema == "Confirmation" {
            body["type"] = json!("user.tool_confirmation");
        }
        let answer = server.json(method, &path, &body).await.json();
        let read: BTreeSet<&str> = answer["details"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .filter(|key| *key != "_errors")
            .collect();
        let mut described: BTreeSet<&str> = fields
            .keys()
            .map(String::as_str)
            .filter(|key| *key != "type")
            .collect();
        if schema == "CreateAgent" {
            // An empty list is a good value for these.
            described.retain(|field| !["tools", "callableAgents"].contains(field));
        }
        assert_eq!(read, described, "{schema}");
    }
}

/// The limits that the schemas state are the limits that are enforced, to the character.
#[tokio::test]
async fn schemas_state_the_limits_that_hold() {
    let server = Server::start().await;
    let document = serde_json::to_value(oma_api::openapi::document()).unwrap();
    let agent = server.agent(json!({})).await;
    let session = server.session(&agent).await;
    let mut checked = 0;
    for (schema, method, path, rest) in [
        (
            "CreateAgent",
            "POST",
            "/v1/agents".to_owned(),
            json!({"model": "a/b"}),
        ),
        (
            "UpdateAgent",
            "PATCH",
            format!("/v1/agents/{agent}"),
            json!({"version": 99}),
        ),
        ("RunAgent", "POST", format!("/v1/agents/{agent}/run"), json!({})),
        (
            "CreateEnvironment",
            "POST",
            "/v1/environments".to_owned(),
            json!({"name": "e"}),
        ),
        (
            "OpenSession",
            "POST",
            "/v1/sessions".to_owned(),
            json!({"agentId": agent}),
        ),
        (
            "CreateVault",
            "POST",
            "/v1/vaults".to_owned(),
            json!({"userId": "u"}),
        ),
        (
            "UpdateCredential",
            "PATCH",
            "/v1/vaults/vlt_x/credentials/crd_x".to_owned(),
            json!({}),
        ),
        (
            "Confirmation",
            "POST",
            format!("/v1/sessions/{session}/events"),
            json!({"type": "user.tool_confirmation", "toolUseId": "x", "result": "deny"}),
        ),
    ] {
        for (name, field) in document["components"]["schemas"][schema]["properties"]
            .as_object()
            .unwrap()
        {
            let (limit, problem): (u64, _) =
                match (&field["maxLength"], &field["maxItems"], &field["maximum"]) {
                    (Value::Number(limit), _, _) => (limit.as_u64().unwrap(), "String must contain at most"),
                    (_, Value::Number(limit), _) => (limit.as_u64().unwrap(), "Array must contain at most"),
                    (_, _, Value::Number(limit)) => {
                        (limit.as_u64().unwrap(), "Number must be less than or equal to")
                    }
                    _ => continue,
                };
            checked += 1;
            for (size, fits) in [(limit, true), (limit + 1, false)] {
                let size_of = usize::try_from(size).unwrap();
                let mut body = rest.clone();
                body[name] = match problem.split(' ').next().unwrap() {
                    "String" if name == "model" => json!(format!("a/{}", "x".repeat(size_of - 2))),
                    "String" => json!("x".repeat(size_of)),
                    "Array" => json!(vec!["x"; size_of]),
                    _ => json!(size),
                };
                let answer = server.json(method, &path, &body).await.json();
                let found = &answer["details"][name]["_errors"][0];
                let refused = found
                    .as_str()
                    .is_some_and(|text| text.starts_with(problem) && text.contains(&limit.to_string()));
                assert_eq!(refused, !fits, "{schema}.{name} of {size}: {found}");
            }
        }
    }
    assert!(checked > 15, "{checked}");
}
