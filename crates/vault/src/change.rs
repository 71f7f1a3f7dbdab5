//! Changing a credential in place.

use oma_domain::Timestamp;
use oma_domain::vault::{ClientAuth, Field, Kind, Spec};
use secrecy::SecretString;

use crate::error::{Error, Result};

/// What changes about a credential. Where its secrets go does not: a secret that can't be read must not be sent
/// elsewhere by whoever may change it.
#[derive(Debug, Clone, Default)]
pub struct CredentialChange {
    /// Another name.
    pub name: Option<String>,
    /// Another static token.
    pub token: Option<SecretString>,
    /// Another access token.
    pub access_token: Option<SecretString>,
    /// When the access token ends. Another access token without it has no known end.
    pub expires_at: Option<Timestamp>,
    /// Another refresh token.
    pub refresh_token: Option<SecretString>,
    /// Another secret of the OAuth client.
    pub client_secret: Option<SecretString>,
    /// Other scopes.
    pub scopes: Option<Vec<String>>,
}

impl CredentialChange {
    /// Changes what may be shown, and returns the secrets that change.
    pub(crate) fn apply(&self, spec: &mut Spec) -> Result<Vec<(Field, &SecretString)>> {
        if let Some(name) = &self.name {
            spec.name.clone_from(name);
        }
        let not_for = |field| Error::Invalid {
            field,
            message: "a credential of this type has none".to_owned(),
        };
        let mut changed = Vec::new();
        match &mut spec.kind {
            Kind::StaticBearer => {
                let foreign = [
                    ("accessToken", self.access_token.is_some()),
                    ("expiresAt", self.expires_at.is_some()),
                    ("refreshToken", self.refresh_token.is_some()),
                    ("clientSecret", self.client_secret.is_some()),
                    ("scopes", self.scopes.is_some()),
                ];
                if let Some((field, _)) = foreign.into_iter().find(|(_, is_given)| *is_given) {
                    return Err(not_for(field));
                }
                changed.extend(self.token.as_ref().map(|token| (Field::Token, token)));
            }
            Kind::McpOauth { expires_at, refresh } => {
                if self.token.is_some() {
                    return Err(not_for("token"));
                }
                // The end of another token says nothing of this one.
                if self.expires_at.is_some() || self.access_token.is_some() {
                    *expires_at = self.expires_at;
                }
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
