//! API keys as clients read them.

use oma_domain::usage::NanoUsd;
use oma_domain::{ApiKey, Timestamp};
use oma_engine::IssuedKey;
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::listing::Rows;

/// An API key, without its secret. Times are milliseconds since the epoch.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyView {
    key_id: String,
    workspace_id: String,
    name: String,
    /// `read`, `write` or `admin`.
    scope: &'static str,
    /// The self-hosted environment whose workers hold it; null for a key that is good for more.
    #[schema(required)]
    environment_id: Option<String>,
    /// US dollars; null for any amount.
    #[schema(required)]
    max_cost_usd_per_month: Option<f64>,
    /// Null for any number.
    #[schema(required)]
    max_tokens_per_month: Option<u64>,
    created_at: i64,
    /// When it got its present secret, if that is not its first.
    #[schema(required)]
    rotated_at: Option<i64>,
    /// Until when the secret before the present one works.
    #[schema(required)]
    previous_until: Option<i64>,
    /// When it stops working.
    #[schema(required)]
    expires_at: Option<i64>,
    /// When it was revoked.
    #[schema(required)]
    revoked_at: Option<i64>,
    /// When it was last used.
    #[schema(required)]
    last_used_at: Option<i64>,
}

impl KeyView {
    /// The key.
    #[must_use]
    pub fn of(key: &ApiKey) -> Self {
        let millis = |time: Option<Timestamp>| time.map(Timestamp::as_millis);
        Self {
            key_id: key.id.to_string(),
            workspace_id: key.workspace.to_string(),
            name: key.name.clone(),
            scope: key.scope.as_str(),
            environment_id: key.environment.as_ref().map(ToString::to_string),
            max_cost_usd_per_month: key.budget.max_cost.map(NanoUsd::as_usd),
            max_tokens_per_month: key.budget.max_tokens,
            created_at: key.created_at.as_millis(),
            rotated_at: millis(key.rotated_at),
            previous_until: millis(key.previous_until),
            expires_at: millis(key.expires_at),
            revoked_at: millis(key.revoked_at),
            last_used_at: millis(key.last_used_at),
        }
    }
}

/// An API key with its secret, which no other answer tells.
#[derive(Serialize, ToSchema)]
pub struct IssuedKeyView {
    #[serde(flatten)]
    key: KeyView,
    /// What the holder presents as the bearer token. Only this answer has it.
    secret: String,
}

impl IssuedKeyView {
    /// The key. The one place where a secret leaves the server.
    #[must_use]
    pub fn of(issued: &IssuedKey) -> Self {
        Self {
            key: KeyView::of(&issued.key),
            secret: issued.secret.expose_secret().to_owned(),
        }
    }
}

/// A page of API keys.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyList {
    #[schema(value_type = Vec<KeyView>)]
    keys: Vec<Box<RawValue>>,
    /// How many there are on this page.
    count: usize,
    /// Whether there are more after this page.
    has_more: bool,
    /// The cursor of the next page.
    #[schema(required)]
    next: Option<String>,
}

impl KeyList {
    pub(crate) fn of(Rows { rows, next }: Rows) -> Self {
        Self {
            count: rows.len(),
            has_more: next.is_some(),
            next,
            keys: rows,
        }
    }
}
