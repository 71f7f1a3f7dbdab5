//! What makes the sandboxes of a data folder, and ends them.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oma_domain::SessionId;
use tokio::net::UnixStream;

use super::record::{Folder, Record};
use crate::error::io as io_error;
use crate::fittings::Fittings;
use crate::hand::launch::Mount;
use crate::layers::{Build, Layer, Size};
use crate::limits::Limits;
use crate::{Error, Pipe, Spec};

/// A sandbox to be made: everything but how.
pub(crate) struct Order<'a> {
    #[cfg(feature = "docker")]
    pub(crate) spec: &'a Spec,
    pub(crate) fittings: &'a Fittings,
    pub(crate) folder: &'a Folder,
    /// The workspace on the host.
    pub(crate) workspace: PathBuf,
    /// What lies beside the workspace.
    pub(crate) mounts: Vec<Mount>,
    /// The host user that the workspace belongs to; `None` for the server's own.
    pub(crate) uid: Option<u32>,
    /// The socket on which the hand is to serve.
    pub(crate) listener: UnixListener,
    /// What it may have.
    pub(crate) limits: Limits,
    /// The layer that it shows.
    pub(crate) layer: Option<Found>,
    /// A layer is to be built in it.
    pub(crate) site: Option<&'a Ground>,
}

/// How long a build lives without a server: nobody goes on with it.
const ABANDONED: Duration = Duration::from_secs(15);

impl Order<'_> {
    /// How long the hand lives without a server.
    pub(crate) fn orphan_timeout(&self, configured: Duration) -> Duration {
        self.site.map_or(configured, |_| configured.min(ABANDONED))
    }
}

/// A layer that is there.
pub(crate) struct Found {
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// The image that has it, where it is one.
    #[cfg(feature = "docker")]
    pub(crate) image: Option<String>,
}

/// What a layer is built on.
pub(crate) struct Ground {
    pub(crate) build: Build,
    /// The folder for what is only there while it is built, and for the layer itself where it is a folder.
    pub(crate) folder: PathBuf,
}

/// What an engine has made of a build.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    /// The image that has the layer.
    pub(crate) image: Option<String>,
    /// What that takes of the engine's disk, in bytes.
    pub(crate) bytes: u64,
}

/// What makes sandboxes: this machine's namespaces, or a container engine. For one session it is asked for one
/// thing at a time.
#[async_trait]
pub(crate) trait Engine: Send + Sync + 'static {
    /// The backend's name.
    fn name(&self) -> &'static str;

    /// Notes in the record what a launch may leave behind, and makes what has to be there before. The record is
    /// written after this.
    ///
    /// # Errors
    /// [`Error`] when it can't be made; nothing is left then.
    async fn prepare(&self, spec: &Spec, limits: &Limits, record: &mut Record) -> Result<(), Error>;

    /// Makes the sandbox and waits until it stands; notes in the record how it is found again, which the caller
    /// writes before anything is run in it.
    ///
    /// # Errors
    /// [`Error`] when it can't be made; nothing of it runs then.
    async fn launch(&self, order: Order<'_>, record: &mut Record) -> Result<Arc<dyn Process>, Error>;

    /// The sandbox of a record, unless that is known to have ended.
    ///
    /// # Errors
    /// [`Error`] when that can't be told now.
    async fn find(&self, folder: &Folder, record: &Record) -> Result<Option<Arc<dyn Process>>, Error>;

    /// Removes whatever is left of a recorded sandbox that has ended, or ends it.
    ///
    /// # Errors
    /// [`Error`] when something stays.
    async fn clear(&self, record: &Record) -> Result<(), Error>;

    /// After the start of a server: removes what belongs to the data folder and to none of these records, which are
    /// those of the sandboxes that live.
    ///
    /// # Errors
    /// [`Error`] when something of this data folder stays.
    async fn sweep(&self, living: &[Record]) -> Result<(), Error>;

    /// Why it can build no layers.
    fn lacks(&self) -> Option<String>;

    /// Whether it makes sandboxes of images.
    fn has_images(&self) -> bool;

    /// Names what a layer lies over.
    ///
    /// # Errors
    /// [`Error`] when that can't be told.
    async fn ground(&self, image: Option<&str>) -> Result<String, Error>;

    /// The user of the host that the files of a build belong to.
    fn builder(&self) -> Option<u32>;

    /// Keeps what was built in a sandbox that runs, as far as that lies with the engine.
    ///
    /// # Errors
    /// [`Error`] when it can't be kept.
    async fn commit(&self, record: &Record, layer: &Layer) -> Result<Committed, Error>;

    /// What was built in a sandbox, as far as that lies with the engine. Once there are more inodes than this, it is not
    /// looked further.
    ///
    /// # Errors
    /// [`Error`] when that can't be told.
    async fn built(&self, record: &Record, most_inodes: u64) -> Result<Size, Error>;

    /// Whether the engine still has what it keeps of a layer.
    ///
    /// # Errors
    /// [`Error`] when that can't be told.
    async fn has(&self, image: &str) -> Result<bool, Error>;

    /// Removes what the engine keeps of layers of this data folder but these.
    ///
    /// # Errors
    /// [`Error`] when something stays that is in nobody's way.
    async fn sweep_layers(&self, kept: &[String]) -> Result<(), Error>;

    /// Removes what the engine keeps of a layer. Tells whether it is gone.
    ///
    /// # Errors
    /// [`Error`] when something stays that is in nobody's way.
    async fn discard(&self, image: &str) -> Result<bool, Error>;
}

/// A connection to a hand.
pub(crate) enum Link {
    /// A socket of this machine, over which descriptors can be passed.
    Socket(UnixStream),
    /// Something that carries bytes and nothing else.
    #[cfg(feature = "docker")]
    Carried(Box<dyn Pipe>),
}

impl Link {
    /// For whoever only wants bytes.
    pub(crate) fn into_pipe(self) -> Box<dyn Pipe> {
        match self {
            Self::Socket(stream) => Box::new(stream),
            #[cfg(feature = "docker")]
            Self::Carried(pipe) => pipe,
        }
    }
}

/// A sandbox that runs, as its engine knows it.
#[async_trait]
pub(crate) trait Process: Send + Sync + 'static {
    /// Returns once it has ended, as far as that can be told.
    async fn ended(&self);

    /// Another connection to its hand, whose socket lies in the folder if there is one on this machine.
    ///
    /// # Errors
    /// [`Error`] when nobody listens.
    async fn connect(&self, folder: &Folder) -> Result<Link, Error> {
        let connected = folder.connect().await;
        let stream = connected.map_err(|error| io_error("connecting to a sandbox", error))?;
        Ok(Link::Socket(stream))
    }

    /// Ends it and everything in it, and returns when they are gone.
    ///
    /// # Errors
    /// [`Error`] when something is not.
    async fn kill(&self) -> Result<(), Error>;

    /// It was started for no session, and is this one's now: whoever looks at the machine should see that.
    async fn assigned(&self, session: &SessionId) {
        let _ = session;
    }
}
