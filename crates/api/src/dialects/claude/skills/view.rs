//! Skills and versions as clients read them, in the shape that they know.

use oma_domain::Skill;
use oma_domain::skill::SkillVersion;
use serde_json::{Value, json};

use super::Shape;
use crate::dialects::claude::time;

/// A skill.
pub(super) fn skill(skill: &Skill, shape: Shape) -> Value {
    let (created_at, updated_at) = (time::value(skill.created_at), time::value(skill.updated_at));
    let latest = skill.latest.as_ref();
    match shape {
        Shape::Current => json!({
            "id": skill.id.as_str(),
            "type": "skill",
            "display_name": skill.display_name,
            "latest_version_id": latest.map(|(id, _)| id.as_str()),
            "source": {"type": "custom"},
            "created_at": created_at,
            "updated_at": updated_at,
        }),
        Shape::Old => json!({
            "id": skill.id.as_str(),
            "type": "skill",
            "display_title": skill.display_name,
            "latest_version": latest.map(|(_, number)| number.to_string()),
            "source": "custom",
            "created_at": created_at,
            "updated_at": updated_at,
        }),
    }
}

/// A version.
pub(super) fn version(version: &SkillVersion, shape: Shape) -> Value {
    let mut view = json!({
        "id": version.id.as_str(),
        "type": "skill_version",
        "skill_id": version.skill.as_str(),
        "name": version.name,
        "description": version.description,
        "created_at": time::value(version.created_at),
    });
    if shape == Shape::Old {
        view["version"] = json!(version.number.to_string());
        view["directory"] = json!(version.directory);
    }
    view
}
