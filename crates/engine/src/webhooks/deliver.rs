//! Telling endpoints. Notices wait in the store's outbox, so a stop or a crash loses none: one that was on its way is
//! sent again, under the same id.
//!
//! Each endpoint that has something to hear gets a task of its own that sends a few notices at a time, so that one that
//! hangs holds up nobody else. A notice is tried [`ATTEMPTS`] times within some minutes and given up then, or when it is
//! older than [`MAX_AGE`]. An endpoint that redirects, or whose address may not be dialled, is disabled.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, header};
use oma_domain::webhook::{Delivery, Disabled, Endpoint};
use oma_domain::{DeliveryId, Timestamp, WebhookId, WorkspaceId};
use oma_store::webhooks::{Fate, Recipient};
use rand::Rng as _;
use secrecy::SecretString;
use tokio::task::JoinSet;

use super::{body, place, sign};
use crate::clock::rest;
use crate::error::Result;
use crate::{Engine, now};

/// How often a notice is tried.
const ATTEMPTS: u32 = 3;
/// The pauses before the second and the third attempt, at least; up to as much again is added.
const PAUSES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];
/// How long an endpoint may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many notices are on their way to one endpoint at once.
const AT_ONCE: u32 = 4;
/// How many endpoints are told something at once.
const ENDPOINTS: usize = 64;
/// How long a notice waits at the most.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// The rest after a failure of ours.
const PAUSE: Duration = Duration::from_secs(1);

/// What came of sending a notice.
enum Sent {
    Arrived,
    Failed,
    /// It is not to be told anything any more.
    Disable(Disabled),
}

impl Engine {
    /// Tells endpoints what waits for them, for as long as the engine runs.
    pub async fn keep_webhooks(&self) {
        let outbox = self.inner.store.outbox();
        let mut told: JoinSet<WebhookId> = JoinSet::new();
        let mut busy: HashSet<WebhookId> = HashSet::new();
        loop {
            let next = match self.tell_due(&mut told, &mut busy).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!(%error, "webhooks wait");
                    Some(PAUSE)
                }
            };
            tokio::select! {
                () = rest(next) => {}
                () = outbox.notified() => {}
                Some(ended) = told.join_next(), if !told.is_empty() => {
                    match ended {
                        Ok(endpoint) => drop(busy.remove(&endpoint)),
                        Err(error) => {
                            tracing::error!(%error, "telling an endpoint broke down");
                            // Nobody knows which it was; those at work are only tried once more.
                            busy.clear();
                        }
                    }
                }
                // What is on its way is sent again after the next start.
                () = self.inner.stopping.cancelled() => return,
            }
        }
    }

    /// Begins to tell the endpoints for which something is due; returns how long the next one still has.
    async fn tell_due(
        &self,
        told: &mut JoinSet<WebhookId>,
        busy: &mut HashSet<WebhookId>,
    ) -> Result<Option<Duration>> {
        let at = now();
        let age = i64::try_from(MAX_AGE.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp(at.0.saturating_sub(age));
        let forgotten = self.inner.store.forget_deliveries(before).await?;
        metrics::counter!("webhook_deliveries_total", "outcome" => "expired").increment(forgotten);
        let mut next: Option<Timestamp> = None;
        for recipient in self.inner.store.recipients().await? {
            if busy.contains(&recipient.endpoint) {
                continue;
            }
            if recipient.try_at > at {
                next = Some(next.map_or(recipient.try_at, |next| next.min(recipient.try_at)));
                continue;
            }
            // The others follow when one of these is done.
            if told.len() < ENDPOINTS {
                busy.insert(recipient.endpoint.clone());
                let engine = self.clone();
                told.spawn(async move {
                    engine.tell(&recipient).await;
                    recipient.endpoint
                });
            }
        }
        Ok(next.map(|next| Duration::from_millis(next.millis_since(at))))
    }

    /// Tells an endpoint all that is due.
    async fn tell(&self, recipient: &Recipient) {
        loop {
            match self.tell_some(recipient).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(endpoint = %recipient.endpoint, %error, "an endpoint could not be told");
                    tokio::time::sleep(PAUSE).await;
                    return;
                }
            }
        }
    }

    /// Sends a few notices; tells whether there may be more.
    async fn tell_some(&self, recipient: &Recipient) -> Result<bool> {
        let Recipient {
            workspace,
            endpoint: id,
            ..
        } = recipient;
        let store = &self.inner.store;
        let due = store.deliveries(workspace, id, now(), AT_ONCE).await?;
        if due.is_empty() {
            return Ok(false);
        }
        let Some((endpoint, sealed)) = store.endpoint(workspace, id).await? else {
            return Ok(false);
        };
        let secret = self.inner.vaults.open_own(&place(workspace, id), &sealed).await?;
        let sends: Vec<_> = due
            .iter()
            .map(|delivery| self.send_notice(&endpoint, &secret, delivery))
            .collect();
        let sent = join_all(sends).await;
        let at = now();
        let mut fates: Vec<(DeliveryId, Fate)> = Vec::new();
        let mut disabled = None;
        for (delivery, sent) in due.iter().zip(&sent) {
            let fate = match sent {
                Sent::Arrived => counted("delivered", Fate::Done),
                Sent::Failed if delivery.attempts + 1 >= ATTEMPTS => counted("given_up", Fate::Done),
                Sent::Failed => counted("failed", Fate::Again(after_pause(at, delivery.attempts))),
                Sent::Disable(reason) => {
                    disabled = Some(*reason);
                    // It goes with the endpoint, unless that is at another URL by now.
                    let done = delivery.attempts + 1 >= ATTEMPTS;
                    counted("refused", if done { Fate::Done } else { Fate::Again(at) })
                }
            };
            fates.push((delivery.id.clone(), fate));
        }
        // Before anything else: what arrived is not sent again, should the endpoint be told further.
        store.settle_deliveries(&fates).await?;
        if let Some(reason) = disabled {
            self.disable(workspace, &endpoint, reason).await?;
        }
        // With another URL by now, it is told what waits.
        Ok(true)
    }

    async fn disable(&self, workspace: &WorkspaceId, endpoint: &Endpoint, reason: Disabled) -> Result<()> {
        tracing::warn!(endpoint = %endpoint.id, reason = reason.as_str(), "a webhook endpoint was disabled");
        self.inner
            .store
            .disable_endpoint(workspace, &endpoint.id, &endpoint.url, reason, now())
            .await?;
        Ok(())
    }

    async fn send_notice(&self, endpoint: &Endpoint, secret: &SecretString, delivery: &Delivery) -> Sent {
        let body = body(&endpoint.workspace, delivery).to_string();
        let timestamp = now().as_millis().div_euclid(1000);
        let Some(headers) = headers(secret, delivery, timestamp, &body) else {
            tracing::error!(endpoint = %endpoint.id, "a notice could not be signed");
            return Sent::Failed;
        };
        let posted = self
            .inner
            .guard
            .post(&endpoint.url, headers, body.into(), TIMEOUT);
        match posted.await {
            Ok(200..=299) => Sent::Arrived,
            Ok(300..=399) => Sent::Disable(Disabled::Redirect),
            Ok(status) => {
                tracing::debug!(endpoint = %endpoint.id, status, "a notice was not taken");
                Sent::Failed
            }
            Err(oma_egress::Error::Refused { .. }) => Sent::Disable(Disabled::AddressNotAllowed),
            Err(error) => {
                tracing::debug!(endpoint = %endpoint.id, %error, "a notice did not arrive");
                Sent::Failed
            }
        }
    }
}

fn counted(outcome: &'static str, fate: Fate) -> Fate {
    metrics::counter!("webhook_deliveries_total", "outcome" => outcome).increment(1);
    fate
}

/// When a notice is tried again that was tried `attempts` times before the one that failed just now.
fn after_pause(at: Timestamp, attempts: u32) -> Timestamp {
    let index = usize::try_from(attempts)
        .unwrap_or(usize::MAX)
        .min(PAUSES.len() - 1);
    let least = u64::try_from(PAUSES[index].as_millis()).unwrap_or(u64::MAX);
    at.plus_millis(least + rand::rng().random_range(0..=least))
}

fn headers(secret: &SecretString, delivery: &Delivery, timestamp: i64, body: &str) -> Option<HeaderMap> {
    let id = delivery.id.as_str();
    let signature = sign::signature(secret, id, timestamp, body)?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("webhook-id", HeaderValue::from_str(id).ok()?);
    headers.insert("webhook-timestamp", HeaderValue::from(timestamp));
    headers.insert("webhook-signature", HeaderValue::from_str(&signature).ok()?);
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_lie_between_5_and_120_seconds() {
        for (attempts, least, most) in [(0, 5_000, 10_000), (1, 60_000, 120_000), (7, 60_000, 120_000)] {
            for _ in 0..100 {
                let pause = after_pause(Timestamp(0), attempts).0;
                assert!((least..=most).contains(&pause), "{attempts} {pause}");
            }
        }
    }
}
