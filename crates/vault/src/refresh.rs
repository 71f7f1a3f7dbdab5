//! Refreshing: one at a time for each credential, and durable before anybody uses what came of it.
//!
//! A refresh runs in a task of its own, so that a caller who goes away does not cut it off between the issuer's
//! answer and the store. What is left of that window is a crash of the process: the issuer has then replaced the
//! refresh token, and nobody has the new one. Issuers that rotate refresh tokens take that as a lost grant; the
//! user has to authorise again. Before the issuer is asked, the store has to prove that it takes writes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use oma_domain::vault::{Field, Kind};
use oma_domain::{Credential, CredentialId, Timestamp};
use oma_store::StoredCredential;
use secrecy::SecretString;
use tokio::time::Instant;

use crate::error::{Error, RefreshFailure, Result};
use crate::lookup::{Bearer, bearer};
use crate::oauth;
use crate::vaults::{Inner, Vaults, failed, no_randomness, now, open};

/// The waits between attempts to store new tokens.
const WAITS: [Duration; 6] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// How long new tokens are tried to be stored, as far as the store does not hold that up itself.
pub(crate) const KEEP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long after a refresh failed the next one of the same credential is not tried, unless it was changed.
const MEMORY: Duration = Duration::from_secs(10);

type Flight = Shared<BoxFuture<'static, Result<Bearer>>>;

/// The refreshes under way, and those that failed a moment ago.
#[derive(Default)]
pub(crate) struct Flights(Mutex<Board>);

#[derive(Default)]
struct Board {
    flights: HashMap<CredentialId, Flight>,
    failures: HashMap<CredentialId, Failed>,
    /// No other refresh begins.
    is_closed: bool,
}

/// A refresh that failed.
struct Failed {
    /// What the credential stood at.
    revision: u64,
    at: Instant,
    error: Error,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets no further refresh begin.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
    }
}

impl Board {
    /// How the same refresh failed a moment ago.
    fn failure(&self, credential: &CredentialId, revision: u64) -> Option<&Error> {
        let failed = self.failures.get(credential)?;
        (failed.revision == revision && failed.at.elapsed() < MEMORY).then_some(&failed.error)
    }
}

/// Takes a refresh off the list however it ends.
struct Landing {
    inner: Arc<Inner>,
    credential: CredentialId,
}

impl Landing {
    fn remember(&self, revision: u64, error: &Error) {
        let failed = Failed {
            revision,
            at: Instant::now(),
            error: error.clone(),
        };
        let mut board = self.inner.flights.lock();
        board.failures.retain(|_, failed| failed.at.elapsed() < MEMORY);
        board.failures.insert(self.credential.clone(), failed);
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.inner.flights.lock().flights.remove(&self.credential);
    }
}

impl Vaults {
    /// Refreshes a credential that stood at this revision, or waits for whoever does so already. What failed a
    /// moment ago fails at once.
    pub(crate) async fn refresh(&self, credential: &Credential, revision: u64) -> Result<Bearer> {
        let flight = {
            let mut board = self.inner.flights.lock();
            match board.flights.get(&credential.id) {
                Some(flight) => flight.clone(),
                None => {
                    if let Some(error) = board.failure(&credential.id, revision) {
                        return Err(error.clone());
                    }
                    if board.is_closed {
                        return Err(failed(credential, RefreshFailure::Stopping));
                    }
                    let flight = self.take_off(credential.clone(), revision);
                    board.flights.insert(credential.id.clone(), flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    fn take_off(&self, credential: Credential, revision: u64) -> Flight {
        let landing = Landing {
            inner: Arc::clone(&self.inner),
            credential: credential.id.clone(),
        };
        let cut_off = failed(&credential, RefreshFailure::CutOff);
        let task = self.inner.tasks.spawn(async move {
            let outcome = Box::pin(landing.inner.renew(&credential, revision)).await;
            if let Err(error @ Error::Refresh { reason, .. }) = &outcome {
                landing.remember(revision, error);
                landing.inner.tell_failed(&credential, revision, reason).await;
            }
            // Off the list before anybody learns of it, so that a later caller starts afresh.
            drop(landing);
            outcome
        });
        async move { task.await.unwrap_or(Err(cut_off)) }.boxed().shared()
    }
}

impl Inner {
    /// Has those told who want to know that a credential can't be refreshed. What is our own doing is none of their
    /// business, unless it costs the tokens.
    async fn tell_failed(&self, credential: &Credential, revision: u64, reason: &RefreshFailure) {
        match reason {
            RefreshFailure::Stopping | RefreshFailure::CutOff => return,
            RefreshFailure::NoRefreshToken
            | RefreshFailure::Unreachable(_)
            | RefreshFailure::Refused { .. }
            | RefreshFailure::BadAnswer(_)
            | RefreshFailure::NotKept(_) => {}
        }
        let Credential {
            id, vault, workspace, ..
        } = credential;
        if let Err(error) = self.store.refresh_failed(workspace, vault, id, revision).await {
            tracing::warn!(credential = %id, %vault, %error, "nobody is told of a refresh that failed");
        }
    }

    async fn renew(&self, credential: &Credential, revision: u64) -> Result<Bearer> {
        let stored = self
            .stored(&credential.workspace, &credential.vault, &credential.id)
            .await?;
        if stored.credential.archived_at.is_some() {
            return Err(Error::CredentialArchived);
        }
        let chamber = self.chamber(&credential.workspace, &credential.vault).await?;
        let Kind::McpOauth {
            refresh: Some(refresh),
            ..
        } = &stored.credential.spec.kind
        else {
            return Err(failed(credential, RefreshFailure::NoRefreshToken));
        };
        if stored.revision != revision {
            // Somebody was faster; what they stored is newer than what the caller found wanting.
            let token = open(&chamber, &stored, Field::Token)?;
            return Ok(bearer(&stored, token));
        }
        let refresh_token = open(&chamber, &stored, Field::RefreshToken)?;
        let client_secret = match stored.secrets.contains_key(&Field::ClientSecret) {
            true => Some(open(&chamber, &stored, Field::ClientSecret)?),
            false => None,
        };
        self.store.ready().await?;
        let issued = oauth::refresh(&self.guard, refresh, &refresh_token, client_secret.as_ref())
            .await
            .map_err(|reason| failed(credential, reason))?;

        let id = &credential.id;
        let spec = &stored.credential.spec;
        let seal =
            |field, secret: &SecretString| chamber.seal(id, spec, field, secret).map_err(no_randomness);
        let mut secrets = vec![(Field::Token, seal(Field::Token, &issued.access_token)?)];
        if let Some(token) = &issued.refresh_token {
            secrets.push((Field::RefreshToken, seal(Field::RefreshToken, token)?));
        }
        let life = i64::try_from(issued.life.as_millis()).unwrap_or(i64::MAX);
        let ends = Timestamp(now().0.saturating_add(life));
        // What the user has replaced meanwhile is the user's; the rest is what the issuer says now.
        let renew = |base: &StoredCredential| {
            let is_ours = |field: &Field| base.secrets.get(field) == stored.secrets.get(field);
            let mut renewed = base.clone();
            let ours = secrets.iter().filter(|(field, _)| is_ours(field));
            renewed.secrets.extend(ours.cloned());
            if let Kind::McpOauth { expires_at, .. } = &mut renewed.credential.spec.kind
                && is_ours(&Field::Token)
            {
                *expires_at = Some(ends);
            }
            renewed.credential.updated_at = renewed.credential.updated_at.max(now());
            renewed.revision += 1;
            renewed
        };
        let kept = self.keep(stored.clone(), renew).await?;
        let token = open(&chamber, &kept, Field::Token)?;
        Ok(bearer(&kept, token))
    }

    /// Stores what was issued, whatever it takes within reason: the old refresh token may be worth nothing now.
    async fn keep(
        &self,
        used: StoredCredential,
        renew: impl Fn(&StoredCredential) -> StoredCredential + Send + Sync,
    ) -> Result<StoredCredential> {
        let Credential {
            id, vault, workspace, ..
        } = &used.credential;
        let mut base = used.clone();
        let mut waits = WAITS.iter();
        loop {
            let renewed = renew(&base);
            let error = match self.store.update_credential(&renewed).await {
                Ok(()) => return Ok(renewed),
                Err(error) => error,
            };
            match error {
                oma_store::Error::NotFound => return Err(Error::CredentialNotFound),
                // A conflict brings a newer row; everything else may pass.
                oma_store::Error::Conflict => {
                    base = self.stored(workspace, vault, id).await?;
                    if base.credential.archived_at.is_some() {
                        return Err(Error::CredentialArchived);
                    }
                }
                error => {
                    let Some(wait) = waits.next() else {
                        tracing::error!(credential = %id, vault = %vault, %error, "refreshed tokens are lost: they can't be stored");
                        return Err(failed(&used.credential, RefreshFailure::NotKept(error)));
                    };
                    tokio::time::sleep(*wait).await;
                }
            }
        }
    }
}
