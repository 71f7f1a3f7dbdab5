//! What clients send about sessions.

use std::collections::BTreeMap;

use oma_domain::VaultId;
use oma_domain::quota::Quota;
use oma_domain::usage::NanoUsd;
use oma_domain::vault::MAX_SESSION_VAULTS;
use oma_engine::files::NewResource;
use oma_engine::{AttachMemory, Given, Submission};
use serde_json::Value;

use super::attached;

use super::resources::new_resource;
use crate::dialects::claude::agents::{Overrides, overrides, tool_overrides};
use crate::dialects::claude::body::{
    MetadataChanges, metadata, metadata_changes, nullable, object, only, parse, unsupported,
};
use crate::dialects::claude::events::{define_outcome, message};
use crate::fault::Result;
use crate::limits;
use crate::validate::checks::{discriminator, integer, list, one_of, text};
use crate::validate::{Change, Object, Tree};

/// The most events that a session begins with.
const INITIAL_EVENTS: usize = 50;
/// The most resources that a session begins with.
const RESOURCES: usize = oma_domain::resource::MAX_FILES as usize;
/// The longest title, in characters.
const TITLE: usize = 500;
/// A cent, in billionths of a dollar.
pub(super) const CENT: u64 = 10_000_000;

/// A session to create.
pub(super) struct NewSession {
    pub(super) agent: String,
    pub(super) version: Option<u32>,
    pub(super) overrides: Option<Overrides>,
    pub(super) environment: String,
    pub(super) title: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) vaults: Vec<VaultId>,
    pub(super) resources: Vec<NewResource>,
    pub(super) memories: Vec<AttachMemory>,
    pub(super) events: Vec<Submission>,
    pub(super) budget: Option<NanoUsd>,
}

/// Reads a session to create.
pub(super) fn create(value: &Value) -> Result<NewSession> {
    let fields = &[
        "agent",
        "environment_id",
        "budget",
        "initial_events",
        "metadata",
        "resources",
        "title",
        "vault_ids",
    ];
    parse(value, fields, |object| {
        let agent = object.required("agent", agent);
        let environment = object.required("environment_id", text(1, limits::NAME));
        let title = nullable(object, "title", text(0, TITLE));
        let metadata = nullable(object, "metadata", metadata);
        let vaults = nullable(object, "vault_ids", list(0, MAX_SESSION_VAULTS, vault));
        let events = nullable(object, "initial_events", initial_events);
        let budget = nullable(object, "budget", budget);
        let resources = nullable(object, "resources", resources);
        let (agent, version, overrides) = agent?;
        let (resources, memories) = resources?.unwrap_or_default();
        Some(NewSession {
            agent,
            version,
            overrides,
            environment: environment?,
            title: title?.filter(|title| !title.is_empty()),
            metadata: metadata?.unwrap_or_default(),
            vaults: distinct(vaults?.unwrap_or_default()),
            resources,
            memories,
            events: events?.unwrap_or_default(),
            budget: budget?,
        })
    })
}

/// What the sandbox is given, and the memory stores.
fn resources(value: &Value, issues: &mut Tree) -> Option<(Vec<NewResource>, Vec<AttachMemory>)> {
    let (mut resources, mut memories) = (Vec::new(), Vec::new());
    for one in given(value, issues)? {
        match one {
            Given::Resource(resource) => resources.push(resource),
            Given::Memory(memory) => memories.push(memory),
        }
    }
    Some((resources, memories))
}

/// What sessions are given, in its order.
pub(crate) fn given(value: &Value, issues: &mut Tree) -> Option<Vec<Given>> {
    let all = list(0, RESOURCES, resource)(value, issues)?;
    let memories: Vec<&AttachMemory> = all
        .iter()
        .filter_map(|one| match one {
            Given::Memory(memory) => Some(memory),
            Given::Resource(_) => None,
        })
        .collect();
    attached::check(&memories, issues)?;
    Some(all)
}

fn resource(value: &Value, issues: &mut Tree) -> Option<Given> {
    if value.get("type").and_then(Value::as_str) == Some("memory_store") {
        let mut object = Object::of(value, issues)?;
        return attached::memory_store(&mut object).map(Given::Memory);
    }
    new_resource(value, issues).map(Given::Resource)
}

/// Vaults, each once, in their order.
pub(crate) fn distinct(vaults: Vec<VaultId>) -> Vec<VaultId> {
    let mut distinct = Vec::new();
    for vault in vaults {
        if !distinct.contains(&vault) {
            distinct.push(vault);
        }
    }
    distinct
}

type AgentChoice = (String, Option<u32>, Option<Overrides>);

fn agent(value: &Value, issues: &mut Tree) -> Option<AgentChoice> {
    let id = text(1, limits::NAME);
    if value.is_string() {
        return Some((id(value, issues)?, None, None));
    }
    let mut object = Object::of(value, issues)?;
    let version = |object: &mut Object<'_>| {
        let version = object.optional("version", integer(1, u64::from(u32::MAX)))?;
        Some(version.and_then(|version| u32::try_from(version).ok()))
    };
    if discriminator(&mut object, &["agent", "agent_with_overrides"])? == "agent" {
        only(&mut object, &["type", "id", "version"]);
        let id = object.required("id", id);
        let version = version(&mut object);
        return Some((id?, version?, None));
    }
    only(
        &mut object,
        &[
            "type",
            "id",
            "version",
            "model",
            "system",
            "tools",
            "mcp_servers",
            "skills",
        ],
    );
    let id = object.required("id", id);
    let version = version(&mut object);
    let overrides = overrides(&mut object);
    Some((id?, version?, Some(overrides?)))
}

pub(crate) fn vault(value: &Value, issues: &mut Tree) -> Option<VaultId> {
    let id = text(1, limits::NAME)(value, issues)?;
    let vault = VaultId::parse(&id).ok();
    if vault.is_none() {
        issues.push("No vault has this id");
    }
    vault
}

fn initial_events(value: &Value, issues: &mut Tree) -> Option<Vec<Submission>> {
    let events: Vec<Submission> = list(0, INITIAL_EVENTS, initial_event)(value, issues)?;
    let outcomes = events.iter().enumerate();
    let mut outcomes = outcomes.filter(|(_, event)| matches!(event, Submission::DefineOutcome { .. }));
    if let Some((second, _)) = outcomes.nth(1) {
        let issues = issues.at(&second.to_string());
        issues.push("There may be at most one user.define_outcome");
        return None;
    }
    Some(events)
}

fn initial_event(value: &Value, issues: &mut Tree) -> Option<Submission> {
    let mut object = Object::of(value, issues)?;
    match discriminator(&mut object, &["user.message", "user.define_outcome"])? {
        "user.message" => message(&mut object).map(Submission::Message),
        _ => define_outcome(&mut object),
    }
}

/// A budget of something whose sessions will have it.
pub(crate) fn quota(value: &Value, issues: &mut Tree) -> Option<Quota> {
    let max_cost = budget(value, issues)?;
    Some(Quota {
        max_cost: Some(max_cost),
        ..Quota::default()
    })
}

/// A budget: so many whole cents.
fn budget(value: &Value, issues: &mut Tree) -> Option<NanoUsd> {
    let cents = object(&["type", "max_list_cost"], |object| {
        let kind = object.required("type", one_of(&["limit"]));
        let cost = object.required("max_list_cost", amount);
        kind?;
        cost
    })(value, issues)?;
    Some(NanoUsd(cents.saturating_mul(CENT)))
}

fn amount(value: &Value, issues: &mut Tree) -> Option<u64> {
    object(&["amount", "currency"], |object| {
        let currency = object.required("currency", one_of(&["USD"]));
        let amount = object.required("amount", |value, issues| {
            let digits = text(1, 15)(value, issues)?;
            let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
            if !plain {
                issues.push("Must be whole cents above 0, without leading zeros");
                return None;
            }
            digits.parse::<u64>().ok()
        });
        currency?;
        amount
    })(value, issues)
}

/// An update of a session.
pub(super) struct UpdateSession {
    pub(super) title: Option<Option<String>>,
    pub(super) metadata: Change<MetadataChanges>,
    pub(super) agent: Option<Overrides>,
    pub(super) budget: Option<Option<NanoUsd>>,
}

/// Reads an update.
pub(super) fn update(value: &Value) -> Result<UpdateSession> {
    parse(
        value,
        &["agent", "budget", "metadata", "title", "vault_ids"],
        |object| {
            let title = object.change("title", text(0, TITLE));
            let metadata = object.change("metadata", metadata_changes);
            let agent = object.change("agent", |value, issues| {
                self::object(&["tools", "mcp_servers"], tool_overrides)(value, issues)
            });
            let budget = object.change("budget", budget);
            unsupported(object, "vault_ids");
            let budget = match budget? {
                Change::Keep => None,
                Change::Clear => Some(None),
                Change::Set(budget) => Some(Some(budget)),
            };
            let title = match title? {
                Change::Keep => None,
                Change::Clear => Some(None),
                Change::Set(title) => Some(Some(title).filter(|title| !title.is_empty())),
            };
            Some(UpdateSession {
                title,
                metadata: metadata?,
                agent: match agent? {
                    Change::Set(agent) => Some(agent),
                    Change::Keep | Change::Clear => None,
                },
                budget,
            })
        },
    )
}
