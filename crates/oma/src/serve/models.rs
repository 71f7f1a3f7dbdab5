//! From the configuration to the registry of models.

use std::path::Path;
use std::sync::Arc;

use oma_models::config::{ModelConfig, ProviderSection, Section};
use oma_models::price::Overrides;
use oma_models::{Config as ModelsConfig, EffortStyle, Protocol, ReasoningBack, Registry};

use crate::config::sections::{EffortForm, Model as ModelSettings, Protocol as ProtocolName, Thoughts};
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
    let NamedProvider {
        settings,
        headers,
        models,
    } = provider;
    let listed = settings.models.0.iter();
    let others = models.keys().filter(|id| !settings.models.0.contains(id));
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
        catalogue: settings.catalogue.clone(),
        effort: settings.effort.map(|effort| match effort {
            EffortForm::ReasoningEffort => EffortStyle::ReasoningEffort,
            EffortForm::Reasoning => EffortStyle::Reasoning,
            EffortForm::Deepseek => EffortStyle::Deepseek,
            EffortForm::Moonshot => EffortStyle::Moonshot,
            EffortForm::EnableThinking => EffortStyle::EnableThinking,
            EffortForm::None => EffortStyle::None,
        }),
        reasoning_back: settings.reasoning_back.map(|back| match back {
            Thoughts::Never => ReasoningBack::Never,
            Thoughts::Content => ReasoningBack::Content,
            Thoughts::Always => ReasoningBack::RequiredContent,
            Thoughts::Details => ReasoningBack::Details,
        }),
        models: listed.chain(others).map(|id| model(id, models.get(id))).collect(),
        api_key: None,
    }
}

fn model(id: &str, settings: Option<&ModelSettings>) -> ModelConfig {
    let input = settings.map(|it| it.input.0.as_slice()).unwrap_or_default();
    ModelConfig {
        id: id.to_owned(),
        name: settings.and_then(|it| it.name.clone()),
        context_window: settings.and_then(|it| it.context_window),
        input_modalities: input.iter().map(|kind| kind.as_str().to_owned()).collect(),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path as FilePath;

    use super::*;
    use crate::config::file::File;
    use crate::config::reader::Sources;

    #[test]
    fn what_the_file_says_of_a_provider_reaches_the_registry() {
        let text = r#"
            [models.providers.gateway]
            protocol = "openai_chat"
            base_url = "http://127.0.0.1:1/v1"
            context_window = 8192
            catalogue = "openai"
            effort = "enable_thinking"
            reasoning_back = "details"
            models = ["plain", "llama3.1:8b"]
            [models.providers.gateway.model."llama3.1:8b"]
            context_window = 131072
            input = ["image", "document"]
            [models.providers.gateway.model.small]
            name = "The small one"
            context_window = 2048
        "#;
        let config = Config::from_sources(&Sources {
            file: Some(File::parse(FilePath::new("oma.toml"), text).expect("TOML")),
            flags: BTreeMap::new(),
            env: BTreeMap::new(),
        })
        .expect("legal");
        let configured = configure(&config).expect("legal");
        let gateway = &configured.providers["gateway"];
        assert_eq!(gateway.catalogue.as_deref(), Some("openai"));
        assert_eq!(gateway.effort, EffortStyle::EnableThinking);
        assert_eq!(gateway.reasoning_back, ReasoningBack::Details);
        let registry = registry(configured).expect("legal");
        let window = |model: &str| {
            let resolved = registry.resolve(&format!("gateway/{model}")).expect("a model");
            resolved.context_window()
        };
        assert_eq!(
            ["plain", "llama3.1:8b", "small", "unlisted"].map(window),
            [8_192, 131_072, 2_048, 8_192]
        );
        let shown: Vec<_> = listed(&registry)
            .into_iter()
            .filter(|model| model.provider == "gateway")
            .map(|model| (model.id, model.name, model.input_modalities.len()))
            .collect();
        let row =
            |id: &str, name: Option<&str>, inputs| (format!("gateway/{id}"), name.map(str::to_owned), inputs);
        assert_eq!(
            shown,
            [
                row("plain", None, 1),
                row("llama3.1:8b", None, 3),
                row("small", Some("The small one"), 1)
            ]
        );
    }
}
