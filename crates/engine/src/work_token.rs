//! The tokens of work items: whoever holds one may carry out that one item, for as long as it is theirs.
//!
//! A token is `omw_` and what [`Secret::seal_json`] makes of the JSON of [`Claims`].
//!
//! Invariant: neither a parent token nor any other text that the secret signs is a work token, because its JSON has other
//! fields.

use oma_domain::{EnvironmentId, SessionId, Timestamp, WorkId, WorkspaceId};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::parent_token::Secret;

/// What every work token begins with.
pub const PREFIX: &str = "omw_";
/// How long a token works at the most, in milliseconds: a day. The item is handed out again after it.
pub const LIFETIME_MS: u64 = 24 * 3600 * 1000;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// The item.
    pub work: WorkId,
    /// How often it had been handed out, this time included.
    pub attempt: u32,
    /// Its environment.
    pub environment: EnvironmentId,
    /// The session whose tools are to be carried out.
    pub session: SessionId,
    /// The workspace of all three.
    pub workspace: WorkspaceId,
    /// When it stops working.
    pub expires_at: Timestamp,
}

impl Claims {
    /// The token that says so.
    ///
    /// # Errors
    /// That the claims can't be written as JSON.
    pub(crate) fn sign(&self, secret: &Secret) -> Result<SecretString, String> {
        Ok(SecretString::from(format!("{PREFIX}{}", secret.seal_json(self)?)))
    }

    /// What a token says; `None` when it is not one of ours or has expired.
    pub(crate) fn verify(secret: &Secret, token: &[u8], now: Timestamp) -> Option<Self> {
        let claims: Self = secret.open_json(token.strip_prefix(PREFIX.as_bytes())?)?;
        (now < claims.expires_at).then_some(claims)
    }
}

#[cfg(test)]
mod tests {
    use oma_domain::AgentId;
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::parent_token;

    #[test]
    fn a_token_is_good_for_its_kind_its_server_and_its_time() {
        let secret = |byte| Secret::new(&[byte; 32]).unwrap();
        let claims = Claims {
            work: WorkId::generate(),
            attempt: 2,
            environment: EnvironmentId::generate(),
            session: SessionId::generate(),
            workspace: WorkspaceId::default_workspace(),
            expires_at: Timestamp(2_000),
        };
        let token = claims.sign(&secret(1)).unwrap();
        let token = token.expose_secret().as_bytes();
        assert_eq!(Claims::verify(&secret(1), token, Timestamp(1_999)), Some(claims));
        assert_eq!(Claims::verify(&secret(1), token, Timestamp(2_000)), None);
        assert_eq!(Claims::verify(&secret(2), token, Timestamp(0)), None);
        let bare = token.strip_prefix(PREFIX.as_bytes()).unwrap();
        assert_eq!(Claims::verify(&secret(1), bare, Timestamp(0)), None);
        assert_eq!(secret(1).verify(bare, Timestamp(0)), None, "no parent token");
        let parent = parent_token::Claims {
            parent_session_id: SessionId::generate(),
            parent_agent_id: AgentId::generate(),
            workspace_id: WorkspaceId::default_workspace(),
            allowlist: Vec::new(),
            remaining_depth: 1,
            expires_at: Timestamp(2_000),
        };
        let parent = secret(1).sign(&parent).unwrap();
        let parent = format!("{PREFIX}{}", parent.expose_secret());
        assert_eq!(Claims::verify(&secret(1), parent.as_bytes(), Timestamp(0)), None);
    }
}
