//! How sandboxes end: in an orderly way or not, with their workspaces or without.

use std::fs;
use std::io;
use std::time::Duration;

use oma_domain::SessionId;
use tokio::time::timeout;

use super::record::{Folder, Record};
use super::sandboxes::{Found, Live, Sandboxes};
use crate::Error;
use crate::client::Client;
use crate::error::io as io_error;
use crate::files::{self, removal};

/// How long a hand that the record does not know may take to greet.
const UNKNOWN_TIMEOUT: Duration = Duration::from_secs(2);

impl Sandboxes {
    /// Makes sure that nothing of the recorded sandbox is left but its folder.
    pub(super) async fn bury(&self, folder: &Folder, record: &Record) -> Result<(), Error> {
        let found = self.engine.find(folder, record).await;
        if let Ok(Some(process)) = found {
            process.kill().await?;
        } else if let Err(error) = found {
            // What can't be asked can be removed all the same, or that fails.
            tracing::warn!(%error, "a sandbox that is to go could not be asked");
        } else if let Ok(stream) = folder.connect().await
            && let Ok(client) = Client::connect(stream, UNKNOWN_TIMEOUT, UNKNOWN_TIMEOUT).await
        {
            // The server died while it launched this one, or another backend has made it, so only its socket leads to
            // it. A hand of a launch that does not answer has not come far: it ends by itself when it finds nobody to
            // report to.
            client.shut_down().await?;
        }
        self.engine.clear(record).await
    }

    /// Ends the session's sandbox, if there is one.
    pub(super) async fn stop(&self, session: &SessionId, slot: &mut Option<Live>) -> Result<(), Error> {
        let is_lost = match self.find(session, slot).await? {
            Found::Live(live) => {
                let is_awaited = live.is_awaited().await;
                self.shut_down(session, &live).await?;
                is_awaited
            }
            // It did not wait for this.
            Found::Gone(record) => !record.never_served(&self.boot),
            Found::None => false,
        };
        self.clear(session, is_lost).await
    }

    /// Ends the session's sandbox unless something runs in it, and tells whether there is none any more. One that
    /// is gone by itself stays on record.
    pub(super) async fn retire(&self, session: &SessionId, slot: &mut Option<Live>) -> Result<bool, Error> {
        let live = match self.find(session, slot).await? {
            Found::Live(live) => live,
            Found::Gone(_) | Found::None => return Ok(true),
        };
        let live = slot.insert(live);
        if !live.hand.client.retire().await? {
            return Ok(false);
        }
        if timeout(self.config.stop_timeout, live.process.ended())
            .await
            .is_err()
        {
            tracing::warn!(session_id = %session, "a sandbox did not stop in time");
            live.process.kill().await?;
        }
        slot.take();
        // The session has come to rest, so whatever its hand still knew was acted on.
        self.clear(session, false).await?;
        Ok(true)
    }

    /// Clears away what a sandbox has left that is gone; if it `is_lost`, not the word of that.
    async fn clear(&self, session: &SessionId, is_lost: bool) -> Result<(), Error> {
        let folder = self.folder(session);
        let failed = |error| io_error(format!("removing the sandbox of {session}"), error);
        if let Some(record) = folder.read().map_err(failed)? {
            self.bury(&folder, &record).await?;
            if is_lost {
                folder.write(&Record::of_loss()).map_err(failed)?;
            } else {
                folder.remove().map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Lets a hand end in an orderly way, or kills it when it doesn't.
    async fn shut_down(&self, session: &SessionId, live: &Live) -> Result<(), Error> {
        let orderly = async {
            live.hand.client.shut_down().await?;
            live.process.ended().await;
            Ok::<(), Error>(())
        };
        match timeout(self.config.stop_timeout, orderly).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::debug!(session_id = %session, %error, "a sandbox did not stop by itself");
                live.process.kill().await
            }
            Err(_) => {
                tracing::warn!(session_id = %session, "a sandbox did not stop in time");
                live.process.kill().await
            }
        }
    }

    pub(super) async fn destroy(&self, session: &SessionId) -> Result<(), Error> {
        let mut slot = self.take(session).await;
        self.stop(session, &mut slot).await?;
        let failed = |error| io_error(format!("removing the workspace of {session}"), error);
        // With the session, the word of a loss is of no use either.
        self.folder(session).remove().map_err(failed)?;
        let trash = self.config.data.join("trash");
        let mut thrown = Vec::new();
        for path in [self.workspace_path(session), self.mounts_path(session)] {
            // A folder must be writable to be moved.
            match files::access::grant(rustix::fs::CWD, path.as_path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
            let to = trash.join(ulid::Ulid::generate().to_string());
            match fs::rename(path, &to) {
                Ok(()) => thrown.push(to),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        // From here on the workspace is gone for everybody; a crash leaves the rest to the next start.
        let removal = tokio::task::spawn_blocking(move || {
            let mut thrown = thrown.iter();
            thrown.try_for_each(|folder| {
                match removal::empty(folder).and_then(|()| fs::remove_dir(folder)) {
                    // Whoever empties the trash has come upon it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    removed => removed,
                }
            })
        });
        removal
            .await
            .map_err(|error| failed(io::Error::other(error)))?
            .map_err(failed)
    }
}
