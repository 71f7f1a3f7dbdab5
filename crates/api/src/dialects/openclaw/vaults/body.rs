//! What clients send about vaults and credentials. Secrets are taken into types that don't show them; no problem
//! that is reported repeats a value.

use std::collections::BTreeMap;

use oma_domain::Timestamp;
use oma_domain::vault::{CredentialNetworking, Injection, MAX_CREDENTIAL_HOSTS};
use oma_vault::{
    ClientSecret, CredentialChange, Expiry, InjectionChange, MetadataChange, NewCredential, NewRefresh,
    NewSecret, NewVault,
};
use secrecy::SecretString;
use serde_json::Value;
use utoipa::ToSchema;

use crate::dialects::openclaw::environments::body::host_pattern;
use crate::fault::{Fault, Result};
use crate::limits;
use crate::validate::checks::{
    boolean, discriminator, integer, list, one_of, text, url, variable, variable_value,
};
use crate::validate::{Body, Object, Tree};

/// The latest time: what JavaScript's numbers hold without loss.
const LATEST: u64 = (1 << 53) - 1;

/// A vault to create.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct CreateVault {
    /// The end user whose secrets it will hold, in the client's own words.
    #[schema(min_length = 1, max_length = 256)]
    user_id: String,
    /// A name for people.
    #[schema(required = false, max_length = 256)]
    name: String,
}

impl Body for CreateVault {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let user_id = object.required("userId", text(1, limits::NAME));
        let name = object.or("name", String::new(), text(0, limits::NAME));
        Some(Self {
            user_id: user_id?,
            name: name?,
        })
    }
}

impl CreateVault {
    /// What to create.
    #[must_use]
    pub fn into_new(self) -> NewVault {
        NewVault {
            user: Some(self.user_id),
            name: self.name,
            metadata: BTreeMap::new(),
        }
    }
}

/// What changes about a vault.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct UpdateVault {
    /// A name for people.
    #[schema(max_length = 256, nullable = false)]
    pub name: Option<String>,
}

impl Body for UpdateVault {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let name = object.optional("name", text(0, limits::NAME))?;
        Some(Self { name })
    }
}

/// The types of credentials.
#[derive(Debug, Clone, Copy, ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum CredentialType {
    /// A token that does not change by itself.
    StaticBearer,
    /// An access token of OAuth, refreshed before it ends.
    McpOauth,
    /// A secret that programs in the sandbox use without having it.
    EnvironmentVariable,
}

/// A credential to add.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct AddCredential {
    /// Which type it has.
    r#type: CredentialType,
    /// A name for people.
    #[schema(required, min_length = 1, max_length = 256, nullable = false)]
    name: Option<String>,
    /// `static_bearer` and `mcp_oauth`: the URLs that it is for: this one and those below its path.
    #[schema(min_length = 1, max_length = 2048, nullable = false)]
    match_url: Option<String>,
    /// `static_bearer`: the token.
    #[schema(value_type = Option<String>, write_only, min_length = 1, max_length = 65536, nullable = false)]
    token: Option<SecretString>,
    /// `mcp_oauth`: the access token.
    #[schema(value_type = Option<String>, write_only, min_length = 1, max_length = 65536, nullable = false)]
    access_token: Option<SecretString>,
    /// `mcp_oauth`: the refresh token.
    #[schema(value_type = Option<String>, write_only, min_length = 1, max_length = 65536, nullable = false)]
    refresh_token: Option<SecretString>,
    /// `mcp_oauth`: when the access token ends, in milliseconds since the epoch; without it the token is refreshed
    /// when a server refuses it.
    #[schema(nullable = false)]
    expires_at: Option<u64>,
    /// `mcp_oauth`: where tokens are refreshed.
    #[schema(max_length = 2048, nullable = false)]
    token_endpoint: Option<String>,
    /// `mcp_oauth`: who the client is to the issuer.
    #[schema(min_length = 1, max_length = 2048, nullable = false)]
    client_id: Option<String>,
    /// `mcp_oauth`: the client's secret; a public client has none.
    #[schema(value_type = Option<String>, write_only, min_length = 1, max_length = 65536, nullable = false)]
    client_secret: Option<SecretString>,
    /// `mcp_oauth`: how the client's secret is sent; `client_secret_post` without it.
    #[schema(nullable = false)]
    token_endpoint_auth: Option<TokenEndpointAuth>,
    /// `mcp_oauth`: the scopes to ask for.
    #[schema(max_items = 64, nullable = false)]
    scopes: Option<Vec<String>>,
    /// `environment_variable`: the variable of the sandbox.
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    secret_name: Option<String>,
    /// `environment_variable`: the secret, of 8 to 8192 bytes without control characters.
    #[schema(value_type = Option<String>, write_only, min_length = 8, max_length = 8192, nullable = false)]
    secret_value: Option<SecretString>,
    /// `environment_variable`: the hosts that get it.
    #[schema(value_type = Option<SecretNetworking>, nullable = false)]
    networking: Option<CredentialNetworking>,
    /// `environment_variable`: where in requests it is put; everywhere without it.
    #[schema(value_type = Option<InjectionLocation>, nullable = false)]
    injection_location: Option<InjectionChange>,
}

/// The hosts that get a secret, of those that the session may reach.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it describes a part of the body in the API document")]
pub struct SecretNetworking {
    /// `unrestricted` for all of them, or `limited`.
    r#type: String,
    /// `limited`: names of hosts, or `*.name` for those below.
    #[schema(max_items = 16, nullable = false)]
    allowed_hosts: Option<Vec<String>>,
}

/// Where in requests a secret is put. What is missing is false in a new credential, and stays in one that is changed.
/// At least one has to be true.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes a part of the body in the API document")]
pub struct InjectionLocation {
    /// In headers.
    #[schema(nullable = false)]
    header: Option<bool>,
    /// In the query of the URL.
    #[schema(nullable = false)]
    query: Option<bool>,
    /// In the body.
    #[schema(nullable = false)]
    body: Option<bool>,
}

fn networking(value: &Value, issues: &mut Tree) -> Option<CredentialNetworking> {
    let mut object = Object::of(value, issues)?;
    if discriminator(&mut object, &["unrestricted", "limited"])? == "unrestricted" {
        return Some(CredentialNetworking::Unrestricted);
    }
    let hosts = list(0, MAX_CREDENTIAL_HOSTS, host_pattern);
    let allowed_hosts = object.required("allowedHosts", hosts)?;
    Some(CredentialNetworking::Limited { allowed_hosts })
}

fn places(value: &Value, issues: &mut Tree) -> Option<InjectionChange> {
    let mut object = Object::of(value, issues)?;
    let header = object.optional("header", boolean);
    let query = object.optional("query", boolean);
    let body = object.optional("body", boolean);
    Some(InjectionChange {
        header: header?,
        query: query?,
        body: body?,
    })
}

/// How an OAuth client sends its secret, by the names of RFC 7591.
#[derive(Debug, Clone, Copy, ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum TokenEndpointAuth {
    /// In the body.
    ClientSecretPost,
    /// In the `Authorization` header.
    ClientSecretBasic,
}

fn token_endpoint_auth(value: &Value, issues: &mut Tree) -> Option<TokenEndpointAuth> {
    let name = one_of(&["client_secret_post", "client_secret_basic"])(value, issues)?;
    Some(match name {
        "client_secret_basic" => TokenEndpointAuth::ClientSecretBasic,
        _ => TokenEndpointAuth::ClientSecretPost,
    })
}

/// A secret text.
fn secret(value: &Value, issues: &mut Tree) -> Option<SecretString> {
    text(1, limits::SECRET)(value, issues).map(SecretString::from)
}

fn scopes(value: &Value, issues: &mut Tree) -> Option<Vec<String>> {
    list(0, limits::SCOPES, text(1, limits::NAME))(value, issues)
}

fn time(value: &Value, issues: &mut Tree) -> Option<u64> {
    integer(0, LATEST)(value, issues)
}

const TYPES: &[&str] = &["static_bearer", "mcp_oauth", "environment_variable"];

impl Body for AddCredential {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let r#type = match discriminator(object, TYPES)? {
            "static_bearer" => CredentialType::StaticBearer,
            "mcp_oauth" => CredentialType::McpOauth,
            _ => {
                let name = object.required("name", text(1, limits::NAME));
                let secret_name = object.required("secretName", variable);
                let secret_value = object.required("secretValue", variable_value);
                let networking = object.required("networking", networking);
                let injection = object.optional("injectionLocation", places);
                return Some(Self {
                    r#type: CredentialType::EnvironmentVariable,
                    name: Some(name?),
                    match_url: None,
                    token: None,
                    access_token: None,
                    refresh_token: None,
                    expires_at: None,
                    token_endpoint: None,
                    client_id: None,
                    client_secret: None,
                    token_endpoint_auth: None,
                    scopes: None,
                    secret_name: Some(secret_name?),
                    secret_value: Some(secret_value?),
                    networking: Some(networking?),
                    injection_location: injection?,
                });
            }
        };
        let is_static = matches!(r#type, CredentialType::StaticBearer);
        let name = object.required("name", text(1, limits::NAME));
        let match_url = object.required("matchUrl", text(1, limits::MATCH_URL));
        let mut token = None;
        let mut access_token = None;
        let mut refresh_token = None;
        let mut token_endpoint = None;
        let mut client_id = None;
        let mut client_secret = Some(None);
        let mut auth = Some(None);
        let mut expires_at = Some(None);
        let mut asked = Some(None);
        if is_static {
            token = object.required("token", secret);
        } else {
            access_token = object.required("accessToken", secret);
            refresh_token = object.required("refreshToken", secret);
            token_endpoint = object.required("tokenEndpoint", url(limits::MATCH_URL));
            client_id = object.required("clientId", text(1, limits::MATCH_URL));
            client_secret = object.optional("clientSecret", secret);
            auth = object.optional("tokenEndpointAuth", token_endpoint_auth);
            if let (Some(None), Some(Some(_))) = (&client_secret, &auth) {
                let node = object.issues().at("clientSecret");
                node.push("Required with 'tokenEndpointAuth'");
            }
            expires_at = object.optional("expiresAt", time);
            asked = object.optional("scopes", scopes);
        }
        Some(Self {
            r#type,
            name: Some(name?),
            match_url: Some(match_url?),
            token,
            access_token,
            refresh_token,
            expires_at: expires_at?,
            token_endpoint,
            client_id,
            client_secret: client_secret?,
            token_endpoint_auth: auth?,
            scopes: asked?,
            secret_name: None,
            secret_value: None,
            networking: None,
            injection_location: None,
        })
    }
}

impl AddCredential {
    /// What to add.
    ///
    /// # Errors
    /// When a field is missing that was checked before.
    pub fn into_new(self) -> Result<NewCredential> {
        let missing = || Fault::internal("a credential passed its checks without all of its fields");
        let secret = match self.r#type {
            CredentialType::StaticBearer => NewSecret::StaticBearer {
                token: self.token.ok_or_else(missing)?,
            },
            CredentialType::McpOauth => NewSecret::McpOauth {
                access_token: self.access_token.ok_or_else(missing)?,
                expires_at: self.expires_at.map(timestamp),
                refresh: Some(NewRefresh {
                    refresh_token: self.refresh_token.ok_or_else(missing)?,
                    token_endpoint: self.token_endpoint.ok_or_else(missing)?,
                    client_id: self.client_id.ok_or_else(missing)?,
                    client_secret: match (self.client_secret, self.token_endpoint_auth) {
                        (None, _) => ClientSecret::None,
                        (Some(secret), Some(TokenEndpointAuth::ClientSecretBasic)) => {
                            ClientSecret::Basic(secret)
                        }
                        (Some(secret), Some(TokenEndpointAuth::ClientSecretPost) | None) => {
                            ClientSecret::Post(secret)
                        }
                    },
                    scopes: self.scopes,
                    resource: None,
                }),
            },
            CredentialType::EnvironmentVariable => NewSecret::EnvironmentVariable {
                name: self.secret_name.ok_or_else(missing)?,
                value: self.secret_value.ok_or_else(missing)?,
                networking: self.networking.ok_or_else(missing)?,
                injection: self
                    .injection_location
                    .map_or(Injection::ALL, |places| Injection {
                        header: places.header.unwrap_or_default(),
                        query: places.query.unwrap_or_default(),
                        body: places.body.unwrap_or_default(),
                    }),
            },
        };
        let is_for_hosts = matches!(self.r#type, CredentialType::EnvironmentVariable);
        Ok(NewCredential {
            name: self.name.ok_or_else(missing)?,
            match_url: match self.match_url {
                None if is_for_hosts => String::new(),
                url => url.ok_or_else(missing)?,
            },
            secret,
            metadata: BTreeMap::new(),
        })
    }
}

fn timestamp(millis: u64) -> Timestamp {
    Timestamp(i64::try_from(millis).unwrap_or(i64::MAX))
}

/// What changes about a credential. Fields of another type than the credential's are refused.
#[derive(Debug)]
pub struct UpdateCredential(pub CredentialChange);

/// What can't be changed, because it says where a secret goes, and how.
const FIXED: [&str; 6] = [
    "type",
    "secretName",
    "matchUrl",
    "tokenEndpoint",
    "tokenEndpointAuth",
    "clientId",
];

impl Body for UpdateCredential {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        for name in FIXED {
            if object.peek(name).is_some() {
                object
                    .issues()
                    .at(name)
                    .push("Can't be changed; add another credential instead");
            }
        }
        let name = object.optional("name", text(1, limits::NAME));
        let token = object.optional("token", secret);
        let access_token = object.optional("accessToken", secret);
        let refresh_token = object.optional("refreshToken", secret);
        let client_secret = object.optional("clientSecret", secret);
        let expires_at = object.optional("expiresAt", time);
        let scopes = object.optional("scopes", scopes);
        let value = object.optional("secretValue", variable_value);
        let networking = object.optional("networking", networking);
        let injection = object.optional("injectionLocation", places);
        Some(Self(CredentialChange {
            name: name?,
            token: token?,
            access_token: access_token?,
            expires_at: expires_at?.map_or(Expiry::OfToken, |end| Expiry::At(timestamp(end))),
            refresh_token: refresh_token?,
            client_secret: client_secret?,
            scopes: scopes?,
            value: value?,
            networking: networking?,
            injection: injection?.unwrap_or_default(),
            metadata: MetadataChange::Keep,
        }))
    }
}

/// The fields of [`UpdateCredential`] in the API document.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", as = UpdateCredential)]
#[expect(
    dead_code,
    reason = "it describes the body in the API document; `UpdateCredential` reads it"
)]
pub struct UpdateCredentialBody {
    /// A name for people.
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    name: Option<String>,
    /// `static_bearer`: another token.
    #[schema(write_only, min_length = 1, max_length = 65536, nullable = false)]
    token: Option<String>,
    /// `mcp_oauth`: another access token.
    #[schema(write_only, min_length = 1, max_length = 65536, nullable = false)]
    access_token: Option<String>,
    /// `mcp_oauth`: another refresh token.
    #[schema(write_only, min_length = 1, max_length = 65536, nullable = false)]
    refresh_token: Option<String>,
    /// `mcp_oauth`: another secret of the client.
    #[schema(write_only, min_length = 1, max_length = 65536, nullable = false)]
    client_secret: Option<String>,
    /// `mcp_oauth`: when the access token ends, in milliseconds since the epoch. Without it this is as before, or
    /// not known when there is another access token.
    #[schema(nullable = false)]
    expires_at: Option<u64>,
    /// `mcp_oauth`: the scopes to ask for.
    #[schema(max_items = 64, nullable = false)]
    scopes: Option<Vec<String>>,
    /// `environment_variable`: another secret.
    #[schema(write_only, min_length = 8, max_length = 8192, nullable = false)]
    secret_value: Option<String>,
    /// `environment_variable`: other hosts that get it.
    #[schema(nullable = false)]
    networking: Option<SecretNetworking>,
    /// `environment_variable`: other places.
    #[schema(nullable = false)]
    injection_location: Option<InjectionLocation>,
}
