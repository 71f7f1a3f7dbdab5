//! What makes the sandboxes of a data folder, and ends them.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use oma_domain::SessionId;

use super::record::{Folder, Record};
use crate::fittings::Fittings;
use crate::hand::launch::Mount;
use crate::{Error, Spec};

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
    async fn prepare(&self, spec: &Spec, record: &mut Record) -> Result<(), Error>;

    /// Makes the sandbox and waits until it stands; notes in the record how it is found again, which the caller
    /// writes before anything is run in it.
    ///
    /// # Errors
    /// [`Error`] when it can't be made; nothing of it runs then.
    async fn launch(&self, order: Order<'_>, record: &mut Record) -> Result<Arc<dyn Process>, Error>;

    /// The sandbox of a record, unless that is known to have ended.
    async fn find(&self, folder: &Folder, record: &Record) -> Option<Arc<dyn Process>>;

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
}

/// A sandbox that runs, as its engine knows it.
#[async_trait]
pub(crate) trait Process: Send + Sync + 'static {
    /// Returns once it has ended, as far as that can be told.
    async fn ended(&self);

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
