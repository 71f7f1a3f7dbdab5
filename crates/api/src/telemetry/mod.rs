//! Metrics of the API, and the recorder behind all metrics of the process.
//!
//! Labels are bounded: a route is the pattern that matched, never the path that a client sent.

pub mod catalogue;
pub(crate) mod openmetrics;

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use metrics::{Key, Label as KeyLabel, Level, Metadata};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use oma_engine::Engine;
use tokio_util::sync::CancellationToken;

use catalogue::{Kind, METRICS, Metric, Values};

/// How often the recorder folds what was recorded, so that its buffers stay small when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Makes the recorder of what `/metrics` shows. The process installs it, alone or beside another, and then
/// [describes](describe) what is recorded.
///
/// # Errors
/// [`BuildError`] when the buckets are not legal.
pub fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new().add_global_label("service", "openclaw-managed-agents");
    for metric in METRICS {
        if let Kind::Histogram(buckets) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.into()), buckets)?;
        }
    }
    Ok(builder.build_recorder())
}

/// Says what the metrics are, and begins to record those whose labels are known. Call it once the recorder is
/// installed.
pub fn describe() {
    for metric in METRICS {
        let Metric { name, help, .. } = *metric;
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(name, help),
            Kind::Gauge => metrics::describe_gauge!(name, help),
            Kind::Histogram(_) => metrics::describe_histogram!(name, help),
        }
        begin(metric);
    }
}

/// Begins to record a metric with each of its labels, so that it is there before anything has happened: what
/// appears only with its first increment looks like no increment. Not where the labels are not known beforehand.
fn begin(metric: &'static Metric) {
    let keys = metric.labels.iter().try_fold(vec![Vec::new()], |keys, label| {
        let Values::OneOf(values) = label.values else {
            return None;
        };
        let with = |key: Vec<KeyLabel>| {
            let with = move |value: &'static str| {
                let mut key = key.clone();
                key.push(KeyLabel::from_static_parts(label.name, value));
                key
            };
            values.iter().copied().map(with)
        };
        Some(keys.into_iter().flat_map(with).collect())
    });
    static METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
    for labels in keys.into_iter().flatten() {
        let key = Key::from_parts(metric.name, labels);
        metrics::with_recorder(|recorder| match metric.kind {
            Kind::Counter => recorder.register_counter(&key, &METADATA).increment(0),
            Kind::Gauge => recorder.register_gauge(&key, &METADATA).increment(0.0),
            Kind::Histogram(_) => drop(recorder.register_histogram(&key, &METADATA)),
        });
    }
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
        ("pool_active_containers", stats.sandboxes.live),
        ("pool_warm_containers", stats.sandboxes.warm),
        ("pool_waiting", stats.sandboxes.waiting),
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
