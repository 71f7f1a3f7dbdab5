//! The log: one line per event on standard error, JSON where nobody watches.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::sections::{Log, LogFormat};
use crate::print::Failure;

/// Starts the log.
///
/// # Errors
/// That the level can't be understood, or that there is a log already.
pub(crate) fn start(log: &Log) -> Result<(), Failure> {
    let filter = EnvFilter::builder()
        .parse(&log.level)
        .map_err(|error| Failure::Other(format!("log.level: `{}`: {error}", log.level)))?;
    let terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if json {
        builder.json().flatten_event(true).with_current_span(false).finish().try_init()
    } else {
        builder.with_ansi(terminal).finish().try_init()
    };
    started.map_err(|error| Failure::Other(format!("the log can't be started: {error}")))
}

/// Whether the level can be understood.
///
/// # Errors
/// Why it can't.
pub(crate) fn check_level(level: &str) -> Result<(), String> {
    EnvFilter::builder()
        .parse(level)
        .map(|_| ())
        .map_err(|error| format!("`{level}` is no log level: {error}"))
}
