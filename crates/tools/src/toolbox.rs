//! The tools that one agent has.

use std::sync::Arc;

use oma_domain::agent::Spec;
use oma_domain::policy::Permission;
use oma_domain::session::Outcome;
use oma_sandbox::input::Input;
use serde_json::Value;

use crate::sandboxed;

/// What the operator has configured.
#[derive(Debug, Default)]
pub struct Config {}

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
}

impl Toolbox {
    /// The tools that the agent chose (all of them if it chose none), without those that its policy denies and
    /// those that this server does not have.
    #[must_use]
    pub fn new(spec: &Spec, _config: &Arc<Config>) -> Self {
        let chosen = |name: &str| spec.tools.is_empty() || spec.tools.iter().any(|tool| tool == name);
        let allowed = |name: &str| spec.permission_policy.evaluate(name) != Permission::Deny;
        let has = |tool: &Definition| chosen(&tool.name) && allowed(&tool.name);
        Self { definitions: sandboxed::definitions().into_iter().filter(has).collect() }
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

    /// Whether any of the tools needs a sandbox.
    #[must_use]
    pub fn uses_sandbox(&self) -> bool {
        self.definitions.iter().any(|tool| crate::is_sandboxed(&tool.name))
    }

    /// Checks a tool's input.
    ///
    /// # Errors
    /// What is wrong, in words for the model.
    pub fn validate(&self, name: &str, input: &Value) -> Result<(), String> {
        match self.place(name) {
            Place::Sandbox => Input::parse(name, input).map(drop).map_err(|invalid| invalid.to_string()),
            Place::Server => Ok(()),
            Place::Unknown => {
                let names: Vec<&str> = self.definitions.iter().map(|tool| tool.name.as_str()).collect();
                Err(format!("There is no tool called {name}. The tools are: {}.", names.join(", ")))
            }
        }
    }

    /// Runs a tool whose place is the server.
    pub async fn run_on_server(&self, name: &str, _input: &Value) -> Outcome {
        Outcome::error(format!("There is no tool called {name}."))
    }
}
