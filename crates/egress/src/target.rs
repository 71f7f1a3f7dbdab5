//! From what a user named to one canonical target: scheme, host and port.

use std::fmt;
use std::net::IpAddr;

use url::Url;

use crate::address::canonical;
use crate::error::Error;

/// The longest URL, in bytes.
pub const MAX_URL: usize = 8_192;

/// A canonical host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name in lower case and ASCII, without a dot at its end.
    Name(String),
    /// An address; never an IPv4 address dressed as IPv6.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
        }
    }
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The URL, with the canonical host in it and without a fragment.
    pub url: Url,
    /// The host.
    pub host: Host,
    /// The port, also where the URL leaves it to the scheme.
    pub port: u16,
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`] when it is not an `http` or `https` URL with a plain host.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_URL {
            return Err(invalid(format!("it is longer than {MAX_URL} bytes")));
        }
        // The URL standard takes these out silently, so that what is read is not what was written.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(invalid("it has white space or control characters in it"));
        }
        let url = Url::parse(text).map_err(|error| invalid(error.to_string()))?;
        Self::from_url(url)
    }

    /// Checks and canonicalises a URL.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`], as for [`Target::parse`].
    pub fn from_url(mut url: Url) -> Result<Self, Error> {
        if url.as_str().len() > MAX_URL {
            return Err(invalid(format!("it is longer than {MAX_URL} bytes")));
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid("only http and https can be fetched"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("it has a user name or a password in it"));
        }
        let host = canonical_host(url.host().ok_or_else(|| invalid("it has no host"))?)?;
        let port = url
            .port_or_known_default()
            .filter(|port| *port != 0)
            .ok_or_else(|| invalid("it has no port"))?;
        match &host {
            Host::Name(name) => url
                .set_host(Some(name))
                .map_err(|error| invalid(error.to_string()))?,
            Host::Address(address) => {
                url.set_ip_host(*address)
                    .map_err(|()| invalid("its address can't be used"))?;
            }
        }
        url.set_fragment(None);
        Ok(Self { url, host, port })
    }

    /// Whether the other one has the same scheme, host and port.
    #[must_use]
    pub fn same_origin(&self, other: &Self) -> bool {
        self.url.scheme() == other.url.scheme() && self.host == other.host && self.port == other.port
    }
}

/// Reads a host as it stands in a URL.
///
/// # Errors
/// [`Error::InvalidUrl`] when it is neither an address nor a plain name.
pub fn host(text: &str) -> Result<Host, Error> {
    canonical_host(url::Host::parse(text).map_err(|error| invalid(error.to_string()))?)
}

fn canonical_host<S: AsRef<str>>(host: url::Host<S>) -> Result<Host, Error> {
    // The parser has made one address of all the spellings that IPv4 has, and ASCII of other scripts.
    let name = match host {
        url::Host::Ipv4(address) => return Ok(Host::Address(IpAddr::V4(address))),
        url::Host::Ipv6(address) => return Ok(Host::Address(canonical(IpAddr::V6(address)))),
        url::Host::Domain(name) => name,
    };
    let name = name.as_ref().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    if name.is_empty() || name.len() > 253 {
        return Err(invalid("its host is empty or too long"));
    }
    let is_plain = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !name.split('.').all(is_plain) {
        return Err(invalid("its host is not a plain host name"));
    }
    // No top-level domain is a number. A resolver might read such a name as an address.
    if name
        .rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return Err(invalid("its host looks like an address but is none"));
    }
    Ok(Host::Name(name.to_owned()))
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::InvalidUrl(reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_host_of_many_spellings() {
        for (text, host, port) in [
            ("http://example.com", "example.com", 80),
            ("https://EXAMPLE.com./a?b#c", "example.com", 443),
            ("https://example.com:8443/", "example.com", 8443),
            ("https://bücher.example/", "xn--bcher-kva.example", 443),
            ("https://ｅｘａｍｐｌｅ.com/", "example.com", 443),
            ("http://ex%61mple.com/", "example.com", 80),
            ("http://2130706433/", "127.0.0.1", 80),
            ("http://0x7f000001/", "127.0.0.1", 80),
            ("http://0x7f.1/", "127.0.0.1", 80),
            ("http://0177.0.0.1/", "127.0.0.1", 80),
            ("http://017700000001/", "127.0.0.1", 80),
            ("http://127.1/", "127.0.0.1", 80),
            ("http://127.0.0.1./", "127.0.0.1", 80),
            ("http://①②⑦.0.0.1/", "127.0.0.1", 80),
            ("http://127。0。0。1/", "127.0.0.1", 80),
            ("http://0/", "0.0.0.0", 80),
            ("http://[::1]:81/", "[::1]", 81),
            ("http://[::ffff:127.0.0.1]/", "127.0.0.1", 80),
            ("http://[0:0:0:0:0:ffff:7f00:1]/", "127.0.0.1", 80),
            ("http:example.com", "example.com", 80),
            ("http:\\\\example.com\\@127.0.0.1", "example.com", 80),
        ] {
            let target = Target::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(
                (target.host.to_string().as_str(), target.port),
                (host, port),
                "{text}"
            );
            assert_eq!(
                target.url.host_str(),
                Some(host),
                "{text}: what is dialled is what was checked"
            );
            assert_eq!(target.url.fragment(), None);
        }
    }

    #[test]
    fn what_is_refused() {
        let long = format!("https://example.com/{}", "a".repeat(MAX_URL));
        let label = format!("https://{}.com/", "a".repeat(64));
        for (text, expected) in [
            ("", "relative URL"),
            ("example.com", "relative URL"),
            ("ftp://example.com/", "only http and https"),
            ("file:///etc/passwd", "only http and https"),
            ("data:text/plain,hi", "only http and https"),
            ("javascript:alert(1)", "only http and https"),
            ("gopher://127.0.0.1/", "only http and https"),
            ("http://user@example.com/", "user name"),
            ("http://:pass@example.com/", "user name"),
            ("http://example.com\0.evil.com/", "control characters"),
            ("http://example.com%00.evil.com/", "invalid"),
            ("http://exa mple.com/", "white space"),
            (" http://example.com/", "white space"),
            ("http://exam\tple.com/", "white space"),
            ("http://example.com\r\nHost: x/", "white space"),
            ("http://", "empty host"),
            ("http://./", "host"),
            ("http://../", "host"),
            ("http://a..b/", "plain host name"),
            ("http://-a.com/", "plain host name"),
            ("http://a_b.com/", "plain host name"),
            ("http://*.com/", "plain host name"),
            ("http://a.com,b.com/", "plain host name"),
            ("http://127.0.0.1.1/", "invalid"),
            ("http://256.0.0.1/", "invalid"),
            ("http://1.2.3.4.5/", "invalid"),
            ("http://[::1%25eth0]/", "invalid"),
            ("http://[fe80::1%eth0]/", "invalid"),
            ("http://example.com:0/", "no port"),
            ("http://example.com:99999/", "invalid port"),
            ("http://xn--/", ""),
            (&label, ""),
            (&long, "longer than"),
        ] {
            let error = Target::parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_target_stays_the_same_when_read_again(text in "https?://[a-zA-Z0-9.\\-_@:%\\[\\]/\\\\?#é。\u{0}]{1,30}") {
            if let Ok(target) = Target::parse(&text) {
                prop_assert_eq!(Target::parse(target.url.as_str()), Ok(target.clone()));
                if let Host::Name(name) = &target.host {
                    prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.'));
                    prop_assert!(name.parse::<IpAddr>().is_err());
                }
            }
        }
    }
}
