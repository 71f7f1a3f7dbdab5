//! People who signed up by themselves. Each has a workspace of their own and one API key for it.

use crate::id::{KeyId, UserId, WorkspaceId};
use crate::time::Timestamp;

/// How somebody signed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Without saying who they are.
    Anonymous,
    /// With their GitHub account.
    Github,
}

impl Tier {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Github => "github",
        }
    }

    /// The tier of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Anonymous, Self::Github]
            .into_iter()
            .find(|tier| tier.as_str() == name)
    }
}

/// Somebody who signed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// Their workspace, which nobody else works in.
    pub workspace: WorkspaceId,
    /// Their key.
    pub key: KeyId,
    /// How they signed up.
    pub tier: Tier,
    /// When.
    pub created_at: Timestamp,
    /// When they and everything of theirs are removed.
    pub expires_at: Option<Timestamp>,
    /// Who they are on GitHub.
    pub github: Option<GithubAccount>,
}

/// A GitHub account. Its number stays the same; its names may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GithubAccount {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub login: String,
    /// Its picture.
    pub avatar_url: Option<String>,
}
