//! The guard itself: clients that dial only what was checked, and fetching with them.

use std::error::Error as StdError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Client, Response};
use url::Url;

use crate::error::Error;
use crate::policy::Policy;
use crate::resolve::{Checked, Resolve, System};
use crate::target::{Host, Target};

/// How long it may take to connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection waits for another request; soon closed, so that names are looked up again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Clients that are kept; there is one for each port.
const MAX_CLIENTS: usize = 16;

/// The `User-Agent` of every request.
const USER_AGENT: &str = concat!(
    "openclaw-managed-agents/",
    env!("CARGO_PKG_VERSION"),
    " (+https://github.com/openclaw/managed-agents)"
);

/// What to do with a body that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// The fetch fails.
    Refuse,
    /// What is too much is not read.
    Cut,
}

/// Bounds on one fetch, over all its redirects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The longest body, in bytes, after decompression.
    pub max_body: u64,
    /// What happens to a longer one.
    pub excess: Excess,
    /// The most redirects that are followed.
    pub max_redirects: u32,
    /// How long it may take from the first lookup to the last byte.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body: 10 << 20,
            excess: Excess::Refuse,
            max_redirects: 5,
            timeout: Duration::from_secs(30),
        }
    }
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where it came from, after all redirects.
    pub final_url: Url,
    /// The HTTP status; any status is an answer.
    pub status: u16,
    /// The `Content-Type`, where there is a legible one.
    pub content_type: Option<String>,
    /// The body.
    pub body: Bytes,
    /// Whether the body goes on.
    pub truncated: bool,
}

/// Dials for users. Meant to be made once and shared.
pub struct Guard {
    policy: Arc<Policy>,
    resolver: Arc<dyn Resolve>,
    /// One client per port, since what may be dialled depends on the port, and a resolver is not told it. The one
    /// that was used last is the last.
    clients: Mutex<Vec<(u16, Client)>>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Guard {
    /// A guard that keeps to this policy and asks the operating system for addresses.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self::with_resolver(policy, Arc::new(System::default()))
    }

    /// A guard that asks this resolver for addresses.
    #[must_use]
    pub fn with_resolver(policy: Policy, resolver: Arc<dyn Resolve>) -> Self {
        Self {
            policy: Arc::new(policy),
            resolver,
            clients: Mutex::default(),
        }
    }

    /// What may be dialled.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Checks what can be checked without a lookup.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`] or [`Error::Refused`].
    pub fn check(&self, url: &str) -> Result<Target, Error> {
        let target = Target::parse(url)?;
        self.admit(&target.host, target.port)?;
        Ok(target)
    }

    /// Fetches a page. Redirects are followed, each of them checked.
    ///
    /// # Errors
    /// [`Error`]; a status that tells of a failure is none.
    pub async fn get(&self, url: &str, limits: &Limits) -> Result<Fetched, Error> {
        self.get_with(url, HeaderMap::new(), limits).await
    }

    /// Fetches a page with these request headers. Only those that say what is accepted follow a redirect to
    /// another origin.
    ///
    /// # Errors
    /// [`Error`]; a status that tells of a failure is none.
    pub async fn get_with(&self, url: &str, headers: HeaderMap, limits: &Limits) -> Result<Fetched, Error> {
        self.get_where(url, headers, limits, &|_| true).await
    }

    /// The same, where the address, and each that it redirects to, has to be admitted.
    ///
    /// # Errors
    /// [`Error`]; a status that tells of a failure is none.
    pub async fn get_where(
        &self,
        url: &str,
        headers: HeaderMap,
        limits: &Limits,
        admits: &(dyn Fn(&Url) -> bool + Send + Sync),
    ) -> Result<Fetched, Error> {
        let fetch = Box::pin(self.follow(url, headers, limits, admits));
        tokio::time::timeout(limits.timeout, fetch)
            .await
            .map_err(|_| Error::Timeout(limits.timeout))?
    }

    /// A client for requests of any kind to this URL, and the URL in canonical form. The client follows no
    /// redirect and takes no proxy.
    ///
    /// It is for this URL's origin only: it checks whatever name it dials, but an address that stands in
    /// another URL would pass it unchecked. Ask for a client for every URL.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`], [`Error::Refused`], or [`Error::Failed`] when no client can be made.
    pub fn client_for(&self, url: &str) -> Result<(Client, Url), Error> {
        let target = self.check(url)?;
        Ok((self.client(target.port)?, target.url))
    }

    pub(crate) fn resolver(&self) -> &Arc<dyn Resolve> {
        &self.resolver
    }

    pub(crate) fn shared_policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Checks what of a host can be checked without a lookup.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn admit(&self, host: &Host, port: u16) -> Result<(), Error> {
        let refuse = |reason| Error::Refused {
            host: format!("{host}:{port}"),
            reason,
        };
        match host {
            Host::Address(address) if self.policy.allows(*address, port) => Ok(()),
            Host::Address(_) if self.policy.has_port(port) => Err(refuse("it is not public")),
            // Whether the addresses behind a name are allowed shows when it is dialled.
            Host::Name(name) if self.policy.trusts_name(name, port) => Ok(()),
            Host::Name(_) if self.policy.has_port(port) => Ok(()),
            _ => Err(refuse("only ports 80 and 443 may be used")),
        }
    }

    fn client(&self, port: u16) -> Result<Client, Error> {
        {
            let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(index) = clients.iter().position(|(known, _)| *known == port) {
                clients[index..].rotate_left(1);
                return Ok(clients[clients.len() - 1].1.clone());
            }
        }
        // Made outside the lock, for it reads the machine's certificates; two at once do no harm.
        let resolver = Checked {
            resolver: Arc::clone(&self.resolver),
            policy: Arc::clone(&self.policy),
            port,
        };
        let client = Client::builder()
            .dns_resolver(Arc::new(resolver))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(2)
            .build()
            .map_err(|error| failed(&error))?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|(known, _)| *known != port);
        if clients.len() >= MAX_CLIENTS {
            clients.remove(0);
        }
        clients.push((port, client.clone()));
        Ok(client)
    }

    async fn follow(
        &self,
        url: &str,
        mut headers: HeaderMap,
        limits: &Limits,
        admits: &(dyn Fn(&Url) -> bool + Send + Sync),
    ) -> Result<Fetched, Error> {
        let mut target = Target::parse(url)?;
        for _ in 0..=limits.max_redirects {
            self.admit(&target.host, target.port)?;
            if !admits(&target.url) {
                let url = target.url.as_str().chars().take(200).collect();
                return Err(Error::NotAdmitted(url));
            }
            let client = self.client(target.port)?;
            let request = client.get(target.url.clone()).headers(headers.clone());
            let response = request.send().await.map_err(|error| failed(&error))?;
            let Some(location) = redirect(&response) else {
                return take(response, target, limits).await;
            };
            let next = join(&target.url, location)?;
            if !next.same_origin(&target) {
                headers = harmless(&headers);
            }
            target = next;
        }
        Err(Error::TooManyRedirects(limits.max_redirects))
    }
}

/// Where the answer redirects to, if it does.
fn redirect(response: &Response) -> Option<&[u8]> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    Some(response.headers().get(LOCATION)?.as_bytes())
}

fn join(base: &Url, location: &[u8]) -> Result<Target, Error> {
    let bad = |reason: String| Error::BadRedirect(reason);
    let location = std::str::from_utf8(location)
        .map_err(|error| bad(error.to_string()))?
        .trim();
    if location.chars().any(char::is_control) {
        return Err(bad("it has control characters in it".to_owned()));
    }
    let url = base.join(location).map_err(|error| bad(error.to_string()))?;
    Target::from_url(url).map_err(|error| bad(error.to_string()))
}

/// The headers that any origin may see.
fn harmless(headers: &HeaderMap) -> HeaderMap {
    let kept = [ACCEPT, ACCEPT_LANGUAGE];
    headers
        .iter()
        .filter(|(name, _)| kept.contains(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

async fn take(mut response: Response, target: Target, limits: &Limits) -> Result<Fetched, Error> {
    let too_large = || Error::TooLarge(limits.max_body);
    if limits.excess == Excess::Refuse
        && response
            .content_length()
            .is_some_and(|length| length > limits.max_body)
    {
        return Err(too_large());
    }
    let content_type = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let max = usize::try_from(limits.max_body).unwrap_or(usize::MAX);
    let mut body = BytesMut::new();
    let mut truncated = false;
    // The pieces come decompressed, so a bomb is cut off like any other flood.
    while let Some(piece) = response.chunk().await.map_err(|error| failed(&error))? {
        let room = max - body.len();
        if piece.len() <= room {
            body.extend_from_slice(&piece);
            continue;
        }
        if limits.excess == Excess::Refuse {
            return Err(too_large());
        }
        body.extend_from_slice(&piece[..room]);
        truncated = true;
        break;
    }
    let status = response.status().as_u16();
    Ok(Fetched {
        final_url: target.url,
        status,
        content_type,
        body: body.freeze(),
        truncated,
    })
}

/// The guard's own word where the error has one inside, otherwise what went wrong, without the URL.
#[must_use]
pub fn failed(error: &reqwest::Error) -> Error {
    let mut text = String::new();
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(ours) = inner.downcast_ref::<Error>() {
            return ours.clone();
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    if error.is_timeout() {
        text = format!("no connection within {CONNECT_TIMEOUT:?}");
    } else if text.is_empty() {
        text = "the request could not be made".to_owned();
    }
    Error::Failed(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_keeps_its_client() {
        let allow = vec!["127.0.0.1".parse().unwrap()];
        let guard = Guard::new(Policy { allow });
        let dial = |port: u16| guard.client_for(&format!("http://127.0.0.1:{port}/")).unwrap();
        for port in 8000..8000 + 2 * u16::try_from(MAX_CLIENTS).unwrap() {
            dial(80);
            dial(port);
        }
        let clients = guard.clients.lock().unwrap();
        assert_eq!(clients.len(), MAX_CLIENTS);
        assert!(clients.iter().any(|(port, _)| *port == 80));
    }
}
