//! Vaults and credentials as clients read them.

use oma_domain::vault::{ClientAuth, Kind, Refresh};
use oma_domain::{Credential, Vault, VaultId};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::listing::Rows;

/// A vault.
#[derive(Debug, Serialize, ToSchema)]
pub struct VaultView {
    vault_id: String,
    /// The end user whose secrets it holds, in the client's words.
    #[schema(required)]
    user_id: Option<String>,
    name: String,
    /// Milliseconds since the epoch.
    created_at: i64,
    /// Milliseconds since the epoch. A change of a credential counts.
    updated_at: i64,
    /// When it was archived, in milliseconds since the epoch: it takes no new sessions, and its secrets are gone.
    #[schema(required)]
    archived_at: Option<i64>,
}

impl VaultView {
    /// The vault.
    #[must_use]
    pub fn of(vault: &Vault) -> Self {
        Self {
            vault_id: vault.id.to_string(),
            user_id: vault.user.clone(),
            name: vault.name.clone(),
            created_at: vault.created_at.as_millis(),
            updated_at: vault.updated_at.as_millis(),
            archived_at: vault.archived_at.map(oma_domain::Timestamp::as_millis),
        }
    }
}

/// A page of vaults.
#[derive(Debug, Serialize, ToSchema)]
pub struct VaultList {
    #[schema(value_type = Vec<VaultView>)]
    vaults: Vec<Box<RawValue>>,
    /// How many there are on this page.
    count: usize,
    /// Whether there are more after this page.
    has_more: bool,
    /// The cursor of the next page.
    #[schema(required)]
    next: Option<String>,
}

impl VaultList {
    pub(crate) fn of(Rows { rows, next }: Rows) -> Self {
        Self {
            count: rows.len(),
            has_more: next.is_some(),
            next,
            vaults: rows,
        }
    }
}

/// A vault is gone, with its credentials.
#[derive(Debug, Serialize, ToSchema)]
pub struct VaultDeleted {
    /// Which one.
    pub vault_id: String,
    /// Always true.
    pub deleted: bool,
}

/// A credential, without its secrets.
#[derive(Debug, Serialize, ToSchema)]
pub struct CredentialView {
    credential_id: String,
    vault_id: String,
    name: String,
    /// `static_bearer` or `mcp_oauth`.
    r#type: &'static str,
    match_url: String,
    /// OAuth: where tokens are refreshed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    token_endpoint: Option<String>,
    /// OAuth: who the client is to the issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    client_id: Option<String>,
    /// OAuth: how the client proves that: `none`, `client_secret_basic` or `client_secret_post`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    token_endpoint_auth: Option<ClientAuth>,
    /// OAuth: the scopes that are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    scopes: Option<Vec<String>>,
    /// OAuth: when the access token ends, in milliseconds since the epoch; missing when that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    expires_at: Option<i64>,
    /// Milliseconds since the epoch.
    created_at: i64,
    /// Milliseconds since the epoch. A refresh counts.
    updated_at: i64,
    /// When it was archived, in milliseconds since the epoch: its secrets are gone.
    #[schema(required)]
    archived_at: Option<i64>,
}

impl CredentialView {
    /// The credential.
    #[must_use]
    pub fn of(credential: &Credential) -> Self {
        let spec = &credential.spec;
        let (expires_at, refresh) = match &spec.kind {
            Kind::StaticBearer => (None, None),
            Kind::McpOauth { expires_at, refresh } => (*expires_at, refresh.as_ref()),
        };
        Self {
            credential_id: credential.id.to_string(),
            vault_id: credential.vault.to_string(),
            name: spec.name.clone(),
            r#type: spec.kind.name(),
            match_url: spec.match_url.clone(),
            token_endpoint: refresh.map(|refresh| refresh.token_endpoint.clone()),
            client_id: refresh.map(|refresh| refresh.client_id.clone()),
            token_endpoint_auth: refresh.map(|refresh| refresh.client_auth),
            scopes: refresh.and_then(|Refresh { scopes, .. }| scopes.clone()),
            expires_at: expires_at.map(oma_domain::Timestamp::as_millis),
            created_at: credential.created_at.as_millis(),
            updated_at: credential.updated_at.as_millis(),
            archived_at: credential.archived_at.map(oma_domain::Timestamp::as_millis),
        }
    }
}

/// A page of a vault's credentials.
#[derive(Debug, Serialize, ToSchema)]
pub struct CredentialList {
    vault_id: String,
    #[schema(value_type = Vec<CredentialView>)]
    credentials: Vec<Box<RawValue>>,
    /// How many there are on this page.
    count: usize,
    /// Whether there are more after this page.
    has_more: bool,
    /// The cursor of the next page.
    #[schema(required)]
    next: Option<String>,
}

impl CredentialList {
    pub(crate) fn of(vault: &VaultId, Rows { rows, next }: Rows) -> Self {
        Self {
            vault_id: vault.to_string(),
            count: rows.len(),
            has_more: next.is_some(),
            next,
            credentials: rows,
        }
    }
}

/// A credential is gone.
#[derive(Debug, Serialize, ToSchema)]
pub struct CredentialDeleted {
    /// Which one.
    pub credential_id: String,
    /// Always true.
    pub deleted: bool,
}
