//! Skills: folders of instructions and files that agents read when a task calls for them. A version never changes.

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, SkillId, SkillVersionId, WorkspaceId};
use crate::time::Timestamp;

/// The most skills of one agent.
pub const MAX_AGENT_SKILLS: usize = 20;

/// The folder below which the skills of agents are that work in threads.
const THREADS: &str = "threads";

/// A skill, over all its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skill {
    /// Its id.
    pub id: SkillId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// A name for people.
    pub display_name: String,
    /// Its newest version with the number of that; `None` when all are deleted.
    pub latest: Option<(SkillVersionId, u64)>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it, or its versions, were changed.
    pub updated_at: Timestamp,
}

/// A version of a skill, without its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkillVersion {
    /// Its id.
    pub id: SkillVersionId,
    /// The skill.
    pub skill: SkillId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// Its number, unique in the skill and growing: about the microseconds since the epoch at its creation.
    pub number: u64,
    /// The name that it gives itself.
    pub name: String,
    /// What it does and when to use it, in its own words.
    pub description: String,
    /// The name of its folder.
    pub directory: String,
    /// When it was created.
    pub created_at: Timestamp,
}

/// How a version is named within its skill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The newest.
    Latest,
    /// The one with this id.
    Id(SkillVersionId),
    /// The one with this number.
    Number(u64),
}

impl Which {
    /// Reads a version's id, its number, or `latest`. What is none of them names no version.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        match text.parse() {
            Ok(number) => Some(Self::Number(number)),
            Err(_) => SkillVersionId::parse(text).ok().map(Self::Id),
        }
    }
}

/// A version that an agent has, with what goes into its prompt: the version itself may be deleted later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The skill.
    pub skill: SkillId,
    /// Its version.
    pub version: SkillVersionId,
    /// The name that it gives itself.
    pub name: String,
    /// What it does and when to use it, in its own words.
    pub description: String,
    /// The name of its folder.
    pub directory: String,
}

/// The folders that the skills of a session's agent get in its sandbox, in their order: named as their own, with a
/// number where two have the same name, or that is taken for agents in threads.
#[must_use]
pub fn folders(pins: &[Pin]) -> Vec<String> {
    let mut folders: Vec<String> = Vec::with_capacity(pins.len());
    for pin in pins {
        let mut folder = pin.directory.clone();
        let mut number = 2;
        while folders.contains(&folder) || folder == THREADS {
            folder = format!("{}-{number}", pin.directory);
            number += 1;
        }
        folders.push(folder);
    }
    folders
}

/// The folders that the skills of an agent get which works in a session's thread: below one of its own, because the
/// sandbox is the session's, and other agents may have other skills of the same name.
#[must_use]
pub fn folders_of_thread(agent: &AgentId, pins: &[Pin]) -> Vec<String> {
    let folders = folders(pins).into_iter();
    folders
        .map(|folder| format!("{THREADS}/{agent}/{folder}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named_in_three_ways() {
        let id = SkillVersionId::generate();
        for (text, which) in [
            ("latest", Some(Which::Latest)),
            ("1759178010641129", Some(Which::Number(1_759_178_010_641_129))),
            (id.as_str(), Some(Which::Id(id.clone()))),
            ("", None),
            ("a/b", None),
        ] {
            assert_eq!(Which::parse(text), which, "{text}");
        }
    }

    #[test]
    fn folders_are_distinct() {
        let pin = |directory: &str| Pin {
            skill: SkillId::generate(),
            version: SkillVersionId::generate(),
            name: "a".into(),
            description: "b".into(),
            directory: directory.into(),
        };
        let pins = [pin("a"), pin("a-2"), pin("a"), pin("a")];
        assert_eq!(folders(&pins), ["a", "a-2", "a-3", "a-4"]);
        let agent = AgentId::parse("agt_1").expect("an id");
        assert_eq!(
            folders_of_thread(&agent, &pins[..2]),
            ["threads/agt_1/a", "threads/agt_1/a-2"]
        );
        assert_eq!(folders(&[pin("threads"), pin("a")]), ["threads-2", "a"]);
    }
}
