//! What an operator should know at the start: one line with the effective facts, and a warning for each thing
//! that may not be meant.

use std::net::SocketAddr;

use oma_sandbox::limits::Enforcement;

use crate::config::{Config, sections};
use crate::serve::parts::Parts;

/// Says how the server is set up, and warns of what looks wrong. `open_files` is the limit in force.
pub(crate) fn started(config: &Config, parts: &Parts, address: SocketAddr, open_files: Option<u64>) {
    let has_token = config.server.api_token.is_some() || config.server.api_token_file.is_some();
    let enforcement = match parts.enforcement {
        Enforcement::Cgroup => "cgroup",
        Enforcement::Rlimit => "rlimit",
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        %address,
        data_dir = %config.data_dir.display(),
        config = config.file.as_ref().map(|file| file.display().to_string()),
        auth = if has_token { "token" } else { "off" },
        providers = parts.providers.join(","),
        sandbox = parts.backend,
        enforcement,
        max_sandboxes = config.sandbox.max_live,
        max_warm = config.sandbox.max_warm,
        max_turns = config.engine.max_turns,
        open_files,
        pid = std::process::id(),
        "serving"
    );
    if !has_token {
        tracing::warn!(
            "no API token is set: whoever reaches this address may do everything; set OPENCLAW_API_TOKEN"
        );
    }
    if parts.providers.is_empty() {
        tracing::warn!(
            "no model provider is configured: only scripted/... models work; set ANTHROPIC_API_KEY, \
             OPENAI_API_KEY or another provider's key"
        );
    }
    if parts.enforcement == Enforcement::Rlimit {
        tracing::warn!(
            "sandboxes are limited by resource limits: nothing limits their processors; `oma doctor` says what is \
             missing for control groups"
        );
    }
    if config.exposed_file {
        let file = config.file.as_ref().map(|file| file.display().to_string());
        tracing::warn!(
            file,
            "the configuration file holds a secret and others may read it; run chmod 600 on it"
        );
    }
    for name in unknown_variables(
        config,
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()),
    ) {
        tracing::warn!(
            variable = name,
            "this environment variable is no setting of this server: it has no effect"
        );
    }
}

/// Variables that look like settings but are none: a typing mistake, or a setting of the older service.
fn unknown_variables(config: &Config, names: impl Iterator<Item = String>) -> Vec<String> {
    let mut known: Vec<&str> = vec![crate::config::places::FILE_VARIABLE, "OPENCLAW_URL"];
    known.extend(
        sections::all()
            .flat_map(|section| section.settings)
            .flat_map(|setting| setting.env),
    );
    known.extend(
        config
            .providers
            .values()
            .filter_map(|provider| provider.settings.api_key_env.as_deref()),
    );
    let mut unknown: Vec<String> = names
        .filter(|name| name.starts_with("OPENCLAW_") && !known.contains(&name.as_str()))
        .collect();
    unknown.sort();
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reader::Sources;

    #[test]
    fn variables_without_effect_are_found() {
        let config = Config::from_sources(&Sources::default()).expect("the defaults are legal");
        let names = [
            "OPENCLAW_STORE",
            "OPENCLAW_API_TOKEN",
            "OPENCLAW_LISTN",
            "PATH",
            "OPENCLAW_URL",
        ];
        let unknown = unknown_variables(&config, names.into_iter().map(str::to_owned));
        assert_eq!(unknown, ["OPENCLAW_LISTN", "OPENCLAW_STORE"]);
    }
}
