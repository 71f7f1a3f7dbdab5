//! The way to a hand whose socket lies in the data folder.

use std::time::Duration;

use async_trait::async_trait;
use oma_domain::EventId;
use tokio::net::UnixStream;

use super::record::{Folder, Record};
use crate::client::Client;
use crate::error::io as io_error;
use crate::protocol::{Call, Reply, Service};
use crate::service;
use crate::{Datagrams, Error, Hand, Incoming, Origin, Pipe};

/// How long starting a service may take.
const SERVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The way to a hand whose socket lies in the data folder.
pub(super) struct HostHand {
    pub(super) client: Client,
    folder: Folder,
    /// The record, as long as it says that a lost sandbox was replaced.
    replaced: tokio::sync::Mutex<Option<Record>>,
}

impl HostHand {
    /// The way to the hand at the other end of `client`, which `record` is about.
    pub(super) fn new(client: Client, folder: Folder, record: Record) -> Self {
        let replaced = tokio::sync::Mutex::new(record.replaced.then_some(record));
        Self {
            client,
            folder,
            replaced,
        }
    }

    /// Another connection.
    async fn connect(&self) -> Result<UnixStream, Error> {
        let connected = self.folder.connect().await;
        connected.map_err(|error| io_error("connecting to a sandbox", error))
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
        let stream = self.connect().await?;
        service::start(stream, service, SERVE_TIMEOUT).await
    }

    async fn datagrams(&self) -> Result<Datagrams, Error> {
        let stream = self.connect().await?;
        service::datagrams(Box::new(stream), SERVE_TIMEOUT).await
    }

    async fn listen(&self, port: u16) -> Result<Incoming, Error> {
        let stream = self.connect().await?;
        service::listen(stream, port, SERVE_TIMEOUT).await
    }
}
