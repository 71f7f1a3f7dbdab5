//! The server's metrics as OpenTelemetry instruments. Each instrument is made once and kept, so that what is
//! counted up and down stays one number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit,
};
use metrics_util::registry::{Registry, Storage};
use oma_api::telemetry::catalogue::{self, Kind};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry_sdk::metrics::SdkMeterProvider;

/// Records into OpenTelemetry.
pub(crate) struct Recorder {
    registry: Registry<Key, Instruments>,
}

impl Recorder {
    pub(super) fn new(provider: &SdkMeterProvider) -> Self {
        let instruments = Instruments(provider.meter("oma"));
        Self {
            registry: Registry::new(instruments),
        }
    }
}

impl metrics::Recorder for Recorder {
    // Instruments are made when they are first used, with the descriptions of the catalogue.
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let counter = self.registry.get_or_create_counter(key, Arc::clone);
        Counter::from_arc(counter)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.registry.get_or_create_gauge(key, Arc::clone))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.registry.get_or_create_histogram(key, Arc::clone))
    }
}

/// Makes instruments.
struct Instruments(Meter);

impl Storage<Key> for Instruments {
    type Counter = Arc<Count>;
    type Gauge = Arc<Level>;
    type Histogram = Arc<Spread>;

    fn counter(&self, key: &Key) -> Arc<Count> {
        let builder = self.0.u64_counter(key.name().to_owned());
        Arc::new(Count {
            instrument: builder.with_description(help(key)).build(),
            labels: labels(key),
            total: AtomicU64::new(0),
        })
    }

    fn gauge(&self, key: &Key) -> Arc<Level> {
        let builder = self.0.f64_gauge(key.name().to_owned());
        Arc::new(Level {
            instrument: builder.with_description(help(key)).build(),
            labels: labels(key),
            value: AtomicU64::new(0.0_f64.to_bits()),
        })
    }

    fn histogram(&self, key: &Key) -> Arc<Spread> {
        let mut builder = self.0.f64_histogram(key.name().to_owned());
        // The defaults of OpenTelemetry are for milliseconds.
        if let Some(Kind::Histogram(buckets)) = catalogue::find(key.name()).map(|metric| metric.kind) {
            builder = builder.with_boundaries(buckets.to_vec());
        }
        if key.name().ends_with("_seconds") {
            builder = builder.with_unit("s");
        }
        Arc::new(Spread {
            instrument: builder.with_description(help(key)).build(),
            labels: labels(key),
        })
    }
}

fn help(key: &Key) -> &'static str {
    catalogue::find(key.name()).map_or("", |metric| metric.help)
}

fn labels(key: &Key) -> Vec<KeyValue> {
    key.labels()
        .map(|label| KeyValue::new(label.key().to_owned(), label.value().to_owned()))
        .collect()
}

struct Count {
    instrument: opentelemetry::metrics::Counter<u64>,
    labels: Vec<KeyValue>,
    total: AtomicU64,
}

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.total.fetch_add(value, Ordering::Relaxed);
        self.instrument.add(value, &self.labels);
    }

    fn absolute(&self, value: u64) {
        let before = self.total.fetch_max(value, Ordering::Relaxed);
        self.instrument.add(value.saturating_sub(before), &self.labels);
    }
}

struct Level {
    instrument: opentelemetry::metrics::Gauge<f64>,
    labels: Vec<KeyValue>,
    /// The bits of a float.
    value: AtomicU64,
}

impl Level {
    fn change(&self, by: f64) {
        let add = |bits| Some((f64::from_bits(bits) + by).to_bits());
        let before = self.value.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        let (Ok(before) | Err(before)) = before;
        self.instrument.record(f64::from_bits(before) + by, &self.labels);
    }
}

impl GaugeFn for Level {
    fn increment(&self, value: f64) {
        self.change(value);
    }

    fn decrement(&self, value: f64) {
        self.change(-value);
    }

    fn set(&self, value: f64) {
        self.value.store(value.to_bits(), Ordering::Release);
        self.instrument.record(value, &self.labels);
    }
}

struct Spread {
    instrument: opentelemetry::metrics::Histogram<f64>,
    labels: Vec<KeyValue>,
}

impl HistogramFn for Spread {
    fn record(&self, value: f64) {
        self.instrument.record(value, &self.labels);
    }
}
