//! Values of programs as JSON, and back.

use rhai::{Array, Dynamic, FLOAT, INT, ImmutableString, Map};
use serde_json::{Number, Value};

/// How deep a value may nest that leaves or enters a program.
const MAX_DEPTH: usize = 64;

/// A value of a program as JSON.
///
/// # Errors
/// Why it has no JSON, in words.
pub(crate) fn to_json(value: &Dynamic) -> Result<Value, String> {
    json(value, 0)
}

fn json(value: &Dynamic, depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err(format!("a value nests more than {MAX_DEPTH} levels deep"));
    }
    if value.is_unit() {
        return Ok(Value::Null);
    }
    if let Ok(flag) = value.as_bool() {
        return Ok(Value::Bool(flag));
    }
    if let Ok(number) = value.as_int() {
        return Ok(Value::from(number));
    }
    if let Ok(number) = value.as_float() {
        return Number::from_f64(number)
            .map(Value::Number)
            .ok_or_else(|| format!("the number {number} has no JSON"));
    }
    if let Ok(character) = value.as_char() {
        return Ok(Value::String(character.to_string()));
    }
    if let Ok(text) = value.as_immutable_string_ref() {
        return Ok(Value::String(text.to_string()));
    }
    if let Ok(array) = value.as_array_ref() {
        let items = array.iter().map(|item| json(item, depth + 1));
        return items.collect::<Result<Vec<_>, _>>().map(Value::Array);
    }
    if let Ok(map) = value.as_map_ref() {
        let fields = map
            .iter()
            .map(|(name, field)| Ok((name.to_string(), json(field, depth + 1)?)));
        return fields
            .collect::<Result<serde_json::Map<_, _>, String>>()
            .map(Value::Object);
    }
    Err(format!("a value of type {} has no JSON", value.type_name()))
}

/// JSON as a value of a program. A number that is no integer of 64 bits is a floating-point number.
///
/// # Errors
/// When it nests too deep.
pub(crate) fn from_json(value: Value) -> Result<Dynamic, String> {
    dynamic(value, 0)
}

fn dynamic(value: Value, depth: usize) -> Result<Dynamic, String> {
    if depth > MAX_DEPTH {
        return Err(format!("the JSON nests more than {MAX_DEPTH} levels deep"));
    }
    Ok(match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(flag) => Dynamic::from_bool(flag),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Dynamic::from_int(integer as INT),
            None => Dynamic::from_float(number.as_f64().unwrap_or_default() as FLOAT),
        },
        Value::String(text) => Dynamic::from(ImmutableString::from(text)),
        Value::Array(items) => {
            let items = items.into_iter().map(|item| dynamic(item, depth + 1));
            Dynamic::from_array(items.collect::<Result<Array, _>>()?)
        }
        Value::Object(fields) => {
            let fields = fields
                .into_iter()
                .map(|(name, field)| Ok((name.into(), dynamic(field, depth + 1)?)));
            Dynamic::from_map(fields.collect::<Result<Map, String>>()?)
        }
    })
}
