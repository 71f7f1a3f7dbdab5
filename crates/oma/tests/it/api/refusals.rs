//! Bad input on every route of the API's own document.
//!
//! The walk has a good body for each route that takes one, with every field that the document knows. Each field in turn
//! is made something that it can't be, each parameter of a path and of a query something that makes no sense. Whoever
//! adds a route, a field or a parameter says here what is good or bad.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::system::System;
use crate::system::client::{Answer, Client};
use crate::tenants::{key, workspace};

const TOKEN: &str = "canary-api-token-90b7";

/// An operation of the document.
struct Operation {
    method: Method,
    path: String,
    /// The names of its query's parameters.
    query: Vec<String>,
    /// The fields of its body, each with the longest text that it takes; nothing for a route without JSON.
    fields: Option<Map<String, Value>>,
}

/// Follows a reference within the document.
fn resolved<'a>(document: &'a Value, mut schema: &'a Value) -> &'a Value {
    while let Some(name) = schema["$ref"].as_str() {
        schema = document
            .pointer(name.trim_start_matches('#'))
            .unwrap_or_else(|| panic!("{name} is not there"));
    }
    schema
}

/// The properties of a schema and of all that it may be.
fn properties(document: &Value, schema: &Value, found: &mut Map<String, Value>) {
    let schema = resolved(document, schema);
    for kind in ["oneOf", "anyOf", "allOf"] {
        for one in schema[kind].as_array().into_iter().flatten() {
            properties(document, one, found);
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        found.insert(name.clone(), resolved(document, property).clone());
    }
}

async fn operations(client: &Client) -> Vec<Operation> {
    let document = client.get("/openapi.json").await.good();
    let mut found = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let parameters = operation["parameters"].as_array();
            let query = parameters
                .into_iter()
                .flatten()
                .filter(|one| one["in"] == "query");
            let schema = operation.pointer("/requestBody/content/application~1json/schema");
            let fields = schema.map(|schema| {
                let mut found = Map::new();
                properties(&document, schema, &mut found);
                found
            });
            found.push(Operation {
                method: Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method"),
                path: path.clone(),
                query: query
                    .map(|one| one["name"].as_str().expect("a name").to_owned())
                    .collect(),
                fields,
            });
        }
    }
    found
}

/// What the routes are called with.
struct Things {
    agent: String,
    environment: String,
    vault: String,
    /// A bearer token and an OAuth credential.
    credentials: [String; 3],
    session: String,
    checkpoint: String,
    key: String,
    workspace: String,
}

fn bearer() -> Value {
    json!({"type": "static_bearer", "name": "c", "matchUrl": "https://mcp.example/", "token": "t"})
}

fn oauth() -> Value {
    json!({
        "type": "mcp_oauth", "name": "c", "matchUrl": "https://mcp.example/", "accessToken": "a", "refreshToken": "r",
        "expiresAt": 1, "tokenEndpoint": "https://issuer.example/token", "clientId": "i", "clientSecret": "s",
        "tokenEndpointAuth": "client_secret_post", "scopes": ["one"],
    })
}

fn variable() -> Value {
    json!({
        "type": "environment_variable", "name": "c", "secretName": "A_TOKEN", "secretValue": "canary-of-a-variable",
        "networking": {"type": "limited", "allowedHosts": ["api.example"]}, "injectionLocation": {"header": true},
    })
}

impl Things {
    async fn make(operator: &Client) -> Self {
        let id = |made: Value, field: &str| made[field].as_str().expect("an id").to_owned();
        let agent = operator.agent(json!({"model": "scripted/echo"})).await;
        let environment = operator
            .post("/v1/environments", &json!({"name": "e"}))
            .await
            .good();
        let vault = operator.post("/v1/vaults", &json!({"userId": "u"})).await.good();
        let vault = id(vault, "vault_id");
        let path = format!("/v1/vaults/{vault}/credentials");
        let mut credentials = [bearer(), oauth(), variable()];
        credentials[1]["matchUrl"] = json!("https://other.example/");
        let mut ids = Vec::new();
        for credential in credentials {
            ids.push(id(
                operator.post(&path, &credential).await.good(),
                "credential_id",
            ));
        }
        let session = operator.session(&agent).await;
        let path = format!("/v1/sessions/{session}/checkpoints");
        let checkpoint = operator.post(&path, &json!({})).await.good();
        Self {
            checkpoint: id(checkpoint, "checkpoint_id"),
            session,
            agent,
            environment: id(environment, "environment_id"),
            vault,
            credentials: ids.try_into().expect("three"),
            key: key(operator, &json!({"name": "k", "scope": "read"})).await.0,
            workspace: workspace(operator, "w").await,
        }
    }

    fn filled(&self, path: &str, credential: &str) -> String {
        path.replace("{agent_id}", &self.agent)
            .replace("{environment_id}", &self.environment)
            .replace("{vault_id}", &self.vault)
            .replace("{credential_id}", credential)
            .replace("{session_id}", &self.session)
            .replace("{key_id}", &self.key)
            .replace("{workspace_id}", &self.workspace)
            .replace("{model}", "scripted%2Fecho")
            .replace("{path}", "note.txt")
    }

    /// Good bodies of a route, each with where it is sent; together they have every field.
    fn good(&self, method: &Method, path: &str) -> Vec<(String, Value)> {
        let to = self.filled(path, &self.credentials[0]);
        let budget = json!({"maxCostUsdPerMonth": 1.5, "maxTokensPerMonth": 100_000});
        let mut agent = json!({
            "model": "scripted/echo", "instructions": "i", "tools": ["bash"], "name": "n",
            "permissionPolicy": {"type": "always_allow"}, "callableAgents": [], "maxSubagentDepth": 0,
            "mcpServers": {"m": {"url": "https://mcp.example/"}}, "quota": {"maxTokensPerSession": 100_000},
            "thinkingLevel": "off", "channels": {"telegram": {"enabled": false}}, "runtime": "native",
        });
        let bodies = match (method.as_str(), path) {
            ("POST", "/v1/agents") => vec![agent],
            ("PATCH", "/v1/agents/{agent_id}") => {
                agent["version"] = json!(1);
                vec![agent]
            }
            ("POST", "/v1/agents/{agent_id}/run") => vec![json!({"task": "t", "sessionId": self.session})],
            ("POST", "/v1/chat/completions") => vec![json!({
                "messages": [{"role": "user", "content": "x"}], "model": "m", "stream": true, "user": "u",
                "stream_options": {"include_usage": true},
            })],
            ("POST", "/v1/environments") => vec![
                json!({
                    "name": "n", "description": "d", "packages": {}, "networking": {"type": "unrestricted"},
                    "variables": {"A": "b"}, "limits": {"cpus": 1.5},
                }),
                json!({"name": "n", "image": "i", "setupScript": "true"}),
            ],
            ("POST", "/v1/keys") => vec![
                json!({
                    "name": "n", "scope": "read", "maxCostUsdPerMonth": 1.5, "maxTokensPerMonth": 100_000,
                    "expiresAt": 4_000_000_000_000_i64, "workspaceId": self.workspace,
                }),
                // Such a key is for the workers of an environment of the other dialect.
                json!({"name": "n", "scope": "write", "environmentId": self.environment}),
            ],
            ("PATCH", "/v1/keys/{key_id}" | "/v1/workspaces/{workspace_id}") => vec![budget],
            ("POST", "/v1/keys/{key_id}/rotate") => vec![json!({"graceSeconds": 60})],
            ("POST", "/v1/sessions") => vec![
                json!({"agentId": self.agent, "environmentId": self.environment, "vaultId": self.vault}),
                json!({"agentId": self.agent, "vaultIds": [self.vault]}),
            ],
            ("POST", "/v1/sessions/{session_id}/events") => vec![
                json!({"type": "user.message", "content": "x", "model": "scripted/echo", "thinkingLevel": "off"}),
                json!({
                    "type": "user.tool_confirmation", "toolUseId": "evt_x", "result": "deny", "denyMessage": "d",
                }),
            ],
            ("POST", "/v1/sessions/{session_id}/restore") => vec![json!({"checkpointId": self.checkpoint})],
            ("POST", "/v1/vaults") => vec![json!({"userId": "u", "name": "n"})],
            ("PATCH", "/v1/vaults/{vault_id}") => vec![json!({"name": "n"})],
            ("POST", "/v1/vaults/{vault_id}/credentials") => {
                vec![bearer(), oauth(), variable()]
            }
            ("PATCH", "/v1/vaults/{vault_id}/credentials/{credential_id}") => {
                let oauth = json!({
                    "accessToken": "a", "refreshToken": "r", "clientSecret": "s", "expiresAt": 1, "scopes": ["one"],
                });
                let mut other = variable();
                for fixed in ["type", "name", "secretName"] {
                    other.as_object_mut().expect("an object").remove(fixed);
                }
                return vec![
                    (to, json!({"name": "n", "token": "t"})),
                    (self.filled(path, &self.credentials[1]), oauth),
                    (self.filled(path, &self.credentials[2]), other),
                ];
            }
            ("POST", "/v1/workspaces") => {
                vec![json!({"name": "n", "maxCostUsdPerMonth": 1.5, "maxTokensPerMonth": 100_000})]
            }
            _ => panic!("this walk does not know a good body for {method} {path}: tell it"),
        };
        bodies.into_iter().map(|body| (to.clone(), body)).collect()
    }

    /// A query with one parameter that makes no sense; `None` for one that narrows a list down to whatever is said.
    fn bad_query(&self, path: &str, name: &str) -> Option<String> {
        let bad = match name {
            "limit" => "limit=0".to_owned(),
            "order" => "order=up".to_owned(),
            "stream" => "stream=maybe".to_owned(),
            "deltas" => "stream=true&deltas=maybe".to_owned(),
            "tail" | "since" | "until" | "from" | "to" => format!("{name}=x"),
            "after" | "session_id" => format!("{name}=nothing"),
            "path" | "agent_id" => format!("{name}=%00"),
            // The operator may name any workspace; one that is not there has nothing.
            "workspace_id" if path.contains('{') => format!("{name}=nothing"),
            "workspace_id" | "user_id" | "action" | "target" => return None,
            _ => panic!("this walk does not know what makes no sense as {name}: tell it"),
        };
        let session = &self.session;
        Some(if path.contains("/files") && name != "session_id" {
            format!("session_id={session}&{bad}")
        } else {
            bad
        })
    }
}

/// What can't stand where a good value stands, whatever it means.
fn bad(good: &Value, schema: &Value) -> Vec<Value> {
    match good {
        Value::String(_) => {
            let mut bad = vec![json!(7), json!([]), json!({}), json!(true), json!("a\0b")];
            if let Some(most) = schema["maxLength"].as_u64() {
                bad.push(json!("x".repeat(usize::try_from(most).expect("a length") + 1)));
            }
            bad
        }
        Value::Number(number) => {
            let mut bad = vec![json!("x"), json!(-1), json!([]), json!({}), json!(true)];
            if number.is_i64() {
                bad.push(json!(1.5));
            }
            bad
        }
        Value::Bool(_) => vec![json!("yes"), json!(1), json!({}), json!([])],
        Value::Array(_) => vec![json!("x"), json!({}), json!(7), json!([7]), json!([{}])],
        Value::Object(_) => vec![json!("x"), json!([7]), json!(7), json!(true)],
        Value::Null => Vec::new(),
    }
}

/// Whether an answer says what is wrong with a field, in either dialect's shape.
fn names(answer: &Answer, field: &str) -> bool {
    let body = answer.json();
    let details = [&body["details"][field], &body["error"]["details"][field]];
    details.iter().any(|details| details.is_object()) || body["error"]["param"] == field
}

fn message(answer: &Answer) -> String {
    let body = answer.json();
    let text = body["message"]
        .as_str()
        .or_else(|| body["error"]["message"].as_str());
    text.unwrap_or_default().to_owned()
}

async fn send(client: &Client, things: &Things, method: &Method, path: &str, body: &Value) -> Answer {
    let mut request = client.request(method.clone(), path).json(body);
    if path.starts_with("/v1/chat") {
        request = request.header("x-openclaw-agent-id", &things.agent);
    }
    client.send(request).await
}

/// How many there are of everything.
async fn counts(client: &Client) -> Vec<Value> {
    let mut counts = Vec::new();
    for list in [
        "agents",
        "environments",
        "sessions",
        "vaults",
        "keys",
        "workspaces",
    ] {
        counts.push(client.get(&format!("/v1/{list}")).await.good()["count"].clone());
    }
    counts
}

#[tokio::test]
async fn every_field_of_every_body_is_checked_and_named() {
    let system = System::start_with(|options| options.token(TOKEN)).await;
    let operator = system.client();
    let things = Things::make(operator).await;
    let before = counts(operator).await;
    let mut goods = Vec::new();
    let mut wrong = Vec::new();
    for Operation {
        method, path, fields, ..
    } in operations(operator).await
    {
        let Some(fields) = fields else { continue };
        let bodies = things.good(&method, &path);
        let known: BTreeSet<&String> = bodies
            .iter()
            .flat_map(|(_, body)| body.as_object().expect("an object").keys())
            .collect();
        assert_eq!(
            known,
            fields.keys().collect::<BTreeSet<_>>(),
            "{method} {path}: the fields that this walk knows, and those of the document"
        );
        for (to, good) in bodies {
            let mut cases: Vec<(Value, Option<&str>)> = [json!([]), json!("text"), json!(3)]
                .map(|body| (body, None))
                .into();
            for (name, value) in good.as_object().expect("an object") {
                for bad in bad(value, &fields[name]) {
                    let mut body = good.clone();
                    body[name] = bad;
                    cases.push((body, Some(name)));
                }
            }
            for (body, field) in cases {
                let answer = send(operator, &things, &method, &to, &body).await;
                let named = field.is_none_or(|field| names(&answer, field));
                if answer.status != 400 || !named || message(&answer).is_empty() {
                    let shown: String = body.to_string().chars().take(300).collect();
                    wrong.push(format!(
                        "{method} {path} {field:?} {shown}: {} {}",
                        answer.status,
                        answer.text()
                    ));
                }
            }
            goods.push((method.clone(), to, good));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        counts(operator).await,
        before,
        "nothing of all that has left a trace"
    );
    // It was the bad fields that were refused.
    for (method, to, good) in goods {
        let answer = send(operator, &things, &method, &to, &good).await;
        // Nothing waits for a confirmation.
        let confirms = good["type"] == "user.tool_confirmation";
        let for_workers = !good["environmentId"].is_null() && to == "/v1/keys";
        let expected = match () {
            () if confirms => 409,
            // This environment has none.
            () if for_workers => 400,
            // Local sandboxes are made of none.
            () if !good["image"].is_null() => 400,
            () => 200,
        };
        assert_eq!(answer.status, expected, "{method} {to} {good}: {}", answer.text());
    }
    system.stop().await;
}

#[tokio::test]
async fn every_parameter_of_every_route_is_checked() {
    let system = System::start_with(|options| options.token(TOKEN)).await;
    let operator = system.client();
    let things = Things::make(operator).await;
    let before = counts(operator).await;
    let mut wrong = Vec::new();
    for Operation {
        method,
        path,
        query,
        fields,
    } in operations(operator).await
    {
        // Signing up is off; its own tests have it on.
        if path.starts_with("/auth/") {
            continue;
        }
        let body = match fields {
            Some(_) => things.good(&method, &path).swap_remove(0).1,
            None => Value::Null,
        };
        let mut check = async |to: String, named: Option<&str>| {
            let answer = if body.is_null() {
                operator.send(operator.request(method.clone(), &to)).await
            } else {
                send(operator, &things, &method, &to, &body).await
            };
            let names = |name: &str| answer.status == 404 || answer.text().contains(name);
            let refused = matches!(answer.status, 400 | 404) && !message(&answer).is_empty();
            if !refused || !named.is_none_or(names) {
                wrong.push(format!("{method} {to}: {} {}", answer.status, answer.text()));
            }
        };
        for name in &query {
            let to = things.filled(&path, &things.credentials[0]);
            if let Some(bad) = things.bad_query(&path, name) {
                check(format!("{to}?{bad}"), Some(name)).await;
                continue;
            }
            let narrowed = operator.get(&format!("{to}?{name}=no-such-thing")).await;
            assert_eq!(narrowed.good()["count"], 0, "{to} {name}");
        }
        let names = path.split('/').filter(|part| part.starts_with('{'));
        for name in names.filter(|name| *name != "{path}") {
            for bad in ["nothing", "%00", "%ff", "a%2Fb", "%20", &"x".repeat(5_000)] {
                let to = things.filled(&path.replace(name, bad), &things.credentials[0]);
                let query = path
                    .contains("/files")
                    .then(|| format!("?session_id={}", things.session));
                check(to + &query.unwrap_or_default(), None).await;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(counts(operator).await, before);
    system.stop().await;
}
