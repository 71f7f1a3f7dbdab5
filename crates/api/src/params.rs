//! What a request's path and query name.

use std::collections::HashMap;

use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::StatusCode;
use axum::http::request::Parts;
use oma_domain::{AgentId, CredentialId, EnvironmentId, KeyId, SessionId, VaultId, WorkspaceId};

use crate::fault::{Fault, Result};

/// One segment of the path, percent-decoded; empty when the route does not have it.
pub(crate) async fn segment<S: Send + Sync>(parts: &mut Parts, name: &str, state: &S) -> String {
    match RawPathParams::from_request_parts(parts, state).await {
        Ok(params) => params
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
            .unwrap_or_default(),
        // Bytes that are no text name nothing.
        Err(_) => String::new(),
    }
}

macro_rules! path_id {
    ($(#[$doc:meta])* $name:ident, $id:ident, $segment:literal, $missing:ident) => {
        $(#[$doc])*
        pub(crate) struct $name(pub(crate) $id);

        impl<S: Send + Sync> FromRequestParts<S> for $name {
            type Rejection = Fault;

            async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
                // What can't be an id is an id that nothing has.
                let text = segment(parts, $segment, state).await;
                $id::parse(&text).map(Self).map_err(|_| oma_engine::Error::$missing.into())
            }
        }
    };
}

path_id!(
    /// The agent that the path names.
    AgentPath, AgentId, "agent_id", AgentNotFound
);
path_id!(
    /// The environment that the path names.
    EnvironmentPath, EnvironmentId, "environment_id", EnvironmentNotFound
);
path_id!(
    /// The session that the path names.
    SessionPath, SessionId, "session_id", SessionNotFound
);
path_id!(
    /// The API key that the path names.
    KeyPath, KeyId, "key_id", ApiKeyNotFound
);
path_id!(
    /// The workspace that the path names.
    WorkspacePath, WorkspaceId, "workspace_id", WorkspaceNotFound
);

/// The vault that the path names.
pub(crate) struct VaultPath(pub(crate) VaultId);

impl<S: Send + Sync> FromRequestParts<S> for VaultPath {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let text = segment(parts, "vault_id", state).await;
        let missing = || oma_engine::Error::Vault(oma_vault::Error::VaultNotFound).into();
        VaultId::parse(&text).map(Self).map_err(|_| missing())
    }
}

/// The credential that the path names.
pub(crate) struct CredentialPath {
    pub(crate) vault: VaultId,
    pub(crate) credential: CredentialId,
}

impl<S: Send + Sync> FromRequestParts<S> for CredentialPath {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let VaultPath(vault) = VaultPath::from_request_parts(parts, state).await?;
        let text = segment(parts, "credential_id", state).await;
        let missing = || oma_engine::Error::Vault(oma_vault::Error::CredentialNotFound).into();
        match CredentialId::parse(&text) {
            Ok(credential) => Ok(Self { vault, credential }),
            Err(_) => Err(missing()),
        }
    }
}

/// The query's parameters; of a repeated one the last counts.
pub(crate) struct Params(HashMap<String, String>);

impl Params {
    /// A parameter that is there and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    /// Whether a switch is on: exactly `true`.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    #[cfg(test)]
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        Self(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(map)) => Ok(Self(map)),
            Err(_) => Err(Fault::new(
                StatusCode::BAD_REQUEST,
                "invalid_request",
                "The query string can't be read",
            )),
        }
    }
}
