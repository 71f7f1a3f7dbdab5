//! Metrics of the API, and the recorder behind all metrics of the process.
//!
//! Labels are bounded: a route is the pattern that matched, never the path that a client sent.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use oma_engine::Engine;
use tokio_util::sync::CancellationToken;

/// How often the recorder folds what was recorded, so that its buffers stay small when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

const REQUEST_SECONDS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
const RUN_SECONDS: [f64; 9] = [0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 600.0];
const DEFAULT_SECONDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// Makes the recorder of what `/metrics` shows. The process installs it, alone or beside another, and then
/// [describes](describe) what is recorded.
///
/// # Errors
/// [`BuildError`] when the buckets are not legal.
pub fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let builder = PrometheusBuilder::new()
        .add_global_label("service", "openclaw-managed-agents")
        .set_buckets(&DEFAULT_SECONDS)?
        .set_buckets_for_metric(
            Matcher::Full("http_request_duration_seconds".into()),
            &REQUEST_SECONDS,
        )?
        .set_buckets_for_metric(Matcher::Full("session_run_duration_seconds".into()), &RUN_SECONDS)?;
    Ok(builder.build_recorder())
}

/// Says what the metrics are. Call it once the recorder is installed.
pub fn describe() {
    metrics::describe_counter!("http_requests_total", "Requests by method, route and status.");
    metrics::describe_histogram!(
        "http_request_duration_seconds",
        metrics::Unit::Seconds,
        "Time to the response's head; for streams that is when they open."
    );
    metrics::describe_counter!("rate_limit_rejections_total", "Requests that came too soon.");
    metrics::describe_counter!(
        "audit_write_failures_total",
        "Audit entries that could not be written."
    );
    metrics::describe_counter!(
        "audit_refusals_left_out_total",
        "Refusals of unknown callers that were too many to be recorded."
    );
    metrics::describe_gauge!("http_streams_open", "Open event and chat streams.");
    metrics::describe_gauge!("pool_active_containers", "Running sandboxes.");
    metrics::describe_gauge!("turns_active", "Turns at work.");
    metrics::describe_gauge!("turns_waiting", "Turns that wait for a free place.");
    metrics::describe_gauge!("sessions_live", "Sessions with work to do.");
}

/// Keeps the recorder's buffers small, and the gauges fresh for recorders that nobody asks, until the server stops.
pub async fn upkeep(handle: PrometheusHandle, engine: Engine, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                sample(&engine);
                handle.run_upkeep();
            }
            () = shutdown.cancelled() => return,
        }
    }
}

/// Sets the gauges of what goes on now.
pub(crate) fn sample(engine: &Engine) {
    let stats = engine.stats();
    for (name, value) in [
        ("pool_active_containers", stats.live_sandboxes),
        ("pool_warm_containers", 0),
        ("turns_active", stats.active_turns),
        ("turns_waiting", stats.waiting_turns),
        ("sessions_live", stats.live_sessions),
    ] {
        metrics::gauge!(name).set(f64::from(u32::try_from(value).unwrap_or(u32::MAX)));
    }
}

/// Counts and times a request.
pub(crate) async fn measure(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = method_label(request.method());
    let route = route_label(&request).to_owned();
    let response = next.run(request).await;
    let span = tracing::Span::current();
    span.record("http.response.status_code", response.status().as_u16());
    let status = response.status().as_u16().to_string();
    tracing::debug!(method, route, status, elapsed = ?begun.elapsed(), "answered");
    metrics::counter!("http_requests_total", "method" => method, "route" => route.clone(), "status" => status)
        .increment(1);
    metrics::histogram!("http_request_duration_seconds", "method" => method, "route" => route)
        .record(begun.elapsed().as_secs_f64());
    response
}

/// The pattern that matched, never the path that a client sent.
pub(crate) fn route_label(request: &Request) -> &str {
    let matched = request.extensions().get::<MatchedPath>();
    matched.map_or("unmatched", MatchedPath::as_str)
}

/// Clients may invent methods; labels may not grow with that.
pub(crate) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
