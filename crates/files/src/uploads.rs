//! Putting the files that a session was given where its sandbox shows them.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, MutexGuard, PoisonError};

use async_trait::async_trait;
use oma_domain::event::Failure;
use oma_domain::resource::Spec as Given;
use oma_domain::{FileId, Resource, SessionId};
use oma_sandbox::files::{Error as MountError, Workspace};
use oma_sandbox::mounts::{Furnish, Place};
use oma_sandbox::{Attached, Error as SandboxError, Spec};

use crate::error::{Error, Result};
use crate::{Files, mount_path};

/// How many sessions are remembered as furnished; beyond that all are looked at once more.
const MAX_FURNISHED: usize = 10_000;
/// The entries of one folder that are looked at, and how deep.
const MAX_ENTRIES: usize = 10_000;

#[async_trait]
impl Furnish for Files {
    async fn furnish(&self, spec: &Spec) -> Result<(), SandboxError> {
        if self.is_furnished(&spec.session) {
            return Ok(());
        }
        let furnished = self.furnish_now(spec).await;
        furnished.map_err(|error| SandboxError::Io {
            what: "putting files into a sandbox".to_owned(),
            source: std::io::Error::other(error),
        })
    }

    async fn settle(&self, spec: &Spec, attached: &Attached) -> Vec<Failure> {
        self.settle_repositories(spec, attached).await
    }

    fn notes(&self, session: &SessionId) -> Vec<Arc<str>> {
        let seen = self.seen();
        let skills = seen.get(session).and_then(|seen| seen.skills());
        skills.into_iter().collect()
    }
}

impl Files {
    async fn furnish_now(&self, spec: &Spec) -> Result<()> {
        let session = &spec.session;
        let _turn = self.turn(session).await;
        let resources = self.inner.store.resources(&spec.workspace, session).await?;
        if !resources.is_empty() || self.has_folders(session).await? {
            let uploads = self.folder(session, &Place::Uploads).await?;
            let wanted: BTreeMap<&str, &FileId> = resources.iter().filter_map(place).collect();
            // What was taken away while nobody could see to it.
            for path in present(&*uploads).await? {
                if !wanted.contains_key(path.as_str()) {
                    uploads.remove(&path).await?;
                }
            }
            for (path, file) in wanted {
                match uploads.open(path).await {
                    Ok(_) => {}
                    Err(MountError::NotFound) => self.put(&*uploads, path, file).await?,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let mut furnished = self.furnished();
        if furnished.len() >= MAX_FURNISHED {
            furnished.clear();
        }
        furnished.insert(session.clone());
        Ok(())
    }

    pub(crate) async fn put_in_place(&self, session: &SessionId, resource: &Resource) -> Result<()> {
        let uploads = self.folder(session, &Place::Uploads).await?;
        match place(resource) {
            Some((path, file)) => self.put(&*uploads, path, file).await,
            None => Ok(()),
        }
    }

    async fn put(&self, uploads: &dyn Workspace, path: &str, file: &FileId) -> Result<()> {
        match self.inner.blobs.read(file).await {
            // A client has deleted the session's copy.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            read => {
                let bytes = read.map_err(Error::io("opening a file"))?;
                Ok(uploads.place(path, bytes).await?)
            }
        }
    }

    pub(crate) async fn take_away(&self, session: &SessionId, resource: &Resource) -> Result<()> {
        let uploads = self.folder(session, &Place::Uploads).await?;
        let Some((path, _)) = place(resource) else {
            return Ok(());
        };
        match uploads.remove(path).await {
            Err(MountError::NotFound) => Ok(()),
            removed => Ok(removed?),
        }
    }

    fn furnished(&self) -> MutexGuard<'_, HashSet<SessionId>> {
        self.inner
            .furnished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_furnished(&self, session: &SessionId) -> bool {
        self.furnished().contains(session)
    }

    pub(crate) fn unfurnish(&self, session: &SessionId) {
        self.furnished().remove(session);
    }
}

/// Where a resource lies below the uploads, and the file that it is; `None` for what is no file.
fn place(resource: &Resource) -> Option<(&str, &FileId)> {
    match &resource.spec {
        Given::File { file, mount_path } => Some((mount_path::inside(mount_path), file)),
        Given::Repository { .. } => None,
    }
}

/// The paths of all files below a folder of the server's own.
async fn present(files: &dyn Workspace) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in files.list(&folder, MAX_ENTRIES).await? {
            if entry.is_dir {
                folders.push(entry.path);
            } else {
                found.push(entry.path);
            }
        }
    }
    Ok(found)
}
