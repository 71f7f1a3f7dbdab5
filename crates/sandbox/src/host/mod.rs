//! The sandboxes of one data folder on this machine, whatever makes them ([`engine`]): [`crate::local`] or
//! a container engine.
//!
//! Under the data folder, `sandboxes/<session>` holds the record and the socket of a session's sandbox
//! ([`record`]), `workspaces/<session>` its files, `mounts/<session>` what lies beside them, `layers/<layer>` what was
//! built for environments, `restoring` workspaces that are being unpacked, and `trash` what is being removed. A hand
//! outlives the server; a new one finds it by its socket. Below `warm` lies the same of sandboxes that belong to no session yet
//! ([`warm`]).
//!
//! Invariant: for one session at most one sandbox lives; what is done to it is done one at a time.
//! Invariant: `attach` tells the truth about what became of the sandbox before ([`crate::Origin`]), also after a
//! crash at any point, its own included.

mod config;
mod ending;
pub(crate) mod engine;
mod hand;
mod layers;
mod mounts;
pub(crate) mod record;
mod sandboxes;
mod saving;
mod warm;

pub use config::Config;
pub(crate) use config::is_root;
pub(crate) use sandboxes::make_private;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use oma_domain::{SessionId, WorkspaceId};

use crate::error::io as io_error;
use crate::files;
use crate::files::archive::{Bounds, Contents};
use crate::files::beneath::Beneath;
use crate::fittings::{Fit, Fittings};
use crate::limits::Enforcement;
use crate::mounts::{Access, Place};
use crate::{Attached, Error, Provider, Spec, WarmId};
use engine::Engine;
use sandboxes::Sandboxes;

/// What a sandbox has in the data folder, one folder in each.
const FOLDERS: [&str; 3] = ["sandboxes", "workspaces", "mounts"];

/// The sandboxes of one data folder. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Sandboxes>,
    /// Those that belong to no session yet.
    warm: Arc<Sandboxes>,
    survivors: Arc<[SessionId]>,
}

/// A data folder that belongs to this server alone, as long as this lives.
pub(crate) struct Claimed {
    lock: File,
    /// Names the data folder among all on the machine.
    pub(crate) instance: String,
    /// Names this boot of the machine.
    pub(crate) boot: String,
}

impl Claimed {
    /// Claims the data folder, and makes what is missing of it.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder can't be used, for example because another server has it.
    pub(crate) fn new(data: &Path) -> Result<Self, Error> {
        for name in ["sandboxes", "workspaces", "mounts", "layers", "trash"] {
            make_private(&data.join(name))?;
        }
        for name in FOLDERS {
            make_private(&data.join(warm::FOLDER).join(name))?;
        }
        make_private(&data.join(saving::FOLDER))?;
        Ok(Self {
            lock: lock(&data.join("sandboxes.lock"))?,
            instance: instance(&data.join("sandboxes.instance"))
                .map_err(|error| io_error("reading the instance of the data folder", error))?,
            boot: record::boot_id().map_err(|error| io_error("reading the boot's id", error))?,
        })
    }
}

impl Host {
    /// Clears away what a crash left behind. Sandboxes that live go on.
    ///
    /// # Errors
    /// [`Error::TooWeak`] when files of sessions can't be opened safely here; [`Error`] when something can't be cleared
    /// away.
    pub(crate) async fn open(
        config: Config,
        claimed: Claimed,
        engine: Arc<dyn Engine>,
    ) -> Result<Self, Error> {
        let resolution = files::resolution::check();
        resolution.map_err(|why| Error::TooWeak(format!("{why}; {}", files::resolution::REMEDY)))?;
        let lock = Arc::new(claimed.lock);
        let layers = Arc::new(tokio::sync::Mutex::new(()));
        let sandboxes = |root| Sandboxes {
            config: config.clone(),
            root,
            engine: Arc::clone(&engine),
            boot: claimed.boot.clone(),
            slots: Mutex::default(),
            making: Mutex::default(),
            _lock: Arc::clone(&lock),
            sites: Mutex::default(),
            layers: Arc::clone(&layers),
        };
        let inner = sandboxes(config.data.clone());
        let warm = sandboxes(config.data.join(warm::FOLDER));
        inner.give_up_restoring()?;
        warm.clear_all().await?;
        let survivors = inner.clear_away().await?.into();
        Ok(Self {
            inner: Arc::new(inner),
            warm: Arc::new(warm),
            survivors,
        })
    }

    /// How the limits are enforced.
    #[must_use]
    pub fn enforcement(&self) -> Enforcement {
        self.inner.config.enforcement()
    }
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
impl Provider for Host {
    fn name(&self) -> &'static str {
        self.inner.engine.name()
    }

    async fn attach_fitted(&self, spec: &Spec, fit: Arc<dyn Fit>) -> Result<Attached, Error> {
        let (inner, spec) = (Arc::clone(&self.inner), spec.clone());
        whole(async move { inner.attach(&spec, &*fit).await }).await
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
        for name in FOLDERS {
            all.extend(self.inner.below(name)?);
        }
        let sites = self.inner.sites();
        all.retain(|session| !sites.contains_key(session));
        Ok(all.into_iter().collect())
    }

    async fn save(
        &self,
        session: &SessionId,
        to: Box<dyn Write + Send>,
        bounds: Bounds,
    ) -> Result<Contents, Error> {
        let (inner, session) = (Arc::clone(&self.inner), session.clone());
        whole(async move { inner.save(&session, to, bounds).await }).await
    }

    async fn restore(
        &self,
        session: &SessionId,
        from: Box<dyn Read + Send>,
        bounds: Bounds,
    ) -> Result<Contents, Error> {
        let (inner, session) = (Arc::clone(&self.inner), session.clone());
        whole(async move { inner.restore(&session, from, bounds).await }).await
    }

    async fn start_warm(&self, workspace: &WorkspaceId, fittings: Fittings) -> Result<WarmId, Error> {
        let (warm, id) = (Arc::clone(&self.warm), WarmId::generate());
        let spec = Spec {
            session: id.0.clone(),
            workspace: workspace.clone(),
        };
        whole(async move { warm.attach(&spec, &fittings).await }).await?;
        Ok(id)
    }

    async fn stop_warm(&self, id: &WarmId) -> Result<(), Error> {
        let (warm, id) = (Arc::clone(&self.warm), id.clone());
        whole(async move { warm.destroy(&id.0).await }).await
    }

    async fn is_untouched(&self, session: &SessionId) -> Result<bool, Error> {
        self.inner.is_untouched(session)
    }

    async fn claim(&self, id: &WarmId, spec: &Spec) -> Result<Option<Attached>, Error> {
        let (inner, warm) = (Arc::clone(&self.inner), Arc::clone(&self.warm));
        let (id, spec) = (id.clone(), spec.clone());
        whole(async move { inner.claim(&spec.session, &warm, &id).await }).await
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
