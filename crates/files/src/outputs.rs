//! Making files of what a session has written to its outputs.
//!
//! Each is copied, so that a client downloads what was there, whatever the session does meanwhile. What has not changed
//! since (by size and time) keeps its id; what has gets another one in the place of the old. What the session
//! removes again stays a file: a client may know of it already.

use std::collections::BTreeMap;

use oma_domain::{File, FileId, SessionId, Timestamp, WorkspaceId};
use oma_sandbox::files::{Entry, Error as MountError, Workspace};
use oma_sandbox::mounts::Place;

use crate::error::{Error, Result};
use crate::{Files, MAX_FILENAME, mime_type};

/// The most files that are made of a session's outputs.
const MAX_OUTPUTS: usize = 1_000;
/// The entries of one folder that are looked at, and how deep folders may nest.
const MAX_ENTRIES: usize = 10_000;
const MAX_DEPTH: usize = 32;

impl Files {
    /// Makes files of what the session has written by now. What can't be one is left out, and logged.
    ///
    /// # Errors
    /// A failure of the store, or of the session's folder.
    pub async fn collect(&self, workspace: &WorkspaceId, session: &SessionId, now: Timestamp) -> Result<()> {
        if !self.has_folders(session).await? {
            return Ok(());
        }
        let _turn = self.turn(session).await;
        let outputs = self.folder(session, &Place::Outputs).await?;
        let found = present(&*outputs).await?;
        if found.is_empty() {
            return Ok(());
        }
        let known = self.inner.store.outputs(workspace, session).await?;
        let known: BTreeMap<String, String> = known.into_iter().map(|made| (made.path, made.stamp)).collect();
        let mut count = known.len();
        for entry in found {
            let before = known.get(&entry.path);
            let stamp = stamp(&entry);
            if before == Some(&stamp) {
                continue;
            }
            if before.is_none() && count >= MAX_OUTPUTS {
                tracing::warn!(session_id = %session, most = MAX_OUTPUTS, "some outputs of a session are too many");
                break;
            }
            match self
                .collect_one(workspace, session, &*outputs, &entry, &stamp, now)
                .await
            {
                Ok(()) if before.is_none() => count += 1,
                Ok(()) => {}
                Err(error @ (Error::NoRoom(_) | Error::DiskFull)) => {
                    tracing::warn!(session_id = %session, %error, "an output could not be kept");
                    break;
                }
                // The session may have gone meanwhile, with everything.
                Err(Error::SessionNotFound) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.release().await
    }

    async fn collect_one(
        &self,
        workspace: &WorkspaceId,
        session: &SessionId,
        outputs: &dyn Workspace,
        entry: &Entry,
        stamp: &str,
        now: Timestamp,
    ) -> Result<()> {
        let source = match outputs.open(&entry.path).await {
            // It has been removed, or something else has taken its place.
            Err(MountError::NotFound | MountError::InvalidPath(_)) => return Ok(()),
            opened => opened?,
        };
        let limits = &self.inner.limits;
        let mut partial = self
            .inner
            .blobs
            .begin()
            .await
            .map_err(Error::io("beginning a file"))?;
        let filled = partial.fill(source, limits.max_file).await;
        if !filled.map_err(Error::io("copying an output"))? {
            tracing::warn!(session_id = %session, most = limits.max_file, "an output of a session is too large");
            return Ok(());
        }
        let filename = name(&entry.name);
        let file = File {
            id: FileId::generate(),
            workspace: workspace.clone(),
            mime_type: mime_type(None, &filename),
            filename,
            size: partial.size(),
            downloadable: true,
            created_at: now,
            expires_at: None,
            session: Some(session.clone()),
        };
        let store = &self.inner.store;
        let put = store.put_output(&file, session, &entry.path, stamp, limits.room);
        self.keep(partial, &file, put).await.map_err(|error| match error {
            Error::Store(oma_store::Error::NotFound) => Error::SessionNotFound,
            error => error,
        })
    }
}

/// What tells whether a file has changed.
fn stamp(entry: &Entry) -> String {
    format!("{}:{}", entry.size, entry.mtime_ms)
}

/// A session's name for a file, without what headers and terminals take amiss.
fn name(given: &str) -> String {
    let clean = |c: char| if c.is_control() { '_' } else { c };
    let mut name: String = given.chars().map(clean).collect();
    while name.len() > MAX_FILENAME {
        name.pop();
    }
    name
}

/// All regular files below the outputs, by path.
async fn present(files: &dyn Workspace) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut folders = vec![(String::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = match files.list(&folder, MAX_ENTRIES).await {
            // It has been removed, or something else has taken its place.
            Err(MountError::NotFound | MountError::InvalidPath(_)) => continue,
            listed => listed?,
        };
        for entry in entries {
            if !entry.is_dir {
                found.push(entry);
            } else if depth < MAX_DEPTH {
                folders.push((entry.path, depth + 1));
            }
            if found.len() >= MAX_ENTRIES || folders.len() >= MAX_ENTRIES {
                return Ok(found);
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}
