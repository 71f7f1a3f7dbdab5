//! The system prompt: the agent's instructions, its skills, the session's memory stores.
//!
//! It is the same for all requests of a session, so that providers' caches are hit. Of skills it has names and
//! descriptions only; the model reads the rest where a task calls for it.

use oma_domain::Agent;
use oma_domain::memory::{Access, Attachment};
use oma_domain::skill::{Pin, folders, folders_of_thread};
use oma_runtime::SessionInfo;

const SKILLS: &str = "# Skills

A skill is a folder with instructions, and often files, for one kind of task. When a task fits one of the descriptions \
below, read the skill's SKILL.md before you begin, follow it, and read further files of the folder when it refers to \
them. These folders can't be changed.
";

const MEMORY: &str = "# Memory

The folders below outlive this session: what is in them was kept for it, and what you keep in them is there in later \
sessions. Look into those that concern a task before you begin, and write down what is worth knowing later. Each file \
is one memory: text in UTF-8 of at most 102400 bytes; several small ones serve better than one large one. Others may \
change them at the same time.
";

/// The system prompt of a session.
pub(crate) fn system(session: &SessionInfo) -> String {
    let spec = &session.agent.spec;
    let mut prompt = spec.instructions.clone();
    let is_thread = session.sandbox != session.id;
    let skills = skills(&session.agent, is_thread);
    for section in [skills, memory(&session.memories)].into_iter().flatten() {
        if !prompt.is_empty() {
            prompt.push_str("\n\n");
        }
        prompt.push_str(&section);
    }
    prompt
}

fn skills(agent: &Agent, in_thread: bool) -> Option<String> {
    let pins = &agent.spec.skills;
    let folders = match in_thread {
        // One that was defined on the fly has skills of its coordinator's, where that one has them.
        true if !agent.is_inline() => folders_of_thread(&agent.id, pins),
        _ => folders(pins),
    };
    let mut section = SKILLS.to_owned();
    for (pin, folder) in pins.iter().zip(folders) {
        let Pin {
            name, description, ..
        } = pin;
        section.push_str(&format!(
            "\n- {name} (/mnt/skills/{folder}/SKILL.md): {}",
            one_line(description)
        ));
    }
    (!pins.is_empty()).then_some(section)
}

fn memory(attached: &[Attachment]) -> Option<String> {
    let mut section = MEMORY.to_owned();
    for one in attached {
        let access = match one.access {
            Access::ReadOnly => "read only",
            Access::ReadWrite => "read and write",
        };
        section.push_str(&format!(
            "\n- {} ({access}): {}",
            one.mount_path(),
            one_line(&one.name)
        ));
        let more = [Some(one.description.as_str()), one.instructions.as_deref()];
        for text in more.into_iter().flatten().filter(|text| !text.trim().is_empty()) {
            for line in text.trim().lines() {
                section.push_str(&format!("\n  {}", line.trim_end()));
            }
        }
    }
    (!attached.is_empty()).then_some(section)
}

/// A text in one line, as an item of a list.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use oma_domain::agent::Spec;
    use oma_domain::{AgentId, MemoryStoreId, SkillId, SkillVersionId, Timestamp, WorkspaceId};
    use serde_json::json;

    use super::*;

    #[test]
    fn skills_are_named_and_described() {
        let pin = |name: &str, description: &str| Pin {
            skill: SkillId::generate(),
            version: SkillVersionId::generate(),
            name: name.into(),
            description: description.into(),
            directory: "pdf".into(),
        };
        let definition = json!({
            "model": "test/model", "instructions": "", "tools": [], "permission_policy": {"type": "always_allow"},
            "callable_agents": [], "max_subagent_depth": 0, "mcp_servers": {}, "thinking_level": "medium",
            "channels": null,
        });
        let with = |skills: Vec<Pin>| Agent {
            id: AgentId::parse("agt_1").expect("an id"),
            workspace: WorkspaceId::default_workspace(),
            version: 1,
            spec: Spec {
                skills,
                ..serde_json::from_value(definition.clone()).expect("a definition")
            },
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            archived_at: None,
        };
        assert_eq!(skills(&with(Vec::new()), false), None);
        let agent = with(vec![pin("pdf", "Fills\nforms"), pin("other", "Else")]);
        let listed = |in_thread| {
            let section = skills(&agent, in_thread).expect("a section");
            section.strip_prefix(SKILLS).expect("it begins so").to_owned()
        };
        let list = listed(false);
        assert_eq!(
            listed(true),
            list.replace("/mnt/skills/", "/mnt/skills/threads/agt_1/")
        );
        // An agent that was defined on the fly finds those of its coordinator.
        let inline = Agent {
            id: AgentId::of_inline(),
            ..agent.clone()
        };
        assert_eq!(skills(&inline, true), skills(&agent, false));
        assert_eq!(
            list,
            "\n- pdf (/mnt/skills/pdf/SKILL.md): Fills forms\n- other (/mnt/skills/pdf-2/SKILL.md): Else"
        );
    }

    #[test]
    fn stores_are_named_with_what_they_are_for() {
        let store = |access, description: &str, instructions: Option<&str>| Attachment {
            store: MemoryStoreId::generate(),
            access,
            instructions: instructions.map(str::to_owned),
            name: "User Preferences".into(),
            description: description.into(),
            folder: "user-preferences".into(),
        };
        assert_eq!(memory(&[]), None);
        let stores = [
            store(Access::ReadWrite, "What they like", Some("Ask\n  first")),
            store(Access::ReadOnly, "", None),
        ];
        let section = memory(&stores).expect("a section");
        let list = section.strip_prefix(MEMORY).expect("it begins so");
        assert_eq!(
            list,
            "\n- /mnt/memory/user-preferences (read and write): User Preferences\n  What they like\n  Ask\n    first\n- /mnt/memory/user-preferences (read only): User Preferences"
        );
    }
}
