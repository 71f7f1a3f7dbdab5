//! What settings must be to each other.

use crate::config::reader::Reader;
use crate::config::sections::{Backend, S3, Sandbox, Server, Signup, Vault};
use crate::config::value::Place;

/// Checks what settings must be to each other.
pub(crate) fn check(
    reader: &mut Reader<'_>,
    server: &Server,
    sandbox: Option<&Sandbox>,
    s3: Option<&S3>,
    vault: Option<&Vault>,
    signup: Option<&Signup>,
) {
    if let Some(sandbox) = sandbox {
        check_sandbox(reader, sandbox);
    }
    if let (Some(sandbox), Some(s3)) = (sandbox, s3) {
        check_s3(reader, sandbox, s3);
    }
    if let Some(signup) = signup {
        check_signup(reader, server, signup);
    }
    if vault.is_some_and(|vault| vault.key.is_some() && vault.key_file.is_some()) {
        reader.refuse(
            "vault.key_file",
            "`vault.key` is set as well; set only one of them",
        );
    }
    let has_token = server.api_token.is_some() || server.api_token_file.is_some();
    if server.api_token.is_some() && server.api_token_file.is_some() {
        reader.refuse(
            "server.api_token_file",
            "`server.api_token` is set as well; set only one of them",
        );
    }
    if !has_token && !server.listen.0.ip().is_loopback() && !server.allow_unauthenticated_remote {
        reader.refuse(
            "server.listen",
            "anybody who reaches this address could run commands and spend on the model keys: set \
             OPENCLAW_API_TOKEN, listen on 127.0.0.1, or say --allow-unauthenticated-remote",
        );
    }
}

fn check_sandbox(reader: &mut Reader<'_>, sandbox: &Sandbox) {
    if sandbox.backend == Backend::Local {
        return;
    }
    let engine = sandbox.engine.as_str();
    let is_known = engine.starts_with('/')
        || ["unix:///", "tcp://", "http://"]
            .iter()
            .any(|scheme| engine.starts_with(scheme));
    if !is_known {
        reader.refuse(
            "sandbox.engine",
            "must be the path of a socket, `unix:///path`, or `tcp://host:port`",
        );
    }
    if sandbox.image.trim().is_empty() {
        reader.refuse("sandbox.image", "must name an image");
    }
}

fn check_s3(reader: &mut Reader<'_>, sandbox: &Sandbox, s3: &S3) {
    let has_secret = s3.secret_access_key.is_some() || s3.secret_access_key_file.is_some();
    if s3.secret_access_key.is_some() && s3.secret_access_key_file.is_some() {
        reader.refuse(
            "s3.secret_access_key_file",
            "`s3.secret_access_key` is set as well; set only one of them",
        );
    }
    if s3.region.is_empty()
        || !s3
            .region
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    {
        reader.refuse("s3.region", "must be letters, digits, `-` and `_`");
    }
    if !matches!(sandbox.checkpoints, Some(Place::Bucket { .. })) {
        return;
    }
    if s3.access_key_id.is_none() {
        reader.refuse(
            "s3.access_key_id",
            "must be set when `sandbox.checkpoints` is a bucket",
        );
    }
    if !has_secret {
        reader.refuse(
            "s3.secret_access_key",
            "must be set, or come from `s3.secret_access_key_file`, when `sandbox.checkpoints` is a bucket",
        );
    }
}

fn check_signup(reader: &mut Reader<'_>, server: &Server, signup: &Signup) {
    let has_token = server.api_token.is_some() || server.api_token_file.is_some();
    for (setting, on) in [
        ("signup.anonymous", signup.anonymous),
        ("signup.github", signup.github),
    ] {
        if on && !has_token {
            reader.refuse(
                setting,
                "a server without a token lets everybody do everything; set `server.api_token` first",
            );
        }
    }
    for (setting, missing) in [
        ("signup.github_client_id", signup.github_client_id.is_none()),
        (
            "signup.github_client_secret",
            signup.github_client_secret.is_none(),
        ),
        ("signup.github_redirect_url", signup.github_redirect_url.is_none()),
    ] {
        if signup.github && missing {
            reader.refuse(setting, "must be set when `signup.github` is on");
        }
    }
}
