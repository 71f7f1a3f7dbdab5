//! Repositories that sessions are given: cloned into the workspace, and reachable by git from then on.
//!
//! Git runs in the sandbox, with the session's rights, its quota and without a network. What it says to the host of a
//! repository goes to a port of the sandbox's own loopback address ([`bridge`]), and the server says it to the host
//! ([`upstream`]), through the dial guard and with the token that the session was given for that repository. So a
//! fetch or a push works as the clone did, and the token is nowhere in the sandbox. What goes wrong with a clone is
//! told to the session, which goes on without the repository ([`clone`]). Of the skills that repositories have the model is
//! told ([`skills`]).
//!
//! Invariant: a repository is there whole or not at all; one that is there is left alone.
//! Invariant: a token is sealed at rest, bound to its session, its resource and its URL; it goes to that URL's scheme,
//! host and port only, over TLS except to a loopback address that the operator allows, and to that repository's end
//! points for git only.

mod bridge;
mod clone;
mod given;
mod skills;
mod upstream;

pub use given::NewRepository;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oma_domain::resource::{Checkout, Spec as Given};
use oma_domain::vault::Sealed;
use oma_domain::{Resource, ResourceId, SessionId, WorkspaceId};
use oma_egress::Guard;
use oma_store::Store;
use oma_vault::Vaults;
use secrecy::SecretString;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use crate::error::{Error, Result};

/// How long it takes until a clone that failed is tried again, at first and at the most.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// How many repositories are remembered as moved.
const MAX_MOVED: usize = 1_000;

/// What repositories are reached with.
#[derive(Clone)]
pub struct Access {
    /// The way to their hosts.
    pub guard: Arc<Guard>,
    /// What seals their tokens.
    pub vaults: Vaults,
}

/// The same, for all who carry what git says.
pub(crate) struct Hosts {
    store: Arc<dyn Store>,
    access: Access,
    /// Where hosts have redirected to, each on the same host.
    moved: Mutex<HashMap<ResourceId, Url>>,
}

/// A repository of a session.
struct Repository<'a> {
    id: &'a ResourceId,
    url: &'a str,
    token: Option<&'a Sealed>,
    checkout: Option<&'a Checkout>,
    mount_path: &'a str,
}

impl<'a> Repository<'a> {
    /// `None` for what is no repository.
    fn of(resource: &'a Resource) -> Option<Self> {
        match &resource.spec {
            Given::Repository {
                url,
                token,
                checkout,
                mount_path,
            } => Some(Self {
                id: &resource.id,
                url,
                token: token.as_ref(),
                checkout: checkout.as_ref(),
                mount_path,
            }),
            Given::File { .. } => None,
        }
    }
}

impl Hosts {
    pub(crate) fn new(store: Arc<dyn Store>, access: Access) -> Arc<Self> {
        Arc::new(Self {
            store,
            access,
            moved: Mutex::default(),
        })
    }

    fn moved(&self) -> MutexGuard<'_, HashMap<ResourceId, Url>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_moved(&self, id: &ResourceId, to: Url) {
        let mut moved = self.moved();
        if moved.len() >= MAX_MOVED {
            moved.clear();
        }
        moved.insert(id.clone(), to);
    }

    /// The token of a session's repository, if it has one.
    async fn token(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        repository: &Repository<'_>,
    ) -> Result<Option<SecretString>> {
        let Some(sealed) = repository.token else {
            return Ok(None);
        };
        let place = given::place(workspace, session, repository.id, repository.url);
        let opened = self.access.vaults.open_own(&place, sealed).await;
        opened
            .map(Some)
            .map_err(|error| Error::Internal(format!("a repository's token can't be read: {error}")))
    }
}

/// What this process has seen to in a session.
#[derive(Default)]
pub(crate) struct Seen {
    /// Carries what git says, for as long as the sandbox lives; none without repositories.
    bridge: Option<AbortOnDropHandle<()>>,
    /// There are repositories that could not be cloned.
    missing: Option<Missing>,
    /// What the model is told of the repositories' skills.
    skills: Option<Arc<str>>,
}

struct Missing {
    pause: Duration,
    /// When to try again.
    again: Instant,
}

impl Missing {
    /// After another failure.
    fn after(before: Option<&Self>, now: Instant) -> Self {
        let pause = match before {
            Some(before) => (before.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        Self {
            pause,
            again: now + pause,
        }
    }
}

impl Seen {
    fn has_bridge(&self) -> bool {
        self.bridge.as_ref().is_some_and(|bridge| !bridge.is_finished())
    }

    /// Whether there is nothing to do in a sandbox that runs.
    fn is_settled(&self, now: Instant) -> bool {
        let is_reachable = self.bridge.is_none() || self.has_bridge();
        is_reachable && self.missing.as_ref().is_none_or(|missing| missing.again > now)
    }

    /// What the model is told of the repositories' skills.
    pub(crate) fn skills(&self) -> Option<Arc<str>> {
        self.skills.clone()
    }

    /// Lets what is missing be tried again at once.
    fn hurry(&mut self, now: Instant) {
        if let Some(missing) = &mut self.missing {
            missing.pause = Duration::ZERO;
            missing.again = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pauses_grow_until_a_token_changes() {
        let now = Instant::now();
        let mut seen = Seen::default();
        assert!(seen.is_settled(now), "nothing is missing");
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let missing = Missing::after(seen.missing.as_ref(), now);
            pauses.push(missing.pause.as_secs());
            seen.missing = Some(missing);
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 600]);
        assert!(seen.is_settled(now + Duration::from_secs(599)));
        assert!(!seen.is_settled(now + Duration::from_secs(600)));
        seen.hurry(now);
        assert!(!seen.is_settled(now));
        assert_eq!(Missing::after(seen.missing.as_ref(), now).pause, FIRST_PAUSE);
    }

    #[tokio::test]
    async fn a_bridge_that_is_gone_is_built_again() {
        let seen = Seen {
            bridge: Some(AbortOnDropHandle::new(tokio::spawn(std::future::pending()))),
            ..Seen::default()
        };
        assert!(seen.is_settled(Instant::now()));
        let mut gone = tokio::spawn(async {});
        (&mut gone).await.unwrap();
        let seen = Seen {
            bridge: Some(AbortOnDropHandle::new(gone)),
            ..Seen::default()
        };
        assert!(!seen.is_settled(Instant::now()));
    }
}
