//! Webhooks: endpoints that clients have, and ([`deliver`]) telling them.

mod deliver;
mod sign;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oma_domain::webhook::{Disabled, Endpoint, MAX_ENDPOINTS, Topic};
use oma_domain::{WebhookId, WorkspaceId};
use oma_egress::target::Target;
use rand::TryRngCore as _;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::agents::not_found;
use crate::error::{Error, Result};
use crate::{Engine, IdempotencyKey, now, once};

const SCOPE: &str = "webhook.create";
/// What signing secrets begin with.
const SECRET_PREFIX: &str = "whsec_";
/// The length of a signing secret, in bytes.
const SECRET_BYTES: usize = 32;
/// How often a change is tried again when others change the same endpoint.
const CHANGE_ATTEMPTS: usize = 10;

/// An endpoint to create.
#[derive(Debug, Clone)]
pub struct NewEndpoint {
    /// Where it is.
    pub url: String,
    /// A name for people.
    pub name: String,
    /// What it is for, for people.
    pub description: String,
    /// What it is told.
    pub topics: Vec<Topic>,
}

/// A change of an endpoint; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct EndpointChange {
    /// Where it is.
    pub url: Option<String>,
    /// A name for people.
    pub name: Option<String>,
    /// What it is for, for people.
    pub description: Option<String>,
    /// What it is told.
    pub topics: Option<Vec<Topic>>,
    /// Whether it is told anything.
    pub enabled: Option<bool>,
}

/// What a signing secret is bound to.
fn place<'a>(workspace: &'a WorkspaceId, id: &'a WebhookId) -> [&'a str; 3] {
    ["webhook signing secret", workspace.as_str(), id.as_str()]
}

fn secret() -> Result<SecretString> {
    let mut bytes = [0; SECRET_BYTES];
    rand::rngs::OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| Error::Internal(format!("the machine gives no random bytes: {error}")))?;
    Ok(SecretString::from(format!(
        "{SECRET_PREFIX}{}",
        STANDARD.encode(bytes)
    )))
}

impl Engine {
    /// Creates an endpoint; gives it with its signing secret, which is told this once.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the URL is none that may be dialled, or would be sent to in the clear over a network;
    /// [`Error::TooManyWebhooks`]; [`Error::SecretShown`], [`Error::KeyReused`].
    pub async fn create_webhook(
        &self,
        workspace: &WorkspaceId,
        new: NewEndpoint,
        key: Option<IdempotencyKey>,
    ) -> Result<(Endpoint, SecretString)> {
        let store = &*self.inner.store;
        if once::lookup(store, workspace, SCOPE, key.as_ref())
            .await?
            .is_some()
        {
            return Err(Error::SecretShown);
        }
        let url = self.endpoint_url(&new.url)?;
        let at = now();
        let endpoint = Endpoint {
            id: WebhookId::generate(),
            workspace: workspace.clone(),
            name: new.name,
            description: new.description,
            url,
            topics: new.topics,
            disabled: None,
            created_at: at,
            updated_at: at,
            revision: 1,
        };
        let secret = secret()?;
        let place = place(workspace, &endpoint.id);
        let sealed = self.inner.vaults.seal_own(&place, &secret).await?;
        let record = once::record(SCOPE, key.as_ref(), json!(endpoint.id));
        let created = store.create_endpoint(&endpoint, &sealed, MAX_ENDPOINTS, record.as_ref());
        match created.await {
            Ok(()) => Ok((endpoint, secret)),
            Err(oma_store::Error::AlreadyDone(_)) => Err(Error::SecretShown),
            Err(oma_store::Error::TooMany(most)) => Err(Error::TooManyWebhooks(most)),
            Err(error) => Err(error.into()),
        }
    }

    /// The canonical form of an endpoint's URL.
    fn endpoint_url(&self, url: &str) -> Result<String> {
        let refuse = |message: String| Error::Unsupported {
            field: "url",
            message,
        };
        let guard = &self.inner.guard;
        let target: Target = guard.check(url).map_err(|error| refuse(error.to_string()))?;
        if target.url.scheme() != "https" && !guard.policy().allows_loopback(&target) {
            return Err(refuse(
                "must be https, except for a loopback address that the operator allows".to_owned(),
            ));
        }
        Ok(target.url.to_string())
    }

    /// An endpoint.
    ///
    /// # Errors
    /// [`Error::WebhookNotFound`].
    pub async fn webhook(&self, workspace: &WorkspaceId, id: &WebhookId) -> Result<Endpoint> {
        let found = self.inner.store.endpoint(workspace, id).await?;
        found.map(|(endpoint, _)| endpoint).ok_or(Error::WebhookNotFound)
    }

    /// All endpoints of a workspace, oldest first.
    ///
    /// # Errors
    /// A store failure.
    pub async fn webhooks(&self, workspace: &WorkspaceId) -> Result<Vec<Endpoint>> {
        Ok(self.inner.store.endpoints(workspace).await?)
    }

    /// Changes an endpoint. One that is disabled loses what waits for it.
    ///
    /// # Errors
    /// [`Error::WebhookNotFound`]; [`Error::Unsupported`] as at creation.
    pub async fn update_webhook(
        &self,
        workspace: &WorkspaceId,
        id: &WebhookId,
        change: EndpointChange,
    ) -> Result<Endpoint> {
        let url = match &change.url {
            Some(url) => Some(self.endpoint_url(url)?),
            None => None,
        };
        for _ in 0..CHANGE_ATTEMPTS {
            let current = self.webhook(workspace, id).await?;
            let change = change.clone();
            let mut next = Endpoint {
                url: url.clone().unwrap_or_else(|| current.url.clone()),
                name: change.name.unwrap_or_else(|| current.name.clone()),
                description: change.description.unwrap_or_else(|| current.description.clone()),
                topics: change.topics.unwrap_or_else(|| current.topics.clone()),
                disabled: match change.enabled {
                    Some(true) => None,
                    Some(false) => current.disabled.or(Some(Disabled::Manual)),
                    None => current.disabled,
                },
                ..current.clone()
            };
            if next == current {
                return Ok(current);
            }
            next.updated_at = now();
            next.revision += 1;
            match self.inner.store.update_endpoint(&next, None).await {
                Ok(()) => return Ok(next),
                // Somebody was faster: the change is made to what is there now.
                Err(oma_store::Error::Conflict) => {}
                Err(error) => return Err(not_found(error, Error::WebhookNotFound)),
            }
        }
        Err(busy())
    }

    /// Gives an endpoint another signing secret; the one before is used no more.
    ///
    /// # Errors
    /// [`Error::WebhookNotFound`].
    pub async fn rotate_webhook(&self, workspace: &WorkspaceId, id: &WebhookId) -> Result<SecretString> {
        let secret = secret()?;
        let sealed = self.inner.vaults.seal_own(&place(workspace, id), &secret).await?;
        for _ in 0..CHANGE_ATTEMPTS {
            let current = self.webhook(workspace, id).await?;
            let next = Endpoint {
                updated_at: now(),
                revision: current.revision + 1,
                ..current
            };
            match self.inner.store.update_endpoint(&next, Some(&sealed)).await {
                Ok(()) => return Ok(secret),
                Err(oma_store::Error::Conflict) => {}
                Err(error) => return Err(not_found(error, Error::WebhookNotFound)),
            }
        }
        Err(busy())
    }

    /// Removes an endpoint, with what waits for it.
    ///
    /// # Errors
    /// [`Error::WebhookNotFound`].
    pub async fn delete_webhook(&self, workspace: &WorkspaceId, id: &WebhookId) -> Result<()> {
        if self.inner.store.delete_endpoint(workspace, id).await? {
            Ok(())
        } else {
            Err(Error::WebhookNotFound)
        }
    }
}

fn busy() -> Error {
    Error::Unavailable("the endpoint changes all the time".to_owned())
}

/// A notice as it is sent: thin, so that whoever gets it asks for what it is about.
fn body(workspace: &WorkspaceId, delivery: &oma_domain::webhook::Delivery) -> Value {
    let mut data = json!({
        "type": delivery.topic.as_str(),
        "id": delivery.resource,
        "organization_id": ORGANIZATION,
        "workspace_id": workspace.as_str(),
    });
    if let Some(vault) = &delivery.vault {
        data["vault_id"] = json!(vault);
    }
    if let Some(thread) = &delivery.thread {
        data["session_thread_id"] = json!(thread.thread_name());
    }
    let created_at = jiff::Timestamp::from_millisecond(delivery.created_at.as_millis())
        .map_or_else(|_| jiff::Timestamp::MAX.to_string(), |at| format!("{at:.3}"));
    json!({"type": "event", "id": delivery.id.as_str(), "created_at": created_at, "data": data})
}

/// An installation is one organisation.
const ORGANIZATION: &str = "org_default";
