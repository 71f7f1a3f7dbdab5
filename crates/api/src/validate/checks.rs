//! Checks of single values. Each gives the value, or `None` after reporting what is wrong, in the words of
//! the reference's validator.

use oma_egress::proxy::secrets::{MAX_SECRET, MIN_SECRET};
use oma_sandbox::fittings;
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::object::{Object, clip};
use super::tree::Tree;
use crate::limits;

/// The name of a value's JSON type.
#[must_use]
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

pub(crate) fn expected(what: &str, value: &Value) -> String {
    format!("Expected {what}, received {}", type_name(value))
}

/// A string of `min` to `max` characters, none of them NUL: no command, file name or header could carry it on.
pub fn text(min: usize, max: usize) -> impl Fn(&Value, &mut Tree) -> Option<String> {
    move |value, issues| {
        let Value::String(text) = value else {
            issues.push(expected("string", value));
            return None;
        };
        // A string has at most as many characters as bytes, so most need no counting.
        if text.len() < min || (min > 0 && text.chars().take(min).count() < min) {
            issues.push(format!("String must contain at least {min} character(s)"));
            return None;
        }
        if text.len() > max && text.chars().count() > max {
            issues.push(format!("String must contain at most {max} character(s)"));
            return None;
        }
        if text.contains('\0') {
            issues.push("String must not contain NUL characters");
            return None;
        }
        Some(text.clone())
    }
}

/// A truth value.
pub fn boolean(value: &Value, issues: &mut Tree) -> Option<bool> {
    let found = value.as_bool();
    if found.is_none() {
        issues.push(expected("boolean", value));
    }
    found
}

/// An amount of US dollars above 0, up to [`limits::COST_USD`].
pub fn positive(value: &Value, issues: &mut Tree) -> Option<f64> {
    let Some(number) = value.as_f64() else {
        issues.push(expected("number", value));
        return None;
    };
    if number > limits::COST_USD {
        issues.push(format!(
            "Number must be less than or equal to {}",
            limits::COST_USD
        ));
        return None;
    }
    if number > 0.0 {
        return Some(number);
    }
    issues.push("Number must be greater than 0");
    None
}

/// A whole number from `min` to `max`. `1.0` is one, as in JavaScript.
pub fn integer(min: u64, max: u64) -> impl Fn(&Value, &mut Tree) -> Option<u64> {
    move |value, issues| {
        let Value::Number(number) = value else {
            issues.push(expected("number", value));
            return None;
        };
        let float = number.as_f64().unwrap_or(f64::NAN);
        if float.fract() != 0.0 {
            issues.push("Expected integer, received float");
            return None;
        }
        // The first number that an unsigned one of 64 bits can't hold.
        if float >= 18_446_744_073_709_551_616.0 {
            issues.push(format!("Number must be less than or equal to {max}"));
            return None;
        }
        match whole(number, float) {
            Some(found) if found > max => issues.push(format!("Number must be less than or equal to {max}")),
            Some(found) if found >= min => return Some(found),
            _ if min == 1 => issues.push("Number must be greater than 0"),
            _ => issues.push(format!("Number must be greater than or equal to {min}")),
        }
        None
    }
}

/// The number as an unsigned integer; `None` when it is negative.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked, and the cast saturates"
)]
fn whole(number: &serde_json::Number, float: f64) -> Option<u64> {
    number.as_u64().or_else(|| (float >= 0.0).then_some(float as u64))
}

/// One of a set of names.
pub fn one_of(names: &'static [&'static str]) -> impl Fn(&Value, &mut Tree) -> Option<&'static str> {
    move |value, issues| {
        let quoted = || quoted(names);
        let Value::String(text) = value else {
            issues.push(format!("Expected {}, received {}", quoted(), type_name(value)));
            return None;
        };
        let found = names.iter().copied().find(|name| name == text);
        if found.is_none() {
            issues.push(format!(
                "Invalid enum value. Expected {}, received '{}'",
                quoted(),
                clip(text)
            ));
        }
        found
    }
}

/// The names as messages list them.
fn quoted(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("'{name}'"))
        .collect::<Vec<_>>()
        .join(" | ")
}

/// The `type` that tells which of several shapes an object has.
pub fn discriminator(object: &mut Object<'_>, names: &'static [&'static str]) -> Option<&'static str> {
    let found = object.peek("type").and_then(Value::as_str);
    let known = names.iter().copied().find(|name| Some(*name) == found);
    if known.is_none() {
        let problem = format!("Invalid discriminator value. Expected {}", quoted(names));
        object.issues().at("type").push(problem);
    }
    known
}

/// A list of `min` to `max` values, each of which passes `check`.
pub fn list<T>(
    min: usize,
    max: usize,
    check: impl Fn(&Value, &mut Tree) -> Option<T>,
) -> impl Fn(&Value, &mut Tree) -> Option<Vec<T>> {
    move |value, issues| {
        let Value::Array(items) = value else {
            issues.push(expected("array", value));
            return None;
        };
        if items.len() < min {
            issues.push(format!("Array must contain at least {min} element(s)"));
            return None;
        }
        if items.len() > max {
            issues.push(format!("Array must contain at most {max} element(s)"));
            return None;
        }
        let mut checked = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            // The node is made only for a bad element: trees stay as small as the problem.
            let mut below = Tree::default();
            match check(item, &mut below) {
                Some(good) if below.is_empty() => checked.push(good),
                _ => *issues.at(&index.to_string()) = below,
            }
        }
        (checked.len() == items.len()).then_some(checked)
    }
}

/// An object of at most `max` entries, whose names have at most `name` characters and whose values pass `check`.
pub fn entries(
    max: usize,
    name: usize,
    check: impl Fn(&Value, &mut Tree) -> Option<()>,
) -> impl Fn(&Value, &mut Tree) -> Option<Map<String, Value>> {
    move |value, issues| {
        let Value::Object(map) = value else {
            issues.push(expected("object", value));
            return None;
        };
        if map.len() > max {
            issues.push(format!("Object must contain at most {max} key(s)"));
            return None;
        }
        let mut good = true;
        for (key, value) in map {
            let mut below = Tree::default();
            if key.len() > name {
                below.push(format!("Key must contain at most {name} character(s)"));
            }
            if key.contains('\0') {
                below.push("Key must not contain NUL characters");
            }
            let passes = check(value, &mut below).is_some() && below.is_empty();
            if !passes {
                good = false;
                *issues.at(&clip(key)) = below;
            }
        }
        good.then(|| map.clone())
    }
}

/// An absolute web address: `http` or `https`, with a host. Whoever fetches it is not to look into files instead.
pub fn url(max: usize) -> impl Fn(&Value, &mut Tree) -> Option<String> {
    move |value, issues| {
        let address = text(0, max)(value, issues)?;
        match url::Url::parse(&address) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => return Some(address),
            Ok(url) => issues.push(format!(
                "Invalid url. Expected the scheme 'http' | 'https', received '{}'",
                clip(url.scheme())
            )),
            Err(_) => issues.push("Invalid url"),
        }
        None
    }
}

/// A secret for programs in the sandbox.
pub fn variable_value(value: &Value, issues: &mut Tree) -> Option<SecretString> {
    text(MIN_SECRET, MAX_SECRET)(value, issues).map(SecretString::from)
}

/// The name of an environment variable that a session's sandbox does not have already.
pub fn variable(value: &Value, issues: &mut Tree) -> Option<String> {
    let name = text(1, limits::NAME)(value, issues)?;
    if !fittings::is_legal(&name) {
        issues.push("Must be the name of a variable: letters, digits and underscores, and no digit first");
        return None;
    }
    if fittings::is_reserved(&name) {
        issues.push("The sandbox gives this variable its own value; choose another name");
        return None;
    }
    Some(name)
}

/// A model's name: `provider/model`. Whether there is such a provider is the engine's to say.
pub fn model(value: &Value, issues: &mut Tree) -> Option<String> {
    let name = text(1, limits::NAME)(value, issues)?;
    let well_formed = name
        .split_once('/')
        .is_some_and(|(provider, model)| !provider.is_empty() && !model.is_empty());
    if well_formed && !name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some(name);
    }
    issues.push("Expected 'provider/model'");
    None
}
