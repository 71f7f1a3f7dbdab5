//! What a credential is and what its secrets are: read when it is added, and what may be changed about it.

use jiff::Timestamp as Instant;
use oma_domain::Timestamp;
use oma_domain::vault::{ClientAuth, CredentialNetworking, Injection, Kind, MAX_CREDENTIAL_HOSTS};
use oma_vault::{ClientSecret, CredentialChange, Expiry, InjectionChange, NewRefresh, NewSecret};
use secrecy::SecretString;
use serde_json::Value;

use super::body::{DISPLAY_NAME, changed_metadata};
use crate::dialects::claude::body::{nullable, object, only, parse};
use crate::dialects::openclaw::environments::body::host_pattern;
use crate::fault::Result;
use crate::limits;
use crate::validate::checks::{boolean, discriminator, list, text, url, variable, variable_value};
use crate::validate::{Change, Object, Tree};

/// The longest scope, in characters: as many scopes as the other dialect takes.
const SCOPE: usize = 4_096;

/// What a body may say of a credential that is a variable.
const VARIABLE: &[&str] = &[
    "type",
    "secret_name",
    "secret_value",
    "networking",
    "injection_location",
];

const TYPES: [&str; 3] = ["static_bearer", "mcp_oauth", "environment_variable"];

/// Reads the `auth` of a credential to add: the URL that it is for, and what it is.
pub(super) fn create(value: &Value, issues: &mut Tree) -> Option<(String, NewSecret)> {
    let mut object = Object::of(value, issues)?;
    match discriminator(&mut object, &TYPES)? {
        "static_bearer" => {
            only(&mut object, &["type", "mcp_server_url", "token"]);
            let url = object.required("mcp_server_url", text(1, limits::MATCH_URL));
            let token = object.required("token", secret);
            Some((url?, NewSecret::StaticBearer { token: token? }))
        }
        "mcp_oauth" => {
            only(
                &mut object,
                &["type", "mcp_server_url", "access_token", "expires_at", "refresh"],
            );
            let url = object.required("mcp_server_url", text(1, limits::MATCH_URL));
            let access_token = object.required("access_token", secret);
            let expires_at = nullable(&mut object, "expires_at", future);
            let refresh = nullable(&mut object, "refresh", refresh);
            let secret = NewSecret::McpOauth {
                access_token: access_token?,
                expires_at: expires_at?,
                refresh: refresh?,
            };
            Some((url?, secret))
        }
        _ => {
            only(&mut object, VARIABLE);
            let name = object.required("secret_name", variable);
            let value = object.required("secret_value", variable_value);
            let networking = object.required("networking", networking);
            let injection = object.optional("injection_location", places);
            let injection = injection?.map_or(Injection::ALL, |change: InjectionChange| {
                let header = change.header.unwrap_or_default();
                Injection {
                    header,
                    query: header,
                    body: change.body.unwrap_or_default(),
                }
            });
            let secret = NewSecret::EnvironmentVariable {
                name: name?,
                value: value?,
                networking: networking?,
                injection,
            };
            // It is for hosts, and for no URL.
            Some((String::new(), secret))
        }
    }
}

/// The hosts that get a secret.
fn networking(value: &Value, issues: &mut Tree) -> Option<CredentialNetworking> {
    let mut object = Object::of(value, issues)?;
    if discriminator(&mut object, &["unrestricted", "limited"])? == "unrestricted" {
        only(&mut object, &["type"]);
        return Some(CredentialNetworking::Unrestricted);
    }
    only(&mut object, &["type", "allowed_hosts"]);
    let hosts = list(0, MAX_CREDENTIAL_HOSTS, host_pattern);
    let allowed_hosts = object.required("allowed_hosts", hosts)?;
    Some(CredentialNetworking::Limited { allowed_hosts })
}

/// Where in requests a secret is put. What holds for headers holds for the query, which stands with them before the
/// body.
fn places(value: &Value, issues: &mut Tree) -> Option<InjectionChange> {
    object(&["header", "body"], |object| {
        let header = object.optional("header", boolean);
        let body = object.optional("body", boolean);
        let (header, body) = (header?, body?);
        Some(InjectionChange {
            header,
            query: header,
            body,
        })
    })(value, issues)
}

fn refresh(value: &Value, issues: &mut Tree) -> Option<NewRefresh> {
    let fields = &[
        "client_id",
        "refresh_token",
        "token_endpoint",
        "token_endpoint_auth",
        "resource",
        "scope",
    ];
    object(fields, |object| {
        let client_id = object.required("client_id", text(1, limits::MATCH_URL));
        let refresh_token = object.required("refresh_token", secret);
        let token_endpoint = object.required("token_endpoint", url(limits::MATCH_URL));
        let client_secret = object.required("token_endpoint_auth", client_secret);
        let resource = nullable(object, "resource", text(1, limits::MATCH_URL));
        let scope = nullable(object, "scope", scopes);
        Some(NewRefresh {
            refresh_token: refresh_token?,
            token_endpoint: token_endpoint?,
            client_id: client_id?,
            client_secret: client_secret?,
            scopes: scope?.filter(|scopes| !scopes.is_empty()),
            resource: resource?,
        })
    })(value, issues)
}

fn client_secret(value: &Value, issues: &mut Tree) -> Option<ClientSecret> {
    let mut object = Object::of(value, issues)?;
    let kind = discriminator(
        &mut object,
        &["none", "client_secret_basic", "client_secret_post"],
    )?;
    if kind == "none" {
        only(&mut object, &["type"]);
        return Some(ClientSecret::None);
    }
    only(&mut object, &["type", "client_secret"]);
    let secret = object.required("client_secret", secret)?;
    Some(match kind {
        "client_secret_basic" => ClientSecret::Basic(secret),
        _ => ClientSecret::Post(secret),
    })
}

/// A secret text.
fn secret(value: &Value, issues: &mut Tree) -> Option<SecretString> {
    text(1, limits::SECRET)(value, issues).map(SecretString::from)
}

/// The scopes in a text, which spaces part.
fn scopes(value: &Value, issues: &mut Tree) -> Option<Vec<String>> {
    let scope = text(0, SCOPE)(value, issues)?;
    let scopes: Vec<String> = scope.split_ascii_whitespace().map(str::to_owned).collect();
    if scopes.len() > limits::SCOPES {
        issues.push(format!("There may be at most {} scopes", limits::SCOPES));
        return None;
    }
    Some(scopes)
}

/// A time that has not come yet.
fn future(value: &Value, issues: &mut Tree) -> Option<Timestamp> {
    let text = text(1, limits::NAME)(value, issues)?;
    let Ok(instant) = text.parse::<Instant>() else {
        issues.push("Must be a time as in RFC 3339");
        return None;
    };
    if instant <= Instant::now() {
        issues.push("Must be in the future");
        return None;
    }
    Some(Timestamp(instant.as_millisecond()))
}

/// Reads an update of a credential of this kind.
pub(super) fn update(value: &Value, kind: &Kind) -> Result<CredentialChange> {
    parse(value, &["auth", "display_name", "metadata"], |object| {
        let name = object.change("display_name", text(1, DISPLAY_NAME));
        let metadata = changed_metadata(object);
        let auth = object.optional("auth", |value, issues| changed(value, issues, kind));
        let mut change = auth?.unwrap_or_default();
        change.name = match name? {
            Change::Keep => None,
            Change::Clear => Some(String::new()),
            Change::Set(name) => Some(name),
        };
        change.metadata = metadata?;
        Some(change)
    })
}

/// What can't be changed, because it says where a secret goes, and how.
const FIXED: [&str; 5] = [
    "mcp_server_url",
    "client_id",
    "token_endpoint",
    "resource",
    "secret_name",
];

fn fixed(object: &mut Object<'_>) {
    for name in FIXED {
        if object.peek(name).is_some() {
            let problem = "Can't be changed; add another credential instead";
            object.issues().at(name).push(problem);
        }
    }
}

fn changed(value: &Value, issues: &mut Tree, kind: &Kind) -> Option<CredentialChange> {
    let mut object = Object::of(value, issues)?;
    let named = discriminator(&mut object, &TYPES)?;
    if named != kind.name() {
        let problem = format!("Can't be changed; this credential has the type {}", kind.name());
        object.issues().at("type").push(problem);
        return None;
    }
    fixed(&mut object);
    match kind {
        Kind::StaticBearer => {
            only(&mut object, &["type", "token", "mcp_server_url"]);
            let token = nullable(&mut object, "token", secret);
            Some(CredentialChange {
                token: token?,
                ..CredentialChange::default()
            })
        }
        Kind::EnvironmentVariable { .. } => {
            only(&mut object, VARIABLE);
            let value = nullable(&mut object, "secret_value", variable_value);
            let networking = nullable(&mut object, "networking", networking);
            let injection = object.optional("injection_location", places);
            Some(CredentialChange {
                value: value?,
                networking: networking?,
                injection: injection?.unwrap_or_default(),
                ..CredentialChange::default()
            })
        }
        Kind::McpOauth { refresh, .. } => {
            let fields = &["type", "access_token", "expires_at", "refresh", "mcp_server_url"];
            only(&mut object, fields);
            let access_token = nullable(&mut object, "access_token", secret);
            let expires_at = object.change("expires_at", future);
            let client_auth = refresh.as_ref().map(|refresh| refresh.client_auth);
            let refresh = nullable(&mut object, "refresh", |value, issues| {
                changed_refresh(value, issues, client_auth)
            });
            let refresh = refresh?.unwrap_or_default();
            Some(CredentialChange {
                access_token: access_token?,
                expires_at: match expires_at? {
                    Change::Keep => Expiry::Keep,
                    Change::Clear => Expiry::Unknown,
                    Change::Set(end) => Expiry::At(end),
                },
                ..refresh
            })
        }
    }
}

fn changed_refresh(
    value: &Value,
    issues: &mut Tree,
    client_auth: Option<ClientAuth>,
) -> Option<CredentialChange> {
    let Some(client_auth) = client_auth else {
        issues.push("This credential was added without; add another one instead");
        return None;
    };
    let mut object = Object::of(value, issues)?;
    fixed(&mut object);
    let mut fields = vec!["refresh_token", "scope", "token_endpoint_auth"];
    fields.extend(FIXED);
    only(&mut object, &fields);
    let refresh_token = nullable(&mut object, "refresh_token", secret);
    let scopes = nullable(&mut object, "scope", scopes);
    let client_secret = nullable(&mut object, "token_endpoint_auth", |value, issues| {
        changed_client_secret(value, issues, client_auth)
    });
    Some(CredentialChange {
        refresh_token: refresh_token?,
        scopes: scopes?,
        client_secret: client_secret?.flatten(),
        ..CredentialChange::default()
    })
}

fn changed_client_secret(
    value: &Value,
    issues: &mut Tree,
    client_auth: ClientAuth,
) -> Option<Option<SecretString>> {
    let stored = match client_auth {
        ClientAuth::None => "none",
        ClientAuth::ClientSecretBasic => "client_secret_basic",
        ClientAuth::ClientSecretPost => "client_secret_post",
    };
    let mut object = Object::of(value, issues)?;
    let named = discriminator(
        &mut object,
        &["none", "client_secret_basic", "client_secret_post"],
    )?;
    if named != stored {
        let problem = format!("Can't be changed; this credential has {stored}");
        object.issues().at("type").push(problem);
        return None;
    }
    let fields: &[&str] = match client_auth {
        ClientAuth::None => &["type"],
        ClientAuth::ClientSecretBasic | ClientAuth::ClientSecretPost => &["type", "client_secret"],
    };
    only(&mut object, fields);
    nullable(&mut object, "client_secret", secret)
}
