//! What clients send about API keys.

use oma_domain::quota::Monthly;
use oma_domain::usage::NanoUsd;
use oma_domain::{EnvironmentId, Scope, Timestamp, WorkspaceId};
use oma_engine::Error;
use serde_json::Value;
use utoipa::ToSchema;

use crate::dialects::openclaw::budget;
use crate::fault::{Fault, Result};
use crate::limits;
use crate::validate::checks::{integer, one_of, text};
use crate::validate::{Body, Object, Tree};

/// The latest time that a key may expire, in milliseconds: the year 9999.
const LATEST: u64 = 253_402_300_799_000;
/// The longest time for which a secret works on after its rotation, in seconds: thirty days.
const GRACE: u64 = 30 * 24 * 3600;

/// An API key to make.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct CreateKey {
    /// A name for people.
    #[schema(min_length = 1, max_length = 256)]
    pub(crate) name: String,
    /// What it may do: `read` looks, `write` also changes, `admin` also manages keys and the audit trail.
    #[schema(value_type = KeyScope)]
    pub(crate) scope: Scope,
    /// The self-hosted environment whose workers are to hold it. Such a key polls for that environment's work, keeps and
    /// ends it, reads the sessions that it is about and sends results of their tools; nothing else. Its scope is `write`.
    #[schema(value_type = Option<String>, nullable = false)]
    pub(crate) environment_id: Option<EnvironmentId>,
    /// The most that model requests may cost in a calendar month (UTC), which messages ask for that are posted with it:
    /// US dollars, above 0.
    #[schema(value_type = Option<f64>, nullable = false)]
    pub(crate) max_cost_usd_per_month: Option<NanoUsd>,
    /// The most tokens of such requests in a calendar month (UTC), input and output together.
    #[schema(minimum = 1, nullable = false)]
    pub(crate) max_tokens_per_month: Option<u64>,
    /// When it stops working, in milliseconds since the epoch; never without it.
    #[schema(value_type = Option<i64>, nullable = false)]
    pub(crate) expires_at: Option<Timestamp>,
    /// The workspace that it opens; the caller's own without it. Another one only for the operator.
    #[schema(value_type = Option<String>, nullable = false)]
    pub(crate) workspace_id: Option<WorkspaceId>,
}

/// What a key may do.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum KeyScope {
    /// Look at everything in its workspace.
    Read,
    /// Also create, change and delete; run turns.
    Write,
    /// Also manage keys and read the audit trail.
    Admin,
}

/// How to rotate an API key.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct RotateKey {
    /// For how many seconds the secret before works on; 0, so no longer, without it.
    #[schema(required = false, maximum = 2_592_000)]
    pub(crate) grace_seconds: u64,
}

impl Body for CreateKey {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let name = object.required("name", text(1, limits::NAME));
        let scope = object.required("scope", scope);
        let budget = budget::read(object);
        let expires_at = object.optional("expiresAt", expiry);
        let workspace_id = object.optional("workspaceId", workspace_id);
        let environment_id = object.optional("environmentId", environment_id);
        if matches!(environment_id, Some(Some(_))) && scope.is_some_and(|scope| scope != Scope::Write) {
            object
                .issues()
                .at("scope")
                .push("A key of an environment has the scope write");
        }
        let Monthly { max_cost, max_tokens } = budget?;
        Some(Self {
            name: name?,
            scope: scope?,
            environment_id: environment_id?,
            max_cost_usd_per_month: max_cost,
            max_tokens_per_month: max_tokens,
            expires_at: expires_at?,
            workspace_id: workspace_id?,
        })
    }
}

impl Body for RotateKey {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let grace_seconds = object.or("graceSeconds", 0, integer(0, GRACE));
        Some(Self {
            grace_seconds: grace_seconds?,
        })
    }
}

fn scope(value: &Value, issues: &mut Tree) -> Option<Scope> {
    one_of(&["read", "write", "admin"])(value, issues).and_then(Scope::parse)
}

fn environment_id(value: &Value, issues: &mut Tree) -> Option<EnvironmentId> {
    let id = EnvironmentId::parse(&text(0, usize::MAX)(value, issues)?);
    id.map_err(|problem| issues.push(problem.to_string())).ok()
}

fn expiry(value: &Value, issues: &mut Tree) -> Option<Timestamp> {
    let millis = i64::try_from(integer(0, LATEST)(value, issues)?).ok()?;
    if millis <= oma_engine::now().as_millis() {
        issues.push("Must lie in the future");
        return None;
    }
    Some(Timestamp(millis))
}

fn workspace_id(value: &Value, issues: &mut Tree) -> Option<WorkspaceId> {
    match WorkspaceId::parse(&text(0, usize::MAX)(value, issues)?) {
        Ok(id) => Some(id),
        Err(problem) => {
            issues.push(problem.to_string());
            None
        }
    }
}

/// The workspace that a query names, as an id.
pub(super) fn workspace(text: Option<&str>) -> Result<Option<WorkspaceId>> {
    let parse = |text| WorkspaceId::parse(text).map_err(|_| Fault::from(Error::WorkspaceNotFound));
    text.map(parse).transpose()
}
