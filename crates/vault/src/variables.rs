//! Secrets for programs in sandboxes: what they may be, and which of them a session has.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use oma_domain::vault::{CredentialNetworking, Field, Injection, Kind, MAX_CREDENTIAL_HOSTS, Secrets, Spec};
use oma_domain::{CredentialId, VaultId, WorkspaceId};
use oma_egress::proxy::Hosts;
use oma_egress::proxy::secrets::{MAX_SECRET, MIN_SECRET, can_be_looked_for};
use oma_store::StoredCredential;
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::{Error, Result};
use crate::seal::Chamber;
use crate::vaults::{Vaults, no_randomness, open};

/// The longest name of a variable, in bytes.
const MAX_NAME: usize = 256;

/// A secret that a session's sandbox may use.
#[derive(Debug, Clone)]
pub struct Variable {
    /// The credential that it is from.
    pub credential: CredentialId,
    /// The variable.
    pub name: String,
    /// The secret.
    pub value: SecretString,
    /// The hosts that get it.
    pub networking: CredentialNetworking,
    /// Where in requests to them.
    pub injection: Injection,
}

impl Vaults {
    /// The secrets that the sandbox of a session with these vaults may use. Of several for one variable that of the
    /// first vault counts, and within a vault the newest. A vault that is gone has none, and a secret that does not
    /// open is left out.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn variables(&self, workspace: &WorkspaceId, vaults: &[VaultId]) -> Result<Vec<Variable>> {
        let mut found = BTreeMap::new();
        for vault in vaults {
            let all = self.inner.store.credential_specs(workspace, vault).await?;
            let mut newest = BTreeMap::new();
            for credential in all {
                if let Kind::EnvironmentVariable { secret_name, .. } = &credential.spec.kind {
                    newest.insert(secret_name.clone(), credential.id);
                }
            }
            newest.retain(|name, _| !found.contains_key(name));
            if newest.is_empty() {
                continue;
            }
            let chamber = match self.inner.chamber(workspace, vault).await {
                Ok(chamber) => chamber,
                Err(Error::VaultNotFound) => continue,
                Err(error @ Error::Unreadable(_)) => {
                    tracing::error!(%vault, %error, "a vault's secrets are left out");
                    continue;
                }
                Err(error) => return Err(error),
            };
            for (name, id) in newest {
                let stored = self.inner.store.credential(workspace, vault, &id).await?;
                // It may be gone meanwhile.
                let Some(stored) = stored.filter(|stored| stored.credential.archived_at.is_none()) else {
                    continue;
                };
                match variable(&chamber, &stored) {
                    Ok(variable) => drop(found.insert(name, variable)),
                    Err(error) => {
                        tracing::error!(credential = %id, %error, "a secret is left out");
                    }
                }
            }
        }
        Ok(found.into_values().collect())
    }

    /// Changes with each change of a vault or a credential: what was read before may be out of date then.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.inner.changes.load(Ordering::Acquire)
    }
}

fn variable(chamber: &Chamber, stored: &StoredCredential) -> Result<Variable> {
    let Kind::EnvironmentVariable {
        secret_name,
        networking,
        injection,
    } = &stored.credential.spec.kind
    else {
        return Err(Error::CredentialNotFound);
    };
    Ok(Variable {
        credential: stored.credential.id.clone(),
        name: secret_name.clone(),
        value: open(chamber, stored, Field::Value)?,
        networking: networking.clone(),
        injection: *injection,
    })
}

/// What a secret is bound to may change; the secret is sealed again then. Nothing for other kinds.
pub(crate) fn rebind(chamber: &Chamber, before: &Spec, stored: &StoredCredential) -> Result<Secrets> {
    let mut secrets = Secrets::new();
    let credential = &stored.credential;
    if let Kind::EnvironmentVariable { .. } = &credential.spec.kind
        && before.kind != credential.spec.kind
    {
        let mut old = stored.clone();
        old.credential.spec = before.clone();
        let value = open(chamber, &old, Field::Value)?;
        let sealed = chamber.seal(&credential.id, &credential.spec, Field::Value, &value);
        secrets.insert(Field::Value, sealed.map_err(no_randomness)?);
    }
    Ok(secrets)
}

/// Whether a variable may be what it says; other kinds are checked elsewhere.
pub(crate) fn check(kind: &Kind) -> Result<()> {
    let Kind::EnvironmentVariable {
        secret_name,
        networking,
        injection,
    } = kind
    else {
        return Ok(());
    };
    let invalid = |field, message: String| Err(Error::Invalid { field, message });
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_legal = secret_name.bytes().all(is_word)
        && !secret_name.is_empty()
        && secret_name.len() <= MAX_NAME
        && !secret_name.starts_with(|first: char| first.is_ascii_digit());
    if !is_legal {
        let message = format!(
            "it must be the name of a variable: up to {MAX_NAME} letters, digits and underscores, and no digit first"
        );
        return invalid("secretName", message);
    }
    if let CredentialNetworking::Limited { allowed_hosts } = networking {
        if allowed_hosts.len() > MAX_CREDENTIAL_HOSTS {
            return invalid(
                "networking",
                format!("there may be at most {MAX_CREDENTIAL_HOSTS} hosts"),
            );
        }
        if allowed_hosts.iter().any(|host| !Hosts::default().add(host)) {
            let message = "each host must be a host name, or `*.` and one; addresses and ports are none";
            return invalid("networking", message.to_owned());
        }
    }
    if injection.is_nowhere() {
        let message = "the secret has to be put somewhere: at least one place must be true";
        return invalid("injectionLocation", message.to_owned());
    }
    Ok(())
}

/// Whether a text can be put into headers, and be found in what comes back.
pub(crate) fn check_value(value: &SecretString) -> Result<()> {
    let value = value.expose_secret();
    let message = if value.len() < MIN_SECRET {
        format!(
            "it must have at least {MIN_SECRET} bytes: a shorter one can't be told from chance in what comes back"
        )
    } else if value.len() > MAX_SECRET {
        format!("it must have at most {MAX_SECRET} bytes, so that it fits a header")
    } else if value.chars().any(char::is_control) {
        "it has control characters, such as line breaks, that a header can't carry".to_owned()
    } else if value.trim() != value {
        "it has white space around it, which headers lose".to_owned()
    } else if !can_be_looked_for(value) {
        "it is one text over and over, or has many backslashes in a row: it could not be looked for in what comes back"
            .to_owned()
    } else {
        return Ok(());
    };
    Err(Error::Invalid {
        field: "secretValue",
        message,
    })
}
