//! Sandboxes of this machine's own namespaces: no daemon, no image.

mod cgroup;
mod exposure;
mod launch;
mod process;
mod site;

pub use crate::host::Config;
pub use exposure::exposed;
#[cfg(feature = "docker")]
pub(crate) use exposure::shows;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::io as io_error;
use crate::hand::launch::{Duties, Plan, Site, Users, writable};
use crate::host::engine::{Committed, Engine, Order, Process};
use crate::host::is_root;
use crate::host::record::{Folder, Record};
use crate::host::{Claimed, Host};
use crate::layers::{Layer, Size};
use crate::limits::{Enforcement, Limits};
use crate::{Error, Spec};
use cgroup::Cgroups;
use process::Handle;

/// Opens the data folder and clears away what a crash left behind. Sandboxes that live go on.
///
/// # Errors
/// [`Error::TooWeak`] when the limits can't be enforced as configured; [`Error::Io`] when the folder can't
/// be used, for example because another server has it.
pub async fn open(config: Config) -> Result<Host, Error> {
    if let Some(shown) = exposed(&config.data, &config.readable) {
        return Err(Error::TooWeak(format!(
            "every sandbox can read {}, and the data folder {} lies there; use another data folder",
            shown.display(),
            config.data.display()
        )));
    }
    let cgroups = match config.enforcement() {
        Enforcement::Rlimit => None,
        Enforcement::Cgroup => Some(Cgroups::find(config.cgroup_parent.as_deref()).map_err(|why| {
            Error::TooWeak(format!(
                "limits by control group are configured, but {why}; {}, or configure limits by resource limit \
                 (weaker: no limit on processors)",
                crate::doctor::delegation()
            ))
        })?),
    };
    let claimed = Claimed::new(&config.data)?;
    let namespaces = Namespaces {
        config: config.clone(),
        instance: claimed.instance.clone(),
        boot: claimed.boot.clone(),
        cgroups,
    };
    Host::open(config, claimed, Arc::new(namespaces)).await
}

/// The control groups that a configuration leads to, in words; or why there are none.
pub(crate) fn find_groups(config: &Config) -> Result<String, String> {
    let found = Cgroups::find(config.cgroup_parent.as_deref())?;
    Ok(format!("version {}", found.version()))
}

/// This machine's namespaces and control groups.
struct Namespaces {
    config: Config,
    instance: String,
    boot: String,
    cgroups: Option<Cgroups>,
}

impl Namespaces {
    fn cgroup_prefix(&self) -> String {
        format!("{}{}-", cgroup::PREFIX, self.instance)
    }

    /// Who the users of a build are.
    fn builders(&self) -> Users {
        if is_root() {
            Users::Range {
                first: self.config.first_uid,
                count: self.config.uids.min(site::USERS),
            }
        } else {
            Users::Server
        }
    }

    fn plan(&self, order: Order<'_>, record: &Record) -> (Plan, std::os::unix::net::UnixListener) {
        let config = &self.config;
        let duties = Duties {
            enforcement: config.enforcement(),
            orphan_timeout: order.orphan_timeout(config.orphan_timeout),
            has_own_kernel: false,
            limits: order.limits,
            tools: config.tools.clone(),
            writable: writable(&order.mounts),
            gateway: config.gateway,
            variables: order.fittings.all_variables(),
        };
        let groups = record.cgroups.iter();
        let plan = Plan {
            root: order.folder.root(),
            workspace: order.workspace,
            mounts: order.mounts,
            readable: config.readable.clone(),
            trust: order.fittings.trust.clone(),
            uid: order.uid,
            cgroups: groups.map(|folder| folder.join("cgroup.procs")).collect(),
            layer: order.layer.map(|found| found.folder),
            site: order.site.map(|ground| Site {
                folder: ground.folder.clone(),
                users: self.builders(),
                files: ground.build.files.clone(),
            }),
            duties,
        };
        (plan, order.listener)
    }
}

#[async_trait]
impl Engine for Namespaces {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn prepare(&self, spec: &Spec, limits: &Limits, record: &mut Record) -> Result<(), Error> {
        if let Some(cgroups) = &self.cgroups {
            let name = format!("{}{}", self.cgroup_prefix(), spec.session);
            record.cgroups = cgroups
                .create(&name, limits)
                .map_err(|error| io_error(format!("making control groups for {}", spec.session), error))?;
        }
        Ok(())
    }

    async fn launch(&self, order: Order<'_>, record: &mut Record) -> Result<Arc<dyn Process>, Error> {
        if let Some(ground) = order.site {
            let (folder, users) = (ground.folder.clone(), self.builders());
            let names = self.config.gateway;
            let prepared = tokio::task::spawn_blocking(move || site::prepare(&folder, users, names)).await;
            prepared
                .unwrap_or_else(|error| Err(std::io::Error::other(error)))
                .map_err(|error| io_error("preparing a build", error))?;
        }
        let (plan, listener) = self.plan(order, record);
        let process = launch::launch(&self.config, &plan, listener).await?;
        record.hand = Some(process.process);
        Ok(Arc::new(process))
    }

    async fn find(&self, _: &Folder, record: &Record) -> Result<Option<Arc<dyn Process>>, Error> {
        let recorded = record.hand.filter(|_| record.boot == self.boot);
        // What can't be opened can't be waited for or killed either.
        let handle = recorded.and_then(|hand| Handle::of_record(hand).ok().flatten());
        Ok(handle.map(|handle| Arc::new(handle) as Arc<dyn Process>))
    }

    async fn clear(&self, record: &Record) -> Result<(), Error> {
        remove_groups(&record.cgroups).await
    }

    async fn sweep(&self, living: &[Record]) -> Result<(), Error> {
        let Some(cgroups) = &self.cgroups else {
            return Ok(());
        };
        let kept: Vec<&Path> = living
            .iter()
            .flat_map(|record| record.cgroups.iter().map(PathBuf::as_path))
            .collect();
        let mut left = cgroups
            .list(&self.cgroup_prefix())
            .map_err(|error| io_error("listing control groups", error))?;
        left.retain(|folder| !kept.contains(&folder.as_path()));
        remove_groups(&left).await?;
        if let Err(error) = cgroups.sweep() {
            // They belong to others, so that they stay is no reason not to start.
            tracing::warn!(%error, "abandoned control groups could not be removed");
        }
        Ok(())
    }

    fn lacks(&self) -> Option<String> {
        None
    }

    fn has_images(&self) -> bool {
        false
    }

    async fn ground(&self, _: Option<&str>) -> Result<String, Error> {
        let found = tokio::task::spawn_blocking(site::ground).await;
        found
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(|error| io_error("looking at what this machine has installed", error))
    }

    fn builder(&self) -> Option<u32> {
        is_root().then_some(self.config.first_uid)
    }

    async fn commit(&self, _: &Record, _: &Layer) -> Result<Committed, Error> {
        Ok(Committed::default())
    }

    async fn built(&self, _: &Record, _: u64) -> Result<Size, Error> {
        Ok(Size::default())
    }

    async fn has(&self, _: &str) -> Result<bool, Error> {
        Ok(false)
    }

    async fn sweep_layers(&self, _: &[String]) -> Result<(), Error> {
        Ok(())
    }

    async fn discard(&self, _: &str) -> Result<bool, Error> {
        // It was an image of another backend, which removes it when it is used again.
        Ok(true)
    }
}

async fn remove_groups(folders: &[PathBuf]) -> Result<(), Error> {
    cgroup::remove(folders)
        .await
        .map_err(|error| io_error("removing control groups", error))
}
