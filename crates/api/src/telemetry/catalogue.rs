//! Every metric of the process, in one table: what `/metrics` says of each, the buckets of the histograms, and
//! `docs/metrics.md` come from here. Where a metric is recorded is the business of the crate that knows its value.
//!
//! Names and meanings are the reference's where it has the same metric. Buckets are not: a sandbox starts here in
//! milliseconds.

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Its labels, beside `service`.
    pub labels: &'static [Label],
    /// What it says, in one sentence.
    pub help: &'static str,
}

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It counts what is up to each bound.
    Histogram(&'static [f64]),
}

impl Kind {
    /// Its name in the formats of Prometheus.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A label.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What it can be.
    pub values: Values,
}

/// What a label can be. There are always few of them.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// One of these. They are all there from the start, at 0.
    OneOf(&'static [&'static str]),
    /// One of a set that is written down elsewhere, in words.
    Each(&'static str),
}

/// Seconds of what is over in milliseconds.
const SHORT: &[f64] = &[
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
/// Seconds of what takes from milliseconds to half a minute.
const MIDDLE: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Seconds of what waits for a model.
const LONG: &[f64] = &[
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

const fn one_of(name: &'static str, values: &'static [&'static str]) -> Label {
    Label {
        name,
        values: Values::OneOf(values),
    }
}

const fn each(name: &'static str, words: &'static str) -> Label {
    Label {
        name,
        values: Values::Each(words),
    }
}

const METHOD: Label = each("method", "the usual ones, `other`");
const ROUTE: Label = each("route", "the pattern that matched, `unmatched`");
const PROVIDER: Label = each("provider", "the configured providers");

const fn counter(name: &'static str, labels: &'static [Label], help: &'static str) -> Metric {
    let kind = Kind::Counter;
    Metric {
        name,
        kind,
        labels,
        help,
    }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    let kind = Kind::Gauge;
    Metric {
        name,
        kind,
        labels: &[],
        help,
    }
}

const fn histogram(
    name: &'static str,
    buckets: &'static [f64],
    labels: &'static [Label],
    help: &'static str,
) -> Metric {
    let kind = Kind::Histogram(buckets);
    Metric {
        name,
        kind,
        labels,
        help,
    }
}

/// All of them.
pub const METRICS: &[Metric] = &[
    // HTTP
    counter(
        "http_requests_total",
        &[METHOD, ROUTE, each("status", "the status code")],
        "Requests that were answered.",
    ),
    histogram(
        "http_request_duration_seconds",
        &[
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        ],
        &[METHOD, ROUTE],
        "Time to the response's head; of a stream, until it opens.",
    ),
    gauge(
        "http_streams_open",
        "Followers: event and chat streams that are open.",
    ),
    counter(
        "rate_limit_rejections_total",
        &[one_of("kind", &["token", "ip"])],
        "Requests that came too soon, by whether a key or an address was limited.",
    ),
    // Audit
    counter(
        "audit_write_failures_total",
        &[],
        "Audit entries that could not be written.",
    ),
    counter(
        "audit_refusals_left_out_total",
        &[],
        "Refusals of unknown callers that were too many to be recorded.",
    ),
    // Agents, sessions and turns
    counter("agents_created_total", &[], "Agents created."),
    gauge("sessions_live", "Sessions with work to do."),
    counter(
        "session_events_total",
        &[each("type", "the types of events")],
        "Events committed.",
    ),
    histogram(
        "session_run_duration_seconds",
        LONG,
        &[],
        "Time from a turn's start to its end, waits for confirmations and restarts included.",
    ),
    counter(
        "session_run_failures_total",
        &[],
        "Turns that ended with a failure.",
    ),
    counter(
        "quota_rejections_total",
        &[one_of("kind", &["cost", "tokens", "duration"])],
        "Messages refused, and model requests not made, because a budget is used up.",
    ),
    gauge("turns_active", "Turns at work."),
    gauge("turns_waiting", "Turns that wait for a free place."),
    // Deployments
    counter(
        "deployment_runs_total",
        &[
            one_of("trigger", &["manual", "schedule"]),
            each("outcome", "`ok`, the types of the errors of runs"),
        ],
        "Runs of deployments.",
    ),
    counter(
        "deployment_runs_missed_total",
        &[],
        "Times at which schedules found that runs were missed and are too old to be made up.",
    ),
    histogram(
        "deployment_run_delay_seconds",
        MIDDLE,
        &[],
        "How late scheduled runs were made.",
    ),
    // Webhooks
    counter(
        "webhook_deliveries_total",
        &[one_of(
            "outcome",
            &[
                "delivered",
                "failed",
                "given_up",
                "refused",
                "expired",
                "overflow",
            ],
        )],
        "Attempts to deliver notices to webhook endpoints, and notices that were given up.",
    ),
    // Start
    counter(
        "startup_turns_resumed_total",
        &[],
        "Turns that a stop or a crash had cut off and that went on.",
    ),
    counter(
        "startup_queue_drained_total",
        &[],
        "Messages that waited behind those turns.",
    ),
    counter(
        "startup_adoptions_total",
        &[one_of(
            "outcome",
            &["reattached", "stopped_orphan", "reattach_failed"],
        )],
        "Sandboxes found at the start: taken over, removed with their deleted session's files, or lost.",
    ),
    // Models
    counter(
        "model_requests_total",
        &[
            PROVIDER,
            each("outcome", "`ok`, `cancelled`, the codes of `session.error`"),
        ],
        "Model requests, each attempt by itself.",
    ),
    histogram(
        "model_request_duration_seconds",
        LONG,
        &[PROVIDER],
        "Time of a model request that was answered, to the end of the answer.",
    ),
    histogram(
        "model_first_token_seconds",
        LONG,
        &[PROVIDER],
        "Time from a model request to the first piece of its answer.",
    ),
    counter(
        "model_tokens_total",
        &[
            PROVIDER,
            one_of("kind", &["input", "output", "cache_read", "cache_write"]),
        ],
        "Tokens that model requests consumed, as providers said; `input` is what no cache served.",
    ),
    counter(
        "model_cost_nanousd_total",
        &[PROVIDER],
        "What model requests cost as far as it is known, in billionths of a US dollar.",
    ),
    counter(
        "model_requests_unpriced_total",
        &[PROVIDER],
        "Model requests of which the cost is not known, or not all of it.",
    ),
    // Tools
    counter(
        "tool_uses_total",
        &[each(
            "tool",
            "the built-in tools, `call_agent`, `send_to_agent`, `create_agent`, `consult_advisor`, `run_workflow`, `mcp`, `unknown`",
        )],
        "Tool uses that were carried out.",
    ),
    counter(
        "mcp_calls_total",
        &[one_of("outcome", &["ok", "error"])],
        "Calls of MCP servers, by whether they gave a result or an error.",
    ),
    // Sandboxes
    counter(
        "egress_decisions_total",
        &[
            one_of("decision", &["allow", "deny", "error"]),
            one_of("protocol", &["connect", "direct", "dns", "http"]),
        ],
        "What processes in sandboxes wanted to reach, by what was decided.",
    ),
    counter(
        "environment_layers_total",
        &[one_of("outcome", &["built", "failed", "removed", "shared"])],
        "What environments need installed, by what became of it: `shared` is one that was there already.",
    ),
    histogram(
        "environment_build_duration_seconds",
        &[1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0],
        &[],
        "Time to install what an environment needs, without the wait for other builds.",
    ),
    gauge(
        "environment_layers_bytes",
        "What was built for environments, in bytes of the disk.",
    ),
    gauge("pool_active_containers", "Sandboxes that are there."),
    gauge(
        "pool_warm_containers",
        "Those of them that were started in advance and not used yet.",
    ),
    gauge(
        "pool_waiting",
        "Sessions that wait for a place for their sandbox.",
    ),
    counter(
        "pool_acquire_total",
        &[one_of("source", &["active", "warm", "spawn", "adopt"])],
        "Sandboxes given to whoever needed one: in use before, started in advance, started now, or of an earlier server.",
    ),
    counter(
        "pool_cold_starts_total",
        &[],
        "Sandboxes that somebody had to wait for from their start; the reference labels it with the agent, of which there is no end.",
    ),
    histogram(
        "pool_spawn_duration_seconds",
        MIDDLE,
        &[],
        "Time from the need of a sandbox that had to be started until it was there, the wait for a place included.",
    ),
    histogram(
        "container_boot_duration_seconds",
        SHORT,
        &[],
        "Time that starting a sandbox took.",
    ),
    // Store
    histogram(
        "store_commit_duration_seconds",
        SHORT,
        &[],
        "Time of a transaction, until it was on the disk.",
    ),
    histogram(
        "store_commit_batch_size",
        &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0],
        &[],
        "Writes in one transaction.",
    ),
];

/// The metric of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// The table in Markdown.
#[must_use]
pub fn markdown() -> String {
    let rows = METRICS.iter().map(|metric| {
        let labels = metric.labels.iter().map(|label| {
            let values = match label.values {
                Values::OneOf(values) => values
                    .iter()
                    .map(|value| format!("`{value}`"))
                    .collect::<Vec<_>>()
                    .join(", "),
                Values::Each(words) => words.to_owned(),
            };
            format!("`{}`: {values}", label.name)
        });
        let labels = labels.collect::<Vec<_>>().join("; ");
        let Metric { name, kind, help, .. } = metric;
        format!("| `{name}` | {} | {labels} | {help} |\n", kind.as_str())
    });
    let head = "| Name | Kind | Labels | What it says |\n| --- | --- | --- | --- |\n";
    std::iter::once(head.to_owned()).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_legal_and_told_apart() {
        let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len(), "a name stands twice");
        for Metric {
            name, kind, labels, ..
        } in METRICS
        {
            let is_legal = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(
                is_legal(name) && labels.iter().all(|label| is_legal(label.name)),
                "{name}"
            );
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            if let Kind::Histogram(buckets) = kind {
                assert!(buckets.is_sorted() && !buckets.is_empty(), "{name}");
            }
        }
    }
}
