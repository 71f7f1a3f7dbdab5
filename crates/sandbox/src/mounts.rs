//! What a session's sandbox shows beside its workspace, below `/mnt`.
//!
//! For each of these places there is a folder on the host, which the sandbox shows as it is: what the server puts
//! there later appears in a sandbox that runs already. Only the folders of memory stores are looked for when a
//! sandbox starts, so these have to be made before ([`Furnish`] is the time for that).
//!
//! | Place | In the sandbox | The session may |
//! |---|---|---|
//! | [`Place::Uploads`] | `/mnt/session/uploads` | read |
//! | [`Place::Outputs`] | `/mnt/session/outputs` | read and write |
//! | [`Place::Skills`] | `/mnt/skills` | read |
//! | [`Place::Memory`] | `/mnt/memory/<slug>` | read, or read and write |
//!
//! The host's own access ([`crate::Provider::mount`]) is that to a workspace: beneath the folder's root only (I12).
//!
//! Invariant: what the session may only read, it can't change in any way, root or not inside or outside.
//! Invariant: what it may write counts against its disk quota, together with its workspace.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use oma_domain::SessionId;
use oma_domain::event::Failure;
use serde::{Deserialize, Serialize};

use crate::fittings::Fittings;
use crate::{Attached, Error, Spec};

/// The folder of the sandbox that holds all of them.
pub const ROOT: &str = "/mnt";

/// The longest name of a memory store's folder, in bytes.
const MAX_SLUG: usize = 255;

/// What the session may do with a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// The name of a memory store's folder: one component of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Slug(String);

impl Slug {
    /// A name that may be that of a folder; `None` for any other.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let is_one = !name.is_empty() && name.len() <= MAX_SLUG && !matches!(name, "." | "..");
        let is_plain = !name.contains(['/', '\0']) && !name.chars().any(char::is_control);
        (is_one && is_plain).then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0)
    }
}

/// A place below `/mnt`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// Files that the client has given the session.
    Uploads,
    /// Files that the session makes for the client.
    Outputs,
    /// What skills consist of, one folder each.
    Skills,
    /// A memory store.
    Memory {
        /// The name of its folder.
        slug: Slug,
        /// What the session may do with it.
        access: Access,
    },
}

impl Place {
    /// Those that every sandbox has.
    pub(crate) const ALWAYS: [Self; 3] = [Self::Uploads, Self::Outputs, Self::Skills];

    /// What the session may do there.
    #[must_use]
    pub fn access(&self) -> Access {
        match self {
            Self::Uploads | Self::Skills => Access::ReadOnly,
            Self::Outputs => Access::ReadWrite,
            Self::Memory { access, .. } => *access,
        }
    }

    /// Its path in the sandbox.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let root = Path::new(ROOT);
        match self {
            Self::Uploads => root.join("session/uploads"),
            Self::Outputs => root.join("session/outputs"),
            Self::Skills => root.join("skills"),
            Self::Memory { slug, .. } => root.join("memory").join(slug.as_str()),
        }
    }

    /// Its folder on the host, from that of the session's mounts.
    pub(crate) fn folder(&self) -> PathBuf {
        match self {
            Self::Uploads => "uploads".into(),
            Self::Outputs => "outputs".into(),
            Self::Skills => "skills".into(),
            Self::Memory { slug, access } => Path::new(memory(*access)).join(slug.as_str()),
        }
    }
}

/// The folder, from that of the session's mounts, which has the memory stores of this access.
pub(crate) fn memory(access: Access) -> &'static str {
    match access {
        Access::ReadOnly => "memory-read",
        Access::ReadWrite => "memory-write",
    }
}

/// Puts into a session's places what belongs there.
#[async_trait]
pub trait Furnish: Send + Sync + 'static {
    /// Called each time before the session's sandbox is used, whether it runs already or is about to start, and
    /// for one session by one caller at a time. Has to be quick when there is nothing to do.
    ///
    /// # Errors
    /// Why the sandbox should not be used as it is; whoever wanted it is told, and may try again.
    async fn furnish(&self, spec: &Spec) -> Result<(), Error>;

    /// Called after that, if the sandbox is about to be started: adds to what it is made with.
    ///
    /// # Errors
    /// As [`Furnish::furnish`].
    async fn fit(&self, spec: &Spec, fittings: &mut Fittings) -> Result<(), Error> {
        let _ = (spec, fittings);
        Ok(())
    }

    /// Returns when [`Furnish::fit`] may give something that it refused with [`Error::Unbuilt`], or is not going to.
    async fn fits(&self, spec: &Spec) {
        let _ = spec;
    }

    /// Called after that, with the sandbox at hand and before anybody else has it; what can only be done inside is
    /// done here. Tells what went wrong, for the session's log: the sandbox is used all the same.
    async fn settle(&self, spec: &Spec, attached: &Attached) -> Vec<Failure> {
        let _ = (spec, attached);
        Vec::new()
    }

    /// What the model has to know of what is there now, in the session's own conversation: the same texts for as long as
    /// nothing changes. Has to be quick.
    fn notes(&self, session: &SessionId) -> Vec<Arc<str>> {
        let _ = session;
        Vec::new()
    }

    /// What has gone wrong since, for the session's log.
    fn take_failures(&self, session: &SessionId) -> Vec<Failure> {
        let _ = session;
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_one_component() {
        for (name, is_legal) in [
            ("notes", true),
            ("user-preferences-2", true),
            ("mémoire", true),
            ("..hidden", true),
            ("", false),
            (".", false),
            ("..", false),
            ("a/b", false),
            ("a\0", false),
            ("a\nb", false),
            (&*"x".repeat(256), false),
        ] {
            assert_eq!(Slug::parse(name).is_some(), is_legal, "{name:?}");
        }
    }

    #[test]
    fn places_lie_below_the_root_and_apart() {
        let store = |access| Place::Memory {
            slug: Slug::parse("notes").unwrap(),
            access,
        };
        let memory = [store(Access::ReadOnly), store(Access::ReadWrite)];
        let places: Vec<Place> = Place::ALWAYS.into_iter().chain(memory).collect();
        let folders: std::collections::BTreeSet<PathBuf> = places.iter().map(Place::folder).collect();
        assert_eq!(folders.len(), places.len());
        assert!(places.iter().all(|place| place.path().starts_with(ROOT)));
    }
}
