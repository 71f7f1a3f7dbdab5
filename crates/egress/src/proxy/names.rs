//! Addresses that stand for names: what a session's processes are told that a name leads to.
//!
//! They are loopback addresses, so a connection to one of them reaches whoever listens inside the sandbox on the
//! server's behalf, and tells by its address which name was meant. Nothing else could be reached with them.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// `127.64.0.0/10`, far from the address that programs use among themselves.
const FIRST: u32 = u32::from_be_bytes([127, 64, 0, 0]);
const BITS: u32 = 22;

/// The most names that are remembered; the oldest is forgotten first.
const MAX_NAMES: usize = 4_096;

/// Names and their addresses.
#[derive(Default)]
pub(super) struct Names(Mutex<Known>);

#[derive(Default)]
struct Known {
    addresses: HashMap<String, Ipv4Addr>,
    names: HashMap<Ipv4Addr, String>,
    by_age: VecDeque<String>,
}

impl Names {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address that stands for a name.
    pub(super) fn address(&self, name: &str) -> Ipv4Addr {
        let mut known = self.lock();
        if let Some(address) = known.addresses.get(name) {
            return *address;
        }
        if known.by_age.len() >= MAX_NAMES
            && let Some(oldest) = known.by_age.pop_front()
            && let Some(address) = known.addresses.remove(&oldest)
        {
            known.names.remove(&address);
        }
        // The same address after a restart of the server, as a rule: a process may have kept it.
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let mut place = hasher.finish();
        let address = loop {
            let low = u32::try_from(place & ((1 << BITS) - 1)).unwrap_or_default();
            let address = Ipv4Addr::from(FIRST | low);
            if !known.names.contains_key(&address) {
                break address;
            }
            place = place.wrapping_add(1);
        };
        known.addresses.insert(name.to_owned(), address);
        known.names.insert(address, name.to_owned());
        known.by_age.push_back(name.to_owned());
        address
    }

    /// The name that an address stands for.
    pub(super) fn name(&self, address: IpAddr) -> Option<String> {
        match address.to_canonical() {
            IpAddr::V4(address) => self.lock().names.get(&address).cloned(),
            IpAddr::V6(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_an_address_of_its_own() {
        let names = Names::default();
        let first = names.address("first.example");
        assert_eq!(names.address("first.example"), first);
        assert_eq!(Names::default().address("first.example"), first);
        for number in 1..MAX_NAMES {
            let name = format!("{number}.example");
            let address = names.address(&name);
            assert!(address.is_loopback() && address.octets()[1] >= 64 && address.octets()[1] < 128);
            assert_eq!(names.name(address.into()), Some(name));
        }
        assert_eq!(names.name(first.into()), Some("first.example".to_owned()));
        names.address("last.example");
        assert_eq!(names.name(first.into()), None, "the oldest makes room");
        assert_eq!(names.name(Ipv4Addr::LOCALHOST.into()), None);
        assert_eq!(names.lock().names.len(), MAX_NAMES);
    }
}
