//! What clients send about sessions.

use utoipa::ToSchema;

use crate::limits;
use crate::validate::checks::{list, text};
use crate::validate::{Body, Object};

/// A session to open.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct OpenSession {
    /// The agent.
    #[schema(min_length = 1, max_length = 256)]
    pub agent_id: String,
    /// The environment; the server's default one without it.
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    pub environment_id: Option<String>,
    /// A vault whose credentials the session's MCP servers are called with.
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    pub vault_id: Option<String>,
    /// Several vaults; the first that has a credential for a server counts, after `vaultId`.
    #[schema(required = false, max_items = 49)]
    pub vault_ids: Vec<String>,
}

impl Body for OpenSession {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let agent_id = object.required("agentId", text(1, limits::NAME));
        let environment_id = object.optional("environmentId", text(1, limits::NAME));
        let vault_id = object.optional("vaultId", text(1, limits::NAME));
        let most = oma_domain::vault::MAX_SESSION_VAULTS - 1;
        let vault_ids = object.or("vaultIds", Vec::new(), list(0, most, text(1, limits::NAME)));
        Some(Self {
            agent_id: agent_id?,
            environment_id: environment_id?,
            vault_id: vault_id?,
            vault_ids: vault_ids?,
        })
    }
}
