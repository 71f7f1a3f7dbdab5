//! What is logged.

use serde_json::json;
use tracing_subscriber::filter::EnvFilter;

use super::Value;

/// What is logged: a level, or directives for single modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLevel(String);

impl LogLevel {
    /// The filter that it stands for.
    ///
    /// # Errors
    /// Why it can't be understood; a value that was read always can.
    pub(crate) fn filter(&self) -> Result<EnvFilter, String> {
        // The filter's parser takes any word for the name of a module, so `wran` would silence the log.
        let known = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
        let bare = self
            .0
            .split(',')
            .map(str::trim)
            .find(|word| !word.contains(['=', '[', ':']) && !known(&word.to_ascii_lowercase()));
        if let Some(word) = bare {
            return Err(format!(
                "`{word}` is none of: off, error, warn, info, debug, trace, and no `module=level`"
            ));
        }
        // Libraries log what they carry at these levels, with the results of tools and what servers repeat of
        // the tokens that they were sent. Whoever wants that names the library.
        let own = |word: &str| match word.trim().to_ascii_lowercase().as_str() {
            level @ ("debug" | "trace") => format!("info,oma={level}"),
            _ => word.to_owned(),
        };
        let directives: Vec<String> = self.0.split(',').map(own).collect();
        EnvFilter::builder()
            .parse(directives.join(","))
            .map_err(|error| format!("`{}`: {error}", self.0))
    }
}

impl Value for LogLevel {
    const NOTATION: &'static str = "log level";
    const PLACEHOLDER: &'static str = "LEVEL";

    fn parse(text: &str) -> Result<Self, String> {
        let level = Self(text.to_owned());
        level.filter().map(|_| level)
    }

    fn to_json(&self) -> serde_json::Value {
        json!(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_levels_are_read_and_refused() {
        for text in [
            "info",
            "WARN",
            "off",
            "info,oma_engine=debug",
            "oma_api[request]=trace",
        ] {
            assert!(LogLevel::parse(text).is_ok(), "{text}");
        }
        for (text, expected) in [
            ("trace", "oma=trace,info"),
            ("Debug,hyper=debug", "hyper=debug,oma=debug,info"),
        ] {
            let filter = LogLevel::parse(text).and_then(|level| level.filter());
            assert_eq!(filter.map(|filter| filter.to_string()), Ok(expected.to_owned()));
        }
        for text in ["", "wran", "info,loud", "oma_engine=loud"] {
            assert!(LogLevel::parse(text).is_err(), "{text}");
        }
    }
}
