//! Validation of request bodies, in one place: every bad field is reported, all of them together, in the tree
//! that the reference's clients know (`{"_errors": [...], "<field>": {"_errors": [...]}}`).
//!
//! A body's type implements [`Body`]: it reads its fields from an [`Object`], each with a [check](checks)
//! that gives the value or reports into the [`Tree`].

pub mod checks;
mod object;
mod tree;

pub(crate) use object::clip;
pub use object::{Change, Object};
pub use tree::Tree;

use serde_json::Value;

use crate::fault::{Fault, Result};

/// A request body.
pub trait Body: Sized {
    /// Reads it; `None` when something is wrong, which is then in the object's tree.
    fn read(object: &mut Object<'_>) -> Option<Self>;

    /// Reads it from JSON.
    ///
    /// # Errors
    /// 400 `invalid_request` with the tree of all bad fields.
    fn parse(value: &Value) -> Result<Self> {
        parse(value, |value, issues| {
            Object::of(value, issues).and_then(|mut object| Self::read(&mut object))
        })
    }
}

/// Runs a check over a whole body.
///
/// # Errors
/// 400 `invalid_request` with the tree of all bad fields.
pub fn parse<T>(value: &Value, check: impl FnOnce(&Value, &mut Tree) -> Option<T>) -> Result<T> {
    let mut issues = Tree::default();
    match check(value, &mut issues) {
        Some(body) if issues.is_empty() => Ok(body),
        _ => Err(Fault::invalid(&issues)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::dialects::openai::body::ChatRequest;
    use crate::dialects::openclaw::agents::body::{CreateAgent, RunAgent, UpdateAgent};
    use crate::dialects::openclaw::environments::body::CreateEnvironment;
    use crate::dialects::openclaw::events::body::Incoming;
    use crate::dialects::openclaw::sessions::body::OpenSession;

    /// Names that some body reads, so that random objects get past the first check.
    const NAMES: &[&str] = &[
        "model",
        "instructions",
        "tools",
        "name",
        "permissionPolicy",
        "type",
        "mcpServers",
        "quota",
        "url",
        "env",
        "maxTokensPerSession",
        "maxCostUsdPerSession",
        "channels",
        "telegram",
        "version",
        "task",
        "packages",
        "pip",
        "networking",
        "allowedHosts",
        "agentId",
        "content",
        "text",
        "source",
        "data",
        "messages",
        "role",
        "user",
        "image_url",
        "toolUseId",
        "result",
        "thinkingLevel",
        "title",
        "x",
    ];
    const WORDS: &[&str] = &[
        "",
        "a/b",
        "text",
        "image",
        "base64",
        "image/png",
        "aGk=",
        "user",
        "deny",
        "always_ask",
        "limited",
        "*.a.b",
        "https://a.example/",
        "data:image/png;base64,aGk=",
        "user.tool_confirmation",
        "allow",
        "\u{0}",
        "é",
    ];

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(|number| json!(number)),
            prop::sample::select(WORDS).prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((prop::sample::select(NAMES), inner), 0..6).prop_map(|fields| {
                    fields
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect()
                }),
            ]
        })
    }

    fn check<T: Body>(value: &Value) {
        if let Err(fault) = T::parse(value) {
            let details = fault.details().map(ToString::to_string).unwrap_or_default();
            // A refusal always says what is wrong.
            assert!(details.contains("_errors\":[\""), "{value} {details}");
        }
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_refused_with_a_reason(value in value()) {
            check::<CreateAgent>(&value);
            check::<UpdateAgent>(&value);
            check::<RunAgent>(&value);
            check::<CreateEnvironment>(&value);
            check::<OpenSession>(&value);
            check::<Incoming>(&value);
            check::<ChatRequest>(&value);
        }
    }
}
