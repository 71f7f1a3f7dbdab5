//! Names to addresses: the lookup, and the check of what it gave.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::address::canonical;
use crate::error::Error;
use crate::policy::Policy;

/// How long a lookup may take, the wait for its turn included.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Lookups at once; each holds a thread while it waits for the name server.
const MAX_LOOKUPS: usize = 32;

/// Addresses of one name that are considered.
const MAX_ADDRESSES: usize = 64;

/// Looks names up.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of a name.
    ///
    /// # Errors
    /// When the name has none, or that could not be told.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of the operating system.
#[derive(Debug)]
pub struct System {
    lookups: Arc<Semaphore>,
}

impl Default for System {
    fn default() -> Self {
        Self {
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
        }
    }
}

#[async_trait]
impl Resolve for System {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let lookups = Arc::clone(&self.lookups);
        let turn = lookups.acquire_owned().await.map_err(io::Error::other)?;
        let name = name.to_owned();
        // The turn lasts as long as the thread, which goes on when nobody waits for it any more.
        let looking = tokio::task::spawn_blocking(move || {
            let found = (name.as_str(), 0).to_socket_addrs();
            drop(turn);
            found
        });
        let found = looking.await.map_err(io::Error::other)??;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// Knows some names itself, and asks the operating system for the others that have a dot in them.
#[derive(Debug, Default)]
pub struct Fixed {
    known: HashMap<String, Vec<IpAddr>>,
    others: System,
}

impl Fixed {
    /// The names are canonical; one may come more than once.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = (String, IpAddr)>) -> Self {
        let mut known: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for (name, address) in names {
            known.entry(name).or_default().push(address);
        }
        Self {
            known,
            others: System::default(),
        }
    }
}

#[async_trait]
impl Resolve for Fixed {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match self.known.get(name) {
            Some(addresses) => Ok(addresses.clone()),
            // The system would look for one with the endings of the machine's own network.
            None if !name.contains('.') => Err(io::ErrorKind::NotFound.into()),
            None => self.others.resolve(name).await,
        }
    }
}

/// Resolves names for the connections to one port, and hands out only what may be dialled there.
#[derive(Clone)]
pub(crate) struct Checked {
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) port: u16,
}

impl Checked {
    /// The addresses of the name, all of them checked.
    pub(crate) async fn addresses(self, name: String) -> Result<Vec<SocketAddr>, Error> {
        let unresolved = |reason: String| Error::Unresolved {
            host: name.clone(),
            reason,
        };
        let found = tokio::time::timeout(TIMEOUT, self.resolver.resolve(&name))
            .await
            .map_err(|_| unresolved(format!("no answer within {TIMEOUT:?}")))?
            .map_err(|error| unresolved(error.to_string()))?;
        if found.is_empty() {
            return Err(unresolved("it has no address".to_owned()));
        }
        // Secrets go to this name in the clear, and what it means is no resolver's business.
        if let Some(address) = found
            .iter()
            .find(|address| name == "localhost" && !canonical(**address).is_loopback())
        {
            tracing::debug!(name, %address, "localhost leads to another machine");
            return Err(Error::Refused {
                host: format!("{name}:{}", self.port),
                reason: "it is not on this machine",
            });
        }
        let trusted = self.policy.trusts_name(&name, self.port);
        // One address that may not be dialled is enough: whoever mixes them is up to something.
        let forbidden = found
            .iter()
            .find(|address| !trusted && !self.policy.allows(**address, self.port));
        if let Some(address) = forbidden {
            tracing::debug!(name, %address, port = self.port, "a name leads to an address that may not be dialled");
            return Err(Error::Refused {
                host: format!("{name}:{}", self.port),
                reason: "it is not public",
            });
        }
        let addresses = found.into_iter().take(MAX_ADDRESSES);
        Ok(addresses
            .map(|address| SocketAddr::new(address, self.port))
            .collect())
    }
}

impl reqwest::dns::Resolve for Checked {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let addresses = self.clone().addresses(name.as_str().to_owned());
        Box::pin(async move {
            let addresses = addresses.await.inspect_err(|error| {
                if let Error::Refused { host, reason } = error {
                    tracing::warn!(host, reason, "a name leads to an address that may not be dialled");
                }
            })?;
            Ok(Box::new(addresses.into_iter()) as reqwest::dns::Addrs)
        })
    }
}
