//! Environments as clients read them.

use oma_domain::Environment;
use oma_domain::environment::{Networking, Packages};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::body::{NetworkingBody, PackageLists};
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
            created_at: environment.created_at.as_millis(),
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
