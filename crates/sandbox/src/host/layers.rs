//! The layers of a data folder: `layers/<layer>` for one that is there, `layers/new/<site>` for one that is built.
//!
//! A layer's folder has a note (`layer.json`), whose time is when it was last used, and beside it the layer itself
//! (`root`), unless an image has it. A build's sandbox is like that of a session which nobody has.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use oma_domain::{SessionId, WorkspaceId};
use serde::{Deserialize, Serialize};

use super::engine::{Found, Ground};
use super::record::Folder;
use super::sandboxes::{Live, Sandboxes, make_private, sessions};
use super::{Host, warm, whole};
use crate::error::io as io_error;
use crate::files::{removal, usage};
use crate::fittings::Fittings;
use crate::layers::{Build, Kept, Layer, Layers, Site, Size};
use crate::{Error, Spec};

/// The file that says what a layer is.
const NOTE: &str = "layer.json";

/// The folder with the layer itself.
pub(crate) const ROOT: &str = "root";

/// The folder with those that are not whole.
const NEW: &str = "new";

/// The largest note that is read, in bytes.
const MAX_NOTE: u64 = 4 << 10;

/// What a layer's folder says of it.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workspace: Option<WorkspaceId>,
    bytes: u64,
}

impl Sandboxes {
    fn layers_path(&self) -> PathBuf {
        self.config.data.join("layers")
    }

    pub(super) fn new_layers(&self) -> PathBuf {
        self.layers_path().join(NEW)
    }

    pub(super) fn sites(&self) -> MutexGuard<'_, HashMap<SessionId, PathBuf>> {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a folder where it is removed without anybody waiting for it. One that is not there is no failure. Must be
    /// called in a runtime.
    pub(super) fn throw_away(&self, folder: &Path) -> io::Result<()> {
        let trash = self.config.data.join("trash");
        let trash = trash.join(ulid::Ulid::generate().to_string());
        match fs::rename(folder, &trash) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            moved => moved?,
        }
        // It may be large; a crash leaves the rest to the next start. Only this folder is this one's to remove.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = removal::empty(&trash).and_then(|()| fs::remove_dir(&trash)) {
                tracing::warn!(%error, "the rest of a build could not be removed");
            }
        });
        Ok(())
    }

    fn note(&self, layer: &Layer) -> io::Result<Option<(Note, File)>> {
        let path = self.layers_path().join(layer.as_str()).join(NOTE);
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let note = serde_json::from_reader(io::Read::take(&file, MAX_NOTE))?;
        Ok(Some((note, file)))
    }

    /// The layer, if it is there.
    pub(super) fn found(&self, layer: &Layer) -> io::Result<Option<Found>> {
        Ok(self.note(layer)?.map(|(_note, _)| Found {
            folder: self.layers_path().join(layer.as_str()).join(ROOT),
            #[cfg(feature = "docker")]
            image: _note.image,
        }))
    }

    async fn begin(&self, build: Build) -> Result<Site, Error> {
        let id = SessionId::generate();
        let folder = self.new_layers().join(id.as_str());
        self.sites().insert(id.clone(), folder.clone());
        let begun = self.begin_in(&id, folder, build).await;
        if begun.is_err() {
            self.end(&id).await?;
        }
        begun
    }

    async fn begin_in(&self, id: &SessionId, folder: PathBuf, build: Build) -> Result<Site, Error> {
        let failed = |error| io_error("preparing a build", error);
        let disk = rustix::fs::statvfs(self.layers_path()).map_err(|error| failed(error.into()))?;
        // Sessions may write until the floor is reached: a build does not begin near it.
        if disk.f_bavail * disk.f_frsize < self.config.limits.disk_floor.saturating_mul(2) {
            return Err(failed(io::ErrorKind::StorageFull.into()));
        }
        make_private(&folder)?;
        let home = self.workspace_path(id);
        make_private(&home)?;
        let builder = self.engine.builder();
        std::os::unix::fs::chown(&home, builder, builder).map_err(failed)?;
        let spec = Spec {
            session: id.clone(),
            workspace: build.workspace.clone(),
        };
        let build_workspace = build.workspace.clone();
        let ground = Ground { build, folder };
        let mut slot = self.take(id).await;
        let started = self
            .start_with(&spec, &Fittings::default(), Some(&ground), false)
            .await?;
        let live = slot.insert(Live {
            is_claimed: true,
            ..started
        });
        Ok(Site {
            id: id.clone(),
            workspace: build_workspace,
            hand: Arc::clone(&live.hand) as _,
        })
    }

    /// Ends a build's sandbox, and what is left of it goes.
    async fn end(&self, id: &SessionId) -> Result<(), Error> {
        self.destroy(id).await?;
        let folder = self.sites().get(id).cloned();
        if let Some(folder) = folder {
            let failed = |error| io_error("removing what is left of a build", error);
            self.throw_away(&folder).map_err(failed)?;
            self.sites().remove(id);
        }
        Ok(())
    }

    async fn keep(&self, site: &Site, layer: &Layer) -> Result<(), Error> {
        let kept = self.keep_as(site, layer).await;
        let ended = self.end(&site.id).await;
        kept.and(ended)
    }

    async fn keep_as(&self, Site { id, workspace, .. }: &Site, layer: &Layer) -> Result<(), Error> {
        let failed = |error| io_error("keeping a layer", error);
        let record = self.folder(id).read().map_err(failed)?;
        let record = record.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let committed = self.engine.commit(&record, layer).await?;
        // From here on nothing runs in it that could change what is kept.
        let mut slot = self.take(id).await;
        self.stop(id, &mut slot).await?;
        drop(slot);
        let folder = self.sites().get(id).cloned();
        let folder = folder.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let target = self.layers_path().join(layer.as_str());
        let (image, workspace) = (committed.image.clone(), workspace.clone());
        let put = tokio::task::spawn_blocking(move || {
            let note = Note {
                image: committed.image,
                workspace: Some(workspace),
                bytes: committed.bytes,
            };
            put(&folder, note, &target)
        });
        let put = put.await.map_err(|error| failed(io::Error::other(error)))?;
        match (put, image) {
            (Ok(true), _) => Ok(()),
            // Another one of that name was there before.
            (Ok(false), image) => {
                if let Some(image) = image {
                    self.engine.discard(&image).await?;
                }
                Ok(())
            }
            (Err(error), image) => {
                if let Some(image) = image {
                    self.engine.discard(&image).await?;
                }
                Err(failed(error))
            }
        }
    }

    async fn size(&self, id: &SessionId, most_inodes: u64) -> Result<Size, Error> {
        let failed = |error| io_error("measuring a build", error);
        let folder = self.sites().get(id).cloned();
        let folder = folder.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        // Its home is no part of the layer, and lies on the same disk.
        let home = self.workspace_path(id);
        let measured = tokio::task::spawn_blocking(move || {
            let folder = usage::measure(&folder, most_inodes)?;
            let home = usage::measure(&home, most_inodes)?;
            io::Result::Ok([folder, home])
        });
        let measured = measured.await.map_err(|error| failed(io::Error::other(error)))?;
        let record = self.folder(id).read().map_err(failed)?.unwrap_or_default();
        let mut size = self.engine.built(&record, most_inodes).await?;
        for usage in measured.map_err(failed)? {
            let bytes = if usage.hidden { u64::MAX } else { usage.bytes };
            size.bytes = size.bytes.saturating_add(bytes);
            size.inodes = size.inodes.saturating_add(usage.inodes);
        }
        Ok(size)
    }

    /// The images of all layers that are there.
    pub(super) fn images(&self) -> io::Result<Vec<String>> {
        let mut images = Vec::new();
        for kept in self.kept()? {
            images.extend(self.note(&kept.layer)?.and_then(|(note, _)| note.image));
        }
        Ok(images)
    }

    fn kept(&self) -> io::Result<Vec<Kept>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(self.layers_path())? {
            let name = entry?.file_name();
            let Some(layer) = name.to_str().and_then(Layer::parse) else {
                continue;
            };
            // One that is being removed is none any more.
            if let Some((note, file)) = self.note(&layer)? {
                all.push(Kept {
                    layer,
                    workspace: note.workspace,
                    bytes: note.bytes,
                    used: file.metadata()?.modified()?,
                });
            }
        }
        Ok(all)
    }

    /// The layers that sandboxes have.
    fn shown(&self) -> io::Result<BTreeSet<Layer>> {
        let mut shown = BTreeSet::new();
        // Those in advance first: one that a session takes meanwhile is found there, or else here.
        for root in [self.config.data.join(warm::FOLDER), self.config.data.clone()] {
            let folders = root.join("sandboxes");
            for session in sessions(&folders)? {
                let record = Folder::new(folders.join(session.as_str())).read()?;
                shown.extend(record.and_then(|record| record.layer));
            }
        }
        Ok(shown)
    }

    async fn discard(&self, layer: &Layer) -> Result<bool, Error> {
        let failed = |error| io_error("removing a layer", error);
        let _held = self.layers.lock().await;
        let Some((note, _)) = self.note(layer).map_err(failed)? else {
            return Ok(true);
        };
        if self.shown().map_err(failed)?.contains(layer) {
            return Ok(false);
        }
        if let Some(image) = &note.image
            && !self.engine.discard(image).await?
        {
            return Ok(false);
        }
        self.throw_away(&self.layers_path().join(layer.as_str()))
            .map_err(failed)?;
        Ok(true)
    }
}

/// Empties the folder that says where the operator has packages from, and maybe with which password: it was the build's.
fn forget_sources(built: &Path) -> io::Result<()> {
    let apt = built.join("etc/apt");
    match fs::symlink_metadata(&apt) {
        // What the build has made of it instead is not followed.
        Ok(meta) if meta.is_dir() => removal::empty(&apt),
        Ok(_) => fs::remove_file(&apt),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Puts what was built in the place of the layer, whole or not at all. `false` when there is one already.
fn put(folder: &Path, note: Note, target: &Path) -> io::Result<bool> {
    let done = folder.join("done");
    fs::create_dir(&done)?;
    let built = folder.join(ROOT);
    let mut note = note;
    if built.is_dir() {
        forget_sources(&built)?;
        let measured = usage::measure(&built, u64::MAX)?;
        // What can't be measured would never count.
        if measured.hidden {
            return Err(io::Error::other("it has folders that can't be looked into"));
        }
        note.bytes += measured.bytes;
        fs::rename(&built, done.join(ROOT))?;
    }
    let mut file = File::create(done.join(NOTE))?;
    file.write_all(&serde_json::to_vec(&note)?)?;
    // All that the build has written, too.
    rustix::fs::syncfs(&file)?;
    match fs::rename(&done, target) {
        Ok(()) => {}
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
            ) =>
        {
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    if let Some(parent) = target.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(true)
}

#[async_trait]
impl Layers for Host {
    fn backend(&self) -> &'static str {
        self.inner.engine.name()
    }

    fn lacks(&self) -> Option<String> {
        self.inner.engine.lacks()
    }

    fn has_images(&self) -> bool {
        self.inner.engine.has_images()
    }

    async fn ground(&self, image: Option<&str>) -> Result<String, Error> {
        self.inner.engine.ground(image).await
    }

    async fn begin(&self, build: Build) -> Result<Site, Error> {
        let inner = Arc::clone(&self.inner);
        whole(async move { inner.begin(build).await }).await
    }

    async fn size(&self, site: &Site, most_inodes: u64) -> Result<Size, Error> {
        self.inner.size(&site.id, most_inodes).await
    }

    async fn keep(&self, site: &Site, layer: &Layer) -> Result<(), Error> {
        let (inner, site, layer) = (Arc::clone(&self.inner), site.clone(), layer.clone());
        whole(async move { inner.keep(&site, &layer).await }).await
    }

    async fn give_up(&self, site: &Site) -> Result<(), Error> {
        let (inner, id) = (Arc::clone(&self.inner), site.id.clone());
        whole(async move { inner.end(&id).await }).await
    }

    async fn touch(&self, layer: &Layer) -> Result<bool, Error> {
        let failed = |error| io_error("looking for a layer", error);
        let Some((note, file)) = self.inner.note(layer).map_err(failed)? else {
            return Ok(false);
        };
        if let Some(image) = &note.image
            && !self.inner.engine.has(image).await?
        {
            tracing::warn!(
                layer = layer.as_str(),
                "the engine has lost a layer, which is built anew"
            );
            let _held = self.inner.layers.lock().await;
            let folder = self.inner.layers_path().join(layer.as_str());
            self.inner.throw_away(&folder).map_err(failed)?;
            return Ok(false);
        }
        file.set_modified(SystemTime::now()).map_err(failed)?;
        Ok(true)
    }

    async fn kept(&self) -> Result<Vec<Kept>, Error> {
        self.inner
            .kept()
            .map_err(|error| io_error("listing layers", error))
    }

    async fn discard(&self, layer: &Layer) -> Result<bool, Error> {
        let (inner, layer) = (Arc::clone(&self.inner), layer.clone());
        whole(async move { inner.discard(&layer).await }).await
    }
}
