//! What clients send about environments.

use oma_domain::environment::{Hosting, Manager, Networking, Packages, Spec};
use serde_json::Value;

use crate::dialects::claude::body::{
    MetadataChanges, merged, metadata, metadata_changes, nullable, object, only, parse,
};
use crate::dialects::openclaw::environments::body::{host_pattern, package};
use crate::fault::Result;
use crate::limits;
use crate::validate::checks::{boolean, discriminator, list, one_of, text};
use crate::validate::{Change, Object, Tree};

const FIELDS: &[&str] = &["name", "config", "description", "metadata", "scope"];

/// Reads an environment to create.
pub(super) fn create(value: &Value) -> Result<Spec> {
    parse(value, FIELDS, |object| {
        let name = object.required("name", text(1, limits::NAME));
        let description = nullable(object, "description", text(0, limits::DESCRIPTION));
        let config = nullable(object, "config", config);
        let metadata = nullable(object, "metadata", metadata);
        let scope = nullable(object, "scope", one_of(&["organization"]));
        scope?;
        let spec = Spec {
            description: description?,
            metadata: metadata?.unwrap_or_default(),
            ..Spec::named(name?)
        };
        let config = config?.unwrap_or_default();
        let hosting = config.hosting.unwrap_or_default();
        Some(config.apply(Spec { hosting, ..spec }))
    })
}

/// An update of an environment. What is not sent stays, also within its configuration.
#[derive(Debug, Clone)]
pub(super) struct UpdateEnvironment {
    name: Option<String>,
    description: Change<String>,
    config: Config,
    metadata: MetadataChanges,
}

/// Reads an update.
pub(super) fn update(value: &Value) -> Result<UpdateEnvironment> {
    parse(value, FIELDS, |object| {
        let name = nullable(object, "name", text(1, limits::NAME));
        let description = object.change("description", text(0, limits::DESCRIPTION));
        let config = nullable(object, "config", config);
        let metadata = object.optional("metadata", metadata_changes);
        let scope = nullable(object, "scope", one_of(&["organization"]));
        scope?;
        // Here the empty text takes a pair away, too.
        let emptied = |(name, value): (String, Option<String>)| (name, value.filter(|text| !text.is_empty()));
        Some(UpdateEnvironment {
            name: name?,
            description: description?,
            config: config?.unwrap_or_default(),
            metadata: metadata?.unwrap_or_default().into_iter().map(emptied).collect(),
        })
    })
}

impl UpdateEnvironment {
    /// Whether it leaves an environment's hosting what it is.
    pub(super) fn keeps(&self, hosting: Hosting) -> bool {
        self.config.hosting.is_none_or(|asked| asked == hosting)
    }

    /// Lays it over a definition.
    pub(super) fn apply(self, mut spec: Spec) -> Spec {
        if let Some(name) = self.name {
            spec.name = name;
        }
        self.description.apply_optional(&mut spec.description);
        spec.metadata = merged(spec.metadata, self.metadata);
        self.config.apply(spec)
    }
}

/// What a configuration says; a part that is absent stays.
#[derive(Debug, Clone, Default)]
struct Config {
    hosting: Option<Hosting>,
    networking: Option<LimitedOrNot>,
    packages: Option<Packages>,
}

#[derive(Debug, Clone)]
enum LimitedOrNot {
    Unrestricted,
    Limited {
        allowed_hosts: Option<Vec<String>>,
        allow_mcp_servers: Option<bool>,
        allow_package_managers: Option<bool>,
    },
}

impl Config {
    fn apply(self, mut spec: Spec) -> Spec {
        match self.networking {
            None => {}
            Some(LimitedOrNot::Unrestricted) => spec.networking = Networking::Unrestricted,
            Some(LimitedOrNot::Limited {
                allowed_hosts,
                allow_mcp_servers,
                allow_package_managers,
            }) => {
                let (hosts, servers, managers) = match spec.networking {
                    Networking::Limited {
                        allowed_hosts,
                        allow_mcp_servers,
                        allow_package_managers,
                    } => (allowed_hosts, allow_mcp_servers, allow_package_managers),
                    Networking::Unrestricted => (Vec::new(), false, false),
                };
                spec.networking = Networking::Limited {
                    allowed_hosts: allowed_hosts.unwrap_or(hosts),
                    allow_mcp_servers: allow_mcp_servers.unwrap_or(servers),
                    allow_package_managers: allow_package_managers.unwrap_or(managers),
                };
            }
        }
        if let Some(sent) = self.packages {
            let kept = spec.packages.unwrap_or_default();
            spec.packages = Some(Packages {
                apt: sent.apt.or(kept.apt),
                cargo: sent.cargo.or(kept.cargo),
                gem: sent.gem.or(kept.gem),
                go: sent.go.or(kept.go),
                npm: sent.npm.or(kept.npm),
                pip: sent.pip.or(kept.pip),
            });
        }
        spec
    }
}

fn config(value: &Value, issues: &mut Tree) -> Option<Config> {
    let mut object = Object::of(value, issues)?;
    if discriminator(&mut object, &["cloud", "self_hosted"])? == "self_hosted" {
        only(&mut object, &["type"]);
        return Some(Config {
            hosting: Some(Hosting::SelfHosted),
            ..Config::default()
        });
    }
    only(&mut object, &["type", "networking", "packages"]);
    let networking = nullable(&mut object, "networking", networking);
    let packages = nullable(&mut object, "packages", packages);
    Some(Config {
        hosting: Some(Hosting::Cloud),
        networking: networking?,
        packages: packages?,
    })
}

fn networking(value: &Value, issues: &mut Tree) -> Option<LimitedOrNot> {
    let mut object = Object::of(value, issues)?;
    if discriminator(&mut object, &["unrestricted", "limited"])? == "unrestricted" {
        only(&mut object, &["type"]);
        return Some(LimitedOrNot::Unrestricted);
    }
    only(
        &mut object,
        &[
            "type",
            "allowed_hosts",
            "allow_mcp_servers",
            "allow_package_managers",
        ],
    );
    let hosts = list(0, limits::ALLOWED_HOSTS, host_pattern);
    let allowed_hosts = nullable(&mut object, "allowed_hosts", hosts);
    let allow_mcp_servers = nullable(&mut object, "allow_mcp_servers", boolean);
    let allow_package_managers = nullable(&mut object, "allow_package_managers", boolean);
    Some(LimitedOrNot::Limited {
        allowed_hosts: allowed_hosts?,
        allow_mcp_servers: allow_mcp_servers?,
        allow_package_managers: allow_package_managers?,
    })
}

fn packages(value: &Value, issues: &mut Tree) -> Option<Packages> {
    let managers = Manager::ALL.map(Manager::as_str);
    let fields: Vec<&str> = managers.into_iter().chain(["type"]).collect();
    object(&fields, |object| {
        let kind = object.optional("type", one_of(&["packages"]));
        let mut names = |manager: Manager| {
            nullable(
                object,
                manager.as_str(),
                list(0, limits::PACKAGES, package(manager)),
            )
        };
        let [apt, cargo, gem, go, npm, pip] = Manager::ALL.map(&mut names);
        kind?;
        Some(Packages {
            apt: apt?,
            cargo: cargo?,
            gem: gem?,
            go: go?,
            npm: npm?,
            pip: pip?,
        })
    })(value, issues)
}
