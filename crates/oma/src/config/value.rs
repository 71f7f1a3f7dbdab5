//! The kinds of values that settings have: how each is written in a file, in the environment or on the
//! command line, and how it is shown.
//!
//! Invariant: what [`Value::to_json`] gives may be shown to anybody; secrets give a mark in their place.

mod assignment;
mod log_level;
mod network;
mod place;
mod plain;

use std::cmp::Ordering;

pub(crate) use assignment::{BuildFile, Variable};
pub(crate) use log_level::LogLevel;
pub(crate) use network::{HostAddress, Listen};
pub(crate) use place::Place;

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

    use proptest::prelude::*;

    use super::*;
    use crate::config::units::Bytes;

    #[test]
    fn a_toml_value_of_the_wrong_kind_is_refused() {
        assert!(u32::from_raw(&Raw::Text("64".into())).is_err());
        assert!(u32::from_raw(&Raw::Integer(-1)).is_err());
        assert!(bool::from_raw(&Raw::Text("true".into())).is_err());
        assert!(Duration::from_raw(&Raw::Integer(10)).is_err());
        assert!(List::<String>::from_raw(&Raw::Text("a,b".into())).is_err());
        assert!(String::from_raw(&Raw::Other("a date")).is_err());
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
