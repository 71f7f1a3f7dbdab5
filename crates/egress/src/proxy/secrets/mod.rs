//! Secrets that a session uses and does not have.
//!
//! In the sandbox there are [`placeholders`](Secret::placeholder). A TLS connection to a host that a secret is for is
//! opened here ([`terminate`]), with a certificate of the session's own authority ([`Authority`]): in each request
//! placeholders become secrets at the places that these are for ([`inject`]), and secrets become placeholders again in
//! what comes back ([`scrub`]). Connections to other hosts are carried as they are.
//!
//! Invariant: a secret is put into nothing but a request that goes, over TLS, to a host that it is for and that has
//! proven to be that host; whatever the request says of hosts has to be that host as well.
//! Invariant: what comes back on a connection that was opened has been searched for every secret of the session.
//! Invariant: a placeholder of another session, or of a secret that is no more, means nothing.
//! Invariant: the authority is trusted by the session's sandbox and by nobody else, and its key is in memory only.

mod authority;
mod body;
mod forms;
mod inject;
mod inside;
mod replace;
mod scrub;
mod terminate;
mod websocket;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls_platform_verifier::BuilderVerifierExt as _;
use secrecy::{ExposeSecret as _, SecretString};

pub use authority::{Authority, Unmade};

use super::Allowed;
use crate::target::Host;
pub(super) use body::ROOM;
pub(super) use inject::{Refused, in_the_clear};
use replace::Patterns;

/// How each placeholder begins.
const PREFIX: &str = "oma_placeholder_";
/// How many hexadecimal digits follow.
const DIGITS: usize = 40;

/// The length of every placeholder, in bytes.
pub const PLACEHOLDER: usize = PREFIX.len() + DIGITS;

/// The shortest secret, in bytes: a shorter one could not be told from chance in what comes back.
pub const MIN_SECRET: usize = 8;

/// The longest secret, in bytes: it has to fit a header.
pub const MAX_SECRET: usize = 8 << 10;

/// The most values of before that are still looked for.
const MAX_PAST: usize = 64;

/// What a sandbox has in the place of a secret. It has no character that anything would escape.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Placeholder(String);

impl Placeholder {
    /// The placeholder with these random bytes.
    #[must_use]
    pub fn new(random: &[u8; DIGITS / 2]) -> Self {
        Self(format!("{PREFIX}{}", hex::encode(random)))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where in a request a secret may be put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// In headers.
    pub header: bool,
    /// In the query of the URL.
    pub query: bool,
    /// In the body.
    pub body: bool,
}

/// A secret.
#[derive(Clone)]
pub struct Secret {
    /// The variable that has its placeholder.
    pub name: String,
    /// What the sandbox has.
    pub placeholder: Placeholder,
    /// What the host gets: from [`MIN_SECRET`] to [`MAX_SECRET`] bytes without control characters.
    pub value: SecretString,
    /// The hosts that it is for.
    pub hosts: Allowed,
    /// Where in requests to them.
    pub places: Places,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("name", &self.name)
            .field("hosts", &self.hosts)
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

impl Secret {
    /// Whether it is for this host. It is for none that has only an address: that proves nobody's name.
    #[must_use]
    pub fn is_for(&self, host: &Host) -> bool {
        matches!(host, Host::Name(_)) && self.hosts.admits(host)
    }
}

/// All secrets of a session at one time, made ready to be looked for.
pub struct Set {
    secrets: Vec<Secret>,
    by_placeholder: HashMap<Placeholder, usize>,
    /// Values that were current before, and may still be echoed.
    past: Vec<(Placeholder, SecretString)>,
    scrub: Arc<Patterns>,
    mask: Arc<Patterns>,
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.secrets).finish()
    }
}

impl Set {
    /// These secrets now, after those of `before`.
    #[must_use]
    pub fn new(secrets: Vec<Secret>, before: Option<&Self>) -> Self {
        let mut past = Vec::new();
        if let Some(before) = before {
            let value = |text: &SecretString| text.expose_secret().to_owned();
            let is_current = |old: &SecretString| {
                let mut current = secrets.iter();
                current.any(|secret| secret.value.expose_secret() == old.expose_secret())
            };
            let gone = before.secrets.iter();
            let gone = gone.map(|secret| (secret.placeholder.clone(), &secret.value));
            let earlier = before
                .past
                .iter()
                .map(|(placeholder, old)| (placeholder.clone(), old));
            past = gone
                .chain(earlier)
                .filter(|(_, old)| !is_current(old))
                .map(|(placeholder, old)| (placeholder, SecretString::from(value(old))))
                .take(MAX_PAST)
                .collect();
        }
        let mut scrub = Patterns::new();
        let current = secrets.iter().map(|secret| (&secret.placeholder, &secret.value));
        for (placeholder, value) in
            current.chain(past.iter().map(|(placeholder, value)| (placeholder, value)))
        {
            let placeholder = forms::Escape::None.apply(placeholder.as_str());
            for form in forms::legible(value.expose_secret()) {
                scrub.add(form, Some(placeholder.clone()));
            }
            for form in forms::encoded(value.expose_secret()) {
                scrub.add(form, None);
            }
        }
        let by_placeholder = secrets.iter().enumerate();
        let by_placeholder = by_placeholder.map(|(at, secret)| (secret.placeholder.clone(), at));
        Self {
            by_placeholder: by_placeholder.collect(),
            mask: Arc::new(scrub.masking()),
            scrub: Arc::new(scrub),
            past,
            secrets,
        }
    }

    /// Whether some secret is for this host.
    #[must_use]
    pub fn is_for(&self, host: &Host) -> bool {
        self.secrets.iter().any(|secret| secret.is_for(host))
    }

    fn find(&self, placeholder: &str) -> Option<&Secret> {
        let at = self.by_placeholder.get(&Placeholder(placeholder.to_owned()))?;
        self.secrets.get(*at)
    }
}

/// Why a placeholder is not taken along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Withheld {
    /// The request is not over TLS.
    InTheClear,
    /// The secret is not for this host.
    OtherHost,
    /// The session has no secret by it.
    Unknown,
    /// Secrets are put into headers, queries and bodies, and into no path.
    InPath,
}

/// The secrets could not be looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the session's secrets can't be read at the moment")]
pub struct Unavailable;

/// Who knows the secrets of a session.
#[async_trait]
pub trait Secrets: Send + Sync + 'static {
    /// Those of now. Asked for each connection and each request, so that a change holds at once.
    ///
    /// # Errors
    /// [`Unavailable`]; whatever needed them fails.
    async fn current(&self) -> Result<Arc<Set>, Unavailable>;
}

/// How servers are spoken to whose connections were opened.
#[derive(Clone)]
pub struct Upstream(Arc<ClientConfig>);

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upstream")
    }
}

impl Upstream {
    /// Trusts whom the operating system trusts, as every other request of the platform does.
    ///
    /// # Errors
    /// When the system's certificates can't be read.
    pub fn system() -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_platform_verifier()?
            .with_no_client_auth();
        Ok(Self::new(config))
    }

    pub(in crate::proxy) fn new(mut config: ClientConfig) -> Self {
        // A session must not be told by another one's tickets.
        config.resumption = Resumption::disabled();
        Self(Arc::new(config))
    }

    fn speaking(&self, protocols: Vec<Vec<u8>>) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.0);
        config.alpn_protocols = protocols;
        Arc::new(config)
    }
}

/// What it takes to use secrets in one session.
pub struct Keeper {
    /// Which secrets there are.
    pub secrets: Arc<dyn Secrets>,
    /// Whom the sandbox trusts.
    pub authority: Arc<Authority>,
    /// How the hosts are spoken to.
    pub upstream: Upstream,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Hosts;

    pub(super) const SECRET: &str = "s3cret/value+\"one\"";

    pub(super) fn placeholder(number: u8) -> Placeholder {
        Placeholder::new(&[number; 20])
    }

    fn listed(host: &str) -> Allowed {
        let mut hosts = Hosts::default();
        assert!(hosts.add(host));
        Allowed::Listed(hosts)
    }

    /// The first is for `api.test`, the second for `other.test`.
    pub(super) fn secret(number: u8) -> Secret {
        let (name, value, host) = match number {
            1 => ("ONE", SECRET, "api.test"),
            _ => ("TWO", "second-secret", "other.test"),
        };
        Secret {
            name: name.to_owned(),
            placeholder: placeholder(number),
            value: SecretString::from(value),
            hosts: listed(host),
            places: Places {
                header: true,
                query: true,
                body: host == "api.test",
            },
        }
    }

    pub(super) fn set() -> Set {
        Set::new(vec![secret(1), secret(2)], None)
    }

    #[test]
    fn secrets_are_for_names() {
        let mut any = secret(1);
        any.hosts = Allowed::Public;
        let address = crate::target::host("203.0.113.1").unwrap();
        let name = crate::target::host("anything.test").unwrap();
        assert!(any.is_for(&name) && !any.is_for(&address));
        assert!(!secret(1).is_for(&name));
    }

    #[test]
    fn nothing_shows_a_secret() {
        let set = set();
        let shown = format!("{set:?} {:?}", secret(1));
        assert!(!shown.contains(SECRET) && !shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("ONE"));
    }
}
