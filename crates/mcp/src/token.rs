//! Where the tokens for HTTP servers come from.

use async_trait::async_trait;
use oma_runtime::SessionInfo;
use secrecy::SecretString;

/// Supplies bearer tokens for HTTP servers.
#[async_trait]
pub trait TokenSource: Send + Sync + 'static {
    /// The token to send to this URL for this session; `None` when there is none. Asked before every request,
    /// so that a refreshed token is used at once.
    ///
    /// # Errors
    /// Why there is a credential but no token, in words without secrets.
    async fn bearer_for(&self, session: &SessionInfo, url: &str) -> Result<Option<SecretString>, String>;

    /// The server at this URL refused this token with a 401. If [`TokenSource::bearer_for`] gives another one
    /// afterwards, the request is made again with that, once.
    ///
    /// # Errors
    /// Why there can be no other one, in words without secrets.
    async fn refused(&self, session: &SessionInfo, url: &str, token: &SecretString) -> Result<(), String>;
}

/// No tokens.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTokens;

#[async_trait]
impl TokenSource for NoTokens {
    async fn bearer_for(&self, _: &SessionInfo, _: &str) -> Result<Option<SecretString>, String> {
        Ok(None)
    }

    async fn refused(&self, _: &SessionInfo, _: &str, _: &SecretString) -> Result<(), String> {
        Ok(())
    }
}
