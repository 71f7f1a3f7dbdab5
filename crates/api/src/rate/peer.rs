//! From which address a request comes. What a request itself says about that (`X-Forwarded-For`) counts only as far
//! as proxies that the operator has named say it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

const FORWARDED: &str = "x-forwarded-for";
/// The most hops that are looked at.
const HOPS: usize = 32;

/// The address at the other end of the connection. Whoever serves the router adds it to each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The address that a request comes from. Without a connection (in tests) that is nowhere.
pub(crate) fn origin(peer: Option<&Peer>, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut origin = peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| {
        peer.0.ip().to_canonical()
    });
    let trusts = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    // Each proxy appends whom it talks to, so the list is read from its end, as long as the teller is trusted.
    let values = headers.get_all(FORWARDED).into_iter().rev();
    // What can't be read is a hop like any other: nobody knows who it is, so nothing before it is believed.
    let hops = values.flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
    for hop in hops.take(HOPS) {
        if !trusts(&origin) {
            break;
        }
        match address(hop.trim()) {
            Some(address) => origin = address,
            None => break,
        }
    }
    origin
}

/// An address, with a port or without.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = bare
        .parse()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

/// What shares a bucket: an address, or for IPv6 the network that one customer gets, who may use any address of it.
pub(crate) fn neighbourhood(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"]
            .map(|text| text.parse().expect("a network"))
            .into();
        for (peer, forwarded, origin) in [
            ("192.0.2.1:5", &[][..], "192.0.2.1"),
            ("192.0.2.1:5", &["203.0.113.9"], "192.0.2.1"),
            ("10.0.0.1:5", &[], "10.0.0.1"),
            ("10.0.0.1:5", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1:5", &["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1:5", &["203.0.113.9, 10.2.3.4"], "203.0.113.9"),
            ("10.0.0.1:5", &["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1:5", &["203.0.113.9", "10.2.3.4"], "203.0.113.9"),
            ("10.0.0.1:5", &["203.0.113.9:4711"], "203.0.113.9"),
            ("10.0.0.1:5", &["unknown"], "10.0.0.1"),
            ("10.0.0.1:5", &["1.1.1.1", "\u{ff}, 203.0.113.9"], "10.0.0.1"),
            ("10.0.0.1:5", &["1.1.1.1, nonsense, 10.2.3.4"], "10.2.3.4"),
            ("[fd00::1]:5", &["[2001:db8::1]:80"], "2001:db8::1"),
            ("[::ffff:10.0.0.1]:5", &["203.0.113.9"], "203.0.113.9"),
        ] {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                let value = HeaderValue::from_bytes(value.as_bytes()).expect("legal header");
                headers.append(FORWARDED, value);
            }
            let peer = Peer(peer.parse().expect("an address"));
            let found = super::origin(Some(&peer), &headers, &trusted);
            assert_eq!(found.to_string(), origin, "{peer:?} {forwarded:?}");
        }
    }

    #[test]
    fn an_ipv6_network_is_one_neighbour() {
        let of = |text: &str| neighbourhood(text.parse().expect("an address"));
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::1"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
