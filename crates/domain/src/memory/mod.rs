//! Memory stores: texts at paths that outlive sessions. Each change of a memory is a version of its own, with who
//! made it.

pub mod path;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use path::{Path, Prefix};

use crate::id::{MemoryId, MemoryStoreId, MemoryVersionId, WorkspaceId};
use crate::key::Actor;
use crate::time::Timestamp;

/// The longest content of a memory, in bytes.
pub const MAX_CONTENT: usize = 102_400;
/// The most memories of one store.
pub const MAX_MEMORIES: u32 = 2_000;
/// The most stores of one session.
pub const MAX_SESSION_STORES: usize = 8;

/// What a client gives to create a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSpec {
    /// Its name, from which the name of its folder in sandboxes is made.
    pub name: String,
    /// What is in it, for agents; may be empty.
    pub description: String,
    /// Whatever the client wants to remember with it.
    pub metadata: BTreeMap<String, String>,
}

/// A store of memories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryStore {
    /// Its id.
    pub id: MemoryStoreId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// Name, description, metadata.
    pub spec: StoreSpec,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed itself; its memories have times of their own.
    pub updated_at: Timestamp,
    /// When it was archived; an archived store takes no new and no changed memories.
    pub archived_at: Option<Timestamp>,
}

/// The name of a store's folder: lower case, with a hyphen for each run of anything but ASCII letters and digits.
/// Several names may lead to the same one.
#[must_use]
pub fn slug(name: &str) -> String {
    /// The longest name of a folder that is made, in bytes.
    const LONGEST: usize = 200;
    let mut slug = String::new();
    for character in name.chars() {
        if character.is_ascii_alphanumeric() {
            slug.push(character.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() == LONGEST {
            break;
        }
    }
    let kept = slug.trim_end_matches('-').len();
    slug.truncate(kept);
    if slug.is_empty() {
        slug.push_str("store");
    }
    slug
}

/// What a session may do with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

impl Access {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::ReadWrite => "read_write",
        }
    }
}

/// A store that a session has. What its prompt says of the store is what was true when it was created, so that the
/// prompt stays the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The store, which may be archived or deleted by now.
    pub store: MemoryStoreId,
    /// What the session may do with it.
    pub access: Access,
    /// How to use it in this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// Its name.
    pub name: String,
    /// What is in it; may be empty.
    pub description: String,
    /// The name of its folder.
    pub folder: String,
}

impl Attachment {
    /// Its path in the sandbox.
    #[must_use]
    pub fn mount_path(&self) -> String {
        format!("/mnt/memory/{}", self.folder)
    }
}

/// The name of a store's folder in a session that has these already: its slug, with a number if that is taken.
#[must_use]
pub fn folder(name: &str, taken: &[Attachment]) -> String {
    let slug = slug(name);
    let mut folder = slug.clone();
    let mut number = 2;
    while taken.iter().any(|other| other.folder == folder) {
        folder = format!("{slug}-{number}");
        number += 1;
    }
    folder
}

/// The SHA-256 of a content's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha(pub [u8; 32]);

impl Sha {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads 64 hexadecimal digits in lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
        let mut bytes = [0; 32];
        (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(Self(bytes))
    }
}

impl fmt::Display for Sha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text of a memory is longer than [`MAX_CONTENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have at most {MAX_CONTENT} bytes, has {0}")]
pub struct TooLarge(pub usize);

/// The text of a memory, with its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    text: String,
    sha: Sha,
}

impl Content {
    /// Takes a text.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn new(text: String) -> Result<Self, TooLarge> {
        if text.len() > MAX_CONTENT {
            return Err(TooLarge(text.len()));
        }
        let sha = Sha::of(text.as_bytes());
        Ok(Self { text, sha })
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its digest.
    #[must_use]
    pub fn sha(&self) -> Sha {
        self.sha
    }
}

/// A memory as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Its id, the same over all versions.
    pub id: MemoryId,
    /// The store that it is in.
    pub store: MemoryStoreId,
    /// The version that it stands at.
    pub version: MemoryVersionId,
    /// Where it is in the store.
    pub path: Path,
    /// The digest of its content.
    pub sha: Sha,
    /// The size of its content in bytes.
    pub size: u64,
    /// What it says; `None` when only the rest was asked for.
    pub content: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed.
    pub updated_at: Timestamp,
}

/// An item of a list of memories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A memory.
    Memory(Memory),
    /// All memories below a folder, by what their paths begin with.
    Folder(String),
}

impl Item {
    /// The path by which the list is ordered.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Memory(memory) => memory.path.as_str(),
            Self::Folder(prefix) => prefix,
        }
    }
}

/// What a version did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// The memory was created.
    Created,
    /// Its content or its path were changed.
    Modified,
    /// It was removed.
    Deleted,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Created, Self::Modified, Self::Deleted];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Modified => "modified",
            Self::Deleted => "deleted",
        }
    }

    /// The operation of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.as_str() == name)
    }
}

/// A change of a memory. Nothing of it changes any more, except that it can be redacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its id.
    pub id: MemoryVersionId,
    /// The store.
    pub store: MemoryStoreId,
    /// The memory, which may be gone.
    pub memory: MemoryId,
    /// What was done.
    pub operation: Operation,
    /// Who did it.
    pub author: Actor,
    /// The path after the change; gone when the version is redacted.
    pub path: Option<Path>,
    /// Digest and size of the content after the change; gone when the version is redacted, and none for a deletion.
    pub digest: Option<(Sha, u64)>,
    /// The content after the change, when it was asked for and is there.
    pub content: Option<String>,
    /// When it was done.
    pub created_at: Timestamp,
    /// When its content was taken out, and by whom.
    pub redacted: Option<(Timestamp, Actor)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs() {
        for (name, expected) in [
            ("User Preferences", "user-preferences"),
            ("  a__b!! ", "a-b"),
            ("Ёлка 7", "7"),
            ("日本", "store"),
            ("../..", "store"),
        ] {
            assert_eq!(slug(name), expected, "{name}");
        }
        assert_eq!(slug(&"a".repeat(255)).len(), 200);
    }

    #[test]
    fn digests_read_back() {
        let sha = Sha::of(b"abc");
        let text = sha.to_string();
        assert!(text.starts_with("ba7816bf"), "{text}");
        assert_eq!(Sha::parse(&text), Some(sha));
        for text in [&text[1..], &text.to_uppercase(), "", &"g".repeat(64)] {
            assert_eq!(Sha::parse(text), None, "{text}");
        }
    }

    #[test]
    fn contents_are_bounded() {
        assert!(Content::new("x".repeat(MAX_CONTENT)).is_ok());
        assert_eq!(
            Content::new("ä".repeat(MAX_CONTENT / 2 + 1)),
            Err(TooLarge(MAX_CONTENT + 2))
        );
    }
}
