//! The kinds of values that settings have: how each is written in a file, in the environment or on the
//! command line, and how it is shown.
//!
//! Invariant: what [`Value::to_json`] gives may be shown to anybody; secrets give a mark in their place.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use ipnet::IpNet;
use oma_egress::target::{Host, host};
use oma_tools::Rule;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tracing_subscriber::filter::EnvFilter;

/// A value as a TOML file has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Raw {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// True or false.
    Boolean(bool),
    /// A list.
    List(Vec<Raw>),
    /// Something that no setting is (a date).
    Other(&'static str),
}

impl Raw {
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number with a fraction",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Other(kind) => kind,
        }
    }
}

/// A kind of value.
pub(crate) trait Value: Sized {
    /// How it is written, for the reference table.
    const NOTATION: &'static str;
    /// What stands for it in the help of a flag.
    const PLACEHOLDER: &'static str;

    /// Reads it from an environment variable or a flag.
    ///
    /// # Errors
    /// What is wrong with it, in words that follow "…: ".
    fn parse(text: &str) -> Result<Self, String>;

    /// Reads it from a TOML value. Text, unless the kind says otherwise.
    ///
    /// # Errors
    /// What is wrong with it.
    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) => Self::parse(text),
            other => Err(unexpected("text", other)),
        }
    }

    /// The value of a setting that has no default and is not set; `None` when it must be set.
    fn absent() -> Option<Self> {
        None
    }

    /// How it compares with another, for kinds whose settings may have bounds.
    fn order(&self, _other: &Self) -> Option<Ordering> {
        None
    }

    /// For showing.
    fn to_json(&self) -> serde_json::Value;
}

/// The message for a TOML value of the wrong kind.
pub(crate) fn unexpected(wanted: &str, raw: &Raw) -> String {
    format!("{wanted} is needed here, not {}", raw.kind())
}

impl<T: Value> Value for Option<T> {
    const NOTATION: &'static str = T::NOTATION;
    const PLACEHOLDER: &'static str = T::PLACEHOLDER;

    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }

    fn from_raw(raw: &Raw) -> Result<Self, String> {
        T::from_raw(raw).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn order(&self, other: &Self) -> Option<Ordering> {
        self.as_ref()?.order(other.as_ref()?)
    }

    fn to_json(&self) -> serde_json::Value {
        self.as_ref().map_or(serde_json::Value::Null, T::to_json)
    }
}

impl Value for String {
    const NOTATION: &'static str = "text";
    const PLACEHOLDER: &'static str = "TEXT";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn to_json(&self) -> serde_json::Value {
        json!(self)
    }
}

impl Value for bool {
    const NOTATION: &'static str = "true or false";
    const PLACEHOLDER: &'static str = "BOOL";

    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(format!("`{text}` is neither true nor false")),
        }
    }

    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Boolean(value) => Ok(*value),
            other => Err(unexpected("true or false", other)),
        }
    }

    fn to_json(&self) -> serde_json::Value {
        json!(self)
    }
}

macro_rules! integers {
    ($($integer:ty),+) => {$(
        impl Value for $integer {
            const NOTATION: &'static str = "whole number";
            const PLACEHOLDER: &'static str = "N";

            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("`{text}` is not a whole number from 0 to {}", <$integer>::MAX))
            }

            fn from_raw(raw: &Raw) -> Result<Self, String> {
                match raw {
                    Raw::Integer(value) => Self::parse(&value.to_string()),
                    other => Err(unexpected("a whole number", other)),
                }
            }

            fn order(&self, other: &Self) -> Option<Ordering> {
                self.partial_cmp(other)
            }

            fn to_json(&self) -> serde_json::Value {
                json!(self)
            }
        }
    )+};
}
integers!(u32, u64, usize);

impl Value for f64 {
    const NOTATION: &'static str = "number";
    const PLACEHOLDER: &'static str = "N";

    fn parse(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => Err(format!("`{text}` is not a number")),
        }
    }

    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Integer(value) => Self::parse(&value.to_string()),
            Raw::Float(value) => Self::parse(&value.to_string()),
            other => Err(unexpected("a number", other)),
        }
    }

    fn order(&self, other: &Self) -> Option<Ordering> {
        self.partial_cmp(other)
    }

    fn to_json(&self) -> serde_json::Value {
        json!(self)
    }
}

impl Value for PathBuf {
    const NOTATION: &'static str = "path";
    const PLACEHOLDER: &'static str = "PATH";

    fn parse(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err("a path can't contain a zero byte".to_owned());
        }
        Ok(Self::from(text))
    }

    fn to_json(&self) -> serde_json::Value {
        json!(self.to_string_lossy())
    }
}

/// Where something is kept: in a folder, or in a bucket of a store of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Folder(PathBuf),
    Bucket {
        name: String,
        /// Without slashes around it; may be empty.
        prefix: String,
    },
}

impl Value for Place {
    const NOTATION: &'static str = "path or `s3://BUCKET/PREFIX`";
    const PLACEHOLDER: &'static str = "PLACE";

    fn parse(text: &str) -> Result<Self, String> {
        let Some(address) = text.strip_prefix("s3://") else {
            return match text.split_once("://") {
                Some((scheme, _)) => Err(format!(
                    "`{scheme}` is no kind of store; write a path or `s3://BUCKET/PREFIX`"
                )),
                None => PathBuf::parse(text).map(Self::Folder),
            };
        };
        // No more than every store takes as it is, in names and in addresses.
        let is_plain = |part: &str| {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !part.is_empty() && part.bytes().all(legal) && !part.bytes().all(|byte| byte == b'.')
        };
        let (name, prefix) = address.split_once('/').unwrap_or((address, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if !is_plain(name) || !(3..=63).contains(&name.len()) {
            return Err("the bucket's name must be 3 to 63 letters, digits, `-`, `.` and `_`".to_owned());
        }
        let is_legal = prefix.is_empty() || (prefix.len() <= 512 && prefix.split('/').all(is_plain));
        if !is_legal {
            return Err(
                "the prefix must be at most 512 letters, digits, `-`, `.` and `_`, with single `/` between"
                    .to_owned(),
            );
        }
        Ok(Self::Bucket {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
        })
    }

    fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Folder(path) => path.to_json(),
            Self::Bucket { name, prefix } if prefix.is_empty() => json!(format!("s3://{name}")),
            Self::Bucket { name, prefix } => json!(format!("s3://{name}/{prefix}")),
        }
    }
}

impl Value for SecretString {
    const NOTATION: &'static str = "secret";
    const PLACEHOLDER: &'static str = "SECRET";

    fn parse(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err("it is empty".to_owned());
        }
        if trimmed.chars().any(|char| !char.is_ascii_graphic()) {
            // The value itself must not get into the message.
            return Err("it has characters that an HTTP header can't carry".to_owned());
        }
        Ok(Self::from(trimmed))
    }

    fn to_json(&self) -> serde_json::Value {
        json!(if self.expose_secret().is_empty() {
            ""
        } else {
            "[redacted]"
        })
    }
}

/// A list of values: `a,b,c` in the environment and in flags, a list in TOML.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

impl<T: Value> Value for List<T> {
    const NOTATION: &'static str = "list";
    const PLACEHOLDER: &'static str = "LIST";

    fn parse(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(T::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::List(items) => items.iter().map(T::from_raw).collect::<Result<_, _>>().map(Self),
            other => Err(unexpected("a list", other)),
        }
    }

    fn absent() -> Option<Self> {
        Some(Self(Vec::new()))
    }

    fn to_json(&self) -> serde_json::Value {
        self.0.iter().map(T::to_json).collect()
    }
}

impl Value for IpNet {
    const NOTATION: &'static str = "network";
    const PLACEHOLDER: &'static str = "NETWORK";

    fn parse(text: &str) -> Result<Self, String> {
        let network = text.parse().ok();
        let address = || text.parse().ok().map(|address: IpAddr| Self::from(address));
        network
            .or_else(address)
            .ok_or_else(|| "it is not a network (`10.0.0.0/8`) or an address".to_owned())
    }

    fn to_json(&self) -> serde_json::Value {
        json!(self.to_string())
    }
}

impl Value for Rule {
    const NOTATION: &'static str = "network, address or host";
    const PLACEHOLDER: &'static str = "RULE";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse::<Self>().map_err(|error| error.to_string())
    }

    fn to_json(&self) -> serde_json::Value {
        json!(self.to_string())
    }
}

/// A host name and an address that it has for us: `NAME=ADDRESS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostAddress {
    /// Canonical.
    pub(crate) name: String,
    pub(crate) address: IpAddr,
}

impl Value for HostAddress {
    const NOTATION: &'static str = "`NAME=ADDRESS`";
    const PLACEHOLDER: &'static str = "NAME=ADDRESS";

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a host name, `=` and an address");
        let (name, address) = text.trim().split_once('=').ok_or_else(wrong)?;
        let Ok(Host::Name(name)) = host(name) else {
            return Err(wrong());
        };
        let address = address.parse().map_err(|_| wrong())?;
        Ok(Self { name, address })
    }

    fn to_json(&self) -> serde_json::Value {
        json!(format!("{}={}", self.name, self.address))
    }
}

/// A variable and its value: `NAME=VALUE`. Values may be secrets, so they are shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl std::fmt::Debug for Variable {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{}=...", self.name)
    }
}

impl Value for Variable {
    const NOTATION: &'static str = "`NAME=VALUE`";
    const PLACEHOLDER: &'static str = "NAME=VALUE";

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text.split_once('=') {
            Some((name, value)) if oma_sandbox::fittings::is_legal(name) && !value.contains('\0') => {
                Ok(Self {
                    name: name.to_owned(),
                    value: value.to_owned(),
                })
            }
            _ => Err("a variable is written NAME=VALUE".to_owned()),
        }
    }

    fn to_json(&self) -> serde_json::Value {
        json!(format!("{}=...", self.name))
    }
}

/// A file of the host, and where builds see it: `PATH=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BuildFile {
    pub(crate) target: PathBuf,
    pub(crate) source: PathBuf,
}

impl Value for BuildFile {
    const NOTATION: &'static str = "`PATH=FILE`, with a path below `/etc` or `/workspace`";
    const PLACEHOLDER: &'static str = "PATH=FILE";

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a path below /etc or /workspace, `=` and the path of a file");
        let (target, source) = text.trim().split_once('=').ok_or_else(wrong)?;
        let (target, source) = (PathBuf::from(target), PathBuf::from(source));
        let mut parts = target.components();
        let is_rooted = parts.next() == Some(Component::RootDir);
        let is_plain = parts.clone().all(|part| matches!(part, Component::Normal(_)));
        let is_below = ["/etc", "/workspace"]
            .iter()
            .any(|place| target.starts_with(place) && target != Path::new(place));
        if is_rooted && is_plain && is_below && source.is_absolute() {
            Ok(Self { target, source })
        } else {
            Err(wrong())
        }
    }

    fn to_json(&self) -> serde_json::Value {
        json!(format!("{}={}", self.target.display(), self.source.display()))
    }
}

/// Where to listen: `ADDR:PORT`, or a bare port, which means the loopback address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) SocketAddr);

impl Value for Listen {
    const NOTATION: &'static str = "`ADDR:PORT` or `PORT`";
    const PLACEHOLDER: &'static str = "ADDR:PORT";

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(port) = text.parse::<u16>() {
            return Ok(Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        numeric.parse().map(Self).map_err(|_| {
            format!("`{text}` is not an address and a port; write it like 127.0.0.1:8080 or [::1]:8080")
        })
    }

    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Integer(value) => Self::parse(&value.to_string()),
            Raw::Text(text) => Self::parse(text),
            other => Err(unexpected("an address and a port", other)),
        }
    }

    fn to_json(&self) -> serde_json::Value {
        json!(self.0.to_string())
    }
}

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

/// Makes an enum of named choices a kind of value.
macro_rules! choices {
    ($(#[$meta:meta])* $name:ident: $notation:literal { $($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            /// As it is written.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl $crate::config::value::Value for $name {
            const NOTATION: &'static str = $notation;
            const PLACEHOLDER: &'static str = "CHOICE";

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!("`{text}` is none of: {}", [$($text),+].join(", "))),
                }
            }

            fn to_json(&self) -> serde_json::Value {
                self.as_str().into()
            }
        }
    };
}
pub(crate) use choices;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::units::Bytes;
    use proptest::prelude::*;

    #[test]
    fn listen_takes_addresses_and_bare_ports() {
        for (text, address) in [
            ("8080", "127.0.0.1:8080"),
            ("localhost:1", "127.0.0.1:1"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:0", "[::1]:0"),
        ] {
            assert_eq!(
                Listen::parse(text).map(|listen| listen.0.to_string()),
                Ok(address.to_owned())
            );
        }
        for text in ["", "65536", "example.com:80", "127.0.0.1", ":8080", "::1:80x"] {
            assert!(Listen::parse(text).is_err(), "{text}");
        }
    }

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

    #[test]
    fn a_toml_value_of_the_wrong_kind_is_refused() {
        assert!(u32::from_raw(&Raw::Text("64".into())).is_err());
        assert!(u32::from_raw(&Raw::Integer(-1)).is_err());
        assert!(bool::from_raw(&Raw::Text("true".into())).is_err());
        assert!(Duration::from_raw(&Raw::Integer(10)).is_err());
        assert!(List::<String>::from_raw(&Raw::Text("a,b".into())).is_err());
        assert!(String::from_raw(&Raw::Other("a date")).is_err());
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = SecretString::parse(" token-1 ").expect("legal");
        assert_eq!(secret.expose_secret(), "token-1");
        assert_eq!(secret.to_json(), json!("[redacted]"));
        let refused = SecretString::parse("hunter2 with spaces").expect_err("refused");
        assert!(!refused.contains("hunter2"));
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC*") {
            let _ = Duration::parse(&text);
            let _ = Bytes::parse(&text);
            let _ = Listen::parse(&text);
        }
    }
}
