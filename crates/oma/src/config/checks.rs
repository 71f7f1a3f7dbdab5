//! What settings must be to each other.

use crate::config::reader::Reader;
use crate::config::sections::{Backend, Sandbox, Server, Signup, Vault};

/// Checks what settings must be to each other.
pub(crate) fn check(
    reader: &mut Reader<'_>,
    server: &Server,
    sandbox: Option<&Sandbox>,
    vault: Option<&Vault>,
    signup: Option<&Signup>,
) {
    if let Some(sandbox) = sandbox {
        check_sandbox(reader, sandbox);
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
