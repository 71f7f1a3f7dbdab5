//! Which addresses are public.
//!
//! The lists are those of the IANA special-purpose registries. What is not known to be public is not: for IPv6
//! only global unicast counts, without the parts of it that are reserved or carry an IPv4 address inside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// IPv4 networks that are not public.
const BLOCKED_V4: [Ipv4Net; 17] = [
    v4(0, 0, 0, 0, 8),        // this network
    v4(10, 0, 0, 0, 8),       // private
    v4(100, 64, 0, 0, 10),    // shared with carriers (CGNAT)
    v4(127, 0, 0, 0, 8),      // loopback
    v4(168, 63, 129, 16, 32), // Azure's platform service, in the midst of public addresses
    v4(169, 254, 0, 0, 16),   // link-local, with most clouds' metadata services
    v4(172, 16, 0, 0, 12),    // private
    v4(192, 0, 0, 0, 24),     // protocol assignments, and Oracle's metadata service
    v4(192, 0, 2, 0, 24),     // documentation
    v4(192, 88, 99, 0, 24),   // 6to4 relays
    v4(192, 168, 0, 0, 16),   // private
    v4(198, 18, 0, 0, 15),    // benchmarks
    v4(198, 51, 100, 0, 24),  // documentation
    v4(203, 0, 113, 0, 24),   // documentation
    v4(224, 0, 0, 0, 4),      // multicast
    v4(240, 0, 0, 0, 4),      // reserved
    v4(255, 255, 255, 255, 32),
];

/// What of IPv6 is in use for public hosts; all the rest is loopback, local, multicast, reserved or unassigned.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// IPv6 networks within [`GLOBAL_V6`] that are not public.
const BLOCKED_V6: [Ipv6Net; 4] = [
    v6(0x2001, 0, 0, 23),     // protocol assignments: Teredo, ORCHID, benchmarks
    v6(0x2001, 0xdb8, 0, 32), // documentation
    v6(0x3fff, 0, 0, 20),     // documentation
    v6(0x3ffe, 0, 0, 16),     // the returned 6bone
];

/// Translates to the IPv4 address in its last four bytes (RFC 6052).
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);

/// Leads to the IPv4 address in its bytes 2 to 5 (RFC 3056).
const SIX_TO_FOUR: Ipv6Net = v6(0x2002, 0, 0, 16);

/// The one form of an address: an IPv4 address that is dressed as IPv6 is IPv4.
#[must_use]
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Whether the address is that of a public host.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match canonical(address) {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !BLOCKED_V4.iter().any(|net| net.contains(&address))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let bytes = address.octets();
    let embedded = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    if NAT64.contains(&address) {
        return is_public_v4(embedded(12));
    }
    if !GLOBAL_V6.contains(&address) || BLOCKED_V6.iter().any(|net| net.contains(&address)) {
        return false;
    }
    if SIX_TO_FOUR.contains(&address) && !is_public_v4(embedded(2)) {
        return false;
    }
    // ISATAP (RFC 5214) hides an IPv4 address behind this interface identifier in any network.
    let isatap = bytes[8] & 0b1111_1100 == 0 && bytes[9..12] == [0, 0x5e, 0xfe];
    !isatap || is_public_v4(embedded(12))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table() {
        for (address, expected) in [
            ("1.1.1.1", true),
            ("8.8.8.8", true),
            ("100.63.255.255", true),
            ("100.128.0.0", true),
            ("172.15.0.1", true),
            ("172.32.0.1", true),
            ("223.255.255.255", true),
            ("2606:4700:4700::1111", true),
            ("2a00:1450:4001:80b::200e", true),
            ("::ffff:1.1.1.1", true),
            ("64:ff9b::1.1.1.1", true),
            ("2002:0101:0101::1", true),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("100.100.100.200", false),
            ("127.0.0.1", false),
            ("127.255.255.254", false),
            ("168.63.129.16", false),
            ("169.254.169.254", false),
            ("172.31.255.255", false),
            ("192.0.0.192", false),
            ("192.168.1.1", false),
            ("198.19.255.255", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::127.0.0.1", false),
            ("::1.1.1.1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:0:127.0.0.1", false),
            ("64:ff9b::10.0.0.1", false),
            ("64:ff9b:1::1.1.1.1", false),
            ("100::1", false),
            ("2001::1", false),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", false),
            ("2001:db8::1", false),
            ("2002:7f00:1::", false),
            ("2002:a00:1::1", false),
            ("3fff::1", false),
            ("5f00::1", false),
            ("fc00::1", false),
            ("fd00:ec2::254", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
            ("2606:4700::5efe:10.0.0.1", false),
            ("2606:4700::200:5efe:127.0.0.1", false),
            ("2606:4700::200:5efe:1.1.1.1", true),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), expected, "{address}");
        }
    }

    /// The blocked IPv4 networks, spelled as in the registries and not as above.
    const PRIVATE: [&str; 17] = [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "255.255.255.255/32",
        "168.63.129.16/32",
    ];

    const PRIVATE_V6: [&str; 14] = [
        "::/128",
        "::1/128",
        "::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
        "4000::/3",
    ];

    fn in_v4(net: &str, random: u32) -> Ipv4Addr {
        let net: Ipv4Net = net.parse().unwrap();
        Ipv4Addr::from_bits(net.network().to_bits() | (random & net.hostmask().to_bits()))
    }

    fn in_v6(net: &str, random: u128) -> Ipv6Addr {
        let net: Ipv6Net = net.parse().unwrap();
        Ipv6Addr::from_bits(net.network().to_bits() | (random & net.hostmask().to_bits()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_private_v4_address_passes_in_any_dress(which in 0..PRIVATE.len(), random: u32, rest: u64) {
            let inner = in_v4(PRIVATE[which], random);
            let [a, b, c, d] = inner.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let part = |shift: u32| (rest >> shift) as u16;
            for address in [
                IpAddr::V4(inner),
                IpAddr::V6(inner.to_ipv6_mapped()),
                IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low)),
                IpAddr::V6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low)),
                IpAddr::V6(Ipv6Addr::new(0x2002, high, low, part(0), part(16), part(32), part(48), 1)),
                IpAddr::V6(Ipv6Addr::new(0x2001, 0, high, low, part(0), part(16), !high, !low)),
                IpAddr::V6(Ipv6Addr::new(0x2606, part(0), part(16), part(32), 0, 0x5efe, high, low)),
                IpAddr::V6(Ipv6Addr::new(0x2606, part(0), part(16), part(32), 0x200, 0x5efe, high, low)),
            ] {
                prop_assert!(!is_public(address), "{address} ({inner})");
            }
        }

        #[test]
        fn no_private_v6_address_passes(which in 0..PRIVATE_V6.len(), random: u128) {
            let address = in_v6(PRIVATE_V6[which], random);
            prop_assert!(!is_public(IpAddr::V6(address)), "{address}");
        }
    }
}
