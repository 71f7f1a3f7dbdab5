//! From what an environment says to what its sessions may reach.

use oma_domain::environment::Networking;
use oma_egress::proxy::{Allowed, Hosts};
use serde_json::{Map, Value};

/// What a session whose agents have these MCP servers may reach.
pub(super) fn allowed<'a>(
    networking: Option<&Networking>,
    servers: impl Iterator<Item = &'a Map<String, Value>>,
    registries: &[String],
) -> Allowed {
    let Some(Networking::Limited {
        allowed_hosts,
        allow_mcp_servers,
        allow_package_managers,
    }) = networking
    else {
        return Allowed::Public;
    };
    let mut hosts = Hosts::default();
    let mut add = |host: &str| {
        if !hosts.add(host) {
            tracing::warn!(host, "a host of an environment is none, and is left out");
        }
    };
    allowed_hosts.iter().for_each(|host| add(host));
    if *allow_package_managers {
        registries.iter().for_each(|host| add(host));
    }
    if *allow_mcp_servers {
        for server in servers.flat_map(Map::values) {
            let url = server.get("url").and_then(|url| url.as_str());
            // One in the sandbox has none, and an address is on no list.
            let target = url.and_then(|url| oma_egress::target::Target::parse(url).ok());
            if let Some(oma_egress::target::Host::Name(name)) = target.map(|target| target.host) {
                add(&name);
            }
        }
    }
    Allowed::Listed(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn environments_say_what_may_be_reached() {
        let registries = ["registry.example".to_owned(), "*.mirror.example".to_owned()];
        let servers = json!({
            "one": {"url": "https://mcp.example/mcp"},
            "two": {"url": "http://10.0.0.1:8080/"},
            "three": {"command": "npx"},
        });
        let reaches = |networking: Option<Networking>| {
            let allowed = allowed(networking.as_ref(), servers.as_object().into_iter(), &registries);
            let all = [
                "good.example",
                "mcp.example",
                "registry.example",
                "a.mirror.example",
                "10.0.0.1",
            ];
            all.map(|host| allowed.admits(&oma_egress::target::host(host).unwrap()))
        };
        let limited = |allow_mcp_servers, allow_package_managers| {
            reaches(Some(Networking::Limited {
                allowed_hosts: vec!["good.example".to_owned(), "not a host".to_owned()],
                allow_mcp_servers,
                allow_package_managers,
            }))
        };
        assert_eq!(reaches(None), [true; 5]);
        assert_eq!(reaches(Some(Networking::Unrestricted)), [true; 5]);
        assert_eq!(limited(false, false), [true, false, false, false, false]);
        assert_eq!(limited(true, false), [true, true, false, false, false]);
        assert_eq!(limited(false, true), [true, false, true, true, false]);
    }
}
