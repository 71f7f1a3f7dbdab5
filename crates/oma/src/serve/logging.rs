//! The log: one line per event on standard error, JSON where nobody watches; and whoever else listens.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::{Layered, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt, registry};

use crate::config::sections::{Log, LogFormat};
use crate::print::Failure;
use crate::serve::json_log::JsonLines;

/// What hears of everything that the log's level lets through.
pub(crate) type Listener = Box<dyn Layer<Layered<EnvFilter, Registry>> + Send + Sync>;

/// Starts the log, and has panics written to it like everything else. The `listeners` hear what it hears.
///
/// # Errors
/// That there is a log already.
pub(crate) fn start(log: &Log, mut listeners: Vec<Listener>) -> Result<(), Failure> {
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
    listeners.push(if json {
        JsonLines::new(std::io::stderr).boxed()
    } else {
        fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(terminal)
            .boxed()
    });
    let started = registry().with(filter).with(listeners).try_init();
    started.map_err(|error| Failure::Other(format!("the log can't be started: {error}")))?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, panic = message, "a fault in the server: a task broke down");
    }));
    Ok(())
}
