//! Reading the fields of a JSON object.

use serde_json::{Map, Value};

use super::checks::expected;
use super::tree::Tree;

/// How many unknown fields a message names.
const NAMED_KEYS: usize = 20;

/// What an update does to a field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Change<T> {
    /// The field was not sent.
    #[default]
    Keep,
    /// `null` was sent.
    Clear,
    /// A value was sent.
    Set(T),
}

impl<T> Change<T> {
    /// Carries the change out on a field that has an empty value.
    pub fn apply(self, field: &mut T)
    where
        T: Default,
    {
        match self {
            Self::Keep => {}
            Self::Clear => *field = T::default(),
            Self::Set(value) => *field = value,
        }
    }

    /// Carries the change out on a field that may be absent.
    pub fn apply_optional(self, field: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Clear => *field = None,
            Self::Set(value) => *field = Some(value),
        }
    }
}

/// A JSON object that is being read. Fields that nobody reads are ignored, unless [`Object::only`] says
/// otherwise.
pub struct Object<'a> {
    map: &'a Map<String, Value>,
    issues: &'a mut Tree,
}

impl<'a> Object<'a> {
    /// Begins to read; reports when the value is no object.
    pub fn of(value: &'a Value, issues: &'a mut Tree) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self { map, issues }),
            other => {
                issues.push(expected("object", other));
                None
            }
        }
    }

    /// A field that must be there.
    pub fn required<T>(
        &mut self,
        name: &str,
        check: impl FnOnce(&Value, &mut Tree) -> Option<T>,
    ) -> Option<T> {
        match self.map.get(name) {
            Some(value) => check(value, self.issues.at(name)),
            None => {
                self.issues.at(name).push("Required");
                None
            }
        }
    }

    /// A field that may be missing, but not be null. The outer `None` says that it is wrong.
    pub fn optional<T>(
        &mut self,
        name: &str,
        check: impl FnOnce(&Value, &mut Tree) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.map.get(name) {
            Some(value) => check(value, self.issues.at(name)).map(Some),
            None => Some(None),
        }
    }

    /// A field with a default, which may not be null.
    pub fn or<T>(
        &mut self,
        name: &str,
        default: T,
        check: impl FnOnce(&Value, &mut Tree) -> Option<T>,
    ) -> Option<T> {
        match self.map.get(name) {
            Some(value) => check(value, self.issues.at(name)),
            None => Some(default),
        }
    }

    /// A field of an update that null clears.
    pub fn change<T>(
        &mut self,
        name: &str,
        check: impl FnOnce(&Value, &mut Tree) -> Option<T>,
    ) -> Option<Change<T>> {
        match self.map.get(name) {
            None => Some(Change::Keep),
            Some(Value::Null) => Some(Change::Clear),
            Some(value) => check(value, self.issues.at(name)).map(Change::Set),
        }
    }

    /// Reports all fields besides these.
    pub fn only(&mut self, names: &[&str]) {
        let mut unknown = self.map.keys().filter(|key| !names.contains(&key.as_str()));
        let quoted: Vec<String> = unknown
            .by_ref()
            .take(NAMED_KEYS)
            .map(|key| format!("'{}'", clip(key)))
            .collect();
        if !quoted.is_empty() {
            let more = if unknown.next().is_some() { ", ..." } else { "" };
            self.issues.push(format!(
                "Unrecognized key(s) in object: {}{more}",
                quoted.join(", ")
            ));
        }
    }

    /// A string field as it stands, without any report: to tell which shape an object has.
    #[must_use]
    pub fn peek(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name)
    }

    /// The object as it was sent.
    #[must_use]
    pub fn raw(&self) -> &'a Map<String, Value> {
        self.map
    }

    /// Where problems with this object are reported.
    pub fn issues(&mut self) -> &mut Tree {
        self.issues
    }
}

/// What of a client's text may be repeated in a message.
pub(crate) fn clip(text: &str) -> String {
    let mut clipped: String = text.chars().take(100).collect();
    if clipped.len() < text.len() {
        clipped.push('…');
    }
    clipped
}
