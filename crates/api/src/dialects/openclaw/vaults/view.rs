//! Vaults and credentials as clients read them.

use oma_domain::vault::{ClientAuth, CredentialNetworking, Injection, Kind, Refresh};
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
    /// `static_bearer`, `mcp_oauth` or `environment_variable`.
    r#type: &'static str,
    /// The URLs that it is for; an environment variable has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    match_url: Option<String>,
    /// Environment variable: its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    secret_name: Option<String>,
    /// Environment variable: the hosts that get the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    networking: Option<SecretHosts>,
    /// Environment variable: where in requests it is put.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    injection_location: Option<SecretPlaces>,
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

/// The hosts that get a secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct SecretHosts {
    /// `unrestricted` for all that the session may reach, or `limited`.
    r#type: &'static str,
    /// `limited`: names of hosts, or `*.name` for those below.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    allowed_hosts: Option<Vec<String>>,
}

/// Where in requests a secret is put.
#[derive(Debug, Serialize, ToSchema)]
pub struct SecretPlaces {
    /// In headers.
    header: bool,
    /// In the query of the URL.
    query: bool,
    /// In the body.
    body: bool,
}

impl CredentialView {
    /// The credential.
    #[must_use]
    pub fn of(credential: &Credential) -> Self {
        let spec = &credential.spec;
        let (expires_at, refresh) = match &spec.kind {
            Kind::StaticBearer | Kind::EnvironmentVariable { .. } => (None, None),
            Kind::McpOauth { expires_at, refresh } => (*expires_at, refresh.as_ref()),
        };
        let (secret_name, networking, injection_location) = match &spec.kind {
            Kind::EnvironmentVariable {
                secret_name,
                networking,
                injection,
            } => {
                let hosts = match networking {
                    CredentialNetworking::Unrestricted => SecretHosts {
                        r#type: "unrestricted",
                        allowed_hosts: None,
                    },
                    CredentialNetworking::Limited { allowed_hosts } => SecretHosts {
                        r#type: "limited",
                        allowed_hosts: Some(allowed_hosts.clone()),
                    },
                };
                let Injection { header, query, body } = *injection;
                let places = SecretPlaces { header, query, body };
                (Some(secret_name.clone()), Some(hosts), Some(places))
            }
            Kind::StaticBearer | Kind::McpOauth { .. } => (None, None, None),
        };
        Self {
            credential_id: credential.id.to_string(),
            vault_id: credential.vault.to_string(),
            name: spec.name.clone(),
            r#type: spec.kind.name(),
            match_url: (!spec.match_url.is_empty()).then(|| spec.match_url.clone()),
            secret_name,
            networking,
            injection_location,
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
