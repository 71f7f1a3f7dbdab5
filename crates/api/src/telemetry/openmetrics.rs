//! From the text format of Prometheus, which the recorder writes, to OpenMetrics 1.0. The two differ in the names
//! of counters' families, in how whole numbers are written as bounds, and in the end mark.

use std::borrow::Cow;

use axum::http::{HeaderMap, header};

/// The media type.
const MEDIA_TYPE: &str = "application/openmetrics-text";
/// The media type of an answer.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the client asks for this format and does not like the other better.
pub(crate) fn is_asked_for(headers: &HeaderMap) -> bool {
    let ranges = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let (mut this, mut other) = (None::<f32>, None::<f32>);
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map(str::parse);
        let weight = match weight {
            None => 1.0,
            Some(Ok(weight)) => weight,
            Some(Err(_)) => continue,
        };
        let best = if kind.eq_ignore_ascii_case(MEDIA_TYPE) {
            &mut this
        } else if kind.eq_ignore_ascii_case("text/plain") {
            &mut other
        } else {
            continue;
        };
        *best = Some(best.map_or(weight, |best| best.max(weight)));
    }
    this.is_some_and(|this| this > 0.0 && other.is_none_or(|other| this >= other))
}

/// The same metrics in this format.
pub(crate) fn from_prometheus(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.is_empty()).map(line);
    let mut written = String::with_capacity(text.len() + 8);
    for line in lines {
        written.push_str(&line);
        written.push('\n');
    }
    written.push_str("# EOF\n");
    written
}

fn line(line: &str) -> Cow<'_, str> {
    for mark in ["# HELP ", "# TYPE "] {
        // A counter's family has the name without the ending of its sample.
        if let Some((family, rest)) = line.strip_prefix(mark).and_then(|rest| rest.split_once(' '))
            && let Some(family) = family.strip_suffix("_total")
        {
            return format!("{mark}{family} {rest}").into();
        }
    }
    // Bounds are written as floats.
    const BOUND: &str = "le=\"";
    if !line.starts_with('#')
        && let Some(start) = line.rfind(BOUND).map(|at| at + BOUND.len())
        && let Some(length) = line[start..].find('"')
        && line[start..start + length]
            .bytes()
            .all(|byte| byte.is_ascii_digit())
    {
        let (head, tail) = line.split_at(start + length);
        return format!("{head}.0{tail}").into();
    }
    line.into()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn what_differs_is_written_anew() {
        let prometheus = "# HELP a_total All of them.\n# TYPE a_total counter\na_total{route=\"/le=\\\"3\\\"\"} 3\n\n\
            # HELP b How many.\n# TYPE b gauge\nb 1\n\n# HELP c_seconds Time.\n# TYPE c_seconds histogram\n\
            c_seconds_bucket{le=\"0.5\"} 1\nc_seconds_bucket{le=\"1\"} 1\nc_seconds_bucket{le=\"+Inf\"} 2\n\
            c_seconds_sum 7\nc_seconds_count 2\n\n";
        let openmetrics = "# HELP a All of them.\n# TYPE a counter\na_total{route=\"/le=\\\"3\\\"\"} 3\n\
            # HELP b How many.\n# TYPE b gauge\nb 1\n# HELP c_seconds Time.\n# TYPE c_seconds histogram\n\
            c_seconds_bucket{le=\"0.5\"} 1\nc_seconds_bucket{le=\"1.0\"} 1\nc_seconds_bucket{le=\"+Inf\"} 2\n\
            c_seconds_sum 7\nc_seconds_count 2\n# EOF\n";
        assert_eq!(from_prometheus(prometheus), openmetrics);
        assert_eq!(from_prometheus(""), "# EOF\n");
    }

    #[test]
    fn the_client_chooses() {
        for (accept, asked) in [
            ("", false),
            ("*/*", false),
            ("text/plain", false),
            ("application/openmetrics-text", true),
            ("Application/OpenMetrics-Text; version=1.0.0", true),
            // As Prometheus asks.
            (
                "application/openmetrics-text;version=1.0.0;q=0.75,application/openmetrics-text;version=0.0.1;q=0.5,\
                 text/plain;version=0.0.4;q=0.4,*/*;q=0.1",
                true,
            ),
            ("text/plain;q=0.9, application/openmetrics-text;q=0.5", false),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;q=x", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(is_asked_for(&headers), asked, "{accept}");
        }
    }
}
