//! A provider that answers at once: Chat Completions, streamed in two pieces. It notes when each request came and
//! when its answer was handed to the socket.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// When a request came and when its answer ended.
pub(crate) struct Served {
    pub(crate) came: Instant,
    pub(crate) answered: Instant,
}

pub(crate) struct Provider {
    pub(crate) url: String,
    pub(crate) served: mpsc::UnboundedReceiver<Served>,
}

impl Provider {
    pub(crate) async fn start() -> Result<Self> {
        let (note, served) = mpsc::unbounded_channel();
        let app = axum::Router::new()
            .route("/v1/chat/completions", post(answer))
            .with_state(Arc::new(note));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/v1", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { url, served })
    }
}

async fn answer(State(note): State<Arc<mpsc::UnboundedSender<Served>>>, body: Bytes) -> Response {
    let came = Instant::now();
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let last = request["messages"]
        .as_array()
        .and_then(|all| all.last())
        .cloned()
        .unwrap_or_default();
    let wants_tool = last["role"] == "user" && last["content"].to_string().contains("tool");
    let first = if wants_tool {
        let call = json!({"index": 0, "id": "call_1", "type": "function",
            "function": {"name": "bash", "arguments": "{\"command\":\"true\"}"}});
        json!({"role": "assistant", "tool_calls": [call]})
    } else {
        json!({"role": "assistant", "content": "Hello, this is a short answer."})
    };
    let reason = if wants_tool { "tool_calls" } else { "stop" };
    let chunk = |delta: Value, reason: Value, usage: Value| {
        let choices = json!([{"index": 0, "delta": delta, "finish_reason": reason}]);
        let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "bench",
            "choices": choices, "usage": usage});
        format!("data: {chunk}\n\n")
    };
    let usage = json!({"prompt_tokens": 100, "completion_tokens": 8, "total_tokens": 108});
    let pieces = [
        chunk(first, Value::Null, Value::Null),
        chunk(json!({}), json!(reason), usage),
        "data: [DONE]\n\n".to_owned(),
    ];
    let body = stream::iter(pieces)
        .map(Ok::<_, Infallible>)
        .chain(stream::once(async move {
            // A closed channel only says that the measurement is over.
            let _over = note.send(Served {
                came,
                answered: Instant::now(),
            });
            Ok(String::new())
        }));
    ([("content-type", "text/event-stream")], Body::from_stream(body)).into_response()
}
