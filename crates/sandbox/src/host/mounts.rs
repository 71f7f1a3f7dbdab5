//! The folders beside a session's workspace: `mounts/<session>` in the data folder.
//!
//! The session sees single folders in it and never the one that holds them, so it can put nothing in the place of
//! one. Those that it may write to are its user's; the others are the server's, readable for all who can get there,
//! and mounted read-only as well, for where the server is no superuser the session has its user.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use oma_domain::SessionId;

use super::config;
use super::sandboxes::{Sandboxes, make_private};
use crate::Error;
use crate::error::io as io_error;
use crate::files;
use crate::hand::launch::Mount;
use crate::mounts::{self, Access, Place, Slug};

impl Sandboxes {
    pub(super) fn mounts_path(&self, session: &SessionId) -> PathBuf {
        self.root.join("mounts").join(session.as_str())
    }

    /// The folder of one place, made when it does not exist, and the host user that new files in it belong to.
    pub(super) fn make_mount(
        &self,
        session: &SessionId,
        place: &Place,
    ) -> Result<(PathBuf, Option<u32>), Error> {
        // All that the session writes has one user.
        let (_, uid) = self.make_workspace(session)?;
        let path = self.made(session, place, uid)?;
        let owner = match place.access() {
            Access::ReadOnly => None,
            Access::ReadWrite => uid,
        };
        Ok((path, owner))
    }

    /// All that a sandbox of the session shows beside its workspace. `uid` is the workspace's user.
    pub(super) fn mounts(&self, session: &SessionId, uid: Option<u32>) -> Result<Vec<Mount>, Error> {
        let places = Place::ALWAYS.into_iter().chain(self.stores(session)?);
        let mount = |place: Place| -> Result<Mount, Error> {
            Ok(Mount {
                source: self.made(session, &place, uid)?,
                target: place.path(),
                access: place.access(),
            })
        };
        places.map(mount).collect()
    }

    /// The memory stores that there are folders for.
    fn stores(&self, session: &SessionId) -> Result<Vec<Place>, Error> {
        let mut found = Vec::new();
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let folder = self.mounts_path(session).join(mounts::memory(access));
            let names = match names(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|error| io_error(format!("listing {}", folder.display()), error))?,
            };
            let slugs = names.iter().filter_map(|name| Slug::parse(name));
            found.extend(slugs.map(|slug| Place::Memory { slug, access }));
        }
        Ok(found)
    }

    fn made(&self, session: &SessionId, place: &Place, uid: Option<u32>) -> Result<PathBuf, Error> {
        let path = self.mounts_path(session).join(place.folder());
        let failed = |error| io_error(format!("preparing a mount of {session}"), error);
        let _making = self.making();
        make_private(&path)?;
        let meta = fs::symlink_metadata(&path).map_err(failed)?;
        match place.access() {
            Access::ReadOnly => {
                fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(failed)?;
            }
            Access::ReadWrite if config::is_root() && uid != Some(meta.uid()) => {
                if self.is_user(meta.uid()) {
                    // The workspace has got another user since.
                    files::ownership::give_all(&path, uid).map_err(failed)?;
                } else {
                    std::os::unix::fs::chown(&path, uid, uid).map_err(failed)?;
                }
            }
            Access::ReadWrite => {}
        }
        Ok(path)
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?;
    entries
        .filter_map(|entry| {
            entry
                .map(|entry| entry.file_name().into_string().ok())
                .transpose()
        })
        .collect()
}
