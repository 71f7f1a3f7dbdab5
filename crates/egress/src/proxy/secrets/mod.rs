//! Secrets that a session uses and does not have.
//!
//! In the sandbox there are [`placeholders`](Secret::placeholder). A TLS connection to a host that a secret is for is
//! opened here ([`terminate`]), with a certificate of the session's own authority ([`Authority`]): in each request
//! placeholders become secrets at the places that these are for ([`inject`]), and secrets become placeholders again in
//! what comes back ([`scrub`]). Connections to other hosts are carried as they are.
//!
//! Invariant: a secret is put into nothing but a request that goes, over TLS, to a host that it is for and that has
//! proven to be that host; whatever the request says of hosts has to be that host as well.
//! Invariant: what comes back from a host that a secret is for, or was for, has been searched for every secret of the
//! session; what can't be searched (encoded, or in characters of more than a byte) does not come back.
//! Invariant: when and in which pieces something comes back depends on no secret.
//! Invariant: a placeholder of another session, or of a secret that is no more, means nothing.
//! Invariant: the authority is trusted by the session's sandbox and by nobody else, and its key is in memory only.
//!
//! The search is a best effort against a server that cooperates, one that repeats what it was sent: in a message of an
//! error, in a page, in a log. It finds a whole secret, however its characters are escaped, in hexadecimal digits and in
//! Base64. It does not find one that a server compresses into an archive, encrypts, turns round, or gives out in parts:
//! whom a secret is for has it, and can tell it to anybody.

mod authority;
mod body;
mod forms;
mod inject;
mod inside;
mod messages;
mod replace;
mod scrub;
mod search;
mod spelling;
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
use serde::{Deserialize, Serialize};

pub use authority::{Authority, Unmade};

use super::Allowed;
use crate::target::Host;
pub(super) use body::{Body, ROOM, unchanged};
pub(super) use inject::{Refused, in_the_clear};
use replace::Patterns;
pub(super) use scrub::{answer, searchable, switched};
use search::Index;
pub use search::can_be_looked_for;
pub(super) use websocket::Masked;

/// How each placeholder begins.
const PREFIX: &str = "oma_placeholder_";
/// How many hexadecimal digits follow.
const DIGITS: usize = 40;

/// The length of every placeholder, in bytes.
pub const PLACEHOLDER: usize = PREFIX.len() + DIGITS;

/// The shortest secret, in bytes: a shorter one could not be told from chance in what comes back. Also one of fewer than
/// 16 may stand there by chance, if it is a word or a number; it is replaced then, in whichever case it is written.
pub const MIN_SECRET: usize = 8;

/// The longest secret, in bytes: it has to fit a header.
pub const MAX_SECRET: usize = 8 << 10;

/// The most secrets of a session.
pub const MAX_SECRETS: usize = 200;
/// How long they may be together, in bytes.
pub const MAX_TOTAL: usize = 256 << 10;

/// The most values of before that are still looked for, and how long they may be together, in bytes.
const MAX_PAST: usize = 64;
const MAX_PAST_TOTAL: usize = 64 << 10;

/// What a sandbox has in the place of a secret. It has no character that anything would escape.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// What was current before, and may still be echoed by whom it was for.
#[derive(Clone)]
struct Past {
    placeholder: Placeholder,
    value: SecretString,
    hosts: Allowed,
}

/// All secrets of a session at one time, made ready to be looked for.
pub struct Set {
    secrets: Vec<Secret>,
    by_placeholder: HashMap<Placeholder, usize>,
    past: Vec<Past>,
    scrub: Patterns,
    mask: Patterns,
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.secrets).finish()
    }
}

/// How many of these lengths, from the first, are not too many and not too long together.
fn fitting(lengths: impl Iterator<Item = usize>, most: usize, total: usize) -> usize {
    let mut sum = 0_usize;
    let fits = lengths.take(most).take_while(|length| {
        sum = sum.saturating_add(*length);
        sum <= total
    });
    fits.count()
}

/// Why a secret of a session is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// It can't be looked for in what comes back, such as one letter over and over.
    Unsearchable,
    /// Those before it are [`MAX_SECRETS`], or would be more than [`MAX_TOTAL`] bytes together with it.
    TooMany,
}

/// Which of all secrets of a session are left out, so that their placeholders mean nothing, by their names.
#[must_use]
pub fn left_out(secrets: &[Secret]) -> Vec<(&str, LeftOut)> {
    let names = secrets.iter().map(|secret| secret.name.as_str());
    names
        .zip(judge(secrets))
        .filter_map(|(name, why)| Some((name, why?)))
        .collect()
}

/// For each of these whether it is left out.
fn judge(secrets: &[Secret]) -> Vec<Option<LeftOut>> {
    let values = secrets.iter().map(|secret| secret.value.expose_secret());
    let lengths: Vec<Option<usize>> = values
        .map(|value| can_be_looked_for(value).then_some(value.len()))
        .collect();
    let mut room = fitting(
        lengths.iter().filter_map(|length| *length),
        MAX_SECRETS,
        MAX_TOTAL,
    );
    let judged = lengths.iter().map(|length| match length {
        None => Some(LeftOut::Unsearchable),
        Some(_) if room == 0 => Some(LeftOut::TooMany),
        Some(_) => {
            room -= 1;
            None
        }
    });
    judged.collect()
}

impl Set {
    /// These secrets now, after those of `before`, without such as are [`left_out`].
    #[must_use]
    pub fn new(mut secrets: Vec<Secret>, before: Option<&Self>) -> Self {
        let mut judged = judge(&secrets).into_iter();
        secrets.retain(|_| judged.next().flatten().is_none());
        let mut past: Vec<Past> = Vec::new();
        if let Some(before) = before {
            let is_current = |old: &Past| {
                secrets.iter().any(|secret| {
                    secret.value.expose_secret() == old.value.expose_secret() && secret.hosts == old.hosts
                })
            };
            let gone = before.secrets.iter().map(|secret| Past {
                placeholder: secret.placeholder.clone(),
                value: secret.value.clone(),
                hosts: secret.hosts.clone(),
            });
            past = gone
                .chain(before.past.iter().cloned())
                .filter(|old| !is_current(old))
                .collect();
            let lengths = past.iter().map(|old| old.value.expose_secret().len());
            let fit = fitting(lengths, MAX_PAST, MAX_PAST_TOTAL);
            past.truncate(fit);
        }
        let current = secrets.iter().map(|secret| (&secret.value, &secret.placeholder));
        let old = past.iter().map(|old| (&old.value, &old.placeholder));
        let named = current.chain(old);
        let index =
            Index::new(named.map(|(value, placeholder)| (value.expose_secret(), placeholder.as_str())));
        let scrub = Patterns::new(Arc::new(index));
        let by_placeholder = secrets.iter().enumerate();
        let by_placeholder = by_placeholder.map(|(at, secret)| (secret.placeholder.clone(), at));
        Self {
            by_placeholder: by_placeholder.collect(),
            mask: scrub.masking(),
            scrub,
            past,
            secrets,
        }
    }

    /// Whether some secret is for this host, or was: who has had one may still tell it.
    #[must_use]
    pub fn concerns(&self, host: &Host) -> bool {
        let was_for = |old: &Past| matches!(host, Host::Name(_)) && old.hosts.admits(host);
        self.secrets.iter().any(|secret| secret.is_for(host)) || self.past.iter().any(was_for)
    }

    fn find(&self, placeholder: &str) -> Option<&Secret> {
        let at = self.by_placeholder.get(&Placeholder(placeholder.to_owned()))?;
        self.secrets.get(*at)
    }
}

/// Why a placeholder is not taken along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

    #[test]
    fn whom_a_secret_was_for_is_still_searched() {
        let host = |name: &str| crate::target::host(name).unwrap();
        let before = set();
        let mut narrowed = secret(1);
        narrowed.hosts = listed("narrow.test");
        let now = Set::new(vec![narrowed], Some(&before));
        for name in ["narrow.test", "api.test", "other.test"] {
            assert!(now.concerns(&host(name)), "{name}");
        }
        assert!(!now.concerns(&host("evil.test")) && !now.concerns(&host("203.0.113.1")));
        let found = now.find(placeholder(1).as_str()).unwrap();
        assert!(!found.is_for(&host("api.test")));
        let gone = Set::new(Vec::new(), Some(&now));
        assert!(gone.concerns(&host("api.test")) && gone.concerns(&host("narrow.test")));
    }

    #[test]
    fn a_session_has_a_bounded_number_of_secrets() {
        let numbered = |length: usize| {
            move |number: usize| {
                let mut secret = secret(1);
                secret.placeholder = Placeholder::new(&[u8::try_from(number % 251).unwrap(); 20]);
                // Numbers one after the other, which repeat nothing for long.
                let text: String = (number * 10_000..)
                    .map(|number| number.to_string())
                    .take(length)
                    .collect();
                secret.value = SecretString::from(text[..length].to_owned());
                secret
            }
        };
        let many: Vec<Secret> = (0..MAX_SECRETS + 1).map(numbered(16)).collect();
        assert_eq!(left_out(&many), [("ONE", LeftOut::TooMany)]);
        assert_eq!(Set::new(many, None).secrets.len(), MAX_SECRETS);
        let mut long: Vec<Secret> = (0..40).map(numbered(MAX_SECRET)).collect();
        long[1].value = SecretString::from("a".repeat(MAX_SECRET));
        let expected = |at: usize| match at {
            1 => Some(LeftOut::Unsearchable),
            // It takes no room from those behind it.
            _ if at <= MAX_TOTAL / MAX_SECRET => None,
            _ => Some(LeftOut::TooMany),
        };
        assert_eq!(judge(&long), (0..40).map(expected).collect::<Vec<_>>());
        let set = Set::new(long, None);
        assert_eq!(set.secrets.len(), MAX_TOTAL / MAX_SECRET);
        let later = Set::new(Vec::new(), Some(&set));
        assert_eq!(later.past.len(), MAX_PAST_TOTAL / MAX_SECRET);
    }
}
