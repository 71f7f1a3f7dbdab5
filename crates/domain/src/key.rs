//! API keys: what one may do, and who acts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{EnvironmentId, KeyId, SessionId, WorkspaceId};
use crate::quota::Monthly;
use crate::time::Timestamp;

/// What a key may do in its workspace. Each scope includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Look at everything.
    Read,
    /// Also create, change and delete, credentials in vaults included; run turns.
    Write,
    /// Also manage the workspace itself: its keys, its audit trail.
    Admin,
}

impl Scope {
    /// All of them, the weakest first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }

    /// Whether this scope includes `needed`.
    #[must_use]
    pub fn allows(self, needed: Self) -> bool {
        self >= needed
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who does something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Actor {
    /// Whoever holds the server's own token.
    Operator,
    /// Whoever holds this key.
    Key(KeyId),
    /// Whoever holds a parent token of this session, or carries out its tools.
    Session(SessionId),
    /// Somebody on a server that asks for no key.
    Local,
}

impl Actor {
    /// Whether it may manage workspaces, and keys in every one of them.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        matches!(self, Self::Operator | Self::Local)
    }

    /// The actor whom [`Display`](fmt::Display) words like this.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "operator" => Some(Self::Operator),
            None if text == "local" => Some(Self::Local),
            Some(("key", id)) => KeyId::parse(id).ok().map(Self::Key),
            Some(("session", id)) => SessionId::parse(id).ok().map(Self::Session),
            _ => None,
        }
    }
}

impl fmt::Display for Actor {
    /// As the audit trail names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("operator"),
            Self::Key(id) => write!(f, "key:{id}"),
            Self::Session(id) => write!(f, "session:{id}"),
            Self::Local => f.write_str("local"),
        }
    }
}

/// An API key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub id: KeyId,
    /// The one workspace that it opens.
    pub workspace: WorkspaceId,
    /// A name for people.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// The self-hosted environment whose workers hold it. Such a key may do their work and nothing else.
    pub environment: Option<EnvironmentId>,
    /// What may be consumed with it in a month.
    pub budget: Monthly,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it got its present secret, if that is not its first.
    pub rotated_at: Option<Timestamp>,
    /// Until when the secret before the present one still works.
    pub previous_until: Option<Timestamp>,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked. It never works again.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to within the time that such notes wait until they are written together.
    pub last_used_at: Option<Timestamp>,
}

impl ApiKey {
    /// Whether it works at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_include_the_weaker_ones() {
        for (held, needed, allowed) in [
            (Scope::Read, Scope::Read, true),
            (Scope::Read, Scope::Write, false),
            (Scope::Read, Scope::Admin, false),
            (Scope::Write, Scope::Read, true),
            (Scope::Write, Scope::Admin, false),
            (Scope::Admin, Scope::Write, true),
        ] {
            assert_eq!(held.allows(needed), allowed, "{held} for {needed}");
        }
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
        }
        assert_eq!(Scope::parse("Admin"), None);
    }

    #[test]
    fn actors_read_back() {
        for actor in [
            Actor::Operator,
            Actor::Key(KeyId::generate()),
            Actor::Session(SessionId::generate()),
            Actor::Local,
        ] {
            assert_eq!(Actor::parse(&actor.to_string()), Some(actor));
        }
        for text in ["", "key:", "Operator", "ip:127.0.0.1"] {
            assert_eq!(Actor::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_key_ends_at_its_expiry_and_by_revocation() {
        let mut key = ApiKey {
            id: KeyId::generate(),
            workspace: WorkspaceId::default_workspace(),
            name: "ci".into(),
            scope: Scope::Write,
            environment: None,
            budget: Monthly::default(),
            created_at: Timestamp(0),
            rotated_at: None,
            previous_until: None,
            expires_at: Some(Timestamp(10)),
            revoked_at: None,
            last_used_at: None,
        };
        assert!(key.is_live(Timestamp(9)));
        assert!(!key.is_live(Timestamp(10)));
        key.expires_at = None;
        assert!(key.is_live(Timestamp(i64::MAX)));
        key.revoked_at = Some(Timestamp(5));
        assert!(!key.is_live(Timestamp(0)));
    }
}
