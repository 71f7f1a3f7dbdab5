//! What is done to the sandboxes of one data folder, one thing at a time for each session.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use oma_domain::SessionId;
use tokio::sync::OwnedMutexGuard;

use super::config::{self, Config};
use super::engine::{Engine, Ground, Order, Process};
use super::hand::HostHand;
use super::record::{Folder, Record};
use crate::client::Client;
use crate::error::io as io_error;
use crate::files::{self, removal};
use crate::fittings::{Fit, Fittings};
use crate::{Attached, Error, Origin, Spec};

/// How much longer than its own limit a tool may take to answer.
const RUN_GRACE: Duration = Duration::from_secs(60);
/// How many commands may wait for the session's one shell before a tool's own begins.
const RUN_QUEUE: u32 = 16;

/// The sandboxes below one folder: those of the sessions, or those that belong to none yet.
pub(super) struct Sandboxes {
    pub(super) config: Config,
    /// Holds `sandboxes`, `workspaces` and `mounts`.
    pub(super) root: PathBuf,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) boot: String,
    /// One slot per session that was asked for since the start.
    pub(super) slots: Mutex<HashMap<SessionId, Arc<Slot>>>,
    /// Held while places of a session are made, or brought from elsewhere: whoever has opened one goes on in it.
    pub(super) making: Mutex<()>,
    /// Held as long as this lives: two servers in one data folder would tear at the same sandboxes.
    pub(super) _lock: Arc<File>,
    /// Sandboxes of builds, which are nobody's session.
    pub(super) sites: Mutex<HashMap<SessionId, PathBuf>>,
    /// Held while a sandbox begins to show a layer, and while one is removed.
    pub(super) layers: Arc<tokio::sync::Mutex<()>>,
}

pub(super) type Slot = tokio::sync::Mutex<Option<Live>>;

/// A sandbox that this server is connected to.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) hand: Arc<HostHand>,
    pub(super) process: Arc<dyn Process>,
    /// Somebody who acts on what a server before this one had left under way has come.
    pub(super) is_claimed: bool,
}

impl Live {
    pub(super) fn attached(&self, origin: Origin, begun: Instant) -> Attached {
        Attached {
            hand: Arc::<HostHand>::clone(&self.hand),
            origin,
            boot: begun.elapsed(),
            trusts: self.hand.trusts,
        }
    }

    /// Whether something would be forgotten with this sandbox that nobody has acted on.
    pub(super) async fn is_awaited(&self) -> bool {
        let left_behind = !self.is_claimed && !self.hand.client.known().is_empty();
        left_behind || self.hand.origin(Origin::Running).await != Origin::Running
    }
}

/// What is known of a session's sandbox.
pub(super) enum Found {
    /// It runs.
    Live(Live),
    /// It is gone without a proper stop.
    Gone(Record),
    /// There is none.
    None,
}

impl Sandboxes {
    pub(super) fn folder(&self, session: &SessionId) -> Folder {
        Folder::new(self.root.join("sandboxes").join(session.as_str()))
    }

    pub(super) fn workspace_path(&self, session: &SessionId) -> PathBuf {
        self.root.join("workspaces").join(session.as_str())
    }

    /// Takes the session for one thing at a time.
    pub(super) async fn take(&self, session: &SessionId) -> OwnedMutexGuard<Option<Live>> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            // What nobody holds and nothing lives in is forgotten, so that the map does not grow for ever.
            if slots.len() > 1_024 {
                slots.retain(|_, slot| {
                    Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|live| live.is_some())
                });
            }
            Arc::clone(slots.entry(session.clone()).or_default())
        };
        slot.lock_owned().await
    }

    /// The host user of a session; `None` when it is the server's own.
    fn uid(&self, session: &SessionId) -> Option<u32> {
        if !config::is_root() {
            return None;
        }
        // Two sessions with the same user are still apart by their namespaces, and the server's folders keep
        // their files apart; so it need not be unique. A workspace that is there keeps the user that it has.
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let span = u64::from(self.config.uids.max(1));
        let offset = hasher.hash_one(session.as_str()) % span;
        Some(self.config.first_uid + u32::try_from(offset).unwrap_or(0))
    }

    /// Whether this is one of the host users that sessions have.
    pub(super) fn is_user(&self, uid: u32) -> bool {
        let first = self.config.first_uid;
        (first..first.saturating_add(self.config.uids)).contains(&uid)
    }

    /// The workspace's folder, made when it does not exist, and the host user that it belongs to.
    pub(super) fn make_workspace(&self, session: &SessionId) -> Result<(PathBuf, Option<u32>), Error> {
        let path = self.workspace_path(session);
        let what = || format!("preparing the workspace of {session}");
        let failed = |error| io_error(what(), error);
        match fs::symlink_metadata(&path) {
            Ok(meta) if !meta.is_dir() => Err(failed(io::ErrorKind::NotADirectory.into())),
            Ok(meta) if config::is_root() => {
                if self.is_user(meta.uid()) {
                    return Ok((path, Some(meta.uid())));
                }
                let uid = self.uid(session);
                files::ownership::give_all(&path, uid).map_err(failed)?;
                Ok((path, uid))
            }
            Ok(_) => Ok((path, None)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let uid = self.uid(session);
                let making = self.making();
                match fs::DirBuilder::new().mode(0o700).create(&path) {
                    Ok(()) if uid.is_some() => {
                        std::os::unix::fs::chown(&path, uid, uid).map_err(failed)?;
                    }
                    Ok(()) => {}
                    // Made meanwhile, or brought from elsewhere with a user of its own.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        drop(making);
                        return self.make_workspace(session);
                    }
                    Err(error) => return Err(failed(error)),
                }
                Ok((path, uid))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// For as long as a session's places are made, or looked for and brought from elsewhere.
    pub(super) fn making(&self) -> MutexGuard<'_, ()> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the session's hand by its record, if it lives and answers.
    async fn reconnect(&self, folder: &Folder, record: &Record) -> Result<Option<Live>, Error> {
        let Some(process) = self.engine.find(folder, record).await? else {
            return Ok(None);
        };
        let Ok(link) = process.connect(folder).await else {
            return Ok(None);
        };
        let (hello, run) = (self.config.launch_timeout, self.run_timeout());
        match Client::connect(link.into_pipe(), hello, run).await {
            Ok(client) => Ok(Some(self.live(client, process, folder.clone(), record.clone()))),
            Err(error) => {
                tracing::warn!(folder = %folder.path().display(), %error, "a sandbox does not answer");
                Ok(None)
            }
        }
    }

    fn live(&self, client: Client, process: Arc<dyn Process>, folder: Folder, record: Record) -> Live {
        let hand = HostHand::new(client, Arc::clone(&process), folder, record);
        Live {
            hand: Arc::new(hand),
            process,
            is_claimed: false,
        }
    }

    fn run_timeout(&self) -> Duration {
        self.config.tools.max_wall.saturating_mul(RUN_QUEUE) + RUN_GRACE
    }

    /// Starts a sandbox. `replaced` says whether it takes the place of one that was lost.
    async fn start(&self, spec: &Spec, fit: &dyn Fit, replaced: bool) -> Result<Live, Error> {
        let fittings = fit.fit(spec).await?;
        self.start_with(spec, &fittings, None, replaced).await
    }

    /// Starts a sandbox with these fittings, or one for a build.
    pub(super) async fn start_with(
        &self,
        spec: &Spec,
        fittings: &Fittings,
        site: Option<&Ground>,
        replaced: bool,
    ) -> Result<Live, Error> {
        let session = &spec.session;
        let folder = self.folder(session);
        let failed = |error| io_error(format!("preparing the sandbox of {session}"), error);
        let (workspace, uid) = self.make_workspace(session)?;
        folder.create().map_err(failed)?;
        let listener = folder.listen().map_err(failed)?;
        let mut record = Record {
            boot: self.boot.clone(),
            replaced,
            layer: fittings.layer.clone(),
            trusts: Some(fittings.trust.is_some()),
            is_site: site.is_some(),
            ..Record::default()
        };
        let limits = match site {
            Some(site) => site.build.limits.clone(),
            None => self.config.limits.narrowed(&fittings.limits),
        };
        self.engine.prepare(spec, &limits, &mut record).await?;
        let held = self.layers.lock().await;
        folder.write(&record).map_err(failed)?;
        // Those that are there already are found, too.
        for store in &fittings.stores {
            self.make_mount(session, store)?;
        }
        let layer = match &fittings.layer {
            Some(layer) => self.found(layer).map_err(failed)?.map(Some),
            None => Some(None),
        };
        drop(held);
        let Some(layer) = layer else {
            self.undo(&folder, &record, replaced).await?;
            return Err(Error::Refused("the layer of the environment is gone".to_owned()));
        };
        let order = Order {
            #[cfg(feature = "docker")]
            spec,
            fittings,
            folder: &folder,
            workspace,
            mounts: match site {
                Some(_) => Vec::new(),
                None => self.mounts(session, uid)?,
            },
            uid,
            listener,
            limits,
            layer,
            site,
        };
        // The record must outlast a loss of power before anything runs, not before anything is launched.
        let at = folder.clone();
        let synced = tokio::task::spawn_blocking(move || at.sync());
        let launched = self.launch(order, &mut record).await;
        let synced = match synced.await {
            Ok(synced) => synced.map_err(failed),
            Err(error) => Err(failed(io::Error::other(error))),
        };
        match (launched, synced) {
            (Ok(live), Ok(())) => Ok(live),
            (launched, synced) => {
                if let Ok(live) = &launched {
                    live.process.kill().await?;
                }
                self.undo(&folder, &record, replaced).await?;
                synced?;
                launched
            }
        }
    }

    /// Takes back a start that came to nothing.
    async fn undo(&self, folder: &Folder, record: &Record, replaced: bool) -> Result<(), Error> {
        let failed = |error| io_error("taking back the start of a sandbox", error);
        self.engine.clear(record).await?;
        // A loss that nobody has heard of yet must not be forgotten.
        if replaced {
            folder.write(&Record::of_loss()).map_err(failed)
        } else {
            folder.remove().map_err(failed)
        }
    }

    async fn launch(&self, order: Order<'_>, record: &mut Record) -> Result<Live, Error> {
        let folder = order.folder;
        let process = self.engine.launch(order, record).await?;
        let connected = async {
            folder
                .write(record)
                .map_err(|error| io_error("recording a sandbox", error))?;
            let pipe = process.connect(folder).await?.into_pipe();
            Client::connect(pipe, self.config.launch_timeout, self.run_timeout()).await
        };
        match connected.await {
            Ok(client) => Ok(self.live(client, process, folder.clone(), record.clone())),
            Err(error) => {
                process.kill().await?;
                Err(error)
            }
        }
    }

    /// Looks for the session's sandbox: the one in the slot, if that is not lost, or the one of the record.
    pub(super) async fn find(&self, session: &SessionId, slot: &mut Option<Live>) -> Result<Found, Error> {
        if let Some(live) = slot.take().filter(|live| !live.hand.client.is_lost()) {
            return Ok(Found::Live(live));
        }
        let folder = self.folder(session);
        let record = folder
            .read()
            .map_err(|error| io_error(format!("looking for the sandbox of {session}"), error))?;
        Ok(match record {
            None => Found::None,
            Some(record) => match self.reconnect(&folder, &record).await? {
                Some(live) => Found::Live(live),
                None => Found::Gone(record),
            },
        })
    }

    pub(super) async fn attach(&self, spec: &Spec, fit: &dyn Fit) -> Result<Attached, Error> {
        let begun = Instant::now();
        let session = &spec.session;
        let mut slot = self.take(session).await;
        let (live, origin) = match self.find(session, &mut slot).await? {
            Found::Live(live) => {
                let origin = live.hand.origin(Origin::Running).await;
                (live, origin)
            }
            Found::None => (self.start(spec, fit, false).await?, Origin::Started),
            Found::Gone(record) => {
                self.bury(&self.folder(session), &record).await?;
                if record.never_served(&self.boot) {
                    (self.start(spec, fit, false).await?, Origin::Started)
                } else {
                    (self.start(spec, fit, true).await?, Origin::Replaced)
                }
            }
        };
        let live = slot.insert(Live {
            is_claimed: true,
            ..live
        });
        Ok(live.attached(origin, begun))
    }

    pub(super) async fn reattach(&self, session: &SessionId) -> Result<Option<Attached>, Error> {
        let begun = Instant::now();
        let mut slot = self.take(session).await;
        let Found::Live(live) = self.find(session, &mut slot).await? else {
            return Ok(None);
        };
        let live = slot.insert(live);
        Ok(Some(live.attached(Origin::Running, begun)))
    }

    /// After a crash: what no sandbox has any more goes, and so does what was being removed. Gives the sessions
    /// whose sandboxes live.
    pub(super) async fn clear_away(&self) -> Result<Vec<SessionId>, Error> {
        let failed = |error| io_error("clearing away after a crash", error);
        // Nothing else: what is thrown away from here on is somebody's work.
        let trash = self.config.data.join("trash");
        let rubbish: Vec<PathBuf> = fs::read_dir(&trash)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .map_err(failed)?;
        let mut living = Vec::new();
        let mut survivors = Vec::new();
        for session in self.below("sandboxes")? {
            let folder = self.folder(&session);
            match folder.read().map_err(failed)? {
                // Nobody goes on with a build.
                Some(record) if record.is_site => {
                    self.bury(&folder, &record).await?;
                    folder.remove().map_err(failed)?;
                    self.throw_away(&self.workspace_path(&session)).map_err(failed)?;
                }
                Some(record) if self.may_live(&session, &folder, &record).await => {
                    living.push(record);
                    survivors.push(session);
                }
                // The record of a lost sandbox stays, as the only word of the loss.
                Some(record) => {
                    if record.is_launched() {
                        metrics::counter!("startup_adoptions_total", "outcome" => "reattach_failed")
                            .increment(1);
                    }
                    self.bury(&folder, &record).await?;
                }
                None => folder.remove().map_err(failed)?,
            }
        }
        self.engine.sweep(&living).await?;
        self.engine.sweep_layers(&self.images().map_err(failed)?).await?;
        self.throw_away(&self.new_layers()).map_err(failed)?;
        // This may take long, and nobody waits for it.
        tokio::task::spawn_blocking(move || {
            for folder in rubbish {
                if let Err(error) = removal::empty(&folder).and_then(|()| fs::remove_dir(&folder)) {
                    tracing::warn!(%error, "the rest of a removed workspace could not be removed");
                }
            }
        });
        Ok(survivors)
    }

    /// Whether a sandbox runs, as far as that can be told.
    async fn may_live(&self, session: &SessionId, folder: &Folder, record: &Record) -> bool {
        match self.engine.find(folder, record).await {
            Ok(found) => found.is_some(),
            // Whoever needs it finds out, and the others don't wait for that.
            Err(error) => {
                tracing::warn!(session_id = %session, %error, "a sandbox could not be asked whether it runs");
                true
            }
        }
    }
}

impl Sandboxes {
    /// The sessions that have a folder below this one.
    pub(super) fn below(&self, name: &str) -> Result<Vec<SessionId>, Error> {
        let folder = self.root.join(name);
        sessions(&folder).map_err(|error| io_error(format!("listing {}", folder.display()), error))
    }
}

pub(super) fn sessions(folder: &Path) -> io::Result<Vec<SessionId>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let session = entry
            .file_name()
            .to_str()
            .and_then(|name| SessionId::parse(name).ok());
        if let (Some(session), true) = (session, entry.file_type()?.is_dir()) {
            found.push(session);
        }
    }
    Ok(found)
}

/// Makes a folder, and those above it, for this user alone.
///
/// # Errors
/// When it can't be made.
pub(crate) fn make_private(folder: &Path) -> Result<(), Error> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(folder)
        .map_err(|error| io_error(format!("making {}", folder.display()), error))
}
