//! The way to the hand of a sandbox on this machine.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oma_domain::EventId;
use tokio::task::JoinHandle;

use super::engine::{Link, Process};
use super::record::{Folder, Record};
use crate::client::Client;
use crate::error::io as io_error;
use crate::gateway::Passed;
use crate::protocol::{Call, Reply, Service};
use crate::service;
use crate::{Datagrams, Error, Hand, Incoming, Origin, Pipe};

/// How long starting a service may take.
const SERVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The way to the hand of a sandbox on this machine.
pub(super) struct HostHand {
    pub(super) client: Client,
    process: Arc<dyn Process>,
    folder: Folder,
    /// Whether programs in the sandbox trust an authority of the session's own, as far as is known.
    pub(super) trusts: bool,
    /// The record, as long as it says that a lost sandbox was replaced.
    replaced: tokio::sync::Mutex<Option<Record>>,
    /// What makes it outlast a loss of power that the sandbox is here, as long as that is not known to be done.
    moving: tokio::sync::Mutex<Option<Sync>>,
}

/// Folders, and what makes their entries outlast a loss of power.
pub(super) struct Sync {
    folders: Arc<[PathBuf]>,
    work: JoinHandle<io::Result<()>>,
}

impl Sync {
    /// Begins at once. Must be called in a runtime.
    pub(super) fn of(folders: Arc<[PathBuf]>) -> Self {
        let all = Arc::clone(&folders);
        let work = tokio::task::spawn_blocking(move || {
            let mut folders = all.iter();
            folders.try_for_each(|folder| File::open(folder)?.sync_all())
        });
        Self { folders, work }
    }
}

impl HostHand {
    /// The way to the hand of `process` at the other end of `client`, which `record` is about.
    pub(super) fn new(client: Client, process: Arc<dyn Process>, folder: Folder, record: Record) -> Self {
        let trusts = record.trusts.unwrap_or(true);
        let replaced = tokio::sync::Mutex::new(record.replaced.then_some(record));
        Self {
            client,
            process,
            folder,
            trusts,
            replaced,
            moving: tokio::sync::Mutex::default(),
        }
    }

    /// The way to the same hand, whose folder lies here now; nothing runs in it before `moving` is done. It is no
    /// replacement of anything.
    pub(super) fn moved(&self, folder: Folder, moving: Sync) -> Self {
        Self {
            client: self.client.clone(),
            process: Arc::clone(&self.process),
            folder,
            trusts: self.trusts,
            replaced: tokio::sync::Mutex::default(),
            moving: tokio::sync::Mutex::new(Some(moving)),
        }
    }

    /// Returns when it can no longer be forgotten that the sandbox is here.
    async fn settled(&self) -> Result<(), Error> {
        let mut moving = self.moving.lock().await;
        let Some(sync) = moving.as_mut() else {
            return Ok(());
        };
        let done = (&mut sync.work).await.map_err(io::Error::other).flatten();
        // Whoever comes next tries again.
        *moving = match &done {
            Ok(()) => None,
            Err(_) => Some(Sync::of(Arc::clone(&sync.folders))),
        };
        done.map_err(|error| io_error("keeping a sandbox", error))
    }

    /// Another connection.
    async fn connect(&self) -> Result<Link, Error> {
        self.process.connect(&self.folder).await
    }

    /// How the sandbox came to be: a loss that nobody has acted on yet is told again.
    pub(super) async fn origin(&self, otherwise: Origin) -> Origin {
        if self.replaced.lock().await.is_some() {
            Origin::Replaced
        } else {
            otherwise
        }
    }

    /// That the server runs something new shows that it has acted on the loss.
    async fn acknowledge_replacement(&self) -> Result<(), Error> {
        let mut replaced = self.replaced.lock().await;
        if let Some(record) = replaced.as_ref() {
            let record = Record {
                replaced: false,
                ..record.clone()
            };
            self.folder
                .write(&record)
                .map_err(|error| io_error("recording a sandbox", error))?;
            *replaced = None;
        }
        Ok(())
    }
}

#[async_trait]
impl Hand for HostHand {
    async fn run(&self, key: &EventId, call: Call) -> Result<Reply, Error> {
        self.settled().await?;
        self.acknowledge_replacement().await?;
        self.client.run(key, call).await
    }

    async fn cancel(&self, key: &EventId) -> Result<Option<Reply>, Error> {
        self.client.cancel(key).await
    }

    async fn forget_all_but(&self, keep: &[EventId]) -> Result<(), Error> {
        self.client.forget_all_but(keep).await
    }

    async fn logs(&self, tail: usize) -> Result<String, Error> {
        self.client.logs(tail).await
    }

    async fn serve(&self, service: Service) -> Result<Box<dyn Pipe>, Error> {
        self.settled().await?;
        let pipe = self.connect().await?.into_pipe();
        service::start(pipe, service, SERVE_TIMEOUT).await
    }

    async fn datagrams(&self) -> Result<Datagrams, Error> {
        let pipe = self.connect().await?.into_pipe();
        service::datagrams(pipe, SERVE_TIMEOUT).await
    }

    async fn doors(&self) -> Result<Passed, Error> {
        match self.connect().await? {
            Link::Socket(stream) => service::doors(stream, SERVE_TIMEOUT).await,
            #[cfg(feature = "docker")]
            Link::Carried(_) => Err(Error::Refused(
                "what is said to the sandbox goes through its container engine, which passes no sockets"
                    .to_owned(),
            )),
        }
    }

    async fn listen(&self, port: u16) -> Result<Incoming, Error> {
        let pipe = self.connect().await?.into_pipe();
        service::listen(pipe, port, SERVE_TIMEOUT).await
    }
}
