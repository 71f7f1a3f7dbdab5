//! Reading settings from their sources: flag before environment before file before default.
//!
//! Invariant: every key of the file has been asked for by the end, or is reported; no typing mistake is
//! ever silently ignored.
//! Invariant: no message contains a secret's value.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;

use secrecy::SecretString;

use crate::config::file::File;
use crate::config::setting::Setting;
use crate::config::value::Value;

/// Where settings come from.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// Flags that were given, by flag name.
    pub(crate) flags: BTreeMap<&'static str, String>,
    /// The environment.
    pub(crate) env: BTreeMap<String, OsString>,
    /// The configuration file, when there is one.
    pub(crate) file: Option<File>,
}

impl Sources {
    /// An environment variable's text; an empty one counts as not set.
    #[must_use]
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.env
            .get(name)
            .and_then(|value| value.to_str())
            .filter(|value| !value.is_empty())
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A flag.
    Flag(&'static str),
    /// An environment variable.
    Environment(String),
    /// The file, with the line.
    File(String),
    /// Nowhere: the default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(formatter, "--{flag}"),
            Self::Environment(name) => write!(formatter, "${name}"),
            Self::File(place) => formatter.write_str(place),
            Self::Default => formatter.write_str("default"),
        }
    }
}

/// Something wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The setting, `section.name`.
    pub(crate) key: String,
    /// Where the value came from.
    pub(crate) origin: Origin,
    /// What is wrong with it.
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => write!(formatter, "{}: {}", self.key, self.message),
            origin => write!(formatter, "{} ({origin}): {}", self.key, self.message),
        }
    }
}

/// A setting's value in force.
#[derive(Debug, Clone)]
pub(crate) struct Effective {
    /// The setting, `section.name`.
    pub(crate) key: String,
    /// Its value; secrets are redacted.
    pub(crate) value: serde_json::Value,
    /// Where it came from.
    pub(crate) origin: Origin,
}

/// Reads settings and remembers what was read and what was wrong.
pub(crate) struct Reader<'a> {
    sources: &'a Sources,
    asked: BTreeSet<String>,
    /// The values in force, in the order of reading.
    pub(crate) effective: Vec<Effective>,
    /// What is wrong.
    pub(crate) problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// Starts reading.
    #[must_use]
    pub(crate) fn new(sources: &'a Sources) -> Self {
        Self {
            sources,
            asked: BTreeSet::new(),
            effective: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// The sources.
    #[must_use]
    pub(crate) fn sources(&self) -> &'a Sources {
        self.sources
    }

    /// Reads one setting of the section `section`. `None` when something is wrong with it.
    pub(crate) fn read<T: Value>(&mut self, section: &str, setting: &Setting) -> Option<T> {
        let key = format!("{section}.{}", setting.name);
        self.asked.insert(key.clone());
        let (origin, value) = self.find::<T>(&key, setting);
        let value = value.and_then(|value| within(value, setting));
        match value {
            Ok(value) => {
                self.effective.push(Effective {
                    key,
                    value: value.to_json(),
                    origin,
                });
                Some(value)
            }
            Err(message) => {
                self.problems.push(Problem { key, origin, message });
                None
            }
        }
    }

    fn find<T: Value>(&self, key: &str, setting: &Setting) -> (Origin, Result<T, String>) {
        if let Some(flag) = setting.flag
            && let Some(text) = self.sources.flags.get(flag)
        {
            return (Origin::Flag(flag), T::parse(text));
        }
        for name in setting.env {
            let Some(value) = self.sources.env.get(*name) else {
                continue;
            };
            if value.is_empty() {
                continue;
            }
            let value = value
                .to_str()
                .ok_or_else(|| "it is not valid UTF-8".to_owned())
                .and_then(|text| parse_variable(name, text));
            return (Origin::Environment((*name).to_owned()), value);
        }
        if let Some(file) = &self.sources.file
            && let Some(entry) = file.values.get(key)
        {
            return (Origin::File(file.place(key)), T::from_raw(&entry.value));
        }
        let value = match setting.default {
            Some(default) => T::parse(default),
            None => T::absent().ok_or_else(|| "it must be set".to_owned()),
        };
        (Origin::Default, value)
    }

    /// Reads a table of HTTP headers; file only. They carry keys often enough that all count as secrets.
    pub(crate) fn headers(&mut self, table: &str) -> BTreeMap<String, SecretString> {
        let mut headers = BTreeMap::new();
        let Some(file) = &self.sources.file else {
            return headers;
        };
        for name in file.names_below(table) {
            let key = format!("{table}.{name}");
            let Some(entry) = file.values.get(&key) else {
                continue;
            };
            self.asked.insert(key.clone());
            match String::from_raw(&entry.value) {
                Ok(text) => {
                    self.effective.push(Effective {
                        key: key.clone(),
                        value: serde_json::Value::String("[redacted]".to_owned()),
                        origin: Origin::File(file.place(&key)),
                    });
                    headers.insert(name, SecretString::from(text));
                }
                Err(message) => self.problems.push(Problem {
                    key: key.clone(),
                    origin: Origin::File(file.place(&key)),
                    message,
                }),
            }
        }
        headers
    }

    /// The origin of a setting that was read.
    #[must_use]
    pub(crate) fn origin(&self, key: &str) -> Origin {
        self.effective
            .iter()
            .find(|effective| effective.key == key)
            .map_or(Origin::Default, |effective| effective.origin.clone())
    }

    /// Puts the value that follows from other facts in the place of one that was not set.
    pub(crate) fn settle(&mut self, key: &str, value: serde_json::Value) {
        if let Some(effective) = self.effective.iter_mut().find(|effective| effective.key == key) {
            effective.value = value;
        }
    }

    /// Notes that something is wrong with a setting that was read.
    pub(crate) fn refuse(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(Problem {
            key: key.to_owned(),
            origin: self.origin(key),
            message: message.into(),
        });
    }

    /// Notes every key of the file that no setting has asked for.
    pub(crate) fn refuse_unknown(&mut self) {
        let Some(file) = &self.sources.file else { return };
        for (key, entry) in &file.values {
            let is_table_header = self
                .asked
                .iter()
                .any(|asked| asked.starts_with(&format!("{key}.")));
            let empty_section = entry.value == crate::config::value::Raw::Other("a table") && is_table_header;
            if self.asked.contains(key) || empty_section {
                continue;
            }
            let message = match self.nearest(key) {
                Some(nearest) => format!("there is no such setting; did you mean `{nearest}`?"),
                None => "there is no such setting".to_owned(),
            };
            self.problems.push(Problem {
                key: key.clone(),
                origin: Origin::File(file.place(key)),
                message,
            });
        }
    }

    fn nearest(&self, key: &str) -> Option<&str> {
        self.asked
            .iter()
            .map(|asked| (edits(key, asked), asked))
            .filter(|(edits, _)| *edits <= 3)
            .min()
            .map(|(_, asked)| asked.as_str())
    }
}

fn parse_variable<T: Value>(name: &str, text: &str) -> Result<T, String> {
    if name.ends_with("_MS") {
        let millis: u64 = text
            .trim()
            .parse()
            .map_err(|_| format!("`{text}` is not a whole number of milliseconds"))?;
        return T::parse(&format!("{millis}ms"));
    }
    T::parse(text)
}

fn within<T: Value>(value: T, setting: &Setting) -> Result<T, String> {
    let Some((least, greatest)) = setting.between else {
        return Ok(value);
    };
    let low = T::parse(least)?;
    let high = T::parse(greatest)?;
    let legal = matches!(
        value.order(&low),
        None | Some(Ordering::Greater | Ordering::Equal)
    ) && matches!(value.order(&high), None | Some(Ordering::Less | Ordering::Equal));
    if legal {
        Ok(value)
    } else {
        Err(format!("it must be from {least} to {greatest}"))
    }
}

/// How many letters must be added, removed or replaced to make one text of the other.
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, char) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, candidate) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(char != *candidate);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}
