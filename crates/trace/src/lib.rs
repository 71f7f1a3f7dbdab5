//! Trace context across tasks, queues and restarts.
//!
//! Within one task a span's parent is the span around it. A turn, however, runs in another task than the request
//! that posted its message, later when the session is busy, and again after a restart. So the request's place in
//! its trace travels with the message, as text, and the turn's span takes it as its parent.
//!
//! Whether there are traces at all is decided where the binary is built: without the feature `otel` this crate
//! does nothing and depends on nothing.
//!
//! Where it sits: above `domain`; the API reads headers with it, the engine passes on what it says, and the hands' time is told
//! with it.

use std::time::Duration;

use oma_domain::TraceParent;
use tracing::Span;

/// The target of spans that only give their fields to the lines of the log and are no part of a trace.
pub const FOR_LOG: &str = "oma::log";

/// Where the current span stands in its trace; `None` when it is not part of one that is recorded.
#[must_use]
pub fn current() -> Option<TraceParent> {
    #[cfg(feature = "otel")]
    {
        use opentelemetry::trace::TraceContextExt as _;
        use tracing_opentelemetry::OpenTelemetrySpanExt as _;

        let context = Span::current().context();
        let span = context.span();
        let place = span.span_context();
        TraceParent::new(
            u128::from_be_bytes(place.trace_id().to_bytes()),
            u64::from_be_bytes(place.span_id().to_bytes()),
            place.trace_flags().to_u8(),
        )
        .filter(|_| place.is_valid() && place.is_sampled())
    }
    #[cfg(not(feature = "otel"))]
    None
}

/// Makes the span a part of that trace. To be called before the span is entered.
pub fn adopt(span: &Span, parent: &TraceParent) {
    #[cfg(feature = "otel")]
    {
        use opentelemetry::Context;
        use opentelemetry::trace::{
            SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
        };
        use tracing_opentelemetry::OpenTelemetrySpanExt as _;

        let place = SpanContext::new(
            TraceId::from_bytes(parent.trace().to_be_bytes()),
            SpanId::from_bytes(parent.span().to_be_bytes()),
            TraceFlags::new(parent.flags()),
            true,
            TraceState::default(),
        );
        // An error only says that no layer records spans.
        let _unrecorded = span.set_parent(Context::new().with_remote_span_context(place));
    }
    #[cfg(not(feature = "otel"))]
    let _ = (span, parent);
}

/// Records a span that is over now, and began so long ago, below the current one: for what happened where no span
/// could be kept. Does nothing when the current span is not part of a trace that is recorded.
pub fn past(name: &'static str, took: Duration) {
    #[cfg(feature = "otel")]
    {
        use std::time::SystemTime;

        use opentelemetry::trace::{Span as _, TraceContextExt as _, Tracer as _};
        use tracing_opentelemetry::OpenTelemetrySpanExt as _;

        let context = Span::current().context();
        if !context.span().span_context().is_sampled() {
            return;
        }
        let tracer = opentelemetry::global::tracer("oma");
        let now = SystemTime::now();
        let began = now.checked_sub(took).unwrap_or(now);
        let span = tracer.span_builder(name).with_start_time(began);
        span.start_with_context(&tracer, &context).end_with_timestamp(now);
    }
    #[cfg(not(feature = "otel"))]
    let _ = (name, took);
}
