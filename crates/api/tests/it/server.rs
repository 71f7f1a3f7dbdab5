//! A server to send requests to.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use futures_util::StreamExt;
use metrics_exporter_prometheus::PrometheusHandle;
use oma_api::{ApiConfig, AppState, router};
use oma_engine::{Config, Deps, Engine, ModelInfo};
use oma_store::Store;
use oma_store::sqlite::{Options, Sqlite};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::declared;
use crate::puppet::Puppet;

pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) shutdown: CancellationToken,
    _folder: TempDir,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Status and error code, for tables.
    pub(crate) fn code(&self) -> (u16, String) {
        let body = self.json();
        let code = body["error"]
            .as_str()
            .or_else(|| body["error"]["code"].as_str())
            .unwrap_or_default();
        (self.status.as_u16(), code.to_owned())
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(adjust: impl FnOnce(&mut ApiConfig)) -> Self {
        Self::build(adjust, None).await
    }

    pub(crate) async fn measured(metrics: PrometheusHandle) -> Self {
        Self::build(|_| {}, Some(metrics)).await
    }

    async fn build(adjust: impl FnOnce(&mut ApiConfig), metrics: Option<PrometheusHandle>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(folder.path(), &Options::default()).unwrap());
        let model = |id: &str| ModelInfo {
            id: id.into(),
            provider: "test".into(),
            name: None,
            context_window: Some(1000),
            input_modalities: vec!["text".into()],
        };
        let vaults = vaults(&store).await;
        let limits = oma_engine::files::Limits {
            max_file: 1 << 20,
            room: 3 << 20,
            ..Default::default()
        };
        let guard = Arc::new(oma_egress::Guard::new(oma_egress::Policy {
            allow: vec!["127.0.0.1".parse().unwrap()],
        }));
        let access = oma_engine::files::Access {
            guard: Arc::clone(&guard),
            vaults: vaults.clone(),
        };
        let files =
            oma_engine::files::Files::open(folder.path(), limits, Arc::clone(&store), None, Some(access));
        let deps = Deps {
            vaults,
            files: files.unwrap(),
            archives: oma_engine::Archives::open(&folder.path().join("checkpoints"), 0).unwrap(),
            store,
            runtime: Arc::new(Puppet::default()),
            models: vec![model("test/puppet"), model("test/family/large")],
            guard,
        };
        let mut config = ApiConfig {
            stream_linger: Duration::from_millis(50),
            ..ApiConfig::default()
        };
        adjust(&mut config);
        let shutdown = CancellationToken::new();
        let engine = Engine::new(deps, Config::default());
        engine.load_keys().await.unwrap();
        let router = router(AppState::new(engine, config, metrics, shutdown.clone()));
        Self {
            router,
            shutdown,
            _folder: folder,
        }
    }

    /// Sends a request, and checks that the API's description has the answer's status.
    pub(crate) async fn open(&self, request: Request<Body>) -> Response {
        let declared = declared::statuses(&request);
        let called = format!("{} {}", request.method(), request.uri().path());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        // No operation declares that it is not there.
        if let Some(declared) = declared.filter(|_| status != 405) {
            assert!(
                declared.contains(&status),
                "{called} may answer {declared:?}, not {status}"
            );
        }
        response
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.open(request).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        Answer {
            status,
            headers,
            bytes,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(request("GET", path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(request("DELETE", path).body(Body::empty()).unwrap())
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.json("POST", path, body).await
    }

    pub(crate) async fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.send(request(method, path).body(Body::from(body.to_string())).unwrap())
            .await
    }

    /// A body as it is, which need not be JSON.
    pub(crate) async fn raw(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        self.send(request(method, path).body(body.into()).unwrap()).await
    }

    pub(crate) async fn agent(&self, more: Value) -> String {
        let mut body = json!({"model": "test/puppet"});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        id(&self.post("/v1/agents", &body).await, "agent_id")
    }

    pub(crate) async fn session(&self, agent: &str) -> String {
        id(
            &self.post("/v1/sessions", &json!({"agentId": agent})).await,
            "session_id",
        )
    }

    pub(crate) async fn say(&self, session: &str, text: &str) -> Value {
        let answer = self
            .post(
                &format!("/v1/sessions/{session}/events"),
                &json!({"content": text}),
            )
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Follows the session until a frame satisfies the test; returns all frames but heartbeats.
    pub(crate) async fn until(
        &self,
        session: &str,
        query: &str,
        done: impl Fn(&Frame) -> bool,
    ) -> Vec<Frame> {
        let path = format!("/v1/sessions/{session}/events?stream=true{query}");
        let mut frames = self.follow(&path, None).await;
        let mut seen = Vec::new();
        while let Some(frame) = frames.next().await {
            if frame.event == "heartbeat" {
                continue;
            }
            let last = done(&frame);
            seen.push(frame);
            if last {
                return seen;
            }
        }
        panic!("the stream ended: {seen:?}");
    }

    /// Posts a message and waits until its answer has begun. The follower is there first: whoever comes later sees
    /// nothing of an answer that is on its way.
    pub(crate) async fn say_and_watch(&self, session: &str, text: &str) -> Value {
        let path = format!("/v1/sessions/{session}/events?stream=true&deltas=true");
        let mut frames = self.follow(&path, None).await;
        let said = self.say(session, text).await;
        while let Some(frame) = frames.next().await {
            if frame.event == "agent.message_delta" {
                return said;
            }
        }
        panic!("the stream ended");
    }

    pub(crate) async fn follow(&self, path: &str, last_event_id: Option<&str>) -> Frames {
        let mut request = request("GET", path);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = self.open(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Frames::of(response)
    }

    /// Sends a message and waits until the session is idle again.
    pub(crate) async fn turn(&self, session: &str, text: &str) {
        let posted = self.say(session, text).await;
        let event = posted["event_id"].as_str().unwrap().to_owned();
        let begun = std::cell::Cell::new(false);
        self.until(session, "", |frame| {
            begun.set(begun.get() || frame.id.as_deref() == Some(&event));
            begun.get() && is_rest(frame)
        })
        .await;
    }

    /// The list of the session's events.
    pub(crate) async fn events(&self, session: &str, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/sessions/{session}/events{query}")).await;
        answer.json()["events"]
            .as_array()
            .unwrap_or_else(|| panic!("{}", answer.text()))
            .clone()
    }
}

pub(crate) fn is_rest(frame: &Frame) -> bool {
    frame.event == "session.status_idle" || frame.event == "session.status_failed"
}

pub(crate) fn request(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost:8080")
}

pub(crate) fn id(answer: &Answer, field: &str) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()[field].as_str().unwrap().to_owned()
}

/// A frame of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    pub(crate) event: String,
    pub(crate) data: Value,
    pub(crate) id: Option<String>,
}

pub(crate) struct Frames {
    chunks: axum::body::BodyDataStream,
    rest: String,
}

impl Frames {
    pub(crate) fn of(response: Response) -> Self {
        Self {
            chunks: response.into_body().into_data_stream(),
            rest: String::new(),
        }
    }

    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, rest)) = self.rest.split_once("\n\n") {
                let frame = parse(frame);
                self.rest = rest.to_owned();
                return Some(frame);
            }
            let chunk = self.chunks.next().await?.unwrap();
            self.rest.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Everything that still comes.
    pub(crate) async fn rest(mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }
}

fn parse(text: &str) -> Frame {
    let mut frame = Frame {
        event: String::new(),
        data: Value::Null,
        id: None,
    };
    for line in text.lines() {
        match line.split_once(": ").unwrap() {
            ("event", event) => frame.event = event.to_owned(),
            ("data", data) => frame.data = serde_json::from_str(data).unwrap_or_else(|_| json!(data)),
            ("id", id) => frame.id = Some(id.to_owned()),
            (other, _) => assert_eq!(other, "", "an unknown line: {line}"),
        }
    }
    frame
}

/// Vaults under a key that the test forgets, which may call loopback addresses.
async fn vaults(store: &Arc<dyn Store>) -> oma_vault::Vaults {
    let key = oma_vault::MasterKey::generate().unwrap().to_text();
    let unlocked = oma_vault::key_file::unlock(&**store, &oma_vault::key_file::Source::Given(key)).await;
    let allow = vec!["127.0.0.1:9000".parse().unwrap()];
    let guard = oma_egress::Guard::new(oma_egress::Policy { allow });
    oma_vault::Vaults::new(Arc::clone(store), unlocked.unwrap().master, Arc::new(guard))
}
