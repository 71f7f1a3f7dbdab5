//! A container that runs, and the relay in it where its hand has no socket of this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bollard::query_parameters::{
    RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt as _;
use oma_domain::SessionId;
use tokio::time::{sleep, timeout};

use super::connection::{Connection, is_absent, is_conflict};
use super::single_flight::SingleFlight;
use super::trunk::Trunk;
use crate::error::io as io_error;
use crate::host::engine::{Link, Process};
use crate::host::record::{self, Folder};
use crate::{Error, Pipe};

/// How long the engine may take to remove a container whose processes are dead.
pub(super) const REMOVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long apart it is asked again whether one is gone that it is removing already.
const REMOVAL_PAUSE: Duration = Duration::from_millis(50);

/// A container that runs.
pub(super) struct Container {
    pub(super) connection: Connection,
    /// Its name, or its id.
    pub(super) name: String,
    pub(super) instance: String,
    /// The way to its hand, where that has no socket of the host.
    pub(super) relay: Option<Relay>,
}

/// A relay in a container, which is started when it is needed.
pub(super) struct Relay {
    noted: record::Relay,
    command: Vec<String>,
    /// The first one is the only one: it was there before the build, whose root may change what another one would find.
    is_only: bool,
    has_started: Arc<AtomicBool>,
    trunk: SingleFlight<Trunk>,
}

impl Relay {
    /// One that is started by this command; that of a build only once.
    pub(super) fn new(noted: record::Relay, command: Vec<String>, builds: bool) -> Self {
        Self {
            noted,
            command,
            is_only: builds,
            has_started: Arc::default(),
            trunk: SingleFlight::new(),
        }
    }

    /// A connection to the hand through it, or through another one if it has ended. All who come while it is started wait
    /// for that together, and for the hand's answer each by himself.
    pub(super) async fn connect(&self, container: &Container) -> Result<Box<dyn Pipe>, Error> {
        let open = || {
            let (connection, name) = (container.connection.clone(), container.name.clone());
            let (command, noted) = (self.command.clone(), self.noted.clone());
            let (is_only, has_started) = (self.is_only, Arc::clone(&self.has_started));
            async move {
                if is_only && has_started.load(Ordering::Acquire) {
                    return Err(Error::Lost(
                        "the relay to it has ended, and a build has one".to_owned(),
                    ));
                }
                let trunk = Trunk::open(&connection, &name, command, noted).await?;
                has_started.store(true, Ordering::Release);
                Ok(trunk)
            }
        };
        let trunk = self.trunk.get(|trunk| !trunk.is_closed(), open).await?;
        trunk.connect().await
    }
}

/// The name of a session's container.
pub(super) fn name(instance: &str, session: &SessionId) -> String {
    format!("oma-{instance}-{session}")
}

#[async_trait]
impl Process for Container {
    async fn ended(&self) {
        wait(&self.connection, &self.name, "not-running").await;
    }

    async fn connect(&self, folder: &Folder) -> Result<Link, Error> {
        match &self.relay {
            Some(relay) => Ok(Link::Carried(relay.connect(self).await?)),
            None => {
                let connected = folder.connect().await;
                let stream = connected.map_err(|error| io_error("connecting to a sandbox", error))?;
                Ok(Link::Socket(stream))
            }
        }
    }

    async fn kill(&self) -> Result<(), Error> {
        remove(&self.connection, &self.name).await
    }

    async fn assigned(&self, session: &SessionId) {
        let options = RenameContainerOptionsBuilder::new()
            .name(&name(&self.instance, session))
            .build();
        let rename = || {
            self.connection
                .docker()
                .rename_container(&self.name, options.clone())
        };
        let what = "naming a container";
        match self.connection.ask(what, rename).await {
            Ok(Ok(())) => {}
            // It has ended meanwhile, or its session has another one: nobody goes by the name.
            Ok(Err(error)) => tracing::debug!(session_id = %session, %error, what),
            Err(error) => tracing::debug!(session_id = %session, %error, what),
        }
    }
}

/// Returns once the container is in this state, is no more, or the engine can't be asked.
pub(super) async fn wait(connection: &Connection, name: &str, condition: &str) {
    let options = WaitContainerOptionsBuilder::new().condition(condition).build();
    let mut answer = std::pin::pin!(connection.docker().wait_container(name, Some(options)));
    // Its exit status is of no interest: what matters is that it is gone.
    let _ = answer.next().await;
}

/// Kills a container, with all that runs in it, and removes it. That it is gone already is no failure.
pub(super) async fn remove(connection: &Connection, name: &str) -> Result<(), Error> {
    let what = "removing a container";
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    let question = || connection.docker().remove_container(name, Some(options.clone()));
    let removal = async {
        loop {
            match connection.ask(what, question).await? {
                Ok(()) => return Ok(()),
                Err(error) if is_absent(&error) => return Ok(()),
                // It is being removed already, since it has ended: that is to be over.
                Err(error) if is_conflict(&error) => {
                    wait(connection, name, "removed").await;
                    // Some engines do not know how to wait for that.
                    sleep(REMOVAL_PAUSE).await;
                }
                Err(error) => return Err(connection.failed(what, &error)),
            }
        }
    };
    timeout(REMOVAL_TIMEOUT + connection.patience(), removal)
        .await
        .map_err(|_| Error::Timeout(REMOVAL_TIMEOUT))?
}
