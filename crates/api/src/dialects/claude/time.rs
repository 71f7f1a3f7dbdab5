//! Times as this dialect writes them: RFC 3339 in UTC.

use jiff::Timestamp as Instant;
use oma_domain::Timestamp;
use serde_json::Value;

/// A time as text.
pub(crate) fn text(at: Timestamp) -> String {
    match Instant::from_millisecond(at.as_millis()) {
        Ok(instant) => format!("{instant:.3}"),
        // Beyond the year 9999, which no clock shows.
        Err(_) => Instant::MAX.to_string(),
    }
}

/// A time as a JSON value.
pub(crate) fn value(at: Timestamp) -> Value {
    Value::String(text(at))
}

/// A time that may be absent as a JSON value.
pub(crate) fn optional(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, value)
}

/// Milliseconds as seconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact to the millisecond for 285,000 years"
)]
pub(crate) fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(text(Timestamp(1_790_000_000_123)), "2026-09-21T14:13:20.123Z");
        assert_eq!(text(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(optional(None), Value::Null);
    }
}
