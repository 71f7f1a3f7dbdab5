//! Sandboxes that were started in advance, and how one of them becomes a session's.
//!
//! Its folders lie below `warm` in the data folder, by a name of their own. When a session takes it, they are moved to
//! where the session's lie; what is mounted from them goes along. The folder with the record and the socket is moved
//! last: until then a crash leaves a sandbox that belongs to nobody, which the next start of the server ends, and from
//! then on the session's own, like any other.
//!
//! Invariant: nothing runs in it before it would be known after a loss of power that it is the session's.
//! Invariant: a session that has anything of its own already is given none, so nothing is ever put in its place.
//! Invariant: a sandbox that belongs to no session does not outlive the next start of a server.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use oma_domain::SessionId;

use super::FOLDERS;
use super::hand::Sync;
use super::sandboxes::{Found, Live, Sandboxes};
use crate::error::io as io_error;
use crate::{Attached, Error, Origin, WarmId};

/// The folder of the data folder that holds theirs.
pub(super) const FOLDER: &str = "warm";

impl Sandboxes {
    /// Whether nothing of the session's is there.
    pub(super) fn is_untouched(&self, session: &SessionId) -> Result<bool, Error> {
        for path in self.places(session) {
            match fs::symlink_metadata(&path) {
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error(format!("looking for {}", path.display()), error)),
            }
        }
        Ok(true)
    }

    /// What the session has, with what makes it the owner of the rest last.
    fn places(&self, session: &SessionId) -> [PathBuf; 3] {
        let folder = self.folder(session).path().to_owned();
        [self.workspace_path(session), self.mounts_path(session), folder]
    }

    /// Gives the session one of the sandboxes that belong to none.
    pub(super) async fn claim(
        &self,
        session: &SessionId,
        warm: &Self,
        id: &WarmId,
    ) -> Result<Option<Attached>, Error> {
        let begun = Instant::now();
        let mut slot = self.take(session).await;
        let mut from = warm.take(&id.0).await;
        match self.find(session, &mut slot).await? {
            Found::None => {}
            Found::Live(live) => {
                slot.replace(live);
                return Ok(None);
            }
            Found::Gone(_) => return Ok(None),
        }
        let is_lost = |live: &Live| live.hand.client.is_lost();
        let Some(live) = from.take_if(|live| !is_lost(live)) else {
            return Ok(None);
        };
        match self.bring(session, warm, id) {
            Ok(true) => {}
            other => {
                from.replace(live);
                return other.map(|_| None);
            }
        }
        tracing::info!(session_id = %session, warm = %id, "a session takes a sandbox that was started in advance");
        let parents = FOLDERS.map(|name| self.root.join(name));
        let moving = Sync::of(Arc::new(parents));
        let (process, owner) = (Arc::clone(&live.process), session.clone());
        // It goes by its id meanwhile.
        tokio::spawn(async move { process.assigned(&owner).await });
        let live = slot.insert(Live {
            hand: Arc::new(live.hand.moved(self.folder(session), moving)),
            process: live.process,
            is_claimed: true,
        });
        Ok(Some(live.attached(Origin::Started, begun)))
    }

    /// Moves its folders to where the session's lie, all or none; `false` when something lies there.
    fn bring(&self, session: &SessionId, warm: &Self, id: &WarmId) -> Result<bool, Error> {
        let _making = self.making();
        if !self.is_untouched(session)? {
            return Ok(false);
        }
        let mut moved: Vec<(PathBuf, PathBuf)> = Vec::new();
        for (from, to) in warm.places(&id.0).into_iter().zip(self.places(session)) {
            if let Err(error) = fs::rename(&from, &to) {
                for (from, to) in moved.iter().rev() {
                    if let Err(error) = fs::rename(to, from) {
                        tracing::error!(session_id = %session, %error, "half a sandbox could not be moved back");
                    }
                }
                return Err(io_error(format!("giving {session} a sandbox"), error));
            }
            moved.push((from, to));
        }
        Ok(true)
    }

    /// Ends all that belong to no session, and removes what is left of them.
    pub(super) async fn clear_all(&self) -> Result<(), Error> {
        let mut all = BTreeSet::new();
        for name in FOLDERS {
            all.extend(self.below(name)?);
        }
        let ends = all.iter().map(|id| self.destroy(id));
        futures_util::future::try_join_all(ends).await?;
        Ok(())
    }
}
