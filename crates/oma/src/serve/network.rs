//! From the configuration to the way out of sandboxes.

use std::path::PathBuf;
use std::sync::Arc;

use oma_egress::proxy::Hosts;
use oma_egress::resolve::Fixed;
use oma_egress::{Guard, Policy};
use oma_furnish::Network;
use oma_store::Store;
use oma_vault::Vaults;

use crate::config::Config;
use crate::print::Failure;

/// The domains of the public registries: whoever has one of them has the hosts below it, which change.
const REGISTRIES: [&str; 12] = [
    // apt
    "*.debian.org",
    "*.ubuntu.com",
    // cargo
    "crates.io",
    "*.crates.io",
    // gem
    "rubygems.org",
    "*.rubygems.org",
    // go
    "*.golang.org",
    // npm
    "*.npmjs.org",
    "*.yarnpkg.com",
    // pip
    "pypi.org",
    "*.pypi.org",
    "*.pythonhosted.org",
];

/// The way out of sandboxes; none where they are to have none.
///
/// # Errors
/// When a registry is no host.
pub(crate) fn configure(
    config: &Config,
    store: Arc<dyn Store>,
    vaults: Vaults,
) -> Result<Option<Network>, Failure> {
    let sandbox = &config.sandbox;
    let further = &sandbox.registries.0;
    if let Some(wrong) = further.iter().find(|host| !Hosts::default().add(host)) {
        return Err(Failure::Other(format!(
            "sandbox.registries: {wrong:?} is neither a host name nor `*.` and one"
        )));
    }
    if !sandbox.egress {
        return Ok(None);
    }
    let policy = Policy {
        allow: sandbox.egress_allow.0.clone(),
    };
    let hosts = sandbox.egress_hosts.0.iter();
    let resolver = Fixed::new(hosts.map(|host| (host.name.clone(), host.address)));
    let guard = Arc::new(Guard::with_resolver(policy, Arc::new(resolver)));
    let known = REGISTRIES.map(str::to_owned).into_iter();
    let registries = known.chain(further.iter().cloned()).collect();
    // This very program, also where another one has taken its place on the disk.
    let program = PathBuf::from("/proc/self/exe");
    Ok(Some(Network::new(store, vaults, guard, registries, program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_hosts() {
        for host in REGISTRIES {
            assert!(Hosts::default().add(host), "{host}");
        }
    }
}
