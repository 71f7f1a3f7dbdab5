//! What a request's path and query name.

use std::collections::HashMap;

use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::StatusCode;
use axum::http::request::Parts;
use oma_domain::skill::Which;
use oma_domain::{
    AgentId, CheckpointId, CredentialId, DeploymentId, EnvironmentId, FileId, KeyId, MemoryId, MemoryStoreId,
    MemoryVersionId, ResourceId, RunId, SessionId, SkillId, VaultId, WebhookId, WorkspaceId,
};
use oma_engine::checkpoints::CheckpointError;
use oma_engine::{Error, MemoryError, SkillError};

use crate::fault::{Fault, Result};

/// One segment of the path, percent-decoded; empty when the route does not have it.
///
/// # Errors
/// 400 `invalid_path` when what the path stands for is no text: then no part of it can be told apart.
pub(crate) async fn segment<S: Send + Sync>(parts: &mut Parts, name: &str, state: &S) -> Result<String> {
    let params = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| {
            let message = "The path is not valid UTF-8 once its percent-encoding is undone";
            Fault::new(StatusCode::BAD_REQUEST, "invalid_path", message)
        })?;
    let named = params.iter().find(|(key, _)| *key == name);
    Ok(named.map(|(_, value)| value.to_owned()).unwrap_or_default())
}

macro_rules! path_id {
    (@error skill $missing:ident) => {
        Error::from(SkillError::$missing)
    };
    (@error memory $missing:ident) => { Error::from(MemoryError::$missing) };
    (@error $missing:ident) => { Error::$missing };
    ($(#[$doc:meta])* $name:ident, $id:ident, $segment:literal, $($missing:ident)+) => {
        $(#[$doc])*
        pub(crate) struct $name(pub(crate) $id);

        impl<S: Send + Sync> FromRequestParts<S> for $name {
            type Rejection = Fault;

            async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
                // What can't be an id is an id that nothing has.
                let text = segment(parts, $segment, state).await?;
                $id::parse(&text).map(Self).map_err(|_| path_id!(@error $($missing)+).into())
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
    /// The deployment that the path names.
    DeploymentPath, DeploymentId, "deployment_id", DeploymentNotFound
);
path_id!(
    /// The run of a deployment that the path names.
    RunPath, RunId, "deployment_run_id", RunNotFound
);
path_id!(
    /// The webhook endpoint that the path names.
    WebhookPath, WebhookId, "webhook_endpoint_id", WebhookNotFound
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

path_id!(
    /// The memory store that the path names.
    MemoryStorePath, MemoryStoreId, "memory_store_id", memory StoreNotFound
);

path_id!(
    /// The skill that the path names.
    SkillPath, SkillId, "skill_id", skill NotFound
);

/// The version of a skill that the path names.
pub(crate) struct SkillVersionPath {
    pub(crate) skill: SkillId,
    pub(crate) which: Which,
}

impl<S: Send + Sync> FromRequestParts<S> for SkillVersionPath {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let SkillPath(skill) = SkillPath::from_request_parts(parts, state).await?;
        let text = segment(parts, "version", state).await?;
        match Which::parse(&text) {
            Some(which) => Ok(Self { skill, which }),
            None => Err(Error::from(SkillError::VersionNotFound).into()),
        }
    }
}

/// The memory that the path names.
pub(crate) struct MemoryPath {
    pub(crate) store: MemoryStoreId,
    pub(crate) memory: MemoryId,
}

impl<S: Send + Sync> FromRequestParts<S> for MemoryPath {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let MemoryStorePath(store) = MemoryStorePath::from_request_parts(parts, state).await?;
        let text = segment(parts, "memory_id", state).await?;
        match MemoryId::parse(&text) {
            Ok(memory) => Ok(Self { store, memory }),
            Err(_) => Err(Error::from(MemoryError::NotFound).into()),
        }
    }
}

/// The version of a memory that the path names.
pub(crate) struct MemoryVersionPath {
    pub(crate) store: MemoryStoreId,
    pub(crate) version: MemoryVersionId,
}

impl<S: Send + Sync> FromRequestParts<S> for MemoryVersionPath {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let MemoryStorePath(store) = MemoryStorePath::from_request_parts(parts, state).await?;
        let text = segment(parts, "memory_version_id", state).await?;
        match MemoryVersionId::parse(&text) {
            Ok(version) => Ok(Self { store, version }),
            Err(_) => Err(Error::from(MemoryError::VersionNotFound).into()),
        }
    }
}

/// The vault that the path names.
pub(crate) struct VaultPath(pub(crate) VaultId);

impl<S: Send + Sync> FromRequestParts<S> for VaultPath {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let text = segment(parts, "vault_id", state).await?;
        let missing = || oma_engine::Error::Vault(oma_vault::Error::VaultNotFound).into();
        VaultId::parse(&text).map(Self).map_err(|_| missing())
    }
}

/// The file that the path names.
pub(crate) struct FilePath(pub(crate) FileId);

impl<S: Send + Sync> FromRequestParts<S> for FilePath {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let text = segment(parts, "file_id", state).await?;
        let missing = || oma_engine::Error::Files(oma_engine::files::Error::NotFound).into();
        FileId::parse(&text).map(Self).map_err(|_| missing())
    }
}

/// The resource of a session that the path names.
pub(crate) struct ResourcePath {
    pub(crate) session: SessionId,
    pub(crate) resource: ResourceId,
}

impl<S: Send + Sync> FromRequestParts<S> for ResourcePath {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let SessionPath(session) = SessionPath::from_request_parts(parts, state).await?;
        let text = segment(parts, "resource_id", state).await?;
        let missing = || oma_engine::Error::Files(oma_engine::files::Error::ResourceNotFound).into();
        match ResourceId::parse(&text) {
            Ok(resource) => Ok(Self { session, resource }),
            Err(_) => Err(missing()),
        }
    }
}

/// The checkpoint of a session that the path names.
pub(crate) struct CheckpointPath {
    pub(crate) session: SessionId,
    pub(crate) checkpoint: CheckpointId,
}

impl<S: Send + Sync> FromRequestParts<S> for CheckpointPath {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let SessionPath(session) = SessionPath::from_request_parts(parts, state).await?;
        let text = segment(parts, "checkpoint_id", state).await?;
        let missing = || oma_engine::Error::Checkpoint(CheckpointError::NotFound).into();
        match CheckpointId::parse(&text) {
            Ok(checkpoint) => Ok(Self { session, checkpoint }),
            Err(_) => Err(missing()),
        }
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
        let text = segment(parts, "credential_id", state).await?;
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

    /// Whether a switch is on; it is off when it is not given.
    ///
    /// # Errors
    /// 400 for anything but `true` and `false`: a client that means to switch it on learns how.
    pub(crate) fn switch(&self, name: &str) -> Result<bool> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Fault::invalid_field(
                &[name],
                "Invalid enum value. Expected 'true' | 'false'",
            )),
        }
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
        let unreadable = |message| Fault::new(StatusCode::BAD_REQUEST, "invalid_request", message);
        let query = parts.uri.query().unwrap_or_default();
        // The reader below puts replacement characters there, which would name something else.
        if percent_encoding::percent_decode_str(query).decode_utf8().is_err() {
            return Err(unreadable(
                "The query string is not valid UTF-8 once its percent-encoding is undone",
            ));
        }
        let Query(map) =
            Query::try_from_uri(&parts.uri).map_err(|_| unreadable("The query string can't be read"))?;
        Ok(Self(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches() {
        for (given, outcome) in [
            (None, Ok(false)),
            (Some(""), Ok(false)),
            (Some("true"), Ok(true)),
            (Some("false"), Ok(false)),
            (Some("1"), Err("invalid_request")),
            (Some("True"), Err("invalid_request")),
            (Some("yes"), Err("invalid_request")),
        ] {
            let pairs: Vec<_> = given.map(|text| ("deltas", text)).into_iter().collect();
            let found = Params::of(&pairs).switch("deltas");
            assert_eq!(
                found.as_ref().map_err(Fault::code),
                outcome.as_ref().map_err(|code| *code),
                "{given:?}"
            );
        }
    }
}
