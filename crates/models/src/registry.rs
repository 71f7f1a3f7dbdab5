//! From a model's name to a model that can be asked.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use oma_domain::event::FailureKind;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use crate::config::{Config, ConfigError, ProviderConfig};
use crate::conversation::{CallIds, Rules};
use crate::http::Endpoint;
use crate::price::{self, Prices};
use crate::provider::{self, Known, Protocol};
use crate::{Error, Model, capability, http, scripted};

/// Names that are kept resolved. Clients choose names, so the number has to be bounded; beyond it the cache
/// starts anew.
const MAX_CACHED: usize = 1024;

/// The longest model name, in bytes.
const MAX_NAME: usize = 256;

/// Everything that an adapter needs to know about its model.
#[derive(Clone)]
pub(crate) struct Target {
    /// `provider/model`.
    pub(crate) name: String,
    pub(crate) provider: String,
    /// Its id with the provider.
    pub(crate) model: String,
    /// Without a trailing slash.
    pub(crate) base_url: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) prices: Arc<Prices>,
    pub(crate) context_window: u64,
    pub(crate) max_output_tokens: Option<u32>,
    pub(crate) config: Arc<ProviderConfig>,
    pub(crate) known: &'static Known,
}

impl Target {
    /// The most output tokens of an answer to a request that does not limit them, where that is known.
    pub(crate) fn max_output(&self) -> Option<u64> {
        let own = || {
            (self.config.protocol == Protocol::Anthropic).then(|| capability::claude(&self.model).max_output)
        };
        self.max_output_tokens.or_else(own).map(u64::from)
    }

    /// The rules that this model's conversations follow.
    pub(crate) fn rules(&self) -> Rules<'_> {
        Rules {
            protocol: self.config.protocol.as_str(),
            provider: &self.provider,
            call_ids: if self.config.protocol == Protocol::OpenaiChat {
                self.known.call_ids
            } else {
                CallIds::Plain
            },
        }
    }
}

/// A model as `/v1/models` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// Its full name, `provider/model`.
    pub id: String,
    /// Its provider.
    pub provider: String,
    /// A name for people.
    pub name: Option<String>,
    /// The most tokens of a request and its answer, where that is known.
    pub context_window: Option<u64>,
    /// What it takes: `text`, `image`, `document`.
    pub input_modalities: Vec<String>,
    /// Whether its provider is configured, so that it can be used.
    pub configured: bool,
}

/// All models.
pub struct Registry {
    config: Config,
    providers: HashMap<String, Arc<ProviderConfig>>,
    client: reqwest::Client,
    cache: RwLock<HashMap<String, Arc<dyn Model>>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("providers", &self.config.providers.keys())
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// A registry of the configured providers. They share one HTTP client.
    ///
    /// # Errors
    /// [`ConfigError`] for headers that can't be sent, or when there is no HTTP client to be had.
    pub fn from_config(config: Config) -> Result<Self, ConfigError> {
        let client = http::client(config.connect_timeout).map_err(|error| ConfigError {
            provider: "*".to_owned(),
            message: error.failure.message,
        })?;
        for (name, provider) in &config.providers {
            headers(provider).map_err(|message| ConfigError {
                provider: name.clone(),
                message,
            })?;
        }
        let providers = config
            .providers
            .iter()
            .map(|(name, provider)| (name.clone(), Arc::new(provider.clone())))
            .collect();
        Ok(Self {
            config,
            providers,
            client,
            cache: RwLock::default(),
        })
    }

    /// The model of a name `provider/model`.
    ///
    /// # Errors
    /// `ModelUnavailable` for an unknown provider or one without a key; the message says what to set.
    pub fn resolve(&self, name: &str) -> Result<Arc<dyn Model>, Error> {
        if let Some(model) = self
            .cache
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
        {
            return Ok(Arc::clone(model));
        }
        let model = self.build(name)?;
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
        cache.insert(name.to_owned(), Arc::clone(&model));
        Ok(model)
    }

    /// Whether a name could ever be a model's here: its provider is known or configured. One that lacks its key passes,
    /// because keys are often set later.
    ///
    /// # Errors
    /// What there is instead.
    pub fn check(&self, name: &str) -> Result<(), String> {
        let (provider, model) = name.split_once('/').unwrap_or((name, ""));
        if provider == scripted::PROVIDER {
            return match scripted::resolve(model, self.own_prices(name)) {
                Ok(_) => Ok(()),
                Err(error) => Err(error.failure.message),
            };
        }
        if provider::known(provider).is_some() || self.providers.contains_key(provider) {
            return Ok(());
        }
        Err(self.unknown(provider))
    }

    /// Every model that is known by name: the catalogue's, the configuration's, the scripted ones. Others of
    /// a configured provider can be used all the same.
    #[must_use]
    pub fn models(&self) -> Vec<ModelInfo> {
        let mut all = scripted::models();
        for known in provider::KNOWN {
            if known.protocol == Protocol::Bedrock && !cfg!(feature = "bedrock") {
                continue;
            }
            let configured = self.config.providers.get(known.name);
            let listed = configured
                .map(|provider| provider.models.as_slice())
                .unwrap_or_default();
            let entries = known.catalogue.map(price::all).unwrap_or_default();
            all.extend(
                entries
                    .iter()
                    .filter(|entry| !entry.old && listed.iter().all(|it| it.id != entry.id))
                    .map(|entry| ModelInfo {
                        id: format!("{}/{}", known.name, entry.id),
                        provider: known.name.to_owned(),
                        name: entry.name.clone(),
                        context_window: entry.window,
                        input_modalities: capability::modalities(&entry.id),
                        configured: configured.is_some_and(|provider| usable(known, provider)),
                    }),
            );
        }
        for (name, provider) in &self.config.providers {
            all.extend(provider.models.iter().map(|model| {
                let mut input_modalities = vec!["text".to_owned()];
                input_modalities.extend(model.input_modalities.iter().filter(|it| *it != "text").cloned());
                ModelInfo {
                    id: format!("{name}/{}", model.id),
                    provider: name.clone(),
                    name: model.name.clone(),
                    context_window: model.context_window.or(provider.context_window),
                    input_modalities,
                    configured: provider::known(name).is_none_or(|known| usable(known, provider)),
                }
            }));
        }
        all
    }

    fn build(&self, name: &str) -> Result<Arc<dyn Model>, Error> {
        let unavailable = |message: String| Error::fatal(FailureKind::ModelUnavailable, message);
        let Some((provider, model)) = name.split_once('/').filter(|(_, model)| !model.is_empty()) else {
            return Err(unavailable(format!(
                "`{}` is no model name: write provider/model",
                shown(name)
            )));
        };
        if name.len() > MAX_NAME || name.chars().any(|ch| ch.is_control() || ch.is_whitespace()) {
            return Err(unavailable(format!("`{}` is no model name", shown(name))));
        }
        if provider == scripted::PROVIDER {
            return scripted::resolve(model, self.own_prices(name));
        }
        let known = provider::known(provider);
        let canonical = known.map_or(provider, |known| known.name);
        let config = match (self.providers.get(canonical), known) {
            (Some(config), Some(known)) if !usable(known, config) => return Err(unavailable(missing(known))),
            (Some(config), _) => Arc::clone(config),
            (None, Some(known)) if known.local => Arc::new(ProviderConfig::known(known)),
            (None, Some(known)) => return Err(unavailable(missing(known))),
            (None, None) => return Err(unavailable(self.unknown(provider))),
        };
        let target = self.target(
            name,
            canonical,
            model,
            config,
            known.unwrap_or(&provider::UNKNOWN),
        )?;
        adapter(target)
    }

    fn target(
        &self,
        name: &str,
        provider: &str,
        model: &str,
        config: Arc<ProviderConfig>,
        known: &'static Known,
    ) -> Result<Target, Error> {
        let headers =
            headers(&config).map_err(|message| Error::fatal(FailureKind::ModelUnavailable, message))?;
        let endpoint = Endpoint {
            client: self.client.clone(),
            headers,
            secrets: secrets(&config),
            stall: config
                .stall_timeout
                .unwrap_or(self.config.stall_timeout)
                .max(Duration::from_millis(1)),
        };
        let priced = config
            .catalogue
            .as_deref()
            .and_then(|catalogue| price::find(catalogue, model));
        let entry = priced.or_else(|| {
            known
                .catalogue
                .and_then(|catalogue| price::find(catalogue, model))
        });
        let full_name = format!("{provider}/{model}");
        let own_price = self
            .config
            .prices
            .0
            .get(name)
            .or_else(|| self.config.prices.0.get(&full_name));
        let prices = match (own_price, priced) {
            (Some(own), _) => own.prices(),
            (None, Some(entry)) => entry.prices(),
            (None, None) => Prices::default(),
        };
        let listed = config
            .models
            .iter()
            .find(|it| it.id == model)
            .and_then(|it| it.context_window);
        let context_window = listed
            .or(config.context_window)
            .or_else(|| entry.and_then(|entry| entry.window))
            .unwrap_or_else(|| capability::context_window(model, known.local));
        Ok(Target {
            name: name.to_owned(),
            provider: provider.to_owned(),
            model: model.to_owned(),
            base_url: config.base_url.clone(),
            endpoint,
            prices: Arc::new(prices),
            context_window,
            max_output_tokens: config.max_output_tokens,
            config,
            known,
        })
    }

    /// What the operator says that a model costs.
    fn own_prices(&self, name: &str) -> Prices {
        let own = self.config.prices.0.get(name);
        own.map(price::Override::prices).unwrap_or_default()
    }

    /// The target of a local provider's model, for tests of adapters' parts.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn local_target(&self, name: &str) -> Result<Target, Error> {
        let (provider, model) = name.split_once('/').unwrap_or((name, "x"));
        let known = provider::known(provider).unwrap_or(&provider::UNKNOWN);
        self.target(
            name,
            provider,
            model,
            Arc::new(ProviderConfig::known(known)),
            known,
        )
    }

    fn unknown(&self, name: &str) -> String {
        let mut names: Vec<&str> = provider::KNOWN.iter().map(|known| known.name).collect();
        names.extend(
            self.config
                .providers
                .keys()
                .map(String::as_str)
                .filter(|it| provider::known(it).is_none()),
        );
        names.push(scripted::PROVIDER);
        format!(
            "there is no provider `{}`; there are {}",
            shown(name),
            names.join(", ")
        )
    }
}

fn adapter(target: Target) -> Result<Arc<dyn Model>, Error> {
    Ok(match target.config.protocol {
        Protocol::Anthropic => Arc::new(crate::anthropic::Messages::new(target)),
        Protocol::OpenaiChat => Arc::new(crate::openai_chat::ChatCompletions::new(target)),
        Protocol::OpenaiResponses => Arc::new(crate::openai_responses::Responses::new(target)),
        Protocol::Gemini => Arc::new(crate::gemini::GenerateContent::new(target)),
        #[cfg(feature = "bedrock")]
        Protocol::Bedrock => Arc::new(crate::bedrock::Converse::new(target)),
        #[cfg(not(feature = "bedrock"))]
        Protocol::Bedrock => {
            let message = "this program was built without Bedrock; build it with the feature `bedrock`";
            return Err(Error::fatal(FailureKind::ModelUnavailable, message));
        }
    })
}

/// Whether requests to a known provider could be accepted: it has a key, or it is a server of one's own.
fn usable(known: &Known, provider: &ProviderConfig) -> bool {
    let own_server = !known.base_url.is_empty() && provider.base_url != known.base_url;
    let reachable = !provider.base_url.is_empty();
    reachable && (known.local || own_server || provider.has_credentials())
}

fn missing(known: &Known) -> String {
    let variables = known.key_variables.join(" or ");
    if known.protocol == Protocol::Bedrock {
        return format!(
            "no credentials for {}: set {variables}, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_REGION",
            known.name
        );
    }
    format!(
        "no key for {}: set {variables}, or models.providers.{}.api_key_env in the configuration",
        known.name, known.name
    )
}

/// The start of a name that a client gave.
fn shown(name: &str) -> String {
    name.chars().filter(|ch| !ch.is_control()).take(80).collect()
}

fn secrets(config: &ProviderConfig) -> Vec<SecretString> {
    let mut secrets: Vec<SecretString> = config.headers.values().cloned().collect();
    secrets.extend(config.api_key.clone());
    if let Some(aws) = &config.aws {
        secrets.push(aws.secret_access_key.clone());
        secrets.extend(aws.session_token.clone());
    }
    // "Bearer x" is given as one value, but the token alone is what a provider would quote.
    let tokens: Vec<SecretString> = secrets
        .iter()
        .filter_map(|it| {
            it.expose_secret()
                .strip_prefix("Bearer ")
                .map(|token| SecretString::from(token.to_owned()))
        })
        .collect();
    secrets.extend(tokens);
    secrets
}

/// The headers of each request: the key in the protocol's place, then the operator's own.
fn headers(config: &ProviderConfig) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    if let Some(key) = &config.api_key {
        let key = key.expose_secret();
        let (name, value) = match config.protocol {
            Protocol::Anthropic => ("x-api-key", key.to_owned()),
            Protocol::Gemini => ("x-goog-api-key", key.to_owned()),
            Protocol::OpenaiChat | Protocol::OpenaiResponses | Protocol::Bedrock => {
                ("authorization", format!("Bearer {key}"))
            }
        };
        headers.insert(
            name,
            sensitive(&value).ok_or("the key has characters that can't be sent in a header")?,
        );
    }
    if config.protocol == Protocol::Anthropic {
        headers.insert(
            "anthropic-version",
            HeaderValue::from_static(crate::anthropic::VERSION),
        );
    }
    for (name, value) in &config.headers {
        let header =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header name"))?;
        let value = sensitive(value.expose_secret())
            .ok_or_else(|| format!("the value of the header `{name}` can't be sent"))?;
        headers.insert(header, value);
    }
    Ok(headers)
}

fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
