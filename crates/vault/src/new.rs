//! What callers give: vaults and credentials to make.

use std::collections::BTreeMap;

use oma_domain::Timestamp;
use oma_domain::vault::{ClientAuth, CredentialNetworking, Field, Injection, Kind, Refresh};
use secrecy::SecretString;

/// A vault to create.
#[derive(Debug, Clone)]
pub struct NewVault {
    /// The end user whose secrets it will hold.
    pub user: Option<String>,
    /// A name for people.
    pub name: String,
    /// Whatever the client wants to remember with it.
    pub metadata: BTreeMap<String, String>,
}

/// A credential to add.
#[derive(Debug, Clone)]
pub struct NewCredential {
    /// A name for people.
    pub name: String,
    /// The URLs that it is for; empty for an environment variable.
    pub match_url: String,
    /// What it is.
    pub secret: NewSecret,
    /// Whatever the client wants to remember with it.
    pub metadata: BTreeMap<String, String>,
}

/// The secrets of a credential to add.
#[derive(Debug, Clone)]
pub enum NewSecret {
    /// A token that does not change by itself.
    StaticBearer {
        /// The token.
        token: SecretString,
    },
    /// An access token of OAuth.
    McpOauth {
        /// The access token.
        access_token: SecretString,
        /// When it ends, when that is known.
        expires_at: Option<Timestamp>,
        /// How to get the next one.
        refresh: Option<NewRefresh>,
    },
    /// A secret for programs in the sandbox.
    EnvironmentVariable {
        /// The variable.
        name: String,
        /// The secret.
        value: SecretString,
        /// The hosts that get it.
        networking: CredentialNetworking,
        /// Where in requests to them.
        injection: Injection,
    },
}

/// How the next access token is to be got.
#[derive(Debug, Clone)]
pub struct NewRefresh {
    /// The refresh token.
    pub refresh_token: SecretString,
    /// Where tokens are issued.
    pub token_endpoint: String,
    /// Who the client is to the issuer.
    pub client_id: String,
    /// How the client proves that.
    pub client_secret: ClientSecret,
    /// The scopes to ask for.
    pub scopes: Option<Vec<String>>,
    /// What the token is for (RFC 8707).
    pub resource: Option<String>,
}

/// How an OAuth client proves who it is, with what.
#[derive(Debug, Clone)]
pub enum ClientSecret {
    /// A public client.
    None,
    /// In the `Authorization` header.
    Basic(SecretString),
    /// In the body.
    Post(SecretString),
}

/// What may be shown of a secret to add, and what may not.
pub(crate) fn take_apart(secret: NewSecret) -> (Kind, Vec<(Field, SecretString)>) {
    let mut plain = Vec::new();
    let kind = match secret {
        NewSecret::StaticBearer { token } => {
            plain.push((Field::Token, token));
            Kind::StaticBearer
        }
        NewSecret::McpOauth {
            access_token,
            expires_at,
            refresh,
        } => {
            plain.push((Field::Token, access_token));
            let refresh = refresh.map(|refresh| {
                plain.push((Field::RefreshToken, refresh.refresh_token));
                let client_auth = match refresh.client_secret {
                    ClientSecret::None => ClientAuth::None,
                    ClientSecret::Basic(secret) => {
                        plain.push((Field::ClientSecret, secret));
                        ClientAuth::ClientSecretBasic
                    }
                    ClientSecret::Post(secret) => {
                        plain.push((Field::ClientSecret, secret));
                        ClientAuth::ClientSecretPost
                    }
                };
                Refresh {
                    token_endpoint: refresh.token_endpoint,
                    client_id: refresh.client_id,
                    client_auth,
                    scopes: refresh.scopes,
                    resource: refresh.resource,
                }
            });
            Kind::McpOauth { expires_at, refresh }
        }
        NewSecret::EnvironmentVariable {
            name,
            value,
            networking,
            injection,
        } => {
            plain.push((Field::Value, value));
            Kind::EnvironmentVariable {
                secret_name: name,
                networking,
                injection,
            }
        }
    };
    (kind, plain)
}
