//! Environments as clients read them.

use std::collections::BTreeMap;

use oma_domain::Environment;
use oma_domain::environment::{Networking, Packages};
use oma_engine::{Build, BuildStage};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::body::{LimitsBody, NetworkingBody, PackageLists};
use crate::listing::Rows;

/// An environment.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnvironmentView {
    environment_id: String,
    name: String,
    description: String,
    #[schema(required, value_type = Option<PackageLists>)]
    packages: Option<Packages>,
    #[schema(value_type = NetworkingBody)]
    networking: Networking,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    variables: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    limits: Option<LimitsBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    image: Option<String>,
    #[serde(rename = "setupScript", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    setup_script: Option<String>,
    /// Milliseconds since the epoch.
    created_at: i64,
}

impl EnvironmentView {
    /// The environment.
    #[must_use]
    pub fn of(environment: &Environment) -> Self {
        let spec = environment.spec.clone();
        Self {
            environment_id: environment.id.to_string(),
            name: spec.name,
            description: spec.description.unwrap_or_default(),
            packages: spec.packages,
            networking: spec.networking,
            variables: spec.variables,
            limits: spec.limits.as_ref().map(LimitsBody::of),
            image: spec.image,
            setup_script: spec.setup_script,
            created_at: environment.created_at.as_millis(),
        }
    }
}

/// Where the build of an environment stands.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BuildStatus {
    /// There is nothing to build.
    None,
    /// Other builds are before it.
    Waiting,
    /// It is under way.
    Building,
    /// What was built is there, for all sessions of the environment.
    Ready,
    /// It failed. The next session that needs it, a minute later at the earliest, has it tried again.
    Failed,
}

/// The build of an environment.
#[derive(Debug, Serialize, ToSchema)]
pub struct BuildView {
    status: BuildStatus,
    /// What is being done: the name of an installer, or `setup_script`.
    #[schema(required)]
    step: Option<String>,
    /// Why it failed, at the end in the installer's words.
    #[schema(required)]
    error: Option<String>,
    /// The name of what is built: the same for all that is alike.
    #[schema(required)]
    layer: Option<String>,
    /// The newest that was printed, as long as this server remembers it.
    log: String,
}

impl BuildView {
    pub(super) fn of(build: Option<Build>) -> Self {
        let Some(Build { layer, stage, log }) = build else {
            return Self {
                status: BuildStatus::None,
                step: None,
                error: None,
                layer: None,
                log: String::new(),
            };
        };
        let (status, step, error) = match stage {
            BuildStage::Waiting => (BuildStatus::Waiting, None, None),
            BuildStage::Building { step } => (BuildStatus::Building, Some(step), None),
            BuildStage::Ready => (BuildStatus::Ready, None, None),
            BuildStage::Failed { reason } => (BuildStatus::Failed, None, Some(reason)),
        };
        Self {
            status,
            step,
            error,
            layer: Some(layer),
            log,
        }
    }
}

/// A page of environments.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnvironmentList {
    #[schema(value_type = Vec<EnvironmentView>)]
    environments: Vec<Box<RawValue>>,
    /// How many there are on this page.
    count: usize,
    /// Whether there are more after this page.
    has_more: bool,
    /// The cursor of the next page.
    #[schema(required)]
    next: Option<String>,
}

impl EnvironmentList {
    pub(crate) fn of(Rows { rows, next }: Rows) -> Self {
        Self {
            count: rows.len(),
            has_more: next.is_some(),
            next,
            environments: rows,
        }
    }
}
