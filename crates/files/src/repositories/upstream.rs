//! Requests to the hosts of repositories: git's smart protocol over HTTP, of whatever version the two ends speak.
//!
//! Invariant: every request goes through the dial guard, and each has an end.
//! Invariant: a redirect is followed to the same scheme, host and port only.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use http::{Method, StatusCode};
use oma_egress::target::Target;
use reqwest::{Body, Response};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::Hosts;
use oma_domain::ResourceId;

/// How long one request may take, to the last byte of its answer.
const TIMEOUT: Duration = Duration::from_secs(1_800);
/// How often a host may redirect.
const MAX_REDIRECTS: usize = 3;
/// Where a conversation begins, below the address of a repository.
const REFS: &str = "/info/refs";
/// The user that a token stands for, as GitHub wants it; others take any.
const USER: &str = "x-access-token";

/// What git asks a host for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// Cloning and fetching.
    UploadPack,
    /// Pushing.
    ReceivePack,
}

impl Service {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::UploadPack, Self::ReceivePack]
            .into_iter()
            .find(|service| service.name() == name)
    }
}

/// What went wrong with a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It wants to know who asks, or does not take the token.
    Authentication,
    /// It is not for us.
    Forbidden,
    /// There is none.
    NotFound,
    /// It is there, but not what was to be checked out.
    Checkout(String),
    /// Anything else.
    Clone(String),
}

impl Trouble {
    fn of_status(status: StatusCode) -> Option<Self> {
        match status {
            status if status.is_success() || status.is_redirection() => None,
            StatusCode::UNAUTHORIZED => Some(Self::Authentication),
            StatusCode::FORBIDDEN => Some(Self::Forbidden),
            StatusCode::NOT_FOUND | StatusCode::GONE => Some(Self::NotFound),
            status => Some(Self::Clone(format!("its host answered {status}"))),
        }
    }
}

pub(super) fn broken(error: impl std::fmt::Display) -> Trouble {
    Trouble::Clone(error.to_string())
}

fn elsewhere() -> Trouble {
    broken("it has moved to another address; give the session that one")
}

/// A repository to talk to.
pub(super) struct Upstream<'a> {
    pub(super) id: &'a ResourceId,
    pub(super) url: &'a str,
    pub(super) token: Option<SecretString>,
}

/// The address of a repository that others are made from: without slashes at its end.
///
/// # Errors
/// [`Trouble::Clone`] when it is none.
pub(super) fn base(url: &str) -> Result<Url, Trouble> {
    let mut url = Target::parse(url).map_err(broken)?.url;
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    url.set_query(None);
    Ok(url)
}

impl Hosts {
    /// Begins a conversation.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(super) async fn refs(
        &self,
        upstream: &Upstream<'_>,
        service: Service,
        headers: HeaderMap,
    ) -> Result<Response, Trouble> {
        let mut at = base(upstream.url)?;
        for hop in 0..=MAX_REDIRECTS {
            let url = format!("{at}{REFS}?service={}", service.name());
            let request = (Method::GET, headers.clone(), Body::default());
            let response = self.send(upstream, &url, request).await?;
            if response.status().is_redirection() {
                at = moved(&url, &response)?;
                continue;
            }
            is_of(&response, service, "advertisement")?;
            if hop > 0 {
                self.note_moved(upstream.id, at);
            } else {
                self.moved().remove(upstream.id);
            }
            return Ok(response);
        }
        Err(broken("its host redirects too often"))
    }

    /// Goes on with it.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(super) async fn exchange(
        &self,
        upstream: &Upstream<'_>,
        service: Service,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Response, Trouble> {
        let moved = self.moved().get(upstream.id).cloned();
        let at = match moved {
            Some(at) => at,
            None => base(upstream.url)?,
        };
        let url = format!("{at}/{}", service.name());
        let response = self.send(upstream, &url, (Method::POST, headers, body)).await?;
        if response.status().is_redirection() {
            return Err(elsewhere());
        }
        is_of(&response, service, "result")?;
        Ok(response)
    }

    async fn send(
        &self,
        upstream: &Upstream<'_>,
        url: &str,
        (method, mut headers, body): (Method, HeaderMap, Body),
    ) -> Result<Response, Trouble> {
        let guard = &self.access.guard;
        let target = guard.check(url).map_err(broken)?;
        if let Some(token) = &upstream.token {
            // It was checked when the token was given; the operator may have changed their mind.
            let home = Target::parse(upstream.url).map_err(broken)?;
            let is_safe = target.url.scheme() == "https" || guard.policy().allows_loopback(&target);
            if !is_safe || !target.same_origin(&home) {
                return Err(broken("its token may not be sent there"));
            }
            headers.insert(AUTHORIZATION, authorization(token)?);
        }
        let (client, url) = guard.client_for(url).map_err(broken)?;
        let request = client.request(method, url).headers(headers).body(body);
        let sent = request.timeout(TIMEOUT).send().await;
        let response = sent.map_err(|error| broken(oma_egress::dial::failed(&error)))?;
        match Trouble::of_status(response.status()) {
            Some(trouble) => Err(trouble),
            None => Ok(response),
        }
    }
}

fn authorization(token: &SecretString) -> Result<HeaderValue, Trouble> {
    let pair = Zeroizing::new(format!("{USER}:{}", token.expose_secret()));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    // Base64 is always a header; the error would show nothing of it either.
    let mut value = HeaderValue::from_str(&text).map_err(|_| broken("its token can't be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether an answer is one of git's. A page that says something else is not for git to read.
fn is_of(response: &Response, service: Service, part: &str) -> Result<(), Trouble> {
    let expected = format!("application/x-{}-{part}", service.name());
    let kind = response.headers().get(CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes() == expected.as_bytes()) {
        return Ok(());
    }
    Err(broken("its host does not speak git's smart protocol"))
}

/// Where a repository has moved to: the same place of the same host, below another path.
fn moved(from: &str, response: &Response) -> Result<Url, Trouble> {
    let location = response.headers().get(LOCATION);
    let location = location.and_then(|location| location.to_str().ok());
    location
        .and_then(|location| new_base(from, location))
        .ok_or_else(elsewhere)
}

fn new_base(from: &str, location: &str) -> Option<Url> {
    let from = Target::parse(from).ok()?;
    let to = Target::from_url(from.url.join(location).ok()?).ok()?;
    if !to.same_origin(&from) {
        return None;
    }
    let mut base = to.url;
    let path = base.path().strip_suffix(REFS)?.to_owned();
    base.set_path(&path);
    base.set_query(None);
    Some(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_host_is_followed() {
        let from = "https://git.example/a/b/info/refs?service=git-upload-pack";
        for (location, expected) in [
            (
                "https://git.example/c/d.git/info/refs?service=git-upload-pack",
                Some("https://git.example/c/d.git"),
            ),
            ("/c/d/info/refs", Some("https://git.example/c/d")),
            (
                "https://GIT.example:443/c/info/refs",
                Some("https://git.example/c"),
            ),
            ("https://evil.example/a/b/info/refs", None),
            ("https://git.example.evil.example/a/b/info/refs", None),
            ("http://git.example/a/b/info/refs", None),
            ("https://git.example:8443/a/b/info/refs", None),
            ("https://u:p@git.example/a/b/info/refs", None),
            ("https://git.example/login", None),
        ] {
            let base = new_base(from, location);
            assert_eq!(base.as_ref().map(Url::as_str), expected, "{location:?}");
        }
    }

    #[test]
    fn addresses_have_one_form() {
        for (url, expected) in [
            ("https://git.example/a/b", "https://git.example/a/b"),
            ("https://GIT.example/a/b//", "https://git.example/a/b"),
            ("https://git.example:443/a/b.git", "https://git.example/a/b.git"),
        ] {
            assert_eq!(base(url).unwrap().as_str(), expected);
        }
        assert!(base("ssh://git.example/a").is_err());
    }

    #[test]
    fn a_token_is_sent_as_github_wants_it() {
        let value = authorization(&SecretString::from("ghp_1")).unwrap();
        let expected = format!("Basic {}", STANDARD.encode("x-access-token:ghp_1"));
        assert_eq!(value.as_bytes(), expected.as_bytes());
        assert!(value.is_sensitive());
    }
}
