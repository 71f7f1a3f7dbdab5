//! Workspaces as archives, and back.
//!
//! Neither happens beside a sandbox: it is ended first, and the session's next one waits. A workspace that comes back is
//! unpacked beside the one that is there, and takes its place in one step.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use oma_domain::SessionId;

use super::sandboxes::{Sandboxes, make_private};
use crate::Error;
use crate::error::io as io_error;
use crate::files::archive::{self, Bounds, Contents};
use crate::files::removal;

/// The folder of the data folder in which workspaces are unpacked.
pub(super) const FOLDER: &str = "restoring";

impl Sandboxes {
    /// Packs the session's workspace, after its sandbox has ended.
    ///
    /// # Errors
    /// [`Error::Busy`] when something runs in that.
    pub(super) async fn save(
        &self,
        session: &SessionId,
        to: Box<dyn Write + Send>,
        bounds: Bounds,
    ) -> Result<Contents, Error> {
        let mut slot = self.take(session).await;
        if !self.retire(session, &mut slot).await? {
            return Err(Error::Busy);
        }
        let (path, _) = self.make_workspace(session)?;
        let bounds = self.within(bounds);
        blocking(move || {
            let (contents, mut to) = archive::pack(&path, to, bounds)?;
            to.flush()
                .map_err(|error| io_error("writing an archive", error))?;
            Ok(contents)
        })
        .await
    }

    /// Puts what is in the archive in the place of the session's workspace, after its sandbox has ended.
    pub(super) async fn restore(
        &self,
        session: &SessionId,
        from: Box<dyn Read + Send>,
        bounds: Bounds,
    ) -> Result<Contents, Error> {
        let mut slot = self.take(session).await;
        self.stop(session, &mut slot).await?;
        let (path, uid) = self.make_workspace(session)?;
        let beside = self.root.join(FOLDER).join(ulid::Ulid::generate().to_string());
        let fresh = beside.join("workspace");
        make_private(&fresh)?;
        let bounds = self.within(bounds);
        blocking(move || {
            let unpacked = unpack(from, &fresh, uid, bounds).and_then(|contents| {
                archive::exchange(&fresh, &path)
                    .map_err(|error| io_error("putting a workspace into place", error))?;
                Ok(contents)
            });
            // The one before, or half of the other.
            let removed = removal::empty(&beside).and_then(|()| fs::remove_dir(&beside));
            if let Err(error) = removed {
                tracing::warn!(%error, "what a workspace was could not be removed; the next start does");
            }
            unpacked
        })
        .await
    }

    /// No workspace may have more than a session's.
    fn within(&self, bounds: Bounds) -> Bounds {
        let limits = &self.config.limits;
        Bounds {
            bytes: bounds.bytes.min(limits.disk),
            entries: bounds.entries.min(limits.inodes),
            ..bounds
        }
    }

    /// After a crash: what was being unpacked is of no use, and goes with the rest of the rubbish.
    pub(super) fn give_up_restoring(&self) -> Result<(), Error> {
        let folder = self.root.join(FOLDER);
        let failed = |error| io_error("clearing away after a crash", error);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let rubbish = self.config.data.join("trash").join(entry.file_name());
            fs::rename(entry.path(), rubbish).map_err(failed)?;
        }
        Ok(())
    }
}

fn unpack(
    from: Box<dyn Read + Send>,
    fresh: &Path,
    uid: Option<u32>,
    bounds: Bounds,
) -> Result<Contents, Error> {
    let contents = archive::unpack(from, fresh, uid, bounds)?;
    if uid.is_some() {
        std::os::unix::fs::chown(fresh, uid, uid)
            .map_err(|error| io_error("giving a session its workspace", error))?;
    }
    Ok(contents)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io_error("working on a workspace", io::Error::other(error))),
    }
}
