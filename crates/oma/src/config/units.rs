//! Sizes and durations, as people write them.

use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use serde_json::json;

use crate::config::value::{Raw, Value, unexpected};

/// A number of bytes: `512MiB`, `2GB`, `4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bytes(pub(crate) u64);

impl Bytes {
    /// A mebibyte.
    pub(crate) const MEBIBYTE: Self = Self(1 << 20);
}

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl Value for Bytes {
    const NOTATION: &'static str = "size (`512MiB`)";
    const PLACEHOLDER: &'static str = "SIZE";

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a size; write it like 512MiB, 2GB or 4096");
        let trimmed = text.trim();
        let digits = trimmed
            .find(|char: char| !char.is_ascii_digit())
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = unit.trim();
        let factor = if unit.is_empty() {
            1
        } else {
            SIZES
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                .map(|(_, factor)| *factor)
                .ok_or_else(wrong)?
        };
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }

    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Integer(value) => Self::parse(&value.to_string()),
            Raw::Text(text) => Self::parse(text),
            other => Err(unexpected("a size", other)),
        }
    }

    fn order(&self, other: &Self) -> Option<Ordering> {
        self.partial_cmp(other)
    }

    fn to_json(&self) -> serde_json::Value {
        json!(self.to_string())
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZES
            .iter()
            .filter(|(name, _)| name.ends_with("iB"))
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match exact {
            Some((name, factor)) => write!(formatter, "{}{name}", self.0 / factor),
            None => write!(formatter, "{}B", self.0),
        }
    }
}

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Reads a duration such as `1h30m`, `10s` or `250ms`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write it like 250ms, 10s, 5m or 1h30m");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest
            .find(|char: char| !char.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        let factor = UNITS
            .iter()
            .find(|(unit, _)| *unit == &rest[..letters])
            .map(|(_, factor)| *factor)
            .ok_or_else(wrong)?;
        rest = rest[letters..].trim_start();
        total = number
            .checked_mul(factor)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(wrong)?;
    }
    Ok(Duration::from_millis(total))
}

/// Writes a duration as [`parse_duration`] reads it.
#[must_use]
pub(crate) fn show_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, factor) in UNITS.iter().rev() {
        if rest >= *factor {
            text.push_str(&format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    text
}

impl Value for Duration {
    const NOTATION: &'static str = "duration (`10s`)";
    const PLACEHOLDER: &'static str = "DURATION";

    fn parse(text: &str) -> Result<Self, String> {
        parse_duration(text)
    }

    fn order(&self, other: &Self) -> Option<Ordering> {
        self.partial_cmp(other)
    }

    fn to_json(&self) -> serde_json::Value {
        json!(show_duration(*self))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_and_refused() {
        for (text, millis) in [
            ("250ms", 250),
            ("10s", 10_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("2d", 172_800_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "10",
            "s",
            "10 parsecs",
            "-1s",
            "1.5s",
            "99999999999999999999s",
            "999999999999999d",
            "10S",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_refused() {
        for (text, bytes) in [
            ("4096", 4096),
            ("512MiB", 512 << 20),
            ("2 GB", 2_000_000_000),
            ("1kib", 1024),
        ] {
            assert_eq!(Bytes::parse(text), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "MiB", "1.5GiB", "-1", "12 stone", "99999999999TiB"] {
            assert!(Bytes::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn shown_durations_read_back(millis in 0u64..10_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }

        #[test]
        fn shown_sizes_read_back(bytes in any::<u64>()) {
            prop_assert_eq!(Bytes::parse(&Bytes(bytes).to_string()), Ok(Bytes(bytes)));
        }
    }
}
