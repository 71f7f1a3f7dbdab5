//! OpenTelemetry: traces, metrics and logs over OTLP (HTTP with protobuf), set up by the standard `OTEL_*`
//! variables. A part of the binary only with the feature `otel`.
//!
//! Nothing is exported unless an endpoint is named. Spans follow the conventions for HTTP servers and for
//! generative AI; what users, models and tools say is never in them.
//!
//! The exporters work on threads of their own, with queues that drop what does not fit: a collector that is slow
//! or away costs telemetry and nothing else.

mod recorder;

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::filter::{FilterFn, Filtered};
use tracing_subscriber::layer::Layer as _;
use tracing_subscriber::registry::LookupSpan;

use crate::print::Failure;
pub(crate) use recorder::Recorder;

/// The name of the service unless `OTEL_SERVICE_NAME` says otherwise.
const SERVICE: &str = "openclaw-managed-agents";
/// How long what is left may take to be sent when the server stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// What the exporters themselves say would be exported again, and so on.
const OWN: [&str; 7] = [
    "opentelemetry",
    "hyper",
    "h2",
    "reqwest",
    "rustls",
    "tower",
    "want",
];

/// The exporters that the environment asks for.
pub(crate) struct Otel {
    traces: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
    logs: Option<SdkLoggerProvider>,
}

/// A layer that hears everything but the exporters themselves.
type Heard<L, S> = Filtered<L, FilterFn, S>;

impl Otel {
    /// Reads the environment; `None` when it names no endpoint. Must not be called in a runtime: the exporters'
    /// clients block.
    ///
    /// # Errors
    /// A variable that can't be followed.
    pub(crate) fn from_env() -> Result<Option<Self>, Failure> {
        if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let [traces, metrics, logs] = [wanted("TRACES")?, wanted("METRICS")?, wanted("LOGS")?];
        if !traces && !metrics && !logs {
            return Ok(None);
        }
        let mut resource = Resource::builder();
        if variable("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(SERVICE);
        }
        let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = resource.with_attribute(version).build();
        let unusable = |error: opentelemetry_otlp::ExporterBuildError| {
            Failure::Other(format!("OpenTelemetry can't be set up: {error}"))
        };
        Ok(Some(Self {
            traces: if traces {
                let exporter = SpanExporter::builder().with_http().build().map_err(unusable)?;
                let provider = SdkTracerProvider::builder().with_batch_exporter(exporter);
                let provider = provider.with_resource(resource.clone()).build();
                // Spans that are over when they are told of come this way, see `oma_trace::past`.
                opentelemetry::global::set_tracer_provider(provider.clone());
                Some(provider)
            } else {
                None
            },
            metrics: if metrics {
                let exporter = MetricExporter::builder().with_http().build().map_err(unusable)?;
                let reader = PeriodicReader::builder(exporter).build();
                let provider = SdkMeterProvider::builder().with_reader(reader);
                Some(provider.with_resource(resource.clone()).build())
            } else {
                None
            },
            logs: if logs {
                let exporter = LogExporter::builder().with_http().build().map_err(unusable)?;
                let provider = SdkLoggerProvider::builder().with_batch_exporter(exporter);
                Some(provider.with_resource(resource).build())
            } else {
                None
            },
        }))
    }

    /// Turns spans into OpenTelemetry's.
    pub(crate) fn span_layer<S>(&self) -> Option<Heard<OpenTelemetryLayer<S, Tracer>, S>>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        let provider = self.traces.as_ref()?;
        let layer = tracing_opentelemetry::layer()
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_tracer(provider.tracer("oma"));
        let exported =
            |metadata: &tracing::Metadata<'_>| is_ours(metadata) && metadata.target() != oma_trace::FOR_LOG;
        Some(layer.with_filter(FilterFn::new(exported)))
    }

    /// Sends log lines.
    pub(crate) fn log_layer<S>(
        &self,
    ) -> Option<Heard<OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger>, S>>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        let provider = self.logs.as_ref()?;
        Some(OpenTelemetryTracingBridge::new(provider).with_filter(FilterFn::new(is_ours)))
    }

    /// Records metrics beside the Prometheus recorder.
    pub(crate) fn recorder(&self) -> Option<Recorder> {
        self.metrics.as_ref().map(Recorder::new)
    }

    /// Sends what is left. Must not be called in a runtime.
    pub(crate) fn flush(self) {
        let Self {
            traces,
            metrics,
            logs,
        } = self;
        let outcomes = [
            traces.map(|provider| provider.shutdown_with_timeout(FLUSH_TIMEOUT)),
            metrics.map(|provider| provider.shutdown_with_timeout(FLUSH_TIMEOUT)),
            logs.map(|provider| provider.shutdown_with_timeout(FLUSH_TIMEOUT)),
        ];
        for error in outcomes.into_iter().flatten().filter_map(Result::err) {
            tracing::warn!(%error, "the last telemetry could not be sent");
        }
    }
}

/// Whether something comes from the server and not from the exporters' way out.
fn is_ours(metadata: &tracing::Metadata<'_>) -> bool {
    let source = metadata.target().split("::").next().unwrap_or_default();
    !OWN.iter().any(|own| source.starts_with(own))
}

fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    (!value.trim().is_empty()).then_some(value)
}

/// Whether this kind of telemetry is to be exported.
fn wanted(signal: &str) -> Result<bool, Failure> {
    let selector = format!("OTEL_{signal}_EXPORTER");
    match variable(&selector).as_deref() {
        None | Some("otlp") => {}
        Some("none") => return Ok(false),
        Some(other) => {
            let message = format!("{selector}: {other:?} is not supported; say \"otlp\" or \"none\"");
            return Err(Failure::Other(message));
        }
    }
    for name in [
        format!("OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"),
        "OTEL_EXPORTER_OTLP_PROTOCOL".to_owned(),
    ] {
        if let Some(other) = variable(&name).filter(|value| value != "http/protobuf") {
            let message = format!("{name}: {other:?} is not supported; this server speaks \"http/protobuf\"");
            return Err(Failure::Other(message));
        }
    }
    let own = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
    Ok(variable(&own)
        .or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"))
        .is_some())
}
