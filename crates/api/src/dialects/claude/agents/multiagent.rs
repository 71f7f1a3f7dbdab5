//! Who may work in threads of an agent's sessions, and which model advises it: read strictly, laid over what is stored, and
//! pinned.

use oma_domain::multiagent::{
    CONSULT_ADVISOR, CREATE_AGENT, LIST_AGENTS, MAX_MEMBERS, Member, Multiagent, SEND_TO_AGENT, Team,
};
use oma_domain::workflow::RUN_WORKFLOW;
use oma_domain::{Agent, AgentId, Session, WorkspaceId};
use oma_engine::{Engine, Error};
use serde_json::{Value, json};

use super::view::definition;
use crate::dialects::claude::body::{bad, only};
use crate::dialects::claude::model;
use crate::fault::Result;
use crate::limits;
use crate::validate::checks::{discriminator, integer, list, text};
use crate::validate::{Change, Object, Tree};

const COORDINATOR: &str = "coordinator";
const PARTS: &str = "multiagent_20261001";

/// A member as clients name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    This,
    Agent { id: String, version: Option<u32> },
}

/// An entry of a coordinator's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Member(Named),
    /// A model, as `provider/model`.
    Advisor(String),
}

/// What a client chose.
#[derive(Debug, Clone)]
pub(crate) enum Choice {
    Coordinator(Vec<Entry>),
    Parts {
        /// The model that advises, as `provider/model`; `Set(None)` when it is disabled.
        advisor: Change<Option<String>>,
        subagents: Change<Part>,
        workflows: Change<Part>,
    },
}

/// What a client chose about one way of having others work.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Disabled,
    Enabled {
        inline: Change<bool>,
        members: Change<Vec<Named>>,
    },
}

/// Reads what a client chose.
pub(super) fn choice(value: &Value, issues: &mut Tree) -> Option<Choice> {
    let mut object = Object::of(value, issues)?;
    if discriminator(&mut object, &[COORDINATOR, PARTS])? == COORDINATOR {
        only(&mut object, &["type", "agents"]);
        return object
            .required("agents", list(1, MAX_MEMBERS, roster_entry))
            .map(Choice::Coordinator);
    }
    only(&mut object, &["type", "advisor", "subagents", "workflows"]);
    let advisor = object.change("advisor", advisor);
    let subagents = object.change("subagents", part);
    let workflows = object.change("workflows", part);
    Some(Choice::Parts {
        advisor: advisor?,
        subagents: subagents?,
        workflows: workflows?,
    })
}

fn part(value: &Value, issues: &mut Tree) -> Option<Part> {
    let mut object = Object::of(value, issues)?;
    if discriminator(&mut object, &["enabled", "disabled"])? == "disabled" {
        only(&mut object, &["type"]);
        return Some(Part::Disabled);
    }
    only(&mut object, &["type", "inline_agents", "predefined_agents"]);
    let inline = object.change("inline_agents", switch);
    let members = object.change("predefined_agents", list(0, MAX_MEMBERS, named));
    Some(Part::Enabled {
        inline: inline?,
        members: members?,
    })
}

/// Something that has nothing but to be enabled or disabled.
fn switch(value: &Value, issues: &mut Tree) -> Option<bool> {
    let mut object = Object::of(value, issues)?;
    let kind = discriminator(&mut object, &["enabled", "disabled"])?;
    only(&mut object, &["type"]);
    Some(kind == "enabled")
}

/// The model that advises, if one does.
fn advisor(value: &Value, issues: &mut Tree) -> Option<Option<String>> {
    let mut object = Object::of(value, issues)?;
    if discriminator(&mut object, &["enabled", "disabled"])? == "disabled" {
        only(&mut object, &["type"]);
        return Some(None);
    }
    only(&mut object, &["type", "model"]);
    object.required("model", model::id).map(Some)
}

/// An entry of a coordinator's list.
fn roster_entry(value: &Value, issues: &mut Tree) -> Option<Entry> {
    if value.get("type").and_then(Value::as_str) != Some("advisor") {
        return named(value, issues).map(Entry::Member);
    }
    let mut object = Object::of(value, issues)?;
    only(&mut object, &["type", "model"]);
    object.required("model", model::id).map(Entry::Advisor)
}

fn named(value: &Value, issues: &mut Tree) -> Option<Named> {
    let id = text(1, limits::NAME);
    if value.is_string() {
        let id = id(value, issues)?;
        return Some(Named::Agent { id, version: None });
    }
    let mut object = Object::of(value, issues)?;
    if discriminator(&mut object, &["agent", "self"])? == "self" {
        only(&mut object, &["type"]);
        return Some(Named::This);
    }
    only(&mut object, &["type", "id", "version"]);
    let id = object.required("id", id);
    let version = object.optional("version", integer(1, u64::from(u32::MAX)));
    Some(Named::Agent {
        id: id?,
        version: version?.and_then(|version| u32::try_from(version).ok()),
    })
}

impl Choice {
    /// Lays the choice over what `stored` has, finds the members and pins their versions.
    ///
    /// # Errors
    /// 400 that names the field.
    pub(super) async fn resolve(
        self,
        engine: &Engine,
        workspace: &WorkspaceId,
        stored: Option<&Agent>,
    ) -> Result<Multiagent> {
        let finder = Finder {
            engine,
            workspace,
            own: stored.map(|agent| &agent.id),
        };
        let (advisor, subagents, workflows) = match self {
            Self::Coordinator(entries) => return finder.coordinator(entries, stored).await,
            Self::Parts {
                advisor,
                subagents,
                workflows,
            } => (advisor, subagents, workflows),
        };
        // What is of the other form is replaced as a whole.
        let before = match stored.and_then(|agent| agent.spec.multiagent.as_ref()) {
            Some(Multiagent::Parts {
                advisor,
                subagents,
                workflows,
            }) => Some((advisor.clone(), subagents.clone(), workflows.clone())),
            _ => None,
        };
        let (advised_before, subagents_before, workflows_before) = match before {
            None => (None, None, None),
            Some((advisor, subagents, workflows)) => (advisor, Some(subagents), Some(workflows)),
        };
        let advisor = match advisor {
            Change::Keep => advised_before,
            Change::Clear | Change::Set(None) => None,
            Change::Set(Some(model)) => {
                finder.check_advisor(&model, advised_before.as_deref(), "multiagent.advisor")?;
                Some(model)
            }
        };
        let subagents = finder
            .part(subagents, subagents_before, "multiagent.subagents")
            .await?;
        let workflows = finder
            .part(workflows, workflows_before, "multiagent.workflows")
            .await?;
        one_version(subagents.as_ref(), workflows.as_ref())?;
        Ok(Multiagent::Parts {
            advisor,
            subagents,
            workflows,
        })
    }
}

/// Refuses two versions of one agent: a session knows whom it has work for it by their ids.
fn one_version(subagents: Option<&Team>, workflows: Option<&Team>) -> Result<()> {
    let Some((subagents, workflows)) = subagents.zip(workflows) else {
        return Ok(());
    };
    for (index, member) in workflows.members.iter().enumerate() {
        let other = |known: &&Member| match (known, member) {
            (
                Member::Agent { id, version },
                Member::Agent {
                    id: same,
                    version: own,
                },
            ) => id == same && version != own,
            _ => false,
        };
        if let Some(Member::Agent { id, version }) = subagents.members.iter().find(other) {
            return Err(bad(format!(
                "multiagent.workflows.predefined_agents.{index}: the agent {id} is among the subagents in version \
                 {version}; an agent may have one version in both"
            )));
        }
    }
    Ok(())
}

struct Finder<'a> {
    engine: &'a Engine,
    workspace: &'a WorkspaceId,
    own: Option<&'a AgentId>,
}

impl Finder<'_> {
    /// The members, pinned, and the advisor, of which there is one at most.
    async fn coordinator(&self, entries: Vec<Entry>, stored: Option<&Agent>) -> Result<Multiagent> {
        const FIELD: &str = "multiagent.agents";
        let mut advisor: Option<String> = None;
        let mut named = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            match entry {
                Entry::Member(member) => named.push((index, member)),
                Entry::Advisor(_) if advisor.is_some() => {
                    return Err(bad(format!("{FIELD}.{index}: there may be one advisor at most")));
                }
                Entry::Advisor(model) => {
                    let before = stored.and_then(Agent::advisor);
                    self.check_advisor(&model, before, &format!("{FIELD}.{index}"))?;
                    advisor = Some(model);
                }
            }
        }
        let agents = self.find(named, FIELD).await?;
        Ok(Multiagent::Coordinator { agents, advisor })
    }

    /// Refuses a model that no provider could have, as an agent's own model is refused. One that is stored may stay when
    /// its provider is gone from the configuration.
    fn check_advisor(&self, model: &str, before: Option<&str>, field: &str) -> Result<()> {
        if before == Some(model) {
            return Ok(());
        }
        match self.engine.check_model(model) {
            Err(Error::InvalidModel(problem)) => Err(bad(format!("{field}.model: {problem}"))),
            checked => Ok(checked?),
        }
    }

    /// One way of having others work, laid over what is stored of it; `None` when it is disabled.
    async fn part(
        &self,
        chosen: Change<Part>,
        before: Option<Option<Team>>,
        field: &str,
    ) -> Result<Option<Team>> {
        let (inline, members, before) = match (chosen, before) {
            (Change::Keep, Some(before)) => return Ok(before),
            (Change::Keep, None) | (Change::Clear, _) => return Ok(Some(Team::default())),
            (Change::Set(Part::Disabled), _) => return Ok(None),
            // What is disabled has kept nothing that could be merged with.
            (Change::Set(Part::Enabled { inline, members }), before) => {
                (inline, members, before.flatten().unwrap_or_default())
            }
        };
        let inline = match inline {
            Change::Keep => before.inline,
            Change::Clear => Team::default().inline,
            Change::Set(inline) => inline,
        };
        let field = format!("{field}.predefined_agents");
        let members = match members {
            Change::Keep => before.members,
            Change::Clear => Vec::new(),
            Change::Set(named) => self.find(named.into_iter().enumerate().collect(), &field).await?,
        };
        if members.is_empty() && !inline {
            return Err(bad(format!(
                "{field}: must name an agent while inline_agents are disabled"
            )));
        }
        Ok(Some(Team { members, inline }))
    }

    /// Finds members, each named at its place of the field.
    async fn find(&self, named: Vec<(usize, Named)>, field: &str) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        for (index, named) in named {
            let wrong = |problem: String| bad(format!("{field}.{index}: {problem}"));
            let member = match named {
                Named::This => Member::This,
                Named::Agent { id, version } => self.agent(&id, version).await?.map_err(wrong)?,
            };
            let is_same = |other: &Member| match (other, &member) {
                (Member::This, Member::This) => true,
                (Member::Agent { id, .. }, Member::Agent { id: other, .. }) => id == other,
                _ => false,
            };
            if members.iter().any(is_same) {
                return Err(wrong("the entries must be distinct agents".to_owned()));
            }
            members.push(member);
        }
        Ok(members)
    }

    /// The member of this id, or what is wrong with it.
    async fn agent(&self, id: &str, version: Option<u32>) -> Result<std::result::Result<Member, String>> {
        let missing = || Ok(Err(format!("there is no agent {id}, or it has no such version")));
        let Ok(id) = AgentId::parse(id) else {
            return missing();
        };
        // What is read as the agent itself may be sent back.
        if self.own == Some(&id) {
            return Ok(Ok(Member::This));
        }
        let found = match version {
            Some(version) => self.engine.agent_at(self.workspace, &id, version).await,
            None => self.engine.agent(self.workspace, &id).await,
        };
        let found = match found {
            Ok(found) => found,
            Err(Error::AgentNotFound) => return missing(),
            Err(error) => return Err(error.into()),
        };
        if found.archived_at.is_some() {
            return Ok(Err(format!("the agent {id} is archived")));
        }
        if found.spec.multiagent.is_some() {
            let problem = format!("the agent {id} has multiagent itself; members may not");
            return Ok(Err(problem));
        }
        let version = found.version;
        Ok(Ok(Member::Agent { id, version }))
    }
}

/// Refuses custom tools that go by the names of those that a coordinator has. `field` is where the tools stand.
pub(crate) fn check_tools(agent: &oma_domain::agent::Spec, field: &str) -> Result<()> {
    let Some(multiagent) = &agent.multiagent else {
        return Ok(());
    };
    let of_advisor = multiagent.advisor().map(|_| CONSULT_ADVISOR);
    let of_inline = multiagent.may_define().then_some(CREATE_AGENT);
    let of_workflows = multiagent.workflows().map(|_| RUN_WORKFLOW);
    let others = of_advisor.into_iter().chain(of_inline).chain(of_workflows);
    for name in [LIST_AGENTS, SEND_TO_AGENT].into_iter().chain(others) {
        if agent.is_custom_tool(name) {
            return Err(bad(format!(
                "{field}: an agent with multiagent has a tool called '{name}' already"
            )));
        }
    }
    Ok(())
}

/// The members, as an agent shows them.
pub(super) fn of_agent(agent: &Agent) -> Value {
    let reference = |member: &Member| match member {
        Member::This => json!({"type": "agent", "id": agent.id.as_str(), "version": agent.version}),
        Member::Agent { id, version } => json!({"type": "agent", "id": id.as_str(), "version": version}),
    };
    shown(agent.spec.multiagent.as_ref(), reference)
}

/// The members with their definitions, as a session shows them.
pub(crate) fn of_session(session: &Session) -> Value {
    // A copy of a coordinator that works in a thread coordinates nobody.
    if session.is_thread {
        return Value::Null;
    }
    let of_member = |member: &Member| session.member(member).map_or(Value::Null, definition);
    shown(session.agent.spec.multiagent.as_ref(), of_member)
}

/// Who works in a thread, as the thread shows it.
pub(crate) fn of_thread(agent: &Agent) -> Value {
    if agent.is_advisor() {
        return of_advisor(&agent.spec.model);
    }
    let mut view = definition(agent);
    if let (true, Some(fields)) = (agent.is_inline(), view.as_object_mut()) {
        fields.remove("id");
        fields.remove("version");
        fields.insert("type".to_owned(), json!("inline"));
    }
    view
}

fn of_advisor(model: &str) -> Value {
    json!({"type": "advisor", "model": model::shown(model)})
}

fn shown(multiagent: Option<&Multiagent>, member: impl Fn(&Member) -> Value) -> Value {
    let all = |members: &[Member]| members.iter().map(&member).collect::<Vec<_>>();
    let disabled = json!({"type": "disabled"});
    match multiagent {
        None => Value::Null,
        Some(Multiagent::Coordinator { agents, advisor }) => {
            let mut agents = all(agents);
            agents.extend(advisor.as_deref().map(of_advisor));
            json!({"type": COORDINATOR, "agents": agents})
        }
        Some(Multiagent::Parts {
            advisor,
            subagents,
            workflows,
        }) => {
            let advisor = match advisor {
                None => disabled.clone(),
                Some(model) => json!({"type": "enabled", "model": model::shown(model)}),
            };
            let part = |team: &Option<Team>| match team {
                None => disabled.clone(),
                Some(team) => json!({
                    "type": "enabled",
                    "inline_agents": {"type": if team.inline { "enabled" } else { "disabled" }},
                    "predefined_agents": all(&team.members),
                }),
            };
            json!({
                "type": PARTS,
                "advisor": advisor,
                "subagents": part(subagents),
                "workflows": part(workflows),
            })
        }
    }
}
