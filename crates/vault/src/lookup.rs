//! Which token a request presents, and what to present after it was refused.

use oma_domain::vault::{Field, Kind};
use oma_domain::{CredentialId, VaultId, WorkspaceId};
use oma_egress::target::Target;
use oma_store::StoredCredential;
use secrecy::SecretString;
use url::Url;

use crate::error::{Error, RefreshFailure, Result};
use crate::rule::Rule;
use crate::vaults::{ATTEMPTS, Inner, Vaults, failed, now, open};

/// How long before its end an access token is refreshed, in milliseconds; half of its life if that is less.
const MARGIN: i64 = 60_000;

/// A token to present, and where it is from.
#[derive(Debug, Clone)]
pub struct Bearer {
    /// The token.
    pub token: SecretString,
    pub(crate) vault: VaultId,
    pub(crate) credential: CredentialId,
    pub(crate) revision: u64,
}

impl Bearer {
    /// The credential that it is from.
    #[must_use]
    pub fn credential(&self) -> &CredentialId {
        &self.credential
    }
}

impl Vaults {
    /// The token for requests to this URL, from the first of these vaults that has one for it; within a vault
    /// the rule with the longest path counts, and of several equal ones the newest credential. An OAuth token
    /// that is about to end is refreshed first. `None` when no credential is for this URL.
    ///
    /// # Errors
    /// [`Error::Refresh`], which names the credential; [`Error::Unreadable`]; [`Error::Store`].
    pub async fn bearer_for(
        &self,
        workspace: &WorkspaceId,
        vaults: &[VaultId],
        url: &Url,
    ) -> Result<Option<Bearer>> {
        let Ok(target) = Target::from_url(url.clone()) else {
            return Ok(None);
        };
        for vault in vaults {
            if let Some(stored) = self.best(workspace, vault, &target).await? {
                return self.good(stored).await.map(Some);
            }
        }
        Ok(None)
    }

    /// The credential of a vault that counts for a URL. Only its own secrets are read.
    async fn best(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        target: &Target,
    ) -> Result<Option<StoredCredential>> {
        let store = &self.inner.store;
        for _ in 0..ATTEMPTS {
            let all = store.credential_specs(workspace, vault).await?;
            let matching = all.iter().filter_map(|credential| {
                // It was read when it was added; what can't be read matches nothing.
                let rule = Rule::parse(&credential.spec.match_url).ok()?;
                rule.matches(target).then(|| (rule.specificity(), &credential.id))
            });
            // Of equals the last, which is the newest.
            let Some((_, id)) = matching.max_by_key(|(specificity, _)| *specificity) else {
                return Ok(None);
            };
            if let Some(stored) = store.credential(workspace, vault, id).await?
                && stored.credential.archived_at.is_none()
            {
                return Ok(Some(stored));
            }
            // It was removed or archived meanwhile, so another one may count.
        }
        Err(Error::Conflict)
    }

    /// The credential's token, refreshed when that is due.
    async fn good(&self, stored: StoredCredential) -> Result<Bearer> {
        let credential = &stored.credential;
        let Kind::McpOauth {
            expires_at: Some(end),
            refresh,
        } = &credential.spec.kind
        else {
            return self.inner.bearer(&stored).await;
        };
        let left = end.0.saturating_sub(now().0);
        // The token is at least as old as what is known of it.
        let life = end.0.saturating_sub(credential.updated_at.0);
        if left > MARGIN.min(life / 2).max(0) {
            return self.inner.bearer(&stored).await;
        }
        let has_expired = left <= 0;
        if refresh.is_none() {
            return match has_expired {
                false => self.inner.bearer(&stored).await,
                true => Err(failed(credential, RefreshFailure::NoRefreshToken)),
            };
        }
        match self.refresh(credential, stored.revision).await {
            Err(Error::Refresh {
                reason, credential, ..
            }) if !has_expired => {
                tracing::warn!(%credential, %reason, "an access token could not be refreshed; it is still good");
                self.inner.bearer(&stored).await
            }
            outcome => outcome,
        }
    }

    /// A server refused this token (401): the next one, refreshed if nobody has done that meanwhile. `None` when
    /// there is none to be had.
    ///
    /// # Errors
    /// As for [`Vaults::bearer_for`].
    pub async fn refused(&self, workspace: &WorkspaceId, bearer: &Bearer) -> Result<Option<Bearer>> {
        let stored = match self
            .inner
            .stored(workspace, &bearer.vault, &bearer.credential)
            .await
        {
            Err(Error::CredentialNotFound) => return Ok(None),
            stored => stored?,
        };
        if stored.credential.archived_at.is_some() {
            return Ok(None);
        }
        if stored.revision != bearer.revision {
            return self.good(stored).await.map(Some);
        }
        match &stored.credential.spec.kind {
            Kind::McpOauth { refresh: Some(_), .. } => {
                self.refresh(&stored.credential, stored.revision).await.map(Some)
            }
            Kind::McpOauth { refresh: None, .. } | Kind::StaticBearer | Kind::EnvironmentVariable { .. } => {
                Ok(None)
            }
        }
    }
}

impl Inner {
    pub(crate) async fn bearer(&self, stored: &StoredCredential) -> Result<Bearer> {
        let chamber = self
            .chamber(&stored.credential.workspace, &stored.credential.vault)
            .await?;
        let token = open(&chamber, stored, Field::Token)?;
        Ok(bearer(stored, token))
    }
}

pub(crate) fn bearer(stored: &StoredCredential, token: SecretString) -> Bearer {
    Bearer {
        token,
        vault: stored.credential.vault.clone(),
        credential: stored.credential.id.clone(),
        revision: stored.revision,
    }
}
