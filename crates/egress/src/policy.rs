//! What the operator allows beyond public hosts on the ports of the web.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::address::{canonical, is_public};
use crate::target::{self, Host, Target};

/// Ports that every public host may be reached at.
pub const PORTS: [u16; 2] = [80, 443];

/// One thing that is allowed although it is not public, or not on the ports of the web.
///
/// As text: a network (`10.0.0.0/8`, `fd00::/8`) or an address (`10.1.2.3`, `[::1]`, with or without a port),
/// or a host name, with a port (`intranet.example:8443`) or without one, which means ports 80 and 443. A name
/// may begin with `*.` for every name below it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Rule {
    /// Addresses, at one port or at all of them.
    Net {
        /// The network.
        net: IpNet,
        /// The port; `None` for all.
        port: Option<u16>,
    },
    /// A name, whatever addresses it has.
    Name {
        /// The canonical name.
        name: String,
        /// Whether the names below it are meant, and not itself.
        below: bool,
        /// The port; `None` for [`PORTS`].
        port: Option<u16>,
    },
}

/// Why a text is no [`Rule`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither a network (10.0.0.0/8), an address (10.1.2.3:8080) nor a host (intranet.example:8443)"
)]
pub struct InvalidRule(String);

impl FromStr for Rule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let invalid = || InvalidRule(text.to_owned());
        let text = text.trim();
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self::Net {
                net: net.trunc(),
                port: None,
            });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Net {
                net: IpNet::from(canonical(address)),
                port: None,
            });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port: u16 = port.parse().map_err(|_| invalid())?;
                (
                    host,
                    Some(port).filter(|port| *port != 0).ok_or_else(invalid)?.into(),
                )
            }
            _ => (text, None),
        };
        let (below, name) = match host.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, host),
        };
        match target::host(name).map_err(|_| invalid())? {
            Host::Address(address) if !below => Ok(Self::Net {
                net: IpNet::from(address),
                port,
            }),
            Host::Address(_) => Err(invalid()),
            Host::Name(name) => Ok(Self::Name { name, below, port }),
        }
    }
}

impl TryFrom<String> for Rule {
    type Error = InvalidRule;

    fn try_from(text: String) -> Result<Self, InvalidRule> {
        text.parse()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = match self {
            Self::Net { net, port } => {
                match (net.addr(), net.prefix_len() == net.max_prefix_len(), port) {
                    (IpAddr::V6(address), true, Some(_)) => write!(f, "[{address}]")?,
                    (address, true, _) => write!(f, "{address}")?,
                    (_, false, _) => write!(f, "{net}")?,
                }
                port
            }
            Self::Name { name, below, port } => {
                write!(f, "{}{name}", if *below { "*." } else { "" })?;
                port
            }
        };
        port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Rule {
    fn has_address(&self, address: IpAddr, at: u16) -> bool {
        match self {
            Self::Net { net, port } => {
                net.contains(&canonical(address)) && port.is_none_or(|port| port == at)
            }
            Self::Name { .. } => false,
        }
    }

    fn has_name(&self, host: &str, at: u16) -> bool {
        let Self::Name { name, below, port } = self else {
            return false;
        };
        let named = if *below {
            host.strip_suffix(name.as_str())
                .is_some_and(|rest| rest.ends_with('.'))
        } else {
            host == name
        };
        named && port.map_or(PORTS.contains(&at), |port| port == at)
    }
}

/// What may be dialled: public addresses on the ports of the web, and what the rules allow.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// What else is allowed.
    pub allow: Vec<Rule>,
}

impl Policy {
    /// Whether the operator trusts this name at this port with whatever addresses it has.
    #[must_use]
    pub fn trusts_name(&self, name: &str, port: u16) -> bool {
        self.allow.iter().any(|rule| rule.has_name(name, port))
    }

    /// Whether this is a loopback address that the operator allows, or `localhost`: what is sent there crosses no
    /// network, so it may be sent in the clear.
    #[must_use]
    pub fn allows_loopback(&self, target: &Target) -> bool {
        match &target.host {
            Host::Address(address) => address.is_loopback() && self.allows(*address, target.port),
            Host::Name(name) => {
                // The guard dials loopback for this name only; those below it may lead anywhere.
                let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
                name == "localhost"
                    && (self.trusts_name(name, target.port)
                        || loopback.iter().any(|address| self.allows(*address, target.port)))
            }
        }
    }

    /// Whether this address may be dialled at this port.
    #[must_use]
    pub fn allows(&self, address: IpAddr, port: u16) -> bool {
        (PORTS.contains(&port) && is_public(address))
            || self.allow.iter().any(|rule| rule.has_address(address, port))
    }

    /// Whether there can be an address that may be dialled at this port.
    #[must_use]
    pub fn has_port(&self, port: u16) -> bool {
        PORTS.contains(&port)
            || self.allow.iter().any(|rule| match rule {
                Rule::Net { port: allowed, .. } => allowed.is_none_or(|allowed| allowed == port),
                Rule::Name { .. } => false,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_shown() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3:8080", "10.1.2.3:8080"),
            ("fd00::/8", "fd00::/8"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("[::1]:80", "[::1]:80"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            (" Intranet.Example:8443 ", "intranet.example:8443"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("*.corp.example", "*.corp.example"),
            ("localhost:3000", "localhost:3000"),
        ] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), shown, "{text}");
        }
        for text in [
            "",
            "*",
            "*.",
            "a b",
            "http://x",
            "x:y",
            "x:0",
            "x:70000",
            "*.10.0.0.1",
            "10.0.0.0/33",
            "a/b",
            "u@h",
            ":80",
        ] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
    }

    #[test]
    fn policies() {
        let policy = Policy {
            allow: [
                "10.0.0.0/8",
                "127.0.0.1:9000",
                "one.example:8443",
                "two.example",
                "*.three.example:81",
            ]
            .iter()
            .map(|rule| rule.parse().unwrap())
            .collect(),
        };
        for (address, port, expected) in [
            ("1.1.1.1", 443, true),
            ("1.1.1.1", 80, true),
            ("1.1.1.1", 22, false),
            ("10.9.9.9", 22, true),
            ("::ffff:10.9.9.9", 22, true),
            ("127.0.0.1", 9000, true),
            ("127.0.0.1", 80, false),
            ("127.0.0.2", 9000, false),
            ("192.168.0.1", 80, false),
        ] {
            assert_eq!(
                policy.allows(address.parse().unwrap(), port),
                expected,
                "{address}:{port}"
            );
        }
        for (name, port, expected) in [
            ("one.example", 8443, true),
            ("one.example", 443, false),
            ("sub.one.example", 8443, false),
            ("two.example", 443, true),
            ("two.example", 8443, false),
            ("a.three.example", 81, true),
            ("a.b.three.example", 81, true),
            ("three.example", 81, false),
            ("xthree.example", 81, false),
        ] {
            assert_eq!(policy.trusts_name(name, port), expected, "{name}:{port}");
        }
    }
}
