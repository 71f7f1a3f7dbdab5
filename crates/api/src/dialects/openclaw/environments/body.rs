//! What clients send about environments.

use std::collections::BTreeMap;

use oma_domain::environment::{Limits, MAX_SCRIPT, Manager, Networking, Packages, Spec, variables};
use oma_egress::target::{Host, host};
use serde_json::Value;
use utoipa::ToSchema;

use crate::limits;
use crate::validate::checks::{boolean, discriminator, expected, integer, list, positive, text};
use crate::validate::{Body, Object, Tree, clip};

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
    /// Variables of every command. Those that the platform sets itself are refused.
    #[schema(required = false)]
    variables: BTreeMap<String, String>,
    /// How much a sandbox may have, where that is less than the server gives.
    #[schema(value_type = Option<LimitsBody>, nullable = false)]
    limits: Option<Limits>,
    /// The image that sandboxes are made of, where this server has images and lets environments name this one.
    #[schema(max_length = 256, nullable = false)]
    image: Option<String>,
    /// Run once, after the packages are installed; sandboxes have what it leaves.
    #[schema(max_length = 65_536, nullable = false)]
    setup_script: Option<String>,
}

/// How much a sandbox may have.
#[derive(Debug, Clone, Copy, serde::Serialize, ToSchema)]
pub struct LimitsBody {
    /// Memory, in bytes.
    #[schema(minimum = 33_554_432, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
    /// Processors; 1.5 is one and a half.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<f64>,
    /// Processes and threads.
    #[schema(minimum = 16, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<u32>,
    /// Bytes of the workspace.
    #[schema(minimum = 1_048_576, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<u64>,
}

impl LimitsBody {
    /// As clients read them.
    pub(super) fn of(limits: &Limits) -> Self {
        Self {
            memory: limits.memory,
            #[expect(clippy::cast_precision_loss, reason = "no machine has so many")]
            cpus: limits.millicpus.map(|thousandths| thousandths as f64 / 1_000.0),
            processes: limits.processes,
            disk: limits.disk,
        }
    }
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
        let variables = object.or("variables", BTreeMap::new(), variables_of);
        let limits = object.optional("limits", limits_of);
        let image = object.optional("image", image);
        let setup_script = object.optional("setupScript", script);
        Some(Self {
            name: name?,
            description: description?,
            packages: packages?,
            networking: networking?,
            variables: variables?,
            limits: limits?,
            image: image?,
            setup_script: setup_script?,
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
            variables,
            limits,
            image,
            setup_script,
        } = self;
        Spec {
            // This dialect does not tell the two apart.
            description: (!description.is_empty()).then_some(description),
            packages,
            networking,
            variables,
            limits,
            image,
            setup_script,
            ..Spec::named(name)
        }
    }
}

fn packages(value: &Value, issues: &mut Tree) -> Option<Packages> {
    let mut object = Object::of(value, issues)?;
    let mut names =
        |manager: Manager| object.optional(manager.as_str(), list(0, limits::PACKAGES, package(manager)));
    let [apt, cargo, gem, go, npm, pip] = Manager::ALL.map(&mut names);
    object.only(&Manager::ALL.map(Manager::as_str));
    Some(Packages {
        apt: apt?,
        cargo: cargo?,
        gem: gem?,
        go: go?,
        npm: npm?,
        pip: pip?,
    })
}

/// The name of a package, perhaps with a version, and nothing else.
pub(crate) fn package(manager: Manager) -> impl Fn(&Value, &mut Tree) -> Option<String> {
    move |value, issues| {
        let name = text(1, limits::NAME)(value, issues)?;
        match manager.refuses(&name) {
            None => Some(name),
            Some(problem) => {
                issues.push(problem);
                None
            }
        }
    }
}

fn variables_of(value: &Value, issues: &mut Tree) -> Option<BTreeMap<String, String>> {
    let Value::Object(map) = value else {
        issues.push(expected("object", value));
        return None;
    };
    if map.len() > variables::MOST {
        issues.push(format!("There may be at most {} variables", variables::MOST));
        return None;
    }
    let mut found = BTreeMap::new();
    for (name, value) in map {
        let below = issues.at(&clip(name));
        match variables::refuses(name) {
            Some(problem) => below.push(problem),
            None => {
                if let Some(value) = text(0, variables::MAX_VALUE)(value, below) {
                    found.insert(name.clone(), value);
                }
            }
        }
    }
    let bytes: usize = found.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > variables::MAX_ALL {
        issues.push(format!(
            "All together may have at most {} bytes",
            variables::MAX_ALL
        ));
    }
    (found.len() == map.len() && bytes <= variables::MAX_ALL).then_some(found)
}

fn limits_of(value: &Value, issues: &mut Tree) -> Option<Limits> {
    let mut object = Object::of(value, issues)?;
    let memory = object.optional("memory", integer(32 << 20, u64::MAX >> 1));
    let cpus = object.optional("cpus", processors);
    let processes = object.optional("processes", integer(16, u64::from(u32::MAX)));
    let disk = object.optional("disk", integer(1 << 20, u64::MAX >> 1));
    object.only(&["memory", "cpus", "processes", "disk"]);
    Some(Limits {
        memory: memory?,
        millicpus: cpus?,
        processes: processes?.and_then(|number| u32::try_from(number).ok()),
        disk: disk?,
    })
}

/// In thousandths.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 50 and 1,024,000"
)]
fn processors(value: &Value, issues: &mut Tree) -> Option<u64> {
    let number = positive(value, issues)?;
    if (0.05..=1_024.0).contains(&number) {
        return Some((number * 1_000.0).round() as u64);
    }
    issues.push("Number must be from 0.05 to 1024");
    None
}

fn image(value: &Value, issues: &mut Tree) -> Option<String> {
    let name = text(1, limits::NAME)(value, issues)?;
    let is_name = name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte));
    if !is_name {
        issues.push("Must be the name of an image");
    }
    is_name.then_some(name)
}

fn script(value: &Value, issues: &mut Tree) -> Option<String> {
    let script = text(1, MAX_SCRIPT)(value, issues)?;
    // In bytes, as it is handed on.
    if script.len() > MAX_SCRIPT {
        issues.push(format!("String must contain at most {MAX_SCRIPT} byte(s)"));
        return None;
    }
    Some(script)
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
