//! A configuration file: TOML, flattened to dotted keys with the line where each stands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::config::value::Raw;

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A configuration file that was read.
#[derive(Debug, Default)]
pub(crate) struct File {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its values by dotted key.
    pub(crate) values: BTreeMap<String, Entry>,
    /// Whether users other than its owner may read it.
    pub(crate) shared: bool,
}

/// A value in a file.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The line, from 1.
    pub(crate) line: usize,
    /// The value.
    pub(crate) value: Raw,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// That it can't be read or is not TOML, in words that name the file.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        use std::io::Read as _;
        use std::os::unix::fs::PermissionsExt as _;

        let name = path.display();
        let cannot = |error: std::io::Error| format!("{name}: it can't be read: {error}");
        let file = std::fs::File::open(path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        let mut text = String::new();
        file.take(MAX_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(cannot)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(format!("{name}: it is larger than {MAX_BYTES} bytes"));
        }
        let mut read = Self::parse(path, &text)?;
        read.shared = metadata.permissions().mode() & 0o077 != 0;
        Ok(read)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// That it is not TOML, with line and column.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let table = DeTable::parse(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            format!(
                "{}:{}: {}",
                path.display(),
                line_of(text, offset),
                error.message()
            )
        })?;
        let mut file = Self {
            path: path.to_owned(),
            ..Self::default()
        };
        flatten(text, "", table.get_ref(), &mut file.values);
        Ok(file)
    }

    /// How an error names a key's place.
    #[must_use]
    pub(crate) fn place(&self, key: &str) -> String {
        match self.values.get(key) {
            Some(entry) => format!("{}:{}", self.path.display(), entry.line),
            None => self.path.display().to_string(),
        }
    }

    /// The names directly below a table, for tables whose keys the user chooses.
    #[must_use]
    pub(crate) fn names_below(&self, table: &str) -> Vec<String> {
        let prefix = format!("{table}.");
        let mut names: Vec<String> = self
            .values
            .keys()
            .filter_map(|key| key.strip_prefix(&prefix))
            .filter_map(|rest| rest.split('.').next())
            .map(str::to_owned)
            .collect();
        names.dedup();
        names
    }

    /// The names of the tables directly below a table, for names with dots in them: what stands in such a table
    /// has none.
    #[must_use]
    pub(crate) fn tables_below(&self, table: &str) -> Vec<String> {
        let prefix = format!("{table}.");
        let mut names: Vec<String> = self
            .values
            .iter()
            .filter_map(|(key, entry)| {
                let rest = key.strip_prefix(&prefix)?;
                match (&entry.value, rest.rsplit_once('.')) {
                    (Raw::Other("a table"), _) | (_, None) => Some(rest),
                    (_, Some((name, _))) => Some(name),
                }
            })
            .map(str::to_owned)
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn flatten(text: &str, prefix: &str, table: &DeTable<'_>, into: &mut BTreeMap<String, Entry>) {
    for (name, value) in table {
        let name = name.get_ref();
        let key = if prefix.is_empty() {
            name.to_string()
        } else {
            format!("{prefix}.{name}")
        };
        match value.get_ref() {
            // An empty table says nothing, but a name that the user chose must still be seen.
            DeValue::Table(inner) if !inner.is_empty() => flatten(text, &key, inner, into),
            other => {
                let line = line_of(text, value.span().start);
                into.insert(
                    key,
                    Entry {
                        line,
                        value: raw(other),
                    },
                );
            }
        }
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(integer) => {
            let digits = integer.as_str().replace('_', "");
            i64::from_str_radix(&digits, integer.radix())
                .map_or(Raw::Other("a number out of range"), Raw::Integer)
        }
        DeValue::Float(float) => float
            .as_str()
            .replace('_', "")
            .parse()
            .map_or(Raw::Other("a number out of range"), Raw::Float),
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_flattened_with_their_lines() {
        let file = File::parse(
            Path::new("oma.toml"),
            "[server]\nlisten = \"127.0.0.1:1\"\n[engine]\nmax_turns = 1_000\n[models.providers.local]\nheaders = { a = \"b\" }\n",
        )
        .expect("TOML");
        assert_eq!(file.values["engine.max_turns"].value, Raw::Integer(1000));
        assert_eq!(file.values["engine.max_turns"].line, 4);
        assert_eq!(file.place("server.listen"), "oma.toml:2");
        assert_eq!(file.names_below("models.providers"), ["local"]);
        assert_eq!(
            file.values["models.providers.local.headers.a"].value,
            Raw::Text("b".into())
        );
    }

    #[test]
    fn what_is_not_toml_names_the_line() {
        let error = File::parse(Path::new("oma.toml"), "[server]\nlisten = \n").expect_err("not TOML");
        assert!(error.starts_with("oma.toml:2: "), "{error}");
    }
}
