//! Vaults and their credentials: whose secrets an agent's MCP servers are called with, and which its sandbox uses. What stands here is what
//! may be shown; the secrets are sealed by the `vault` crate and pass through as [`Sealed`] texts.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{CredentialId, VaultId, WorkspaceId};
use crate::time::Timestamp;

/// The most credentials of one vault.
pub const MAX_CREDENTIALS: u32 = 100;

/// The most hosts that a credential for sandboxes may list.
pub const MAX_CREDENTIAL_HOSTS: usize = 16;

/// The most vaults of one session.
pub const MAX_SESSION_VAULTS: usize = 50;

/// A named set of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vault {
    /// Its id.
    pub id: VaultId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// The end user whose secrets it holds, in the client's words; the platform gives it no meaning.
    pub user: Option<String>,
    /// A name for people; may be empty.
    pub name: String,
    /// Whatever the client wants to remember with it.
    pub metadata: BTreeMap<String, String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it, or one of its credentials, was changed.
    pub updated_at: Timestamp,
    /// When it was archived, which took its secrets away for good.
    pub archived_at: Option<Timestamp>,
}

/// A secret with the place that it is for, without the secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its id.
    pub id: CredentialId,
    /// The vault that it is in.
    pub vault: VaultId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// What it is and where it may go.
    pub spec: Spec,
    /// Whatever the client wants to remember with it.
    pub metadata: BTreeMap<String, String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed; a refresh is a change.
    pub updated_at: Timestamp,
    /// When it was archived, which took its secrets away for good.
    pub archived_at: Option<Timestamp>,
}

/// What a credential is and where it may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// A name for people; may be empty.
    pub name: String,
    /// The URLs that it is for: this one and those below its path. As the client wrote it; empty for an environment
    /// variable, which is for hosts.
    pub match_url: String,
    /// Which kind it is.
    pub kind: Kind,
}

/// The kinds of credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Kind {
    /// A token that does not change by itself.
    StaticBearer,
    /// An access token of OAuth.
    McpOauth {
        /// When the access token ends; `None` when it has no known end.
        expires_at: Option<Timestamp>,
        /// How to get the next one; `None` when that is impossible.
        refresh: Option<Refresh>,
    },
    /// A secret that programs in the sandbox use without having it: a variable holds something in its place, and the
    /// secret is put into requests on their way out.
    EnvironmentVariable {
        /// The variable.
        secret_name: String,
        /// The hosts that get the secret.
        networking: CredentialNetworking,
        /// Where in requests to them.
        injection: Injection,
    },
}

impl Kind {
    /// Its name on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::StaticBearer => "static_bearer",
            Self::McpOauth { .. } => "mcp_oauth",
            Self::EnvironmentVariable { .. } => "environment_variable",
        }
    }
}

/// The hosts that get a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CredentialNetworking {
    /// Each that the session may reach.
    Unrestricted,
    /// Some of them.
    Limited {
        /// Names of hosts, or `*.name` for those below.
        allowed_hosts: Vec<String>,
    },
}

/// Where in a request a secret is put; at least one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injection {
    /// In headers.
    pub header: bool,
    /// In the query of the URL.
    pub query: bool,
    /// In the body.
    pub body: bool,
}

impl Injection {
    /// In all places.
    pub const ALL: Self = Self {
        header: true,
        query: true,
        body: true,
    };

    /// Whether there is no place.
    #[must_use]
    pub fn is_nowhere(self) -> bool {
        !(self.header || self.query || self.body)
    }
}

/// How an access token is refreshed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// Where tokens are issued.
    pub token_endpoint: String,
    /// Who the client is to the issuer.
    pub client_id: String,
    /// How the client proves that.
    pub client_auth: ClientAuth,
    /// The scopes to ask for.
    pub scopes: Option<Vec<String>>,
    /// What the token is for (RFC 8707).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

/// How an OAuth client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// A public client.
    None,
    /// Its secret in the `Authorization` header.
    ClientSecretBasic,
    /// Its secret in the body.
    ClientSecretPost,
}

/// Which secret of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// What is presented as a bearer token: a static token or the access token.
    Token,
    /// The refresh token.
    RefreshToken,
    /// The secret of the OAuth client.
    ClientSecret,
    /// What stands behind an environment variable.
    Value,
}

impl Field {
    /// Its name, as ciphertexts are bound to it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::RefreshToken => "refresh_token",
            Self::ClientSecret => "client_secret",
            Self::Value => "value",
        }
    }
}

/// A ciphertext as text. It is no secret without its key; it is kept out of logs all the same.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

impl Sealed {
    /// Takes a ciphertext.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The ciphertext.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[sealed]")
    }
}

/// The sealed secrets of a credential.
pub type Secrets = BTreeMap<Field, Sealed>;

/// Names a master key without telling anything of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MasterKeyId(String);

impl MasterKeyId {
    /// Takes an id that a master key has, or that was stored.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key that seals a vault's secrets, itself sealed under a master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKey {
    /// Counts the data keys that the vault has had, from 1.
    pub version: u32,
    /// The master key that it is sealed under.
    pub master: MasterKeyId,
    /// The key, sealed.
    pub sealed: Sealed,
}
