//! Changing a credential in place.

use std::collections::BTreeMap;

use oma_domain::vault::{ClientAuth, CredentialNetworking, Field, Injection, Kind};
use oma_domain::{Credential, Timestamp};
use secrecy::SecretString;

use crate::error::{Error, Result};

/// What becomes of what is known of an access token's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expiry {
    /// It stays, unless there is another access token, whose end is not known.
    #[default]
    OfToken,
    /// It stays, whatever token there is.
    Keep,
    /// It is not known.
    Unknown,
    /// The token ends then.
    At(Timestamp),
}

/// What becomes of metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MetadataChange {
    /// It stays.
    #[default]
    Keep,
    /// All of it goes.
    Clear,
    /// These pairs are set; those without a value go.
    Merge(Vec<(String, Option<String>)>),
}

impl MetadataChange {
    /// Changes metadata.
    pub fn apply(&self, metadata: &mut BTreeMap<String, String>) {
        match self {
            Self::Keep => {}
            Self::Clear => metadata.clear(),
            Self::Merge(pairs) => {
                for (name, value) in pairs {
                    match value {
                        Some(value) => metadata.insert(name.clone(), value.clone()),
                        None => metadata.remove(name),
                    };
                }
            }
        }
    }
}

/// What becomes of the places in requests; those that are not named stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InjectionChange {
    /// Headers.
    pub header: Option<bool>,
    /// The query.
    pub query: Option<bool>,
    /// The body.
    pub body: Option<bool>,
}

impl InjectionChange {
    fn is_none(self) -> bool {
        self == Self::default()
    }

    fn apply(self, injection: &mut Injection) {
        injection.header = self.header.unwrap_or(injection.header);
        injection.query = self.query.unwrap_or(injection.query);
        injection.body = self.body.unwrap_or(injection.body);
    }
}

/// What changes about a credential. Where its secrets go does not, but for the hosts of an environment variable: a
/// secret that can't be read must not be sent elsewhere by whoever may change it.
#[derive(Debug, Clone, Default)]
pub struct CredentialChange {
    /// Another name.
    pub name: Option<String>,
    /// Another static token.
    pub token: Option<SecretString>,
    /// Another access token.
    pub access_token: Option<SecretString>,
    /// When the access token ends.
    pub expires_at: Expiry,
    /// Another refresh token.
    pub refresh_token: Option<SecretString>,
    /// Another secret of the OAuth client.
    pub client_secret: Option<SecretString>,
    /// Other scopes.
    pub scopes: Option<Vec<String>>,
    /// Another value of an environment variable.
    pub value: Option<SecretString>,
    /// Other hosts that get it.
    pub networking: Option<CredentialNetworking>,
    /// Where in requests it is put.
    pub injection: InjectionChange,
    /// What becomes of its metadata.
    pub metadata: MetadataChange,
}

impl CredentialChange {
    /// Changes what may be shown, and returns the secrets that change.
    pub(crate) fn apply(&self, credential: &mut Credential) -> Result<Vec<(Field, &SecretString)>> {
        self.metadata.apply(&mut credential.metadata);
        let spec = &mut credential.spec;
        if let Some(name) = &self.name {
            spec.name.clone_from(name);
        }
        let not_for = |field| Error::Invalid {
            field,
            message: "a credential of this type has none".to_owned(),
        };
        let of_oauth = [
            ("accessToken", self.access_token.is_some()),
            ("expiresAt", matches!(self.expires_at, Expiry::At(_))),
            ("refreshToken", self.refresh_token.is_some()),
            ("clientSecret", self.client_secret.is_some()),
            ("scopes", self.scopes.is_some()),
        ];
        let of_variable = [
            ("secretValue", self.value.is_some()),
            ("networking", self.networking.is_some()),
            ("injectionLocation", !self.injection.is_none()),
        ];
        let of_bearer = [("token", self.token.is_some())];
        let foreign = match &spec.kind {
            Kind::StaticBearer => [&of_oauth[..], &of_variable].concat(),
            Kind::McpOauth { .. } => [&of_bearer[..], &of_variable].concat(),
            Kind::EnvironmentVariable { .. } => [&of_bearer[..], &of_oauth].concat(),
        };
        if let Some((field, _)) = foreign.into_iter().find(|(_, is_given)| *is_given) {
            return Err(not_for(field));
        }
        let mut changed = Vec::new();
        match &mut spec.kind {
            Kind::StaticBearer => {
                changed.extend(self.token.as_ref().map(|token| (Field::Token, token)));
            }
            Kind::EnvironmentVariable {
                networking,
                injection,
                ..
            } => {
                if let Some(other) = &self.networking {
                    networking.clone_from(other);
                }
                self.injection.apply(injection);
                changed.extend(self.value.as_ref().map(|value| (Field::Value, value)));
            }
            Kind::McpOauth { expires_at, refresh } => {
                *expires_at = match self.expires_at {
                    Expiry::At(end) => Some(end),
                    Expiry::Unknown => None,
                    // The end of another token says nothing of this one.
                    Expiry::OfToken if self.access_token.is_some() => None,
                    Expiry::OfToken | Expiry::Keep => *expires_at,
                };
                changed.extend(self.access_token.as_ref().map(|token| (Field::Token, token)));
                match refresh {
                    Some(refresh) => {
                        if self.scopes.is_some() {
                            refresh.scopes.clone_from(&self.scopes);
                        }
                        if self.client_secret.is_some() && refresh.client_auth == ClientAuth::None {
                            return Err(not_for("clientSecret"));
                        }
                        changed.extend(
                            self.refresh_token
                                .as_ref()
                                .map(|token| (Field::RefreshToken, token)),
                        );
                        changed.extend(
                            self.client_secret
                                .as_ref()
                                .map(|secret| (Field::ClientSecret, secret)),
                        );
                    }
                    None if self.refresh_token.is_some() => return Err(not_for("refreshToken")),
                    None if self.client_secret.is_some() => return Err(not_for("clientSecret")),
                    None if self.scopes.is_some() => return Err(not_for("scopes")),
                    None => {}
                }
            }
        }
        Ok(changed)
    }
}
