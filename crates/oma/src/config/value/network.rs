//! What networks, and what is in them, are called: addresses, networks, hosts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use oma_egress::target::{Host, host};
use oma_tools::Rule;
use serde_json::json;

use super::{Raw, Value, unexpected};

impl Value for IpNet {
    const NOTATION: &'static str = "network";
    const PLACEHOLDER: &'static str = "NETWORK";

    fn parse(text: &str) -> Result<Self, String> {
        let network = text.parse().ok();
        let address = || text.parse().ok().map(|address: IpAddr| Self::from(address));
        network
            .or_else(address)
            .ok_or_else(|| "it is not a network (`10.0.0.0/8`) or an address".to_owned())
    }

    fn to_json(&self) -> serde_json::Value {
        json!(self.to_string())
    }
}

impl Value for Rule {
    const NOTATION: &'static str = "network, address or host";
    const PLACEHOLDER: &'static str = "RULE";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse::<Self>().map_err(|error| error.to_string())
    }

    fn to_json(&self) -> serde_json::Value {
        json!(self.to_string())
    }
}

/// A host name and an address that it has for us: `NAME=ADDRESS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostAddress {
    /// Canonical.
    pub(crate) name: String,
    pub(crate) address: IpAddr,
}

impl Value for HostAddress {
    const NOTATION: &'static str = "`NAME=ADDRESS`";
    const PLACEHOLDER: &'static str = "NAME=ADDRESS";

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a host name, `=` and an address");
        let (name, address) = text.trim().split_once('=').ok_or_else(wrong)?;
        let Ok(Host::Name(name)) = host(name) else {
            return Err(wrong());
        };
        let address = address.parse().map_err(|_| wrong())?;
        Ok(Self { name, address })
    }

    fn to_json(&self) -> serde_json::Value {
        json!(format!("{}={}", self.name, self.address))
    }
}

/// Where to listen: `ADDR:PORT`, or a bare port, which means the loopback address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) SocketAddr);

impl Value for Listen {
    const NOTATION: &'static str = "`ADDR:PORT` or `PORT`";
    const PLACEHOLDER: &'static str = "ADDR:PORT";

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(port) = text.parse::<u16>() {
            return Ok(Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        numeric.parse().map(Self).map_err(|_| {
            format!("`{text}` is not an address and a port; write it like 127.0.0.1:8080 or [::1]:8080")
        })
    }

    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Integer(value) => Self::parse(&value.to_string()),
            Raw::Text(text) => Self::parse(text),
            other => Err(unexpected("an address and a port", other)),
        }
    }

    fn to_json(&self) -> serde_json::Value {
        json!(self.0.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_takes_addresses_and_bare_ports() {
        for (text, address) in [
            ("8080", "127.0.0.1:8080"),
            ("localhost:1", "127.0.0.1:1"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:0", "[::1]:0"),
        ] {
            assert_eq!(
                Listen::parse(text).map(|listen| listen.0.to_string()),
                Ok(address.to_owned())
            );
        }
        for text in ["", "65536", "example.com:80", "127.0.0.1", ":8080", "::1:80x"] {
            assert!(Listen::parse(text).is_err(), "{text}");
        }
    }
}
