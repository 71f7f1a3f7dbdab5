//! The log: one line per event on standard error, JSON where nobody watches.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, registry};

use crate::config::sections::{Log, LogFormat};
use crate::print::Failure;
use crate::serve::json_log::JsonLines;

/// Starts the log, and has panics written to it like everything else.
///
/// # Errors
/// That there is a log already.
pub(crate) fn start(log: &Log) -> Result<(), Failure> {
    let filter = log
        .level
        .filter()
        .map_err(|error| Failure::Other(format!("log.level: {error}")))?;
    let terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let started = if json {
        registry()
            .with(filter)
            .with(JsonLines::new(std::io::stderr))
            .try_init()
    } else {
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
        registry().with(filter).with(lines).try_init()
    };
    started.map_err(|error| Failure::Other(format!("the log can't be started: {error}")))?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, panic = message, "a fault in the server: a task broke down");
    }));
    Ok(())
}
