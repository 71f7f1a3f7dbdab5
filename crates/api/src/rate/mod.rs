//! Rate limits: a token bucket per key, and one per address for whoever has shown no valid key yet.
//!
//! A credential is looked at only while its sender's address has a token left, and a wrong one costs that token: so
//! guessing is limited to the same rate, however many guesses are sent at once. A valid one gives the token back and
//! is counted for its key instead, so that nobody can lock a key's holder out from elsewhere.

mod bucket;
mod peer;

use std::net::IpAddr;
use std::time::Instant;

use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use oma_domain::{Actor, KeyId, SessionId};

use crate::fault::Fault;
pub(crate) use bucket::{Buckets, Taken};
pub use peer::Peer;
pub(crate) use peer::{neighbourhood, origin};

/// Paths that are never limited: probes and scrapes come from few addresses, and often.
pub(crate) const EXEMPT: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Operator,
    Key(KeyId),
    /// All who hold parent tokens of this session.
    Session(SessionId),
    /// Somebody on a server that asks for no key.
    Local(IpAddr),
}

/// The limits of a server.
#[derive(Debug)]
pub(crate) struct Limits {
    per_minute: u32,
    known: Buckets<Who>,
    unknown: Buckets<IpAddr>,
}

/// A request that was let through: what its answer says about the limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    per_minute: u32,
    left: u32,
}

impl Pass {
    /// Tells the client how much it may still ask.
    pub(crate) fn tell(self, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert("x-ratelimit-limit", HeaderValue::from(self.per_minute));
        headers.insert("x-ratelimit-remaining", HeaderValue::from(self.left));
    }
}

/// A request that came too soon.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TooMany {
    per_minute: u32,
    seconds: u32,
}

impl IntoResponse for TooMany {
    fn into_response(self) -> Response {
        let Self { per_minute, seconds } = self;
        let message = format!("rate limit exceeded ({per_minute} req/min). retry in {seconds}s");
        let fault = Fault::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message);
        let mut response = fault.with_retry_after(seconds).into_response();
        Pass { per_minute, left: 0 }.tell(&mut response);
        response
    }
}

impl Limits {
    /// `per_minute` requests of each caller in a minute, and as many at once.
    pub(crate) fn new(per_minute: u32) -> Self {
        Self {
            per_minute,
            known: Buckets::per_minute(per_minute),
            unknown: Buckets::per_minute(per_minute),
        }
    }

    /// Counts a request whose sender is not known (yet).
    pub(crate) fn unknown(&self, address: IpAddr) -> Result<Pass, TooMany> {
        let taken = self.unknown.take(peer::neighbourhood(address), Instant::now());
        self.verdict(taken, "ip")
    }

    /// The sender turned out to be known.
    pub(crate) fn recognised(&self, address: IpAddr) {
        self.unknown.give_back(&peer::neighbourhood(address));
    }

    /// Counts a request of a known sender.
    pub(crate) fn known(&self, actor: &Actor, address: IpAddr) -> Result<Pass, TooMany> {
        let (who, kind) = match actor {
            Actor::Operator => (Who::Operator, "token"),
            Actor::Key(id) => (Who::Key(id.clone()), "token"),
            Actor::Session(id) => (Who::Session(id.clone()), "token"),
            Actor::Local => (Who::Local(peer::neighbourhood(address)), "ip"),
        };
        self.verdict(self.known.take(who, Instant::now()), kind)
    }

    fn verdict(&self, taken: Taken, kind: &'static str) -> Result<Pass, TooMany> {
        let per_minute = self.per_minute;
        match taken {
            Taken::Granted(left) => Ok(Pass { per_minute, left }),
            Taken::Refused(wait) => {
                metrics::counter!("rate_limit_rejections_total", "kind" => kind).increment(1);
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Err(TooMany {
                    per_minute,
                    seconds: u32::try_from(seconds).unwrap_or(u32::MAX).max(1),
                })
            }
        }
    }
}
