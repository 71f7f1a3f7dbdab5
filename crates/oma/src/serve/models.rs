//! From the configuration to the registry of models.

use std::path::Path;
use std::sync::Arc;

use oma_models::config::{ModelConfig, ProviderSection, Section};
use oma_models::price::Overrides;
use oma_models::{Config as ModelsConfig, Protocol, Registry};

use crate::config::sections::Protocol as ProtocolName;
use crate::config::{Config, NamedProvider};
use crate::print::Failure;

/// How the providers are configured: the environment's usual variables, with the file's tables over them.
///
/// # Errors
/// What is wrong with the configuration; never a key.
pub(crate) fn configure(config: &Config) -> Result<ModelsConfig, Failure> {
    let variable = |name: &str| std::env::var(name).ok();
    let wrong = |error: oma_models::ConfigError| Failure::Other(error.to_string());
    let mut models = ModelsConfig::from_env(variable).map_err(wrong)?;
    models.connect_timeout = config.models.connect_timeout;
    models.stall_timeout = config.models.stall_timeout;
    if let Some(path) = &config.models.price_file {
        models.prices = prices(path)?;
    }
    let providers = config
        .providers
        .iter()
        .map(|(name, provider)| (name.clone(), section(provider)))
        .collect();
    let section = Section {
        providers,
        ..Section::default()
    };
    models.apply(section, variable).map_err(wrong)?;
    Ok(models)
}

/// The registry of models.
///
/// # Errors
/// What is wrong with the configuration.
pub(crate) fn registry(config: ModelsConfig) -> Result<Arc<Registry>, Failure> {
    Registry::from_config(config)
        .map(Arc::new)
        .map_err(|error| Failure::Other(error.to_string()))
}

fn prices(path: &Path) -> Result<Overrides, Failure> {
    let wrong = |reason: String| Failure::Other(format!("models.price_file: {}: {reason}", path.display()));
    let text = crate::commands::read_text(path).map_err(|error| wrong(error.to_string()))?;
    Overrides::parse(&text).map_err(wrong)
}

fn section(provider: &NamedProvider) -> ProviderSection {
    let NamedProvider { settings, headers } = provider;
    ProviderSection {
        protocol: settings.protocol.map(|protocol| match protocol {
            ProtocolName::Anthropic => Protocol::Anthropic,
            ProtocolName::OpenaiChat => Protocol::OpenaiChat,
            ProtocolName::OpenaiResponses => Protocol::OpenaiResponses,
            ProtocolName::Gemini => Protocol::Gemini,
            ProtocolName::Bedrock => Protocol::Bedrock,
        }),
        base_url: settings.base_url.clone(),
        api_key_env: settings.api_key_env.clone(),
        headers: headers.clone(),
        context_window: settings.context_window,
        max_output_tokens: settings.max_output_tokens,
        stall_timeout_secs: settings.stall_timeout.map(|timeout| timeout.as_secs()),
        models: settings
            .models
            .0
            .iter()
            .map(|id| ModelConfig {
                id: id.clone(),
                name: None,
                context_window: None,
                input_modalities: Vec::new(),
            })
            .collect(),
        ..ProviderSection::default()
    }
}

/// The models that can be used, for the API's list.
pub(crate) fn listed(registry: &Registry) -> Vec<oma_engine::ModelInfo> {
    registry
        .models()
        .into_iter()
        .filter(|model| model.configured)
        .map(|model| oma_engine::ModelInfo {
            id: model.id,
            provider: model.provider,
            name: model.name,
            context_window: model.context_window,
            input_modalities: model.input_modalities,
        })
        .collect()
}
