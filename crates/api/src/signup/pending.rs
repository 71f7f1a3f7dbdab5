//! Sign-ins that are under way: begun here, and not back from the provider yet. They are kept in memory; whoever was on
//! the way while the server restarted begins again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The most sign-ins that are under way at once.
const MOST: usize = 10_000;

/// What a browser takes along.
#[derive(Debug)]
pub(super) struct Begun {
    /// Comes back in the address.
    pub(super) state: String,
    /// Comes back in the cookie, so that nobody else can come back with that address.
    pub(super) cookie: SecretString,
    /// The SHA-256 of the secret that is shown when the code is redeemed (PKCE).
    pub(super) challenge: String,
}

#[derive(Debug)]
struct Entry {
    cookie: [u8; 32],
    verifier: SecretString,
    until: Instant,
}

/// Why no sign-in can begin.
#[derive(Debug)]
pub(super) enum Problem {
    Full,
    NoRandomness(String),
}

/// The sign-ins that are under way, by the digest of their state.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<HashMap<[u8; 32], Entry>>);

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn random() -> Result<String, Problem> {
    let bits = oma_engine::keys::random();
    bits.map(|bits| URL_SAFE_NO_PAD.encode(bits))
        .map_err(|error| Problem::NoRandomness(error.to_string()))
}

impl Pending {
    /// Begins a sign-in, which may take until then.
    pub(super) fn begin(&self, until: Instant) -> Result<Begun, Problem> {
        let (state, cookie, verifier) = (random()?, random()?, random()?);
        let begun = Begun {
            challenge: URL_SAFE_NO_PAD.encode(digest(&verifier)),
            cookie: SecretString::from(cookie),
            state,
        };
        let entry = Entry {
            cookie: digest(begun.cookie.expose_secret()),
            verifier: SecretString::from(verifier),
            until,
        };
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MOST {
            let now = Instant::now();
            entries.retain(|_, entry| entry.until > now);
            if entries.len() >= MOST {
                return Err(Problem::Full);
            }
        }
        entries.insert(digest(&begun.state), entry);
        Ok(begun)
    }

    /// Ends a sign-in, whatever comes of it: it counts once. Gives its secret if it came back to the browser that had
    /// begun it, in time.
    pub(super) fn end(&self, state: &str, cookie: &str, now: Instant) -> Option<SecretString> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.remove(&digest(state))?;
        let same: bool = entry.cookie.ct_eq(&digest(cookie)).into();
        (same && now < entry.until).then_some(entry.verifier)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_sign_in_counts_once_in_time_and_in_its_browser() {
        let (pending, now) = (Pending::default(), Instant::now());
        let later = now + Duration::from_secs(600);
        let begin = || pending.begin(later).expect("room");
        let one = begin();
        let cookie = one.cookie.expose_secret();
        let verifier = pending.end(&one.state, cookie, now).expect("good");
        assert_eq!(
            URL_SAFE_NO_PAD.encode(digest(verifier.expose_secret())),
            one.challenge
        );
        assert!(pending.end(&one.state, cookie, now).is_none(), "twice");
        let (two, three) = (begin(), begin());
        assert!(
            pending
                .end(&two.state, three.cookie.expose_secret(), now)
                .is_none(),
            "another browser"
        );
        assert!(
            pending.end(&two.state, two.cookie.expose_secret(), now).is_none(),
            "that try was the one"
        );
        assert!(
            pending
                .end(&three.state, three.cookie.expose_secret(), later)
                .is_none(),
            "late"
        );
        assert!(pending.end("", "", now).is_none());
    }

    #[test]
    fn they_are_bounded_and_old_ones_make_room() {
        let pending = Pending::default();
        let past = Instant::now();
        for _ in 0..MOST {
            pending.begin(past).expect("room");
        }
        let later = past + Duration::from_secs(600);
        for _ in 0..MOST {
            pending.begin(later).expect("room");
        }
        assert!(matches!(pending.begin(later), Err(Problem::Full)));
    }
}
