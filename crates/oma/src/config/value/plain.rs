//! Texts, secrets, numbers, paths, and what is true or false.

use std::cmp::Ordering;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::{Raw, Value, unexpected};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secret = SecretString::parse(" token-1 ").expect("legal");
        assert_eq!(secret.expose_secret(), "token-1");
        assert_eq!(secret.to_json(), json!("[redacted]"));
        let refused = SecretString::parse("hunter2 with spaces").expect_err("refused");
        assert!(!refused.contains("hunter2"));
    }
}
