//! Vaults and credentials as clients read them.

use oma_domain::vault::{ClientAuth, CredentialNetworking, Kind, Refresh};
use oma_domain::{Credential, CredentialId, Vault, VaultId};
use oma_vault::probe::{Answer, FailedStep, Refreshed, Validation, Verdict};
use serde_json::{Value, json};

use crate::dialects::claude::time;

/// A vault. One without a name is called by its id.
pub(super) fn vault(vault: &Vault) -> Value {
    let Vault {
        id,
        name,
        metadata,
        created_at,
        updated_at,
        archived_at,
        ..
    } = vault;
    json!({
        "id": id.as_str(),
        "type": "vault",
        "display_name": if name.is_empty() { id.as_str() } else { name },
        "metadata": metadata,
        "created_at": time::value(*created_at),
        "updated_at": time::value(*updated_at),
        "archived_at": time::optional(*archived_at),
    })
}

/// A credential, without its secrets.
pub(super) fn credential(credential: &Credential) -> Value {
    let Credential {
        id,
        vault,
        spec,
        metadata,
        created_at,
        updated_at,
        archived_at,
        ..
    } = credential;
    let auth = match &spec.kind {
        Kind::StaticBearer => json!({"type": "static_bearer", "mcp_server_url": spec.match_url}),
        Kind::McpOauth { expires_at, refresh } => json!({
            "type": "mcp_oauth",
            "mcp_server_url": spec.match_url,
            "expires_at": time::optional(*expires_at),
            "refresh": refresh.as_ref().map(self::refresh),
        }),
        Kind::EnvironmentVariable {
            secret_name,
            networking,
            injection,
        } => json!({
            "type": "environment_variable",
            "secret_name": secret_name,
            "networking": match networking {
                CredentialNetworking::Unrestricted => json!({"type": "unrestricted"}),
                CredentialNetworking::Limited { allowed_hosts } => {
                    json!({"type": "limited", "allowed_hosts": allowed_hosts})
                }
            },
            "injection_location": {"header": injection.header, "body": injection.body},
        }),
    };
    json!({
        "id": id.as_str(),
        "type": "vault_credential",
        "vault_id": vault.as_str(),
        "display_name": (!spec.name.is_empty()).then_some(&spec.name),
        "auth": auth,
        "metadata": metadata,
        "created_at": time::value(*created_at),
        "updated_at": time::value(*updated_at),
        "archived_at": time::optional(*archived_at),
    })
}

fn refresh(refresh: &Refresh) -> Value {
    let Refresh {
        token_endpoint,
        client_id,
        client_auth,
        scopes,
        resource,
    } = refresh;
    let kind = match client_auth {
        ClientAuth::None => "none",
        ClientAuth::ClientSecretBasic => "client_secret_basic",
        ClientAuth::ClientSecretPost => "client_secret_post",
    };
    let scope = scopes.as_ref().filter(|scopes| !scopes.is_empty());
    json!({
        "client_id": client_id,
        "token_endpoint": token_endpoint,
        "token_endpoint_auth": {"type": kind},
        "resource": resource,
        "scope": scope.map(|scopes| scopes.join(" ")),
    })
}

/// What came of trying a credential.
pub(super) fn validation(vault: &VaultId, id: &CredentialId, found: &Validation) -> Value {
    let Validation {
        verdict,
        has_refresh_token,
        failed,
        refresh,
        at,
    } = found;
    let probe = failed.as_ref().map(|FailedStep { method, answer }| {
        json!({"method": method, "http_response": answer.as_ref().map(http_response)})
    });
    let refresh = refresh.as_ref().map(|refreshed| {
        let (status, answer) = match refreshed {
            Refreshed::Succeeded => ("succeeded", None),
            Refreshed::NoRefreshToken => ("no_refresh_token", None),
            Refreshed::Unreachable => ("connect_error", None),
            Refreshed::Failed(answer) => ("failed", answer.as_ref()),
        };
        json!({"status": status, "http_response": answer.map(http_response)})
    });
    json!({
        "type": "vault_credential_validation",
        "vault_id": vault.as_str(),
        "credential_id": id.as_str(),
        "status": match verdict {
            Verdict::Valid => "valid",
            Verdict::Invalid => "invalid",
            Verdict::Unknown => "unknown",
        },
        "has_refresh_token": has_refresh_token,
        "mcp_probe": probe,
        "refresh": refresh,
        "validated_at": time::value(*at),
    })
}

fn http_response(answer: &Answer) -> Value {
    let Answer {
        status,
        media_type,
        body,
        truncated,
    } = answer;
    json!({
        "status_code": status,
        "content_type": media_type,
        "body": body,
        "body_truncated": truncated,
    })
}
