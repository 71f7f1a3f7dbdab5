//! The secrets of a session, as its proxy needs them: read from its vaults, and again when these change.
//!
//! What is random about a session (its placeholders, the key of its authority) is derived from a key of the server's
//! that is sealed in the store, so that it is the same after a restart, for sandboxes that live on, and in no file.

use std::sync::Arc;

use async_trait::async_trait;
use oma_domain::vault::{CredentialNetworking, Injection};
use oma_domain::{CredentialId, SessionId, VaultId, WorkspaceId};
use oma_egress::proxy::secrets::{
    Authority, Placeholder, Places, Secret, Secrets, Set, Unavailable, left_out,
};
use oma_egress::proxy::{Allowed, Hosts};
use oma_vault::{Variable, Vaults};
use secrecy::zeroize::Zeroizing;
use tokio::sync::Mutex;

use super::witness::Witness;
use crate::worker::Source;

/// How many seeds are tried for a key: one that is none is far rarer than anything else that could fail.
const SEEDS: u32 = 4;

/// The secrets of one session.
pub(super) struct Held {
    vaults: Vaults,
    workspace: WorkspaceId,
    session: SessionId,
    /// The session's vaults, in their order.
    named: Vec<VaultId>,
    /// What was read last, and what [`Vaults::changes`] was before.
    read: Mutex<Option<(u64, Arc<Set>)>>,
    /// Who has the session told of what is left out; nobody, where it is just about to get a sandbox.
    witness: Option<Arc<Witness>>,
}

impl Held {
    pub(super) fn new(
        vaults: Vaults,
        (workspace, session): (WorkspaceId, SessionId),
        named: Vec<VaultId>,
        witness: Option<Arc<Witness>>,
    ) -> Self {
        Self {
            vaults,
            workspace,
            session,
            named,
            read: Mutex::default(),
            witness,
        }
    }

    /// Has the session told of those that are left out, before it wonders.
    pub(super) async fn look(&self) {
        if let Err(error) = self.secrets().await {
            self.unread(&error);
        }
    }

    /// The variables of a sandbox that is started now, with what stands in them.
    pub(super) async fn variables(&self) -> oma_vault::Result<Vec<(String, Placeholder)>> {
        let mut named = Vec::new();
        for variable in self.vaults.variables(&self.workspace, &self.named).await? {
            let placeholder = self.placeholder(&variable.credential).await?;
            named.push((variable.name, placeholder));
        }
        Ok(named)
    }

    /// Whom the session's sandbox trusts.
    pub(super) async fn authority(&self) -> Result<Authority, String> {
        Ok(self.made().await?.0)
    }

    /// The authority, and what it is made of.
    async fn made(&self) -> Result<(Authority, Zeroizing<[u8; 32]>), String> {
        let session = self.session.as_str();
        let mut last = String::new();
        for number in 0..SEEDS {
            let place = ["egress authority", session, &number.to_string()];
            let seed = self
                .vaults
                .derive(&place)
                .await
                .map_err(|error| error.to_string())?;
            match Authority::new(session, &seed) {
                Ok(authority) => return Ok((authority, seed)),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    async fn placeholder(&self, credential: &CredentialId) -> oma_vault::Result<Placeholder> {
        let place = ["egress placeholder", self.session.as_str(), credential.as_str()];
        let derived = self.vaults.derive(&place).await?;
        let mut random = [0; 20];
        random.copy_from_slice(&derived[..20]);
        Ok(Placeholder::new(&random))
    }

    async fn secrets(&self) -> oma_vault::Result<Vec<Secret>> {
        let mut secrets = Vec::new();
        for variable in self.vaults.variables(&self.workspace, &self.named).await? {
            let placeholder = self.placeholder(&variable.credential).await?;
            secrets.push(secret(variable, placeholder));
        }
        if let Some(witness) = &self.witness {
            witness.left_out(&left_out(&secrets));
        }
        Ok(secrets)
    }

    fn unread(&self, error: &oma_vault::Error) -> Unavailable {
        tracing::error!(session_id = %self.session, %error, "the secrets of a session can't be read");
        Unavailable
    }
}

#[async_trait]
impl Secrets for Held {
    async fn current(&self) -> Result<Arc<Set>, Unavailable> {
        let mut read = self.read.lock().await;
        // Asked first: what changes while it is read is read again.
        let changes = self.vaults.changes();
        if let Some((at, set)) = &*read
            && *at == changes
        {
            return Ok(Arc::clone(set));
        }
        let before = read.as_ref().map(|(_, set)| Arc::clone(set));
        let secrets = self.secrets().await.map_err(|error| self.unread(&error))?;
        let set = Arc::new(Set::new(secrets, before.as_deref()));
        *read = Some((changes, Arc::clone(&set)));
        Ok(set)
    }
}

#[async_trait]
impl Source for Held {
    async fn seed(&self) -> Result<(String, Zeroizing<[u8; 32]>), String> {
        let (_, seed) = self.made().await?;
        Ok((self.session.to_string(), seed))
    }

    async fn latest(&self, known: Option<u64>) -> Result<Option<(u64, Vec<Secret>)>, Unavailable> {
        // Asked first, as above.
        let changes = self.vaults.changes();
        if known == Some(changes) {
            return Ok(None);
        }
        let secrets = self.secrets().await.map_err(|error| self.unread(&error))?;
        Ok(Some((changes, secrets)))
    }
}

fn secret(variable: Variable, placeholder: Placeholder) -> Secret {
    let Injection { header, query, body } = variable.injection;
    Secret {
        name: variable.name,
        placeholder,
        value: variable.value,
        hosts: match variable.networking {
            CredentialNetworking::Unrestricted => Allowed::Public,
            CredentialNetworking::Limited { allowed_hosts } => {
                let mut hosts = Hosts::default();
                for host in &allowed_hosts {
                    if !hosts.add(host) {
                        tracing::warn!(host, "a host of a credential is none, and is left out");
                    }
                }
                Allowed::Listed(hosts)
            }
        },
        places: Places { header, query, body },
    }
}
