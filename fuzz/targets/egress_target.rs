//! What a user names as an address: what is checked must be what is dialled, however it was spelled.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use oma_egress::Rule;
use oma_egress::address::{canonical, is_public};
use oma_egress::target::{Host, MAX_URL, Target, host};

fuzz_target!(|text: &str| {
    if let Ok(target) = Target::parse(text) {
        assert!(target.url.as_str().len() <= 2 * MAX_URL);
        assert!(matches!(target.url.scheme(), "http" | "https"));
        assert!(target.url.username().is_empty() && target.url.password().is_none());
        assert_eq!(target.url.fragment(), None);
        assert_eq!(target.url.host_str(), Some(target.host.to_string().as_str()));
        assert_eq!(target.url.port_or_known_default(), Some(target.port));
        check(&target.host);
        if target.url.as_str().len() <= MAX_URL {
            assert_eq!(Target::parse(target.url.as_str()).as_ref(), Ok(&target), "it stays the same");
        }
        assert_eq!(host(&target.host.to_string()).as_ref(), Ok(&target.host));
    }
    if let Ok(host) = host(text) {
        check(&host);
    }
    // A rule of the operator's is read from text as well; a rule for an address holds for the address.
    if let Ok(Rule::Name { name, .. }) = text.parse::<Rule>() {
        assert!(name.parse::<IpAddr>().is_err(), "{name}");
    }
});

fn check(host: &Host) {
    match host {
        Host::Name(name) => {
            assert!(!name.is_empty() && name.len() <= 253);
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
            assert!(name.bytes().all(plain), "{name}");
            assert!(name.parse::<IpAddr>().is_err(), "{name}");
            // Nothing that a resolver could take for a number.
            let last = name.rsplit('.').next().unwrap_or_default();
            assert!(!last.bytes().all(|byte| byte.is_ascii_digit()), "{name}");
        }
        Host::Address(address) => {
            assert_eq!(canonical(*address), *address);
            let _ = is_public(*address);
        }
    }
}
