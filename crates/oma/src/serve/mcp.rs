//! From the configuration to the connections to MCP servers.

use std::sync::Arc;

use async_trait::async_trait;
use oma_egress::Guard;
use oma_mcp::{Hub, TokenSource};
use oma_runtime::SessionInfo;
use oma_sandbox::Pool;
use oma_vault::{Bearer, Vaults};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::config::Config;

/// The tokens of the vaults that a session names.
struct OfVaults(Vaults);

impl OfVaults {
    async fn find(&self, session: &SessionInfo, url: &str) -> Result<Option<Bearer>, String> {
        if session.vaults.is_empty() {
            return Ok(None);
        }
        let url = Url::parse(url).map_err(|error| format!("the server's address: {error}"))?;
        let found = self.0.bearer_for(&session.workspace, &session.vaults, &url).await;
        found.map_err(|error| error.to_string())
    }
}

#[async_trait]
impl TokenSource for OfVaults {
    async fn bearer_for(&self, session: &SessionInfo, url: &str) -> Result<Option<SecretString>, String> {
        Ok(self.find(session, url).await?.map(|bearer| bearer.token))
    }

    async fn refused(&self, session: &SessionInfo, url: &str, token: &SecretString) -> Result<(), String> {
        // Somebody else may have had it refreshed meanwhile.
        let current = self.find(session, url).await?;
        let is_current = |bearer: &Bearer| bearer.token.expose_secret() == token.expose_secret();
        if let Some(bearer) = current.filter(is_current) {
            let next = self.0.refused(&session.workspace, &bearer).await;
            next.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// How MCP servers are reached: by the same rules as what the tools fetch, with the tokens of vaults.
pub(crate) fn hub(config: &Config, guard: Arc<Guard>, pool: Pool, vaults: Vaults) -> Hub {
    let mcp = &config.mcp;
    let bounds = oma_mcp::Config {
        connect_wait: mcp.connect_wait,
        connect_timeout: mcp.connect_timeout,
        call_timeout: mcp.call_timeout,
        idle_timeout: mcp.idle_timeout,
        max_idle: mcp.max_idle,
    };
    Hub::new(guard, Arc::new(OfVaults(vaults)), pool, bounds)
}
