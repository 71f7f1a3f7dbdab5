//! The tools that one agent has.

use std::sync::Arc;

use oma_domain::agent::Spec;
use oma_domain::policy::{Permission, PermissionPolicy};
use oma_domain::session::Outcome;
use oma_domain::web;
use oma_egress::{Guard, Policy};
use oma_sandbox::input::Input;
use serde_json::Value;

use crate::fetch::{self, FetchLimits, Fetcher};
use crate::sandboxed;
use crate::search::{self, Search};

/// What the tools of the server work with, as the operator has configured it.
#[derive(Debug)]
pub struct Config {
    guard: Guard,
    fetcher: Fetcher,
    search: Option<Search>,
}

impl Config {
    /// Tools that fetch through a guard with this policy, and search only if there is somebody to ask.
    #[must_use]
    pub fn new(policy: Policy, fetch: &FetchLimits, search: Option<Search>) -> Self {
        Self {
            guard: Guard::new(policy),
            fetcher: Fetcher::new(fetch),
            search,
        }
    }

    /// The definitions of all tools that this server has.
    fn definitions(&self) -> Vec<Definition> {
        let mut all = sandboxed::definitions();
        all.push(fetch::definition());
        all.extend(self.search.iter().map(|_| search::definition()));
        all
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new(Policy::default(), &FetchLimits::default(), None)
    }
}

/// A tool as the model is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// A JSON schema of its arguments.
    pub input_schema: Value,
}

/// Where a tool runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the session's sandbox.
    Sandbox,
    /// In the server.
    Server,
    /// Nowhere: the agent has no such tool.
    Unknown,
}

/// The tools that one agent has. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Toolbox {
    definitions: Arc<[Definition]>,
    config: Arc<Config>,
    /// What `web_fetch` may read.
    fetches: Arc<web::Limits>,
    /// What `web_search` may find.
    searches: Arc<web::Limits>,
}

impl Toolbox {
    /// The tools that the agent chose (all of them if it chose none), without those that its policy denies and
    /// those that this server does not have.
    #[must_use]
    pub fn new(spec: &Spec, config: &Arc<Config>) -> Self {
        let chosen = |name: &str| spec.tools.is_empty() || spec.tools.iter().any(|tool| tool == name);
        let allowed = |name: &str| spec.permission_policy.evaluate(name) != Permission::Deny;
        let has = |tool: &Definition| chosen(&tool.name) && allowed(&tool.name);
        Self {
            definitions: config.definitions().into_iter().filter(has).collect(),
            config: Arc::clone(config),
            fetches: Arc::new(web_limits(spec, "web_fetch")),
            searches: Arc::new(web_limits(spec, "web_search")),
        }
    }

    /// What `web_fetch` may read.
    #[must_use]
    pub fn fetches(&self) -> &web::Limits {
        &self.fetches
    }

    /// What the model is told.
    #[must_use]
    pub fn definitions(&self) -> Vec<Definition> {
        self.definitions.to_vec()
    }

    /// Where a tool runs.
    #[must_use]
    pub fn place(&self, name: &str) -> Place {
        match self.definitions.iter().any(|tool| tool.name == name) {
            true if crate::is_sandboxed(name) => Place::Sandbox,
            true => Place::Server,
            false => Place::Unknown,
        }
    }

    /// Checks a tool's input.
    ///
    /// # Errors
    /// What is wrong, in words for the model.
    pub fn validate(&self, name: &str, input: &Value) -> Result<(), String> {
        match self.place(name) {
            Place::Sandbox => Input::parse(name, input)
                .map(drop)
                .map_err(|invalid| invalid.to_string()),
            Place::Server if name == "web_search" => Search::check(input),
            Place::Server => Fetcher::check(&self.config.guard, input),
            Place::Unknown => {
                let names: Vec<&str> = self.definitions.iter().map(|tool| tool.name.as_str()).collect();
                Err(format!(
                    "There is no tool called {name}. The tools are: {}.",
                    names.join(", ")
                ))
            }
        }
    }

    /// Runs a tool whose place is the server. Its result may be longer than a model should be shown at once:
    /// see [`oma_sandbox::spill`]. Dropping the future ends it.
    pub async fn run_on_server(&self, name: &str, input: &Value) -> Outcome {
        let config = &self.config;
        match (self.place(name), name, &config.search) {
            (Place::Server, "web_fetch", _) => config.fetcher.run(&config.guard, input, &self.fetches).await,
            (Place::Server, "web_search", Some(search)) => search.run(input, &self.searches).await,
            _ => Outcome::error(format!("There is no tool called {name} on the server.")),
        }
    }
}

fn web_limits(spec: &Spec, tool: &str) -> web::Limits {
    let limits = match &spec.permission_policy {
        PermissionPolicy::Toolsets(sets) => sets.web(tool),
        _ => None,
    };
    limits.cloned().unwrap_or_default()
}

/// What the model is told of an address that it may not fetch.
#[must_use]
pub fn url_not_allowed(url: &str) -> Outcome {
    Outcome::error(fetch::not_allowed(url))
}

#[cfg(test)]
mod tests;
