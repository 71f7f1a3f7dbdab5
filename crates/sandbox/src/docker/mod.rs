//! Sandboxes in containers: one for each session, of any image, made by Docker's engine or one that speaks its
//! language.
//!
//! The engine makes the container ([`body`]) and ends it; nothing else goes through it. The hand serves on a socket
//! of the host that the server has passed to it ([`launch`]), so a command costs no more than in a local sandbox, goes
//! on while the engine is away, and survives the server in the same way. Where the container has a kernel of its own
//! ([`runtime`]), the engine runs a relay in it, and everything goes through that ([`trunk`]).
//!
//! Invariant: a container has no privilege, no network and limits, or it does not serve: the hand looks for itself.
//! Invariant: a container ends with its hand, whether or not a server is there to remove it; none that carries the data
//! folder's label and is on no record of a living one outlives the next start of the server.

mod accounts;
mod body;
mod branch;
mod config;
mod connection;
mod container;
mod doctor;
mod enforceable;
mod image;
mod kit;
mod launch;
mod layers;
mod make;
mod runtime;
mod severable;
mod single_flight;
mod trunk;
mod users;

pub use config::{Config, Transport};
pub use doctor::probe;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bollard::models::SystemInfo;
use bollard::query_parameters::{CreateContainerOptionsBuilder, ListContainersOptionsBuilder};
use tokio::time::timeout;

use crate::error::io as io_error;
use crate::hand::launch::contained::Contained;
use crate::hand::launch::{Duties, writable};
use crate::hand::relay;
use crate::hand::token::Token;
use crate::host::engine::{Committed, Engine, Order, Process};
use crate::host::record::{self, Folder, Record};
use crate::host::{Claimed, Host};
use crate::layers::{Layer, Size};
use crate::limits::Limits;
use crate::{Error, Pipe, Spec, trust};
use accounts::Accounts;
use body::{Abilities, INSTALLATION, SESSION};
use connection::{Connection, is_conflict};
use container::{Container, Relay, name, remove};
use enforceable::{Enforceable, Evidence};
use image::Image;
use kit::Kit;
use make::Make;
use users::Users;

/// Opens the data folder and clears away what a crash left behind. Containers whose hands live go on.
///
/// # Errors
/// [`Error::Engine`] when the engine does not answer or lacks the image; [`Error::TooWeak`] when it can't enforce the
/// limits as configured; [`Error::Io`] when the folder can't be used, for example because another server has it.
pub async fn open(config: Config) -> Result<Host, Error> {
    if let Some(shown) = crate::local::shows(&config.host.readable, &config.host.data) {
        return Err(Error::TooWeak(format!(
            "every sandbox can read {}, and the data folder {} lies there; use another data folder",
            shown.display(),
            config.host.data.display()
        )));
    }
    let connection = Connection::open(&config.engine, config.patience).await?;
    let info = connection
        .get("asking what it can do", || connection.docker().info())
        .await?;
    let make = Make::ask(&connection).await?;
    let users = Users::of(&info)?;
    let enforceable = Enforceable::of(make, &info, &config);
    if let Some(lack) = enforceable.lacking(&config) {
        let remedy = lack.remedy();
        return Err(Error::TooWeak(format!(
            "limits by control group are configured, but {lack}; {remedy}"
        )));
    }
    Image::find(&connection, &config.image).await?;
    let claimed = Claimed::new(&config.host.data)?;
    let (data, exe) = (config.host.data.clone(), config.host.exe.clone());
    let kit = tokio::task::spawn_blocking(move || Kit::make(&data, &exe)).await;
    let kit =
        kit.map_err(|error| io_error("preparing the hand for containers", std::io::Error::other(error)))??;
    let containers = Containers {
        connection,
        instance: claimed.instance.clone(),
        boot: claimed.boot.clone(),
        abilities: Abilities {
            processors: processors(&info),
            limits: enforceable,
            make,
            maps_users: has_option(&info, "userns"),
            transport: runtime::transport(&config, &info),
        },
        users,
        kit,
        accounts: tokio::sync::Mutex::default(),
        config: config.clone(),
    };
    Host::open(config.host, claimed, Arc::new(containers)).await
}

fn processors(info: &SystemInfo) -> u32 {
    info.ncpu
        .and_then(|count| u32::try_from(count).ok())
        .filter(|count| *count > 0)
        .unwrap_or(u32::MAX)
}

/// Whether the engine works with this security option.
fn has_option(info: &SystemInfo, name: &str) -> bool {
    let wanted = format!("name={name}");
    let options = info.security_options.iter().flatten();
    options
        .flat_map(|option| option.split(','))
        .any(|part| part == wanted)
}

/// The containers of one data folder.
struct Containers {
    connection: Connection,
    config: Config,
    instance: String,
    boot: String,
    abilities: Abilities,
    users: Users,
    kit: Kit,
    /// Those of the image that was used last, by its id.
    accounts: tokio::sync::Mutex<Option<(String, Accounts)>>,
}

impl Containers {
    /// Makes the container, which does not run yet, and gives its id.
    async fn create(&self, name: &str, order: &Order<'_>, user: (u32, u32)) -> Result<String, Error> {
        let of_layer = order.layer.as_ref().map(|found| {
            let image = found.image.as_deref();
            image.ok_or_else(|| Error::Refused("the layer of the environment is no image".to_owned()))
        });
        let chosen = match order.site {
            Some(ground) => ground.build.image.as_deref(),
            None => order.fittings.image.as_deref(),
        };
        let name_of_image = of_layer.transpose()?.or(chosen).unwrap_or(&self.config.image);
        let image = Image::find(&self.connection, name_of_image).await?;
        let failed = |error| io_error("preparing what a container shows", error);
        order.folder.put(record::PRELOAD, "").map_err(failed)?;
        if order.site.is_none() {
            self.name_users(&image, order.folder, user).await?;
            if let Some(authority) = &order.fittings.trust {
                let files = trust::files(authority);
                let written = order.folder.put_all(record::TRUST, &files);
                written.map_err(|error| io_error("writing whom a container trusts", error))?;
            }
        }
        let parts = (&self.kit, &image, self.abilities);
        let body = body::container(&self.config, parts, &self.instance, user, order)?;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let what = "making a container";
        let create = || {
            let (options, body) = (options.clone(), body.clone());
            self.connection.docker().create_container(Some(options), body)
        };
        let made = match self.connection.ask(what, create).await? {
            // Of a launch that was cut off, or of this very one, when its answer was lost.
            Err(error) if is_conflict(&error) => {
                remove(&self.connection, name).await?;
                self.connection.ask(what, create).await?
            }
            made => made,
        };
        let made = made.map_err(|error| self.refused(what, &error))?;
        // The engine warns where it leaves a limit out.
        let warned = made.warnings.iter().find(|warning| is_weakness(warning));
        match warned {
            Some(warning) => Err(Error::TooWeak(format!("the container engine warns: {warning}"))),
            None => Ok(made.id),
        }
    }

    /// Writes what the container shows for names of users.
    async fn name_users(
        &self,
        image: &Image,
        folder: &Folder,
        (user, group): (u32, u32),
    ) -> Result<(), Error> {
        let mut known = self.accounts.lock().await;
        let accounts = match &*known {
            Some((id, accounts)) if *id == image.id => accounts.clone(),
            _ => {
                let accounts = Accounts::read(&self.connection, image, &self.instance).await?;
                *known = Some((image.id.clone(), accounts.clone()));
                accounts
            }
        };
        drop(known);
        let files = [
            (record::USERS, accounts.users(user, group)),
            (record::GROUPS, accounts.groups(group)),
        ];
        let mut files = files.into_iter();
        let written = files.try_for_each(|(name, text)| folder.put(name, &text));
        written.map_err(|error| io_error("naming the user of a container", error))
    }

    fn container(&self, noted: &record::Container, builds: bool) -> Container {
        Container {
            connection: self.connection.clone(),
            name: noted.name.clone(),
            instance: self.instance.clone(),
            relay: noted
                .relay
                .clone()
                .map(|relay| Relay::new(relay, self.kit.relay(&noted.kit), builds)),
        }
    }

    async fn start(&self, name: &str) -> Result<(), Error> {
        let start = || self.connection.docker().start_container(name, None);
        let what = "starting a container";
        let started = self.connection.ask(what, start).await?;
        started.map_err(|error| self.refused(what, &error))
    }

    /// What the engine will not do with this configuration it will not do later either.
    fn refused(&self, what: &str, error: &bollard::errors::Error) -> Error {
        match error {
            bollard::errors::Error::DockerResponseServerError {
                status_code: 400..500,
                message,
            } => Error::TooWeak(message.clone()),
            other => self.connection.failed(what, other),
        }
    }

    fn orders(&self, order: &Order<'_>, (user, group): (u32, u32), relay: Option<u32>) -> Contained {
        let host = &self.config.host;
        Contained {
            user,
            group,
            counts_processes: !self.abilities.limits.processes,
            shows_limits: self.abilities.limits.evidence == Evidence::Sight,
            builds: order.site.is_some(),
            relay,
            duties: Duties {
                enforcement: host.enforcement(),
                limits: order.limits.clone(),
                tools: host.tools.clone(),
                orphan_timeout: order.orphan_timeout(host.orphan_timeout),
                writable: writable(&order.mounts),
                gateway: host.gateway,
                has_own_kernel: self.abilities.transport == Transport::Exec,
                variables: order.fittings.all_variables(),
            },
        }
    }
}

/// Whether a warning of the engine is about a limit that it does not keep. That the name server leads nowhere is
/// meant.
fn is_weakness(warning: &str) -> bool {
    !warning.contains("DNS")
}

#[async_trait]
impl Engine for Containers {
    fn name(&self) -> &'static str {
        "docker"
    }

    async fn prepare(&self, spec: &Spec, _: &Limits, record: &mut Record) -> Result<(), Error> {
        record.container = Some(record::Container {
            name: name(&self.instance, &spec.session),
            kit: self.kit.name(),
            is_launched: false,
            relay: None,
        });
        Ok(())
    }

    async fn launch(&self, order: Order<'_>, record: &mut Record) -> Result<Arc<dyn Process>, Error> {
        let failed = |error| {
            io_error(
                format!("preparing the container of {}", order.spec.session),
                error,
            )
        };
        let Some(noted) = &mut record.container else {
            return Err(failed(std::io::ErrorKind::InvalidInput.into()));
        };
        let user = match order.site {
            Some(_) => (0, 0),
            None => self.users.inside(order.uid),
        };
        noted.relay = match self.abilities.transport {
            Transport::Socket => None,
            Transport::Exec => Some(record::Relay {
                user: relay::user(user.0, order.site.is_some()),
                token: Token::generate().map_err(failed)?,
            }),
        };
        let door = match noted.relay {
            None => Some(order.folder.open_door().map_err(failed)?),
            Some(_) => None,
        };
        // By its id it is found whatever its name is.
        noted.name = self.create(&noted.name, &order, user).await?;
        let container = self.container(noted, order.site.is_some());
        let relay = noted.relay.as_ref().map(|relay| relay.user);
        let orders = self.orders(&order, user, relay);
        let patience = self.config.host.launch_timeout;
        let instruct = async {
            let hand: Box<dyn Pipe> = match (door, &container.relay) {
                (Some(door), _) => Box::new(launch::welcome(door, order.listener).await?),
                (None, Some(relay)) => relay.connect(&container).await?,
                (None, None) => return Err(failed(std::io::ErrorKind::NotFound.into())),
            };
            launch::instruct(hand, &orders).await
        };
        let launched = async {
            self.start(&noted.name).await?;
            tokio::select! {
                instructed = timeout(patience, instruct) => {
                    instructed.unwrap_or(Err(Error::Timeout(patience)))
                }
                () = container.ended() => Err(Error::Lost(
                    "its container ended before its hand said anything".to_owned(),
                )),
            }
        };
        let launched = launched.await;
        // Before anything can run that should not find it.
        let shut = order.folder.shut_door().map_err(failed);
        match launched.and(shut) {
            Ok(()) => {
                noted.is_launched = true;
                Ok(Arc::new(container))
            }
            Err(error) => {
                container.kill().await?;
                Err(error)
            }
        }
    }

    async fn find(&self, folder: &Folder, record: &Record) -> Result<Option<Arc<dyn Process>>, Error> {
        let Some(noted) = record.container.as_ref() else {
            return Ok(None);
        };
        if record.boot != self.boot || !noted.is_launched {
            return Ok(None);
        }
        // Nobody goes on with a build, and its root may have changed what another relay would find: there is one.
        if record.is_site && noted.relay.is_some() {
            return Ok(None);
        }
        let container = self.container(noted, false);
        match container.connect(folder).await {
            Ok(_) => Ok(Some(Arc::new(container))),
            // It may well run. A socket that nobody answers at is no such case: that one leads past the engine.
            Err(error @ Error::Engine(_)) => Err(error),
            Err(error @ Error::Timeout(_)) if container.relay.is_some() => Err(error),
            // Nobody but the hand answers, so there is none, whatever the engine thinks.
            Err(_) => Ok(None),
        }
    }

    async fn clear(&self, record: &Record) -> Result<(), Error> {
        match &record.container {
            Some(container) => remove(&self.connection, &container.name).await,
            None => Ok(()),
        }
    }

    async fn sweep(&self, living: &[Record]) -> Result<(), Error> {
        let living: Vec<&record::Container> = living
            .iter()
            .filter_map(|record| record.container.as_ref())
            .collect();
        let kept: HashSet<&str> = living.iter().map(|container| container.name.as_str()).collect();
        let label = format!("{INSTALLATION}={}", self.instance);
        let filters = HashMap::from([("label".to_owned(), vec![label])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let list = || self.connection.docker().list_containers(Some(options.clone()));
        for found in self.connection.get("listing containers", list).await? {
            let names = found.names.unwrap_or_default();
            let names = names.iter().map(|name| name.trim_start_matches('/'));
            let is_kept = names.chain(found.id.as_deref()).any(|name| kept.contains(name));
            let (Some(id), false) = (found.id, is_kept) else {
                continue;
            };
            let session = found.labels.unwrap_or_default().remove(SESSION);
            tracing::info!(
                container = id,
                session_id = session,
                "an orphaned container is removed"
            );
            remove(&self.connection, &id).await?;
        }
        let kits: Vec<String> = living.iter().map(|container| container.kit.clone()).collect();
        self.kit
            .tidy(&kits)
            .map_err(|error| io_error("removing what hands of other versions needed", error))
    }

    fn lacks(&self) -> Option<String> {
        None
    }

    fn has_images(&self) -> bool {
        true
    }

    async fn ground(&self, image: Option<&str>) -> Result<String, Error> {
        let name = image.unwrap_or(&self.config.image);
        Ok(format!(
            "docker-{}",
            Image::find(&self.connection, name).await?.id
        ))
    }

    fn builder(&self) -> Option<u32> {
        None
    }

    async fn commit(&self, record: &Record, layer: &Layer) -> Result<Committed, Error> {
        match &record.container {
            Some(container) => layers::commit(&self.connection, &self.instance, &container.name, layer).await,
            None => Err(Error::Lost("its container is not known".to_owned())),
        }
    }

    async fn built(&self, record: &Record, most_inodes: u64) -> Result<Size, Error> {
        match &record.container {
            Some(container) => layers::built(&self.connection, &container.name, most_inodes).await,
            None => Ok(Size::default()),
        }
    }

    async fn has(&self, image: &str) -> Result<bool, Error> {
        layers::has(&self.connection, image).await
    }

    async fn discard(&self, image: &str) -> Result<bool, Error> {
        layers::discard(&self.connection, image).await
    }

    async fn sweep_layers(&self, kept: &[String]) -> Result<(), Error> {
        layers::sweep(&self.connection, &self.instance, kept).await
    }
}
