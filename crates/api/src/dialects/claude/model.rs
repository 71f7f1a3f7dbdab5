//! Models as this dialect names them: an id, and how hard the model is to think.
//!
//! A bare id means a model of Anthropic's, as every client of this dialect expects; any other is `provider/model`.

use oma_domain::agent::Spec;
use oma_domain::thinking::ThinkingLevel;
use serde_json::{Value, json};

use super::body::{nullable, object};
use crate::validate::checks::{model as qualified, one_of, text};
use crate::validate::{Object, Tree};

/// Whose models have bare ids.
const ANTHROPIC: &str = "anthropic/";
/// The longest id, in characters.
const ID: usize = 200;
const EFFORTS: &[&str] = &["low", "medium", "high", "xhigh", "max"];

/// A model that a client names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelChoice {
    /// `provider/model`.
    pub(crate) name: String,
    /// How hard it is to think, if the client says so.
    pub(crate) effort: Option<ThinkingLevel>,
}

impl ModelChoice {
    /// Puts the model into a definition. The effort stays when only it is not said of the same model.
    pub(crate) fn apply(self, spec: &mut Spec) {
        if let Some(effort) = self.effort {
            spec.thinking_level = effort;
        } else if spec.model != self.name {
            spec.thinking_level = ThinkingLevel::Off;
        }
        spec.model = self.name;
    }
}

/// Reads a model: its id, or an object.
pub(crate) fn model(value: &Value, issues: &mut Tree) -> Option<ModelChoice> {
    if value.is_object() {
        return object(&["id", "effort", "speed", "inference_geo"], read)(value, issues);
    }
    let name = id(value, issues)?;
    Some(ModelChoice { name, effort: None })
}

fn read(object: &mut Object<'_>) -> Option<ModelChoice> {
    let name = object.required("id", id);
    let effort = nullable(object, "effort", effort);
    let speed = nullable(object, "speed", one_of(&["standard", "fast"]));
    if speed == Some(Some("fast")) {
        object
            .issues()
            .at("speed")
            .push("This server does not support it yet");
    }
    super::body::unsupported(object, "inference_geo");
    speed?;
    Some(ModelChoice {
        name: name?,
        effort: effort?,
    })
}

/// Reads a model's id, to `provider/model`.
pub(crate) fn id(value: &Value, issues: &mut Tree) -> Option<String> {
    let id = text(1, ID)(value, issues)?;
    let name = if id.contains('/') {
        id
    } else {
        format!("{ANTHROPIC}{id}")
    };
    qualified(&Value::String(name), issues)
}

fn effort(value: &Value, issues: &mut Tree) -> Option<ThinkingLevel> {
    let level = if value.is_object() {
        object(&["type"], |object| object.required("type", one_of(EFFORTS)))(value, issues)?
    } else {
        one_of(EFFORTS)(value, issues)?
    };
    // The strongest level is what the provider has as such.
    Some(ThinkingLevel::parse(level).unwrap_or(ThinkingLevel::Xhigh))
}

/// A model's id as clients read it.
pub(crate) fn shown(name: &str) -> &str {
    name.strip_prefix(ANTHROPIC).unwrap_or(name)
}

/// A model as clients read it.
pub(crate) fn view(name: &str, thinking: ThinkingLevel) -> Value {
    let mut view = json!({"id": shown(name), "speed": "standard"});
    // An agent that is not told to think has no effort: a level would say more than is true.
    if thinking != ThinkingLevel::Off {
        view["effort"] = json!({"type": thinking.as_str()});
    }
    view
}
