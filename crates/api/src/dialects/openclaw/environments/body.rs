//! What clients send about environments.

use std::collections::BTreeMap;

use oma_domain::environment::{Hosting, Networking, Packages, Spec};
use oma_egress::target::{Host, host};
use serde_json::Value;
use utoipa::ToSchema;

use crate::limits;
use crate::validate::checks::{boolean, discriminator, list, text};
use crate::validate::{Body, Object, Tree};

/// An environment to create.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct CreateEnvironment {
    /// Its name.
    #[schema(min_length = 1, max_length = 256)]
    name: String,
    /// What it is for.
    #[schema(required = false, max_length = 500)]
    description: String,
    /// Packages to install.
    #[schema(value_type = Option<PackageLists>, nullable = false)]
    packages: Option<Packages>,
    /// What it may reach.
    #[schema(required = false, value_type = NetworkingBody)]
    networking: Networking,
}

/// Packages to install, by installer.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the domain's type does the work; this one describes it in the API document"
)]
pub struct PackageLists {
    /// Debian packages.
    #[schema(max_items = 256, nullable = false)]
    apt: Option<Vec<String>>,
    /// Rust crates.
    #[schema(max_items = 256, nullable = false)]
    cargo: Option<Vec<String>>,
    /// Ruby gems.
    #[schema(max_items = 256, nullable = false)]
    gem: Option<Vec<String>>,
    /// Go modules.
    #[schema(max_items = 256, nullable = false)]
    go: Option<Vec<String>>,
    /// npm packages.
    #[schema(max_items = 256, nullable = false)]
    npm: Option<Vec<String>>,
    /// Python packages.
    #[schema(max_items = 256, nullable = false)]
    pip: Option<Vec<String>>,
}

/// What an environment may reach.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the domain's type does the work; this one describes it in the API document"
)]
pub struct NetworkingBody {
    /// Which of them.
    r#type: NetworkingType,
    /// Limited: host names, or `*.name` for every name below it.
    #[schema(min_items = 1, max_items = 256, nullable = false)]
    allowed_hosts: Option<Vec<String>>,
    /// Limited: also the hosts of the agent's MCP servers.
    #[schema(nullable = false)]
    allow_mcp_servers: Option<bool>,
    /// Limited: also the package managers' registries.
    #[schema(nullable = false)]
    allow_package_managers: Option<bool>,
}

/// How much an environment may reach.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum NetworkingType {
    /// Any public host.
    Unrestricted,
    /// Only the listed hosts.
    Limited,
}

impl Body for CreateEnvironment {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let name = object.required("name", text(1, limits::NAME));
        let description = object.or("description", String::new(), text(0, limits::DESCRIPTION));
        let packages = object.optional("packages", packages);
        let networking = object.or("networking", Networking::Unrestricted, networking);
        Some(Self {
            name: name?,
            description: description?,
            packages: packages?,
            networking: networking?,
        })
    }
}

impl CreateEnvironment {
    /// The definition.
    #[must_use]
    pub fn into_spec(self) -> Spec {
        let Self {
            name,
            description,
            packages,
            networking,
        } = self;
        Spec {
            name,
            // This dialect does not tell the two apart.
            description: (!description.is_empty()).then_some(description),
            packages,
            networking,
            metadata: BTreeMap::new(),
            hosting: Hosting::Cloud,
        }
    }
}

fn packages(value: &Value, issues: &mut Tree) -> Option<Packages> {
    let mut object = Object::of(value, issues)?;
    let mut names = |installer| object.optional(installer, list(0, limits::PACKAGES, text(1, limits::NAME)));
    let [pip, apt, npm, cargo, gem, go] = ["pip", "apt", "npm", "cargo", "gem", "go"].map(&mut names);
    object.only(&["pip", "apt", "npm", "cargo", "gem", "go"]);
    Some(Packages {
        apt: apt?,
        cargo: cargo?,
        gem: gem?,
        go: go?,
        npm: npm?,
        pip: pip?,
    })
}

fn networking(value: &Value, issues: &mut Tree) -> Option<Networking> {
    let mut object = Object::of(value, issues)?;
    if discriminator(&mut object, &["unrestricted", "limited"])? == "unrestricted" {
        return Some(Networking::Unrestricted);
    }
    let allowed_hosts = object.required("allowedHosts", list(1, limits::ALLOWED_HOSTS, host_pattern));
    let allow_mcp_servers = object.or("allowMcpServers", false, boolean);
    let allow_package_managers = object.or("allowPackageManagers", false, boolean);
    Some(Networking::Limited {
        allowed_hosts: allowed_hosts?,
        allow_mcp_servers: allow_mcp_servers?,
        allow_package_managers: allow_package_managers?,
    })
}

/// A host name, or `*.` and a host name. Patterns that could never match are refused: an asterisk anywhere
/// else, a port, a scheme, an address.
pub(crate) fn host_pattern(value: &Value, issues: &mut Tree) -> Option<String> {
    let pattern = text(1, limits::HOST)(value, issues)?;
    match host_problem(&pattern) {
        None => Some(pattern),
        Some(problem) => {
            issues.push(problem);
            None
        }
    }
}

fn host_problem(pattern: &str) -> Option<&'static str> {
    let name = pattern.strip_prefix("*.").unwrap_or(pattern);
    if name.contains('*') {
        return Some("An asterisk may only stand first, as in '*.example.com'");
    }
    // As connections read it: what they take for an address, in one of the many ways of writing one, is none.
    match host(name) {
        Ok(Host::Name(canonical)) if canonical.eq_ignore_ascii_case(name) => None,
        Ok(Host::Address(_)) => Some("Must be a host name, not an address"),
        Ok(Host::Name(_)) | Err(_) => Some("Must be a host name, without scheme, port or path"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_patterns() {
        let long = format!("{}.com", "a".repeat(64));
        for (pattern, good) in [
            ("example.com", true),
            ("EXAMPLE.com", true),
            ("a", true),
            ("localhost", true),
            ("x-y.example", true),
            ("1.example", true),
            ("xn--bcher-kva.example", true),
            ("*.example.com", true),
            ("*.a.b.c", true),
            ("*", false),
            ("*.", false),
            ("a*b.c", false),
            ("x.*.y", false),
            ("*.*.com", false),
            ("example.*", false),
            ("*example.com", false),
            ("example.com:443", false),
            ("https://example.com", false),
            ("example.com/path", false),
            ("under_score.com", false),
            ("-a.com", false),
            ("a-.com", false),
            (".example.com", false),
            ("example.com.", false),
            ("a..b", false),
            ("10.0.0.1", false),
            ("1.2", false),
            ("2130706433", false),
            ("*.10", false),
            ("0x", false),
            ("0x7f.1", false),
            ("a.0x10", false),
            ("::1", false),
            ("bücher.example", false),
            (long.as_str(), false),
        ] {
            assert_eq!(host_problem(pattern).is_none(), good, "{pattern}");
        }
    }
}
