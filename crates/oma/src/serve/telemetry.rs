//! What the process tells about itself: the log, the metrics, and both and traces for OpenTelemetry where the
//! binary has it and the environment asks for it.

use metrics_exporter_prometheus::PrometheusHandle;

use crate::config::sections::Log;
use crate::print::Failure;
use crate::serve::logging;
#[cfg(feature = "otel")]
use crate::serve::otel::Otel;

/// Telemetry that has been started.
pub(crate) struct Telemetry {
    /// What `/metrics` reads.
    pub(crate) metrics: PrometheusHandle,
    #[cfg(feature = "otel")]
    otel: Option<Otel>,
}

impl Telemetry {
    /// Starts it, before anything else records or logs. Must not be called in a runtime.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub(crate) fn start(log: &Log) -> Result<Self, Failure> {
        let prometheus = oma_api::telemetry::recorder().map_err(unrecordable)?;
        let metrics = prometheus.handle();
        #[cfg(feature = "otel")]
        {
            let otel = Otel::from_env()?;
            let mut listeners: Vec<logging::Listener> = Vec::new();
            let mut fanout = metrics_util::layers::FanoutBuilder::default().add_recorder(prometheus);
            if let Some(otel) = &otel {
                listeners.extend(
                    otel.span_layer()
                        .map(|layer| Box::new(layer) as logging::Listener),
                );
                listeners.extend(otel.log_layer().map(|layer| Box::new(layer) as logging::Listener));
                if let Some(recorder) = otel.recorder() {
                    fanout = fanout.add_recorder(recorder);
                }
            }
            logging::start(log, listeners)?;
            metrics::set_global_recorder(fanout.build()).map_err(unrecordable)?;
            oma_api::telemetry::describe();
            Ok(Self { metrics, otel })
        }
        #[cfg(not(feature = "otel"))]
        {
            logging::start(log, Vec::new())?;
            metrics::set_global_recorder(prometheus).map_err(unrecordable)?;
            oma_api::telemetry::describe();
            if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
                tracing::warn!(
                    "OTEL_EXPORTER_OTLP_ENDPOINT has no effect: this binary was built without the feature `otel`"
                );
            }
            Ok(Self { metrics })
        }
    }

    /// Sends what is left. Must not be called in a runtime.
    pub(crate) fn flush(self) {
        #[cfg(feature = "otel")]
        if let Some(otel) = self.otel {
            otel.flush();
        }
    }
}

fn unrecordable(error: impl std::fmt::Display) -> Failure {
    Failure::Other(format!("metrics can't be recorded: {error}"))
}
