//! Which engine makes containers, and from what.

use std::time::Duration;

use crate::host;

/// How the hand of a container is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// By a socket of this machine that is passed to it: the quickest way, which goes on while the engine is away. The
    /// container has to have this machine's kernel.
    Socket,
    /// Through a command that the engine runs in the container, which may have a kernel of its own.
    Exec,
}

/// How containers are made.
#[derive(Debug, Clone)]
pub struct Config {
    /// What does not depend on the engine.
    pub host: host::Config,
    /// Where the engine listens: the path of a Unix socket, with or without `unix://`, or `tcp://host:port` without
    /// TLS. The engine has to be on this machine: it mounts folders of it.
    pub engine: String,
    /// The image that sandboxes are made of. The engine has to have it.
    pub image: String,
    /// The engine's OCI runtime; its default one, if none is named.
    pub runtime: Option<String>,
    /// How the hands of containers are reached. Unless it is named, as the runtime needs it, which is told by its name
    /// and its program's.
    pub transport: Option<Transport>,
    /// How long an engine that does not answer, for it may be restarting, is waited for.
    pub patience: Duration,
}

impl Config {
    /// Where Docker's engine listens by default.
    pub const DEFAULT_ENGINE: &str = "/var/run/docker.sock";

    /// Containers of an image, by the engine that listens where Docker's does by default.
    #[must_use]
    pub fn new(host: host::Config, image: impl Into<String>) -> Self {
        Self {
            host,
            engine: Self::DEFAULT_ENGINE.to_owned(),
            image: image.into(),
            runtime: None,
            transport: None,
            patience: Duration::from_secs(30),
        }
    }
}
