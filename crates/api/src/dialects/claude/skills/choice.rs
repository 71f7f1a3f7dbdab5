//! The skills of an agent: what clients name, and what is kept of it.

use oma_domain::agent::Spec;
use oma_domain::policy::Permission;
use oma_domain::skill::{MAX_AGENT_SKILLS, Pin, Which};
use oma_domain::{SkillId, WorkspaceId};
use oma_engine::{Engine, Error, SkillError};
use serde_json::{Value, json};

use crate::dialects::claude::body::{bad, nullable, only};
use crate::fault::Result;
use crate::limits;
use crate::validate::checks::{discriminator, list, text};
use crate::validate::{Object, Tree};

/// A skill that a client names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SkillChoice {
    skill: SkillId,
    version: Which,
}

/// Reads the skills that a client names.
pub(crate) fn choices(value: &Value, issues: &mut Tree) -> Option<Vec<SkillChoice>> {
    let chosen = list(0, MAX_AGENT_SKILLS, choice)(value, issues)?;
    for (index, one) in chosen.iter().enumerate() {
        if chosen.iter().take(index).any(|other| other.skill == one.skill) {
            let issues = issues.at(&index.to_string()).at("skill_id");
            issues.push("The skill is named twice");
            return None;
        }
    }
    Some(chosen)
}

fn choice(value: &Value, issues: &mut Tree) -> Option<SkillChoice> {
    let mut object = Object::of(value, issues)?;
    let kind = discriminator(&mut object, &["anthropic", "custom"])?;
    only(&mut object, &["type", "skill_id", "version"]);
    let id = object.required("skill_id", text(1, limits::NAME));
    let version = nullable(&mut object, "version", |value, issues| {
        let text = text(1, limits::NAME)(value, issues)?;
        let which = Which::parse(&text);
        if which.is_none() {
            issues.push("The skill has no such version");
        }
        which
    });
    let id = id?;
    if kind == "anthropic" {
        object.issues().at("skill_id").push(
            "This server has none of Anthropic's skills; upload the skill and name it with the type custom",
        );
        return None;
    }
    let Ok(skill) = SkillId::parse(&id) else {
        object.issues().at("skill_id").push(NO_SKILL);
        return None;
    };
    Some(SkillChoice {
        skill,
        version: version?.unwrap_or(Which::Latest),
    })
}

const NO_SKILL: &str = "No skill has this id";

/// Finds the versions that are meant; `field` is where they are named.
///
/// # Errors
/// 400 that names what is not there.
pub(crate) async fn resolve(
    engine: &Engine,
    workspace: &WorkspaceId,
    chosen: &[SkillChoice],
    field: &str,
) -> Result<Vec<Pin>> {
    let mut pins = Vec::with_capacity(chosen.len());
    for (index, SkillChoice { skill, version }) in chosen.iter().enumerate() {
        match engine.pin_skill(workspace, skill, version).await {
            Ok(pin) => pins.push(pin),
            Err(Error::Skill(SkillError::NotFound)) => {
                return Err(bad(format!("{field}.{index}.skill_id: {NO_SKILL}")));
            }
            Err(Error::Skill(SkillError::VersionNotFound)) => {
                return Err(bad(format!(
                    "{field}.{index}.version: The skill has no such version"
                )));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(pins)
}

/// Refuses skills that the agent could not read.
///
/// # Errors
/// 400.
pub(crate) fn check_tools(spec: &Spec) -> Result<()> {
    let listed = spec.tools.is_empty() || spec.tools.iter().any(|tool| tool == "read");
    let readable = listed && spec.permission_policy.evaluate("read") != Permission::Deny;
    if spec.skills.is_empty() || readable {
        return Ok(());
    }
    Err(bad("skills: Skills need the read tool, which is not enabled"))
}

/// The skills of an agent as clients read them.
pub(crate) fn view(spec: &Spec) -> Value {
    let view = |pin: &Pin| json!({"type": "custom", "skill_id": pin.skill.as_str(), "version": pin.version.as_str()});
    spec.skills.iter().map(view).collect()
}
