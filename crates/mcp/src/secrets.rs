//! Takes secrets that were sent to a server out of what comes back.

use std::sync::{Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

/// What stands in a secret's place.
const MASK: &str = "[secret]";

/// Shorter values are too common to be taken out everywhere.
const MIN_LEN: usize = 8;

/// Tokens that are remembered; an older one has long expired.
const MAX_TOKENS: usize = 4;

/// The secrets that one server gets.
#[derive(Default)]
pub(crate) struct Secrets {
    headers: Vec<SecretString>,
    tokens: Mutex<Vec<SecretString>>,
}

impl Secrets {
    /// The values of the headers that go with every request, and their parts: `Bearer x` holds `x`.
    pub(crate) fn of_headers<'a>(values: impl Iterator<Item = &'a SecretString>) -> Self {
        let parts = values.flat_map(|value| {
            let whole = value.expose_secret();
            let parts = whole.split_whitespace().filter(|part| *part != whole);
            std::iter::once(whole)
                .chain(parts)
                .map(SecretString::from)
                .collect::<Vec<_>>()
        });
        Self {
            headers: parts.filter(is_long).collect(),
            tokens: Mutex::default(),
        }
    }

    /// Remembers a token that is about to be sent.
    pub(crate) fn add(&self, token: &SecretString) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |known: &SecretString| known.expose_secret() == token.expose_secret();
        if is_long(token) && !tokens.iter().any(same) {
            if tokens.len() == MAX_TOKENS {
                tokens.remove(0);
            }
            tokens.push(token.clone());
        }
    }

    /// The text without the secrets.
    pub(crate) fn scrub(&self, mut text: String) -> String {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        for secret in self.headers.iter().chain(tokens.iter()) {
            if text.contains(secret.expose_secret()) {
                text = text.replace(secret.expose_secret(), MASK);
            }
        }
        text
    }

    /// Whether a secret is in the text.
    pub(crate) fn are_in(&self, text: &str) -> bool {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        self.headers
            .iter()
            .chain(tokens.iter())
            .any(|secret| text.contains(secret.expose_secret()))
    }

    /// The value without the secrets, in names as well. As text, a value may spell a secret in another way.
    pub(crate) fn scrub_json(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.scrub(text)),
            Value::Array(items) => items.into_iter().map(|item| self.scrub_json(item)).collect(),
            Value::Object(fields) => Value::Object(self.scrub_object(fields)),
            other => other,
        }
    }

    /// The object without the secrets.
    pub(crate) fn scrub_object(&self, fields: Map<String, Value>) -> Map<String, Value> {
        let scrubbed = |(name, value)| (self.scrub(name), self.scrub_json(value));
        fields.into_iter().map(scrubbed).collect()
    }
}

fn is_long(secret: &SecretString) -> bool {
    secret.expose_secret().len() >= MIN_LEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_whole_and_in_parts() {
        let headers = [
            SecretString::from("Bearer abcdefghij"),
            SecretString::from("short"),
        ];
        let secrets = Secrets::of_headers(headers.iter());
        secrets.add(&SecretString::from("token-12345"));
        for (text, expected) in [
            ("x Bearer abcdefghij y", "x [secret] y"),
            ("abcdefghij", "[secret]"),
            ("a token-12345, short", "a [secret], short"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(secrets.scrub(text.to_owned()), expected);
        }
    }
}
