//! Sandboxes of this machine's own namespaces: no daemon, no image.
//!
//! Under the data folder, `sandboxes/<session>` holds the record and the socket of a session's sandbox
//! ([`record`]), `workspaces/<session>` its files, `mounts/<session>` what lies beside them, and `trash` what is being removed. A hand outlives the
//! server; a new one finds it by its socket.
//!
//! Invariant: for one session at most one sandbox lives; what is done to it is done one at a time.
//! Invariant: `attach` tells the truth about what became of the sandbox before ([`crate::Origin`]), also after a
//! crash at any point, its own included.

mod cgroup;
mod config;
mod ending;
mod exposure;
mod hand;
mod launch;
mod mounts;
mod process;
mod record;
mod sandboxes;

pub use config::Config;
pub(crate) use config::is_root;
pub use exposure::exposed;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use oma_domain::SessionId;

use crate::error::io as io_error;
use crate::files;
use crate::files::beneath::Beneath;
use crate::limits::Enforcement;
use crate::mounts::{Access, Place};
use crate::{Attached, Error, Provider, Spec};
use cgroup::Cgroups;
use sandboxes::{Sandboxes, make_private, sessions};

/// The backend of this machine's own namespaces.
#[derive(Clone)]
pub struct Local {
    inner: Arc<Sandboxes>,
    survivors: Arc<[SessionId]>,
}

impl Local {
    /// Opens the data folder and clears away what a crash left behind. Sandboxes that live go on.
    ///
    /// # Errors
    /// [`Error::TooWeak`] when the limits can't be enforced as configured; [`Error::Io`] when the folder can't
    /// be used, for example because another server has it.
    pub async fn open(config: Config) -> Result<Self, Error> {
        if let Some(shown) = exposed(&config.data, &config.readable) {
            return Err(Error::TooWeak(format!(
                "every sandbox can read {}, and the data folder {} lies there; use another data folder",
                shown.display(),
                config.data.display()
            )));
        }
        let enforcement = config.enforcement();
        let cgroups = match enforcement {
            Enforcement::Rlimit => None,
            Enforcement::Cgroup => Some(Cgroups::find(config.cgroup_parent.as_deref()).map_err(|why| {
                Error::TooWeak(format!(
                    "limits by control group are configured, but {why}; run the server in a delegated group, or \
                     configure limits by resource limit (weaker: no limit on processors)"
                ))
            })?),
        };
        for name in ["sandboxes", "workspaces", "mounts", "trash"] {
            make_private(&config.data.join(name))?;
        }
        let lock = lock(&config.data.join("sandboxes.lock"))?;
        let instance = instance(&config.data.join("sandboxes.instance"))
            .map_err(|error| io_error("reading the instance of the data folder", error))?;
        let boot = record::boot_id().map_err(|error| io_error("reading the boot's id", error))?;
        let slots = Mutex::default();
        let inner = Sandboxes {
            config,
            instance,
            boot,
            cgroups,
            slots,
            _lock: lock,
        };
        let survivors = inner.clear_away().await?.into();
        Ok(Self {
            inner: Arc::new(inner),
            survivors,
        })
    }

    /// How the limits are enforced.
    #[must_use]
    pub fn enforcement(&self) -> Enforcement {
        self.inner.config.enforcement()
    }
}

/// The control groups that a configuration leads to, in words; or why there are none.
pub(crate) fn find_groups(config: &Config) -> Result<String, String> {
    let found = Cgroups::find(config.cgroup_parent.as_deref())?;
    Ok(format!("version {}", found.version()))
}

fn lock(path: &Path) -> Result<File, Error> {
    let what = || format!("locking {}", path.display());
    let file = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| io_error(what(), error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(io_error(
            what(),
            io::Error::other("another server is using this data folder"),
        )),
        Err(fs::TryLockError::Error(error)) => Err(io_error(what(), error)),
    }
}

/// The name of the data folder, made when it has none.
fn instance(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let fresh = ulid::Ulid::generate().to_string().to_ascii_lowercase();
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(fresh.as_bytes())?;
    Ok(fresh)
}

/// Does something to a sandbox to its end, whether or not the caller waits for it: half a launch or half a
/// removal must not be left because a request was dropped.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => Err(io_error("working on a sandbox", io::Error::other(error))),
    }
}

#[async_trait]
impl Provider for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn attach(&self, spec: &Spec) -> Result<Attached, Error> {
        let (inner, session) = (Arc::clone(&self.inner), spec.session.clone());
        whole(async move { inner.attach(&session).await }).await
    }

    async fn reattach(&self, session: &SessionId) -> Result<Option<Attached>, Error> {
        let (inner, session) = (Arc::clone(&self.inner), session.clone());
        whole(async move { inner.reattach(&session).await }).await
    }

    fn survivors(&self) -> Vec<SessionId> {
        self.survivors.to_vec()
    }

    async fn stop(&self, session: &SessionId) -> Result<(), Error> {
        let (inner, session) = (Arc::clone(&self.inner), session.clone());
        whole(async move {
            let mut slot = inner.take(&session).await;
            inner.stop(&session, &mut slot).await
        })
        .await
    }

    async fn retire(&self, session: &SessionId) -> Result<bool, Error> {
        let (inner, session) = (Arc::clone(&self.inner), session.clone());
        whole(async move {
            let mut slot = inner.take(&session).await;
            inner.retire(&session, &mut slot).await
        })
        .await
    }

    async fn destroy(&self, session: &SessionId) -> Result<(), Error> {
        let (inner, session) = (Arc::clone(&self.inner), session.clone());
        whole(async move { inner.destroy(&session).await }).await
    }

    async fn inventory(&self) -> Result<Vec<SessionId>, Error> {
        let mut all = BTreeSet::new();
        for name in ["sandboxes", "workspaces", "mounts"] {
            let folder = self.inner.config.data.join(name);
            let found =
                sessions(&folder).map_err(|error| io_error(format!("listing {}", folder.display()), error));
            all.extend(found?);
        }
        Ok(all.into_iter().collect())
    }

    async fn workspace(&self, session: &SessionId) -> Result<Arc<dyn files::Workspace>, Error> {
        let (path, uid) = self.inner.make_workspace(session)?;
        let limits = self.inner.config.limits.clone();
        let opened = Beneath::open(&path, uid, Access::ReadWrite, limits);
        Ok(Arc::new(opened.map_err(|error| {
            io_error(format!("opening the workspace of {session}"), error)
        })?))
    }

    async fn has_mounts(&self, session: &SessionId) -> Result<bool, Error> {
        Ok(self.inner.mounts_path(session).is_dir())
    }

    async fn mount(&self, session: &SessionId, place: &Place) -> Result<Arc<dyn files::Workspace>, Error> {
        let (path, uid) = self.inner.make_mount(session, place)?;
        let limits = self.inner.config.limits.clone();
        let opened = Beneath::open(&path, uid, place.access(), limits);
        Ok(Arc::new(opened.map_err(|error| {
            io_error(format!("opening a mount of {session}"), error)
        })?))
    }
}
