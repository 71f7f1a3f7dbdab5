//! What clients send about deployments.

use std::collections::BTreeMap;

use oma_domain::cron::Cron;
use oma_domain::deployment::{InitialEvent, MAX_INITIAL_EVENTS, Schedule, Spec};
use oma_domain::quota::Quota;
use oma_domain::vault::MAX_SESSION_VAULTS;
use oma_domain::{AgentId, EnvironmentId, VaultId};
use oma_engine::{Given, Submission};
use serde_json::Value;

use crate::dialects::claude::body::{
    MetadataChanges, merged, metadata, metadata_changes, nullable, object, only, parse,
};
use crate::dialects::claude::events::{define_outcome, message, system_message};
use crate::dialects::claude::sessions::{distinct, given, read_budget, vault};
use crate::fault::Result;
use crate::limits;
use crate::validate::checks::{discriminator, integer, list, one_of, text};
use crate::validate::{Change, Object, Tree};

const FIELDS: &[&str] = &[
    "agent",
    "budget",
    "description",
    "environment_id",
    "initial_events",
    "metadata",
    "name",
    "resources",
    "schedule",
    "vault_ids",
];
/// The longest description, in characters.
const DESCRIPTION: usize = 2_048;

/// An agent, and the version that is to be pinned.
#[derive(Debug, Clone)]
pub(super) struct Pinned {
    pub(super) agent: String,
    pub(super) version: Option<u32>,
}

/// A deployment to create.
pub(super) struct NewDeployment {
    pub(super) agent: Pinned,
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) environment: EnvironmentId,
    pub(super) initial_events: Vec<InitialEvent>,
    pub(super) schedule: Option<Schedule>,
    pub(super) vaults: Vec<VaultId>,
    pub(super) resources: Vec<Given>,
    pub(super) budget: Option<Quota>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Reads a deployment to create.
pub(super) fn create(value: &Value) -> Result<NewDeployment> {
    parse(value, FIELDS, |object| {
        let name = object.required("name", text(1, limits::NAME));
        let agent = object.required("agent", agent);
        let environment = object.required("environment_id", environment);
        let events = object.required("initial_events", initial_events);
        let description = nullable(object, "description", text(0, DESCRIPTION));
        let schedule = nullable(object, "schedule", schedule);
        let vaults = nullable(object, "vault_ids", list(0, MAX_SESSION_VAULTS, vault));
        let budget = nullable(object, "budget", read_budget);
        let metadata = nullable(object, "metadata", metadata);
        let resources = nullable(object, "resources", given);
        Some(NewDeployment {
            agent: agent?,
            name: name?,
            description: description?.filter(|text| !text.is_empty()),
            environment: environment?,
            initial_events: events?,
            schedule: schedule?,
            vaults: distinct(vaults?.unwrap_or_default()),
            resources: resources?.unwrap_or_default(),
            budget: budget?,
            metadata: metadata?.unwrap_or_default(),
        })
    })
}

/// An update of a deployment.
#[derive(Debug, Clone)]
pub(super) struct UpdateDeployment {
    pub(super) agent: Option<Pinned>,
    name: Option<String>,
    description: Change<String>,
    environment: Option<EnvironmentId>,
    initial_events: Option<Vec<InitialEvent>>,
    schedule: Change<Schedule>,
    vaults: Change<Vec<VaultId>>,
    /// What takes the place of what sessions are given now.
    pub(super) resources: Option<Vec<Given>>,
    budget: Change<Quota>,
    metadata: Change<MetadataChanges>,
}

/// Reads an update.
pub(super) fn update(value: &Value) -> Result<UpdateDeployment> {
    parse(value, FIELDS, |object| {
        let name = object.optional("name", text(1, limits::NAME));
        let agent = object.optional("agent", agent);
        let environment = object.optional("environment_id", environment);
        let events = object.optional("initial_events", initial_events);
        let description = object.change("description", text(0, DESCRIPTION));
        let schedule = object.change("schedule", schedule);
        let vaults = object.change("vault_ids", list(0, MAX_SESSION_VAULTS, vault));
        let budget = object.change("budget", read_budget);
        let metadata = object.change("metadata", metadata_changes);
        let resources = object.change("resources", given);
        Some(UpdateDeployment {
            agent: agent?,
            name: name?,
            description: description?,
            environment: environment?,
            initial_events: events?,
            schedule: schedule?,
            vaults: vaults?,
            resources: match resources? {
                Change::Keep => None,
                Change::Clear => Some(Vec::new()),
                Change::Set(given) => Some(given),
            },
            budget: budget?,
            metadata: metadata?,
        })
    })
}

impl UpdateDeployment {
    /// Lays the update over a definition; `agent` is the one that it names, pinned.
    pub(super) fn apply(self, mut spec: Spec, agent: Option<&(AgentId, u32)>) -> Spec {
        if let Some((agent, version)) = agent {
            (spec.agent, spec.agent_version) = (agent.clone(), *version);
        }
        if let Some(name) = self.name {
            spec.name = name;
        }
        if let Some(environment) = self.environment {
            spec.environment = environment;
        }
        if let Some(events) = self.initial_events {
            spec.initial_events = events;
        }
        self.description.apply_optional(&mut spec.description);
        spec.description = spec.description.filter(|text| !text.is_empty());
        self.schedule.apply_optional(&mut spec.schedule);
        self.vaults.apply(&mut spec.vaults);
        spec.vaults = distinct(spec.vaults);
        self.budget.apply_optional(&mut spec.budget);
        spec.metadata = match self.metadata {
            Change::Keep => spec.metadata,
            Change::Clear => BTreeMap::new(),
            Change::Set(changes) => merged(spec.metadata, changes),
        };
        spec
    }
}

fn agent(value: &Value, issues: &mut Tree) -> Option<Pinned> {
    let id = text(1, limits::NAME);
    if value.is_string() {
        return Some(Pinned {
            agent: id(value, issues)?,
            version: None,
        });
    }
    object(&["type", "id", "version"], |object| {
        let kind = object.required("type", one_of(&["agent"]));
        let agent = object.required("id", id);
        let version = object.optional("version", integer(1, u64::from(u32::MAX)));
        kind?;
        Some(Pinned {
            agent: agent?,
            version: version?.and_then(|version| u32::try_from(version).ok()),
        })
    })(value, issues)
}

fn environment(value: &Value, issues: &mut Tree) -> Option<EnvironmentId> {
    let id = text(1, limits::NAME)(value, issues)?;
    let environment = EnvironmentId::parse(&id).ok();
    if environment.is_none() {
        issues.push("No environment has this id");
    }
    environment
}

fn initial_events(value: &Value, issues: &mut Tree) -> Option<Vec<InitialEvent>> {
    let events: Vec<InitialEvent> = list(1, MAX_INITIAL_EVENTS, initial_event)(value, issues)?;
    let mut outcomes = 0;
    for (at, event) in events.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| events.get(before));
        let problem = match event {
            InitialEvent::System { .. } if at + 1 != events.len() => {
                "A system.message must be the last event"
            }
            InitialEvent::System { .. } if !matches!(before, Some(InitialEvent::Message { .. })) => {
                "A system.message must directly follow the user.message that it accompanies"
            }
            InitialEvent::DefineOutcome { .. } if outcomes > 0 => {
                "There may be at most one user.define_outcome"
            }
            InitialEvent::DefineOutcome { .. } => {
                outcomes += 1;
                continue;
            }
            InitialEvent::Message { .. } | InitialEvent::System { .. } => continue,
        };
        issues.at(&at.to_string()).push(problem);
        return None;
    }
    Some(events)
}

fn initial_event(value: &Value, issues: &mut Tree) -> Option<InitialEvent> {
    let mut object = Object::of(value, issues)?;
    let types = &["user.message", "user.define_outcome", "system.message"];
    match discriminator(&mut object, types)? {
        "user.message" => {
            let content = message(&mut object)?.content;
            Some(InitialEvent::Message { content })
        }
        "system.message" => {
            let content = system_message(&mut object)?;
            Some(InitialEvent::System { content })
        }
        _ => match define_outcome(&mut object)? {
            Submission::DefineOutcome {
                description,
                rubric,
                max_iterations,
                ..
            } => Some(InitialEvent::DefineOutcome {
                description,
                rubric,
                max_iterations,
            }),
            _ => None,
        },
    }
}

fn schedule(value: &Value, issues: &mut Tree) -> Option<Schedule> {
    let mut object = Object::of(value, issues)?;
    only(&mut object, &["type", "expression", "timezone"]);
    let kind = object.required("type", one_of(&["cron"]));
    let cron = object.required("expression", |value, issues| {
        let expression = text(1, oma_domain::cron::MAX_LEN)(value, issues)?;
        let cron = Cron::parse(&expression);
        cron.map_err(|problem| issues.push(problem.to_string())).ok()
    });
    let timezone = object.required("timezone", |value, issues| {
        let name = text(1, limits::NAME)(value, issues)?;
        let timezone = oma_engine::timezone(&name);
        if timezone.is_none() {
            issues.push("Must be the IANA name of a time zone, such as Europe/Berlin or UTC");
        }
        timezone
    });
    kind?;
    Some(Schedule {
        cron: cron?,
        timezone: timezone?,
    })
}
