//! Which hosts a session may reach.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::target::{self, Host};

/// Which hosts a session may reach, where the guard allows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowed {
    /// Every public one.
    Public,
    /// Those of a list.
    Listed(Hosts),
}

impl Allowed {
    /// Whether a host may be reached. Addresses are on no list: a list of names would otherwise mean whatever those
    /// names lead to.
    #[must_use]
    pub fn admits(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Public, _) => true,
            (Self::Listed(hosts), Host::Name(name)) => hosts.has(name),
            (Self::Listed(_), Host::Address(_)) => false,
        }
    }

    /// Whether what is said inside a connection has to be for the host that it was opened to.
    pub(super) fn is_strict(&self) -> bool {
        matches!(self, Self::Listed(_))
    }
}

/// Host names, and names below which all are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    exact: HashSet<String>,
    below: HashSet<String>,
}

impl Hosts {
    /// Adds a host name, or `*.name` for every name below it. Returns whether it is one; addresses are none.
    pub fn add(&mut self, pattern: &str) -> bool {
        let (set, name) = match pattern.strip_prefix("*.") {
            Some(name) => (&mut self.below, name),
            None => (&mut self.exact, pattern),
        };
        match target::host(name) {
            Ok(Host::Name(name)) => {
                set.insert(name);
                true
            }
            Ok(Host::Address(_)) | Err(_) => false,
        }
    }

    /// `name` is canonical.
    fn has(&self, name: &str) -> bool {
        let mut above = name;
        self.exact.contains(name)
            || std::iter::from_fn(|| {
                above = above.split_once('.')?.1;
                Some(above)
            })
            .any(|parent| self.below.contains(parent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hosts(patterns: &[&str]) -> Allowed {
        let mut hosts = Hosts::default();
        for pattern in patterns {
            assert!(hosts.add(pattern), "{pattern}");
        }
        Allowed::Listed(hosts)
    }

    #[test]
    fn a_list_means_what_it_says() {
        let allowed = hosts(&["api.example.com", "*.cdn.example", "Bücher.example"]);
        for (name, is_admitted) in [
            ("api.example.com", true),
            ("API.Example.COM", true),
            ("api.example.com.", true),
            ("example.com", false),
            ("x.api.example.com", false),
            ("api.example.com.evil.example", false),
            ("evilapi.example.com", false),
            ("a.cdn.example", true),
            ("a.b.cdn.example", true),
            ("cdn.example", false),
            ("evilcdn.example", false),
            ("xn--bcher-kva.example", true),
            ("bücher.example", true),
            ("ａｐｉ.example.com", true),
            ("127.0.0.1", false),
            ("[::1]", false),
        ] {
            let host = target::host(name).unwrap();
            assert_eq!(allowed.admits(&host), is_admitted, "{name}");
        }
        assert!(Allowed::Public.admits(&target::host("127.0.0.1").unwrap()));
    }

    #[test]
    fn what_is_no_name_is_on_no_list() {
        for pattern in [
            "", "*", "*.", "1.2.3.4", "*.1.2", "0x7f", "a b", "a\0b", "*.*.x", "a/b", "a:80",
        ] {
            assert!(!Hosts::default().add(pattern), "{pattern:?}");
        }
    }

    proptest! {
        #[test]
        fn names_below_are_those_that_end_in_it(name in "[a-c]{1,2}(\\.[a-c]{1,2}){0,4}", parent in "[a-c]{1,2}(\\.[a-c]{1,2}){0,2}") {
            let allowed = hosts(&[&format!("*.{parent}")]);
            let host = target::host(&name).unwrap();
            prop_assert_eq!(allowed.admits(&host), name.ends_with(&format!(".{parent}")));
        }
    }
}
