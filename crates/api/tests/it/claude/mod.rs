//! The Claude dialect over HTTP: what Anthropic's SDKs send, and what they get.

mod agents;
mod deployments;
mod environments;
mod events;
mod files;
mod memory;
mod multiagent;
mod order;
mod sessions;
mod skills;
mod strangers;
mod threads;
mod transport;
mod vaults;
mod webhooks;
mod wire;
mod work;

use std::collections::HashMap;

use axum::body::Body;
use serde_json::{Value, json};

use crate::server::{Answer, Frame, Frames, Server, request};

/// A client of this dialect.
pub(crate) struct Claude {
    pub(crate) server: Server,
}

impl Claude {
    pub(crate) async fn start() -> Self {
        Self {
            server: Server::start().await,
        }
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let request = request(method, path).header("anthropic-version", "2026-10-21");
        self.server.send(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        good(&self.send("GET", path, "").await)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        good(&self.send("POST", path, body.to_string()).await)
    }

    /// Posts what is refused; gives the status, the error's type and its message.
    pub(crate) async fn refused(&self, path: &str, body: &Value) -> (u16, String, String) {
        fault(&self.send("POST", path, body.to_string()).await)
    }

    pub(crate) async fn agent(&self, more: Value) -> Value {
        let mut body = json!({"name": "Coder", "model": "test/puppet"});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.post("/v1/agents", &body).await
    }

    /// A session of an agent with these tools.
    pub(crate) async fn session(&self, tools: Value) -> String {
        let agent = self.agent(json!({"tools": tools})).await;
        let name = format!("env {}", agent["id"]);
        let environment = self.post("/v1/environments", &json!({"name": name})).await;
        let body = json!({"agent": agent["id"], "environment_id": environment["id"]});
        id(&self.post("/v1/sessions", &body).await)
    }

    pub(crate) async fn events(&self, session: &str, events: Value) -> Value {
        let path = format!("/v1/sessions/{session}/events");
        self.post(&path, &json!({"events": events})).await["data"].clone()
    }

    pub(crate) async fn stream(&self, session: &str, query: &str) -> Stream {
        self.open(&format!("/v1/sessions/{session}/events/stream{query}"))
            .await
    }

    pub(crate) async fn open(&self, path: &str) -> Stream {
        let request = request("GET", path).header("anthropic-version", "2023-06-01");
        let response = self.server.open(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Stream(Frames::of(response))
    }

    /// Posts events and follows the session until it is idle.
    pub(crate) async fn turn(&self, session: &str, events: Value) -> Vec<Frame> {
        let mut stream = self.stream(session, "").await;
        self.events(session, events).await;
        stream.until("session.status_idle").await
    }
}

pub(crate) struct Stream(Frames);

impl Stream {
    /// All frames up to the first of this type, without pings.
    pub(crate) async fn until(&mut self, kind: &str) -> Vec<Frame> {
        let mut seen = Vec::new();
        while let Some(frame) = self.0.next().await {
            assert_eq!(frame.data["type"], frame.event.as_str());
            if frame.event == "ping" {
                continue;
            }
            let last = frame.event == kind;
            seen.push(frame);
            if last {
                return seen;
            }
        }
        panic!("the stream ended: {seen:?}");
    }

    pub(crate) async fn next(&mut self) -> Option<Frame> {
        self.0.next().await
    }
}

pub(crate) fn message(text: &str) -> Value {
    json!({"type": "user.message", "content": [{"type": "text", "text": text}]})
}

pub(crate) fn kinds(frames: &[Frame]) -> Vec<&str> {
    frames.iter().map(|frame| frame.event.as_str()).collect()
}

pub(crate) fn find<'a>(frames: &'a [Frame], kind: &str) -> &'a Value {
    &frames.iter().find(|frame| frame.event == kind).unwrap().data
}

pub(crate) fn good(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

pub(crate) fn fault(answer: &Answer) -> (u16, String, String) {
    let body = answer.json();
    assert_eq!(body["type"], "error", "{body}");
    assert_eq!(body["request_id"], answer.headers["request-id"].to_str().unwrap());
    let text = |field: &str| body["error"][field].as_str().unwrap().to_owned();
    (answer.status.as_u16(), text("type"), text("message"))
}

pub(crate) fn id(resource: &Value) -> String {
    resource["id"].as_str().unwrap().to_owned()
}

/// A value with everything in it replaced that is another one each time: ids are numbered, times and durations named.
pub(crate) fn stable(value: &Value) -> Value {
    fn walk(value: &Value, ids: &mut HashMap<String, String>) -> Value {
        match value {
            Value::String(text) => {
                let (id, index) = text.split_once(':').unwrap_or((text, ""));
                let prefixes = [
                    "evt_",
                    "ses_",
                    "agt_",
                    "env_",
                    "sthr_",
                    "vlt_",
                    "crd_",
                    "depl_",
                    "whk_",
                    "drun_",
                    "memstore_",
                    "mem_",
                    "memver_",
                    "skill_",
                    "skver_",
                    "file_",
                    "sesrsc_",
                ];
                if let Some(prefix) = prefixes.iter().find(|prefix| id.starts_with(**prefix)) {
                    let next = ids.len() + 1;
                    let name = ids
                        .entry(id.to_owned())
                        .or_insert_with(|| format!("{prefix}{next}"));
                    let end = if index.is_empty() {
                        String::new()
                    } else {
                        format!(":{index}")
                    };
                    return json!(format!("{name}{end}"));
                }
                if text.len() == 24 && text.ends_with('Z') && text.as_bytes()[10] == b'T' {
                    return json!("<time>");
                }
                value.clone()
            }
            Value::Array(items) => items.iter().map(|item| walk(item, ids)).collect(),
            Value::Object(map) => map
                .iter()
                .map(|(name, value)| match name.as_str() {
                    "active_seconds" | "duration_seconds" => (name.clone(), json!("<seconds>")),
                    _ => (name.clone(), walk(value, ids)),
                })
                .collect(),
            other => other.clone(),
        }
    }
    walk(value, &mut HashMap::new())
}
