//! The configuration: one declaration of each setting ([`sections`]), from which everything else follows.
//!
//! [`Config::load`] reads it: a flag counts more than an environment variable, that more than the file, that
//! more than the default. Mistakes (an unknown key, a value that can't be read, settings that contradict each
//! other) are errors that name the setting and where its value came from; all of them are reported at once.
//!
//! Invariant: secrets are held in `secrecy` types and shown redacted.

pub(crate) mod args;
mod checks;
pub(crate) mod document;
pub(crate) mod file;
pub(crate) mod places;
pub(crate) mod reader;
pub(crate) mod sections;
pub(crate) mod setting;
pub(crate) mod units;
pub(crate) mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;

use crate::config::file::File;
use crate::config::reader::{Effective, Problem, Reader, Sources};
use crate::config::sections::{
    Engine, Log, Mcp, Model, Models, Provider, S3, Sandbox, Server, Signup, Tools, Vault,
};
use crate::config::setting::Section;
use crate::config::value::Value as _;

/// The configuration in force.
#[derive(Debug)]
pub(crate) struct Config {
    /// The HTTP server.
    pub(crate) server: Server,
    /// Where everything durable lives, as an absolute path.
    pub(crate) data_dir: PathBuf,
    /// The engine.
    pub(crate) engine: Engine,
    /// Sandboxes.
    pub(crate) sandbox: Sandbox,
    /// The store of objects.
    pub(crate) s3: S3,
    /// Models.
    pub(crate) models: Models,
    /// Further providers, by name.
    pub(crate) providers: BTreeMap<String, NamedProvider>,
    /// Tools.
    pub(crate) tools: Tools,
    /// Vaults.
    pub(crate) vault: Vault,
    /// MCP servers.
    pub(crate) mcp: Mcp,
    /// Signing up.
    pub(crate) signup: Signup,
    /// The log.
    pub(crate) log: Log,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
    /// Whether that file holds a secret and others than its owner may read it.
    pub(crate) exposed_file: bool,
    /// Every value in force, for showing.
    pub(crate) effective: Vec<Effective>,
}

/// A provider that the operator added.
#[derive(Debug, Clone)]
pub(crate) struct NamedProvider {
    /// How to reach it.
    pub(crate) settings: Provider,
    /// HTTP headers to send with each request.
    pub(crate) headers: BTreeMap<String, SecretString>,
    /// What is said of single models, by their ids.
    pub(crate) models: BTreeMap<String, Model>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file can't be used.
    #[error("the configuration file can't be used: {0}")]
    File(String),
    /// Settings are wrong.
    #[error("the configuration is wrong:{}", .0.iter().map(|problem| format!("\n  {problem}")).collect::<String>())]
    Settings(Vec<Problem>),
}

impl Config {
    /// Reads the configuration from the process's environment, the given flags, and the file that they name
    /// or that is found in its usual place.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn load(flags: args::Flags) -> Result<Self, Error> {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        let mut sources = Sources {
            flags: flags.values,
            env,
            file: None,
        };
        let path = match flags.file {
            Some(path) => Some(path),
            None => places::config_file(&sources).map_err(Error::File)?,
        };
        if let Some(path) = path {
            sources.file = Some(File::read(&path).map_err(Error::File)?);
        }
        Self::from_sources(&sources)
    }

    /// Reads the configuration from given sources.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn from_sources(sources: &Sources) -> Result<Self, Error> {
        let mut reader = Reader::new(sources);
        let server = Server::read(&mut reader, Server::KEY);
        let engine = Engine::read(&mut reader, Engine::KEY);
        let sandbox = Sandbox::read(&mut reader, Sandbox::KEY);
        let s3 = S3::read(&mut reader, S3::KEY);
        let models = Models::read(&mut reader, Models::KEY);
        let providers = read_providers(&mut reader);
        let tools = Tools::read(&mut reader, Tools::KEY);
        let vault = Vault::read(&mut reader, Vault::KEY);
        let mcp = Mcp::read(&mut reader, Mcp::KEY);
        let signup = Signup::read(&mut reader, Signup::KEY);
        let log = Log::read(&mut reader, Log::KEY);
        reader.refuse_unknown();

        let data_dir =
            server.as_ref().and_then(
                |server| match places::data_dir(sources, server.data_dir.as_deref()) {
                    Ok(path) => {
                        reader.settle("server.data_dir", path.to_json());
                        Some(path)
                    }
                    Err(error) => {
                        reader.refuse("server.data_dir", format!("there is no current folder: {error}"));
                        None
                    }
                },
            );
        if let Some(server) = &server {
            checks::check(
                &mut reader,
                server,
                sandbox.as_ref(),
                s3.as_ref(),
                vault.as_ref(),
                signup.as_ref(),
            );
        }

        let exposed_file = sources.file.as_ref().is_some_and(|file| {
            file.shared
                && reader.effective.iter().any(|effective| {
                    effective.value == "[redacted]" && matches!(effective.origin, reader::Origin::File(_))
                })
        });
        let Reader {
            effective, problems, ..
        } = reader;
        match (
            server, data_dir, engine, sandbox, s3, models, providers, tools, vault, mcp, signup, log,
        ) {
            (
                Some(server),
                Some(data_dir),
                Some(engine),
                Some(sandbox),
                Some(s3),
                Some(models),
                Some(providers),
                Some(tools),
                Some(vault),
                Some(mcp),
                Some(signup),
                Some(log),
            ) if problems.is_empty() => Ok(Self {
                server,
                data_dir,
                engine,
                sandbox,
                s3,
                models,
                providers,
                tools,
                vault,
                mcp,
                signup,
                log,
                file: sources.file.as_ref().map(|file| file.path.clone()),
                exposed_file,
                effective,
            }),
            _ => Err(Error::Settings(problems)),
        }
    }
}

fn read_providers(reader: &mut Reader<'_>) -> Option<BTreeMap<String, NamedProvider>> {
    let names = reader
        .sources()
        .file
        .as_ref()
        .map(|file| file.names_below(sections::PROVIDERS))
        .unwrap_or_default();
    let mut providers = BTreeMap::new();
    let mut complete = true;
    for name in names {
        let key = format!("{}.{name}", sections::PROVIDERS);
        let settings = Provider::read(reader, &key);
        let headers = reader.headers(&format!("{key}.headers"));
        let models = read_models(reader, &format!("{key}.model"));
        match (settings, models) {
            (Some(settings), Some(models)) => {
                let provider = NamedProvider {
                    settings,
                    headers,
                    models,
                };
                providers.insert(name, provider);
            }
            _ => complete = false,
        }
    }
    complete.then_some(providers)
}

fn read_models(reader: &mut Reader<'_>, table: &str) -> Option<BTreeMap<String, Model>> {
    let ids = reader
        .sources()
        .file
        .as_ref()
        .map(|file| file.tables_below(table))
        .unwrap_or_default();
    let mut models = BTreeMap::new();
    let mut complete = true;
    for id in ids {
        match Model::read(reader, &format!("{table}.{id}")) {
            Some(model) => {
                models.insert(id, model);
            }
            None => complete = false,
        }
    }
    complete.then_some(models)
}
