//! Log lines as JSON objects, flat: the fields of the spans around an event (request, session, agent) stand
//! beside its own, so that one query finds everything about a request.

use std::fmt;
use std::io::Write as _;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// How the names of fields begin that are no part of log lines.
const FOR_TRACES: [&str; 3] = ["otel.", "gen_ai.", "http."];

/// Writes each event as one line of JSON.
pub(crate) struct JsonLines<W> {
    writer: W,
}

impl<W> JsonLines<W> {
    /// Writes to `writer`.
    pub(crate) fn new(writer: W) -> Self {
        Self { writer }
    }
}

/// The fields of a span, kept with it.
struct Fields(Map<String, Value>);

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Map::new();
        attributes.record(&mut Collect(&mut fields));
        span.extensions_mut().insert(Fields(fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(&mut Collect(&mut fields.0));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), jiff::Timestamp::now().to_string().into());
        line.insert(
            "level".to_owned(),
            metadata.level().to_string().to_lowercase().into(),
        );
        line.insert("target".to_owned(), metadata.target().into());
        // From the outermost span inwards, then the event itself: what is nearer counts more.
        for span in context
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            if let Some(fields) = span.extensions().get::<Fields>() {
                line.extend(fields.0.clone());
            }
        }
        event.record(&mut Collect(&mut line));
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // In one write, so that the lines of several threads don't mix. Where the log goes nothing can be
        // told about a log that can't be written.
        let _ = self.writer.make_writer_for(metadata).write_all(text.as_bytes());
    }
}

/// Collects fields into a JSON object.
struct Collect<'a>(&'a mut Map<String, Value>);

impl Collect<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        // These are for traces only, and would repeat the ids in each line.
        if FOR_TRACES.iter().any(|prefix| field.name().starts_with(prefix)) {
            return;
        }
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Collect<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string().into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::json;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::registry;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_fields_of_spans_stand_beside_those_of_the_event() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = registry().with(JsonLines::new(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let request =
                tracing::info_span!("request", request_id = %"req_1", status = tracing::field::Empty);
            let _request = request.enter();
            request.record("status", 200);
            let turn = tracing::info_span!("turn", session = "ses_1");
            let _turn = turn.enter();
            tracing::warn!(attempt = 2, ok = false, reason = ?Some("x"), "line\nbreak");
        });
        let text = String::from_utf8(lines.0.lock().expect("not poisoned").clone()).expect("UTF-8");
        assert_eq!(text.matches('\n').count(), 1, "one line: {text}");
        let mut line: Value = serde_json::from_str(&text).expect("JSON");
        let stamp = line["timestamp"].take();
        assert!(
            stamp
                .as_str()
                .is_some_and(|stamp| stamp.parse::<jiff::Timestamp>().is_ok()),
            "{stamp}"
        );
        assert_eq!(
            line,
            json!({
                "timestamp": null, "level": "warn", "target": "oma::serve::json_log::tests",
                "request_id": "req_1", "status": 200, "session": "ses_1",
                "message": "line\nbreak", "attempt": 2, "ok": false, "reason": "Some(\"x\")",
            })
        );
    }
}
