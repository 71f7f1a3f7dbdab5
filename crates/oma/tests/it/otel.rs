//! OpenTelemetry: a collector of the test's own, which decodes what the real binary sends.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use reqwest::Method;
use serde_json::json;

use crate::system::client::{Chat, is_end};
use crate::system::{MODEL_KEY, Server, System, soon};

const MODEL: &str = "anthropic/claude-sonnet-4-5";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
/// What nobody but the user, the model and the tool may see.
const WORDS: &str = "words-5b1e";

/// What has been sent so far.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Store>>);

#[derive(Default)]
struct Store {
    spans: Vec<Span>,
    metrics: BTreeSet<String>,
    /// The bodies of log records, and the traces that they belong to.
    logs: Vec<(String, String)>,
    services: BTreeSet<String>,
    raw: Vec<u8>,
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

fn attribute(attributes: &[KeyValue], name: &str) -> String {
    text(
        attributes
            .iter()
            .find(|it| it.key == name)
            .and_then(|it| it.value.as_ref()),
    )
}

impl Sent {
    /// Starts a collector and gives its address.
    async fn collect(&self) -> String {
        let (traces, metrics, logs) = (self.clone(), self.clone(), self.clone());
        let router = Router::new()
            .route(
                "/v1/traces",
                post(async move |body: Bytes| traces.take(&body, Store::take_traces)),
            )
            .route(
                "/v1/metrics",
                post(async move |body: Bytes| metrics.take(&body, Store::take_metrics)),
            )
            .route(
                "/v1/logs",
                post(async move |body: Bytes| logs.take(&body, Store::take_logs)),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    fn take(&self, body: &Bytes, read: fn(&mut Store, &[u8])) {
        let mut store = self.0.lock().expect("whole");
        store.raw.extend_from_slice(body);
        read(&mut store, body);
    }

    fn spans(&self) -> Vec<Span> {
        self.0.lock().expect("whole").spans.clone()
    }
}

impl Store {
    fn take_traces(&mut self, body: &[u8]) {
        let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
        for group in request.resource_spans {
            let resource = group.resource.expect("a resource");
            self.services
                .insert(attribute(&resource.attributes, "service.name"));
            for scope in group.scope_spans {
                self.spans.extend(scope.spans);
            }
        }
    }

    fn take_metrics(&mut self, body: &[u8]) {
        let request = ExportMetricsServiceRequest::decode(body).expect("OTLP");
        let scopes = request
            .resource_metrics
            .into_iter()
            .flat_map(|group| group.scope_metrics);
        let metrics = scopes.flat_map(|scope| scope.metrics);
        self.metrics.extend(metrics.map(|metric| metric.name));
    }

    fn take_logs(&mut self, body: &[u8]) {
        let request = ExportLogsServiceRequest::decode(body).expect("OTLP");
        let scopes = request
            .resource_logs
            .into_iter()
            .flat_map(|group| group.scope_logs);
        for record in scopes.flat_map(|scope| scope.log_records) {
            let trace = hex(&record.trace_id);
            self.logs.push((text(record.body.as_ref()), trace));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Posts a message as a part of a trace.
async fn post_traced(chat: &Chat, content: &str) {
    let request = chat
        .client
        .request(Method::POST, &chat.path("/events"))
        .header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"))
        .json(&json!({ "content": content }));
    chat.client.send(request).await.good();
}

#[tokio::test]
async fn a_turn_is_one_trace_with_its_request_models_and_tools() {
    let sent = Sent::default();
    let url = sent.collect().await;
    let system = System::start_with(|options| options.set("OTEL_EXPORTER_OTLP_ENDPOINT", &url)).await;
    let chat = system.client().session_of(MODEL).await;
    let script = json!([
        {"tool": "bash", "input": {"command": format!("echo {WORDS}")}},
        {"tool": "read", "input": {"path": "there-is-none"}},
        {"text": format!("I said {WORDS}")},
    ]);
    let mut frames = chat.follow().await;
    post_traced(&chat, &format!("script:{script}")).await;
    frames.until(is_end).await;
    system.provider.push(oma_fake_provider::Reply::failure(
        400,
        "invalid_request_error",
        WORDS,
    ));
    post_traced(&chat, "this one fails").await;
    frames.until(is_end).await;
    system.server.terminate().await;

    let all = sent.spans();
    let spans: Vec<&Span> = all.iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    let named =
        |name: &str| -> Vec<&Span> { spans.iter().filter(|span| span.name == name).copied().collect() };
    let is_child = |child: &Span, parent: &Span| child.parent_span_id == parent.span_id;
    let requests = named("POST /v1/sessions/{session_id}/events");
    let turns = named("invoke_agent");
    let chats = named("chat claude-sonnet-4-5");
    let (tools, reads) = (named("execute_tool bash"), named("execute_tool read"));
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(
        (requests.len(), turns.len(), chats.len(), tools.len(), reads.len()),
        (2, 2, 4, 1, 1),
        "{names:?}"
    );
    for request in &requests {
        assert_eq!(hex(&request.parent_span_id), "b7ad6b7169203331");
        assert_eq!(attribute(&request.attributes, "http.response.status_code"), "200");
        assert_eq!(turns.iter().filter(|turn| is_child(turn, request)).count(), 1);
    }
    for span in chats.iter().chain(&tools).chain(&reads) {
        assert_eq!(turns.iter().filter(|turn| is_child(span, turn)).count(), 1);
    }
    // What went on in the sandbox is a part of it, within the time of the tool use. The other one was refused before.
    let hands = named("hand.run");
    assert_eq!(hands.len(), 1, "{names:?}");
    let (hand, tool) = (hands[0], tools[0]);
    assert!(is_child(hand, tool), "{hand:?}");
    let times = [
        tool.start_time_unix_nano,
        hand.start_time_unix_nano,
        hand.end_time_unix_nano,
        tool.end_time_unix_nano,
    ];
    assert!(times.is_sorted() && times[1] < times[2], "{times:?}");
    assert_eq!(
        attribute(&turns[0].attributes, "gen_ai.conversation.id"),
        chat.session
    );
    assert_eq!(
        attribute(&chats[0].attributes, "gen_ai.provider.name"),
        "anthropic"
    );
    assert_eq!(
        attribute(&chats[0].attributes, "gen_ai.request.model"),
        "claude-sonnet-4-5"
    );
    assert_ne!(attribute(&chats[0].attributes, "gen_ai.usage.input_tokens"), "");
    assert_ne!(attribute(&tools[0].attributes, "gen_ai.tool.call.id"), "");
    assert_eq!(attribute(&tools[0].attributes, "error.type"), "");
    assert_eq!(attribute(&reads[0].attributes, "error.type"), "tool_error");
    let failed = chats
        .iter()
        .filter(|span| attribute(&span.attributes, "error.type") == "model_request_failed_error")
        .count();
    assert_eq!(failed, 1);

    let store = sent.0.lock().expect("whole");
    assert!(
        store.services.contains("openclaw-managed-agents"),
        "{:?}",
        store.services
    );
    for name in [
        "http_requests_total",
        "http_request_duration_seconds",
        "turns_active",
        "tool_uses_total",
        "model_tokens_total",
        "container_boot_duration_seconds",
        "store_commit_duration_seconds",
    ] {
        assert!(store.metrics.contains(name), "{name}: {:?}", store.metrics);
    }
    let of_turn = store
        .logs
        .iter()
        .any(|(body, trace)| body.contains("a model request failed") && trace == TRACE);
    assert!(of_turn, "{:?}", store.logs);
    let raw = String::from_utf8_lossy(&store.raw);
    assert!(!raw.contains(MODEL_KEY), "the model's key was exported");
    assert!(!raw.contains("I said"), "what the model said was exported");
}

#[tokio::test]
async fn a_turn_goes_on_in_its_trace_after_a_crash() {
    let sent = Sent::default();
    let url = sent.collect().await;
    let system = System::start_with(|options| options.set("OTEL_EXPORTER_OTLP_ENDPOINT", &url)).await;
    let chat = system.client().session_of(MODEL).await;
    system
        .provider
        .push(oma_fake_provider::Reply::new().step(oma_fake_provider::Step::Stall));
    post_traced(&chat, "hello").await;
    soon("the model request", system.provider.wait_for_requests(1)).await;
    let system = system.crash().await;
    let chat = chat.at(system.client());
    chat.follow().await.until(is_end).await;
    system.server.terminate().await;
    let of_trace = |span: &&Span| hex(&span.trace_id) == TRACE;
    let names: Vec<String> = sent
        .spans()
        .iter()
        .filter(of_trace)
        .map(|span| span.name.clone())
        .collect();
    assert!(
        names.iter().any(|name| name == "invoke_agent") && names.iter().any(|name| name.starts_with("chat")),
        "{names:?}"
    );
}

/// Whoever is called works in the trace of the turn that called.
#[tokio::test]
async fn sessions_of_called_agents_are_in_the_trace_of_their_caller() {
    let sent = Sent::default();
    let url = sent.collect().await;
    let system = System::start_with(|options| options.set("OTEL_EXPORTER_OTLP_ENDPOINT", &url)).await;
    let client = system.client();
    let called = client.agent(json!({"model": "scripted/echo"})).await;
    let call = json!({"tool": "call_agent", "input": {"agent": called, "task": "say it"}});
    let caller = json!({
        "model": "scripted/script",
        "instructions": json!([[[call], {"text": "done"}]]).to_string(),
        "callableAgents": [called],
        "maxSubagentDepth": 1,
    });
    let agent = client.agent(caller).await;
    let session = client.session(&agent).await;
    let chat = Chat {
        client: client.clone(),
        agent,
        session,
    };
    let mut frames = chat.follow().await;
    post_traced(&chat, "go").await;
    frames.until(is_end).await;
    system.server.terminate().await;
    let spans = sent.spans();
    let of_trace: Vec<&Span> = spans.iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    let named = |name: &str| -> Vec<&Span> {
        let named = of_trace.iter().filter(|span| span.name == name);
        named.copied().collect()
    };
    let (turns, calls) = (named("invoke_agent"), named("execute_tool call_agent"));
    assert_eq!((turns.len(), calls.len()), (2, 1), "{of_trace:?}");
    let of_child: Vec<&&Span> = turns
        .iter()
        .filter(|turn| turn.parent_span_id == calls[0].span_id)
        .collect();
    assert_eq!(of_child.len(), 1, "the child's turn is below the call");
    let chats = of_trace.iter().filter(|span| span.name.starts_with("chat "));
    assert_eq!(
        chats
            .filter(|chat| chat.parent_span_id == of_child[0].span_id)
            .count(),
        1,
        "and its model request below that"
    );
}

#[tokio::test]
async fn a_collector_that_is_away_costs_nothing_but_telemetry() {
    let system = System::start_with(|options| {
        // Nobody listens on this port of the loopback network.
        options.set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.9:9")
    })
    .await;
    let chat = system.client().session_of(MODEL).await;
    let events = chat.turn(&json!([{"text": "done"}])).await;
    assert!(events.iter().any(is_end));
    system.stop().await;
}

#[tokio::test]
async fn what_can_not_be_followed_is_refused() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
    ] {
        let data = crate::system::Data::new();
        let options = crate::system::Options::default()
            .set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
            .set(name, value);
        let output = options.command(&data.path()).output().expect("it runs");
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains(name), "{said}");
    }
    // Switched off, nothing of it matters.
    let data = crate::system::Data::new();
    let options = crate::system::Options::default()
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
        .set("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .set("OTEL_SDK_DISABLED", "true");
    Server::start(&data, &options).await.terminate().await;
}
