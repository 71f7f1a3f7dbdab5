//! Webhook endpoints and the outbox of what they are to be told.
//!
//! Whoever changes something writes the notices about it in the same transaction, for those endpoints that want them;
//! none is lost, and none is told of what did not happen.

use std::sync::Arc;

use async_trait::async_trait;
use oma_domain::vault::Sealed;
use oma_domain::webhook::{Delivery, Disabled, Endpoint};
use oma_domain::{DeliveryId, Timestamp, WebhookId, WorkspaceId};
use tokio::sync::Notify;

use crate::{Once, Result};

/// An endpoint for which notices wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// The endpoint.
    pub endpoint: WebhookId,
    /// When the first of them is to be tried.
    pub try_at: Timestamp,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is done with: it arrived, or was given up.
    Done,
    /// It is tried again then.
    Again(Timestamp),
}

/// Webhooks in the durable record.
#[async_trait]
pub trait Webhooks: Send + Sync + 'static {
    /// Adds an endpoint, as long as its workspace has less than `most`.
    ///
    /// # Errors
    /// [`Error::AlreadyDone`](crate::Error::AlreadyDone) when the key is taken;
    /// [`Error::Conflict`](crate::Error::Conflict) when the id is taken; [`Error::TooMany`](crate::Error::TooMany).
    async fn create_endpoint(
        &self,
        endpoint: &Endpoint,
        secret: &Sealed,
        most: u32,
        once: Option<&Once>,
    ) -> Result<()>;
    /// An endpoint, with its sealed secret.
    async fn endpoint(&self, workspace: &WorkspaceId, id: &WebhookId) -> Result<Option<(Endpoint, Sealed)>>;
    /// All endpoints of a workspace, oldest first. Their number is bounded when they are added.
    async fn endpoints(&self, workspace: &WorkspaceId) -> Result<Vec<Endpoint>>;
    /// Writes an endpoint, and another secret if there is one: `endpoint.revision` must be one above the stored one.
    /// One that is disabled loses what waits for it.
    ///
    /// # Errors
    /// [`Error::Conflict`](crate::Error::Conflict) when it is not; [`Error::NotFound`](crate::Error::NotFound).
    async fn update_endpoint(&self, endpoint: &Endpoint, secret: Option<&Sealed>) -> Result<()>;
    /// Disables an endpoint as long as it is at this URL. What waits for it goes.
    async fn disable_endpoint(
        &self,
        workspace: &WorkspaceId,
        id: &WebhookId,
        url: &str,
        reason: Disabled,
        at: Timestamp,
    ) -> Result<()>;
    /// Removes an endpoint with what waits for it. Returns whether it was there.
    async fn delete_endpoint(&self, workspace: &WorkspaceId, id: &WebhookId) -> Result<bool>;

    /// The endpoints of all workspaces for which notices wait.
    async fn recipients(&self) -> Result<Vec<Recipient>>;
    /// The notices for an endpoint that are to be tried by then, the earliest first.
    async fn deliveries(
        &self,
        workspace: &WorkspaceId,
        endpoint: &WebhookId,
        by: Timestamp,
        limit: u32,
    ) -> Result<Vec<Delivery>>;
    /// Notes what became of deliveries.
    async fn settle_deliveries(&self, fates: &[(DeliveryId, Fate)]) -> Result<()>;
    /// Removes notices from before then. Returns how many.
    async fn forget_deliveries(&self, before: Timestamp) -> Result<u64>;
    /// Told when notices may have been added.
    fn outbox(&self) -> Arc<Notify>;
}
