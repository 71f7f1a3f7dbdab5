//! `oma vault`: the credentials that MCP servers are called with, the secrets that sandboxes have placeholders of, and the
//! key that seals them.
//!
//! Invariant: a secret is read from a file or from standard input, never from an argument, because others could
//! see it in the list of processes.

use std::path::{Path, PathBuf};

use reqwest::Method;
use secrecy::zeroize::Zeroizing;
use serde_json::{Map, Value, json};

use crate::client::{Client, Connection, Request, Slice};
use crate::commands::{read_object, read_text};
use crate::config::{Config, args};
use crate::print::{Failure, Outcome, Output};
use crate::serve::vaults;
use crate::table::{cell, fact, facts, list_table, time};

/// Keep the credentials that MCP servers are called with, and the secrets of sandboxes
#[derive(Debug, clap::Args)]
pub(crate) struct Vault {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Create a vault
    Create {
        /// A name for people
        #[arg(default_value = "")]
        name: String,
        /// The end user whose secrets it will hold, in your own words
        #[arg(long, value_name = "USER")]
        user_id: String,
    },
    /// List vaults, newest first
    List {
        /// Only this user's
        #[arg(long, value_name = "USER")]
        user_id: Option<String>,
        #[command(flatten)]
        slice: Slice,
    },
    /// Show a vault with its credentials
    Get {
        /// Its id
        id: String,
    },
    /// Rename a vault
    Rename {
        /// Its id
        id: String,
        /// A name for people
        name: String,
    },
    /// Remove a vault with its credentials
    Delete {
        /// Its id
        id: String,
    },
    /// Add a token that does not change by itself
    AddBearer {
        /// The vault's id
        vault: String,
        /// A name for people
        #[arg(long)]
        name: String,
        /// The URL that it is for, with everything below its path
        #[arg(long, value_name = "URL")]
        match_url: String,
        /// A file with the token, `-` for standard input
        #[arg(long, value_name = "FILE", default_value = "-")]
        token_from: PathBuf,
    },
    /// Add an access token of OAuth, which is refreshed before it ends
    AddOauth {
        /// The vault's id
        vault: String,
        /// A name for people
        #[arg(long)]
        name: String,
        /// The URL that it is for, with everything below its path
        #[arg(long, value_name = "URL")]
        match_url: String,
        /// Where tokens are refreshed
        #[arg(long, value_name = "URL")]
        token_endpoint: String,
        /// Who the client is to the issuer
        #[arg(long)]
        client_id: String,
        /// How the client's secret is sent: client_secret_post (the default) or client_secret_basic
        #[arg(long, value_name = "METHOD")]
        token_endpoint_auth: Option<String>,
        /// When the access token ends, in milliseconds since the epoch
        #[arg(long, value_name = "MILLISECONDS")]
        expires_at: Option<u64>,
        /// A scope to ask for; may be repeated
        #[arg(long = "scope")]
        scopes: Vec<String>,
        /// A JSON file with accessToken, refreshToken and, unless the client is public, clientSecret; `-` for
        /// standard input
        #[arg(long, value_name = "FILE", default_value = "-")]
        secrets_from: PathBuf,
    },
    /// Add a secret that programs in sandboxes use without having it: a variable with a placeholder for it
    AddVariable {
        /// The vault's id
        vault: String,
        /// A name for people
        #[arg(long)]
        name: String,
        /// The variable
        #[arg(long, value_name = "NAME")]
        variable: String,
        /// A host that gets the secret, or `*.name` for those below; may be repeated
        #[arg(long = "host", value_name = "HOST", required_unless_present = "any_host")]
        hosts: Vec<String>,
        /// Every host that the session may reach gets it
        #[arg(long, conflicts_with = "hosts")]
        any_host: bool,
        /// Where in requests it is put; may be repeated
        #[arg(long = "in", value_name = "PLACE", default_value = "header")]
        places: Vec<Place>,
        /// A file with the secret, `-` for standard input
        #[arg(long, value_name = "FILE", default_value = "-")]
        secret_from: PathBuf,
    },
    /// Change a credential in place
    Update {
        /// The vault's id
        vault: String,
        /// The credential's id
        credential: String,
        /// A name for people
        #[arg(long)]
        name: Option<String>,
        /// A file with another token (of a credential that has no other secret), `-` for standard input
        #[arg(long, value_name = "FILE", conflicts_with = "secrets_from")]
        token_from: Option<PathBuf>,
        /// A JSON file with what changes of accessToken, refreshToken, clientSecret, expiresAt, scopes, or of secretValue,
        /// networking, injectionLocation; `-` for standard input
        #[arg(long, value_name = "FILE")]
        secrets_from: Option<PathBuf>,
    },
    /// Remove a credential
    Remove {
        /// The vault's id
        vault: String,
        /// The credential's id
        credential: String,
    },
    /// Change the master key of a data folder, while no server runs on it
    Rekey(Box<Rekey>),
}

/// A place in requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Place {
    Header,
    Query,
    Body,
}

#[derive(Debug, clap::Args)]
struct Rekey {
    /// A file with the next key; without it one is generated in the place of the one in force
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
    #[command(flatten)]
    flags: args::Flags,
}

impl Vault {
    /// Carries the command out.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn run(self, output: Output) -> Outcome {
        if let Action::Rekey(rekey) = self.action {
            return rekey.run(output).await;
        }
        let client = Client::connect(&self.connection)?;
        match self.action {
            Action::Create { name, user_id } => {
                let body = json!({"name": name, "userId": user_id});
                let created = client.json(Request::post(&["v1", "vaults"], body)).await?;
                output.result(&created, describe)?;
            }
            Action::List { user_id, slice } => {
                let filter: Vec<(&str, String)> = user_id.into_iter().map(|user| ("user_id", user)).collect();
                let list = client.list(&["v1", "vaults"], "vaults", &filter, &slice).await?;
                output.list(&list, vault_table)?;
            }
            Action::Get { id } => {
                let mut vault = client.json(Request::get(&["v1", "vaults", &id])).await?;
                let path = ["v1", "vaults", &id, "credentials"];
                let list = client.list(&path, "credentials", &[], &Slice::whole()).await?;
                vault["credentials"] = list["credentials"].clone();
                output.result(&vault, |vault| {
                    format!("{}\n\n{}", describe(vault), credential_table(vault))
                })?;
            }
            Action::Rename { id, name } => {
                let request = Request::new(Method::PATCH, &["v1", "vaults", &id]).json(json!({"name": name}));
                output.result(&client.json(request).await?, describe)?;
            }
            Action::Delete { id } => {
                let deleted = client.json(Request::delete(&["v1", "vaults", &id])).await?;
                output.result(&deleted, |_| format!("deleted {id}"))?;
            }
            Action::AddBearer {
                vault,
                name,
                match_url,
                token_from,
            } => {
                let body = json!({
                    "type": "static_bearer", "name": name, "matchUrl": match_url, "token": token(&token_from)?,
                });
                let path = ["v1", "vaults", &vault, "credentials"];
                let added = client.json(Request::post(&path, body)).await?;
                output.result(&added, describe_credential)?;
            }
            Action::AddOauth {
                vault,
                name,
                match_url,
                token_endpoint,
                client_id,
                token_endpoint_auth,
                expires_at,
                scopes,
                secrets_from,
            } => {
                let mut body = read_object(&secrets_from)?;
                body.insert("type".to_owned(), "mcp_oauth".into());
                body.insert("name".to_owned(), name.into());
                body.insert("matchUrl".to_owned(), match_url.into());
                body.insert("tokenEndpoint".to_owned(), token_endpoint.into());
                body.insert("clientId".to_owned(), client_id.into());
                if let Some(method) = token_endpoint_auth {
                    body.insert("tokenEndpointAuth".to_owned(), method.into());
                }
                if let Some(at) = expires_at {
                    body.insert("expiresAt".to_owned(), at.into());
                }
                if !scopes.is_empty() {
                    body.insert("scopes".to_owned(), json!(scopes));
                }
                let path = ["v1", "vaults", &vault, "credentials"];
                let added = client.json(Request::post(&path, Value::Object(body))).await?;
                output.result(&added, describe_credential)?;
            }
            Action::AddVariable {
                vault,
                name,
                variable,
                hosts,
                any_host,
                places,
                secret_from,
            } => {
                let networking = match any_host {
                    true => json!({"type": "unrestricted"}),
                    false => json!({"type": "limited", "allowedHosts": hosts}),
                };
                let has = |place| places.contains(&place);
                let body = json!({
                    "type": "environment_variable",
                    "name": name,
                    "secretName": variable,
                    "secretValue": token(&secret_from)?,
                    "networking": networking,
                    "injectionLocation": {
                        "header": has(Place::Header),
                        "query": has(Place::Query),
                        "body": has(Place::Body),
                    },
                });
                let path = ["v1", "vaults", &vault, "credentials"];
                let added = client.json(Request::post(&path, body)).await?;
                output.result(&added, describe_credential)?;
            }
            Action::Update {
                vault,
                credential,
                name,
                token_from,
                secrets_from,
            } => {
                let mut body = match &secrets_from {
                    Some(path) => read_object(path)?,
                    None => Map::new(),
                };
                if let Some(name) = name {
                    body.insert("name".to_owned(), name.into());
                }
                if let Some(path) = &token_from {
                    body.insert("token".to_owned(), token(path)?.into());
                }
                let path = ["v1", "vaults", &vault, "credentials", &credential];
                let request = Request::new(Method::PATCH, &path).json(Value::Object(body));
                output.result(&client.json(request).await?, describe_credential)?;
            }
            Action::Remove { vault, credential } => {
                let path = ["v1", "vaults", &vault, "credentials", &credential];
                let removed = client.json(Request::delete(&path)).await?;
                output.result(&removed, |_| format!("removed {credential}"))?;
            }
            Action::Rekey(_) => {}
        }
        Ok(())
    }
}

impl Rekey {
    async fn run(self, output: Output) -> Outcome {
        let config = Config::load(self.flags)?;
        let done = vaults::rekey(&config, self.new_key_file.as_deref()).await?;
        output.result(&done, |done| {
            let (key, file) = (fact(done, "key_id"), fact(done, "key_file"));
            if done["changed"] == false {
                return format!("the key in {file} (id {key}) is in force already");
            }
            format!(
                "{} vaults are now sealed under the key in {file} (id {key}); the old key opens nothing any more",
                done["vaults"]
            )
        })?;
        Ok(())
    }
}

/// Reads a token, without the line end behind it.
fn token(path: &Path) -> Result<String, Failure> {
    let text = Zeroizing::new(read_text(path)?);
    let token = text.trim_end_matches(['\n', '\r']);
    if token.is_empty() {
        return Err(Failure::Other(format!("{}: it is empty", path.display())));
    }
    Ok(token.to_owned())
}

/// Whether a vault or a credential is in use.
fn state(shown: &Value) -> &'static str {
    if shown["archived_at"].is_null() {
        "active"
    } else {
        "archived"
    }
}

fn vault_table(list: &Value) -> String {
    list_table(
        list,
        "vaults",
        &["id", "user", "name", "state", "updated"],
        |vault| {
            vec![
                cell(vault, "vault_id"),
                cell(vault, "user_id"),
                cell(vault, "name"),
                state(vault).to_owned(),
                time(vault, "updated_at"),
            ]
        },
    )
}

/// What a credential is for: a URL, or a variable and the hosts that get it.
fn bound_to(credential: &Value) -> String {
    let Some(variable) = credential["secret_name"].as_str() else {
        return cell(credential, "match_url");
    };
    let networking = &credential["networking"];
    let hosts = networking["allowed_hosts"].as_array().map(|hosts| {
        let hosts: Vec<&str> = hosts.iter().filter_map(Value::as_str).collect();
        hosts.join(" ")
    });
    format!("{variable} at {}", hosts.as_deref().unwrap_or("any host"))
}

fn credential_table(vault: &Value) -> String {
    list_table(
        vault,
        "credentials",
        &["id", "type", "name", "for", "state", "expires"],
        |credential| {
            vec![
                cell(credential, "credential_id"),
                cell(credential, "type"),
                cell(credential, "name"),
                bound_to(credential),
                state(credential).to_owned(),
                time(credential, "expires_at"),
            ]
        },
    )
}

fn describe(vault: &Value) -> String {
    facts(&[
        ("id", fact(vault, "vault_id")),
        ("user", fact(vault, "user_id")),
        ("name", fact(vault, "name")),
        ("created", time(vault, "created_at")),
        ("state", state(vault).to_owned()),
        ("updated", time(vault, "updated_at")),
    ])
}

fn describe_credential(credential: &Value) -> String {
    facts(&[
        ("id", fact(credential, "credential_id")),
        ("vault", fact(credential, "vault_id")),
        ("type", fact(credential, "type")),
        ("name", fact(credential, "name")),
        ("for", bound_to(credential)),
        ("expires", time(credential, "expires_at")),
        ("state", state(credential).to_owned()),
        ("updated", time(credential, "updated_at")),
    ])
}
