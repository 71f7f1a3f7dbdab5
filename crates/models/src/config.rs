//! Which providers there are and how they are reached.
//!
//! [`Config::from_env`] reads the usual variables (`ANTHROPIC_API_KEY`, `OPENAI_BASE_URL`, …);
//! [`Config::apply`] puts the operator's file over that: other addresses, any number of further providers.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use crate::price::{self, Override, Overrides};
use crate::provider::{self, EffortStyle, Protocol, ReasoningBack};

/// How long a local server may take to begin: it may have to load the model first.
const LOCAL_STALL_TIMEOUT: Duration = Duration::from_secs(600);

/// All providers.
#[derive(Debug, Clone)]
pub struct Config {
    /// The providers by name.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The longest wait for an answer to begin, and between two of its pieces.
    pub stall_timeout: Duration,
    /// The operator's own prices, by full model name.
    pub prices: Overrides,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            providers: BTreeMap::new(),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(90),
            prices: Overrides::default(),
        }
    }
}

/// One provider.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// What it speaks.
    pub protocol: Protocol,
    /// Its address, with the version segment where the protocol has one (`https://api.openai.com/v1`).
    pub base_url: String,
    /// The key, for providers that want one.
    pub api_key: Option<SecretString>,
    /// Credentials for signing requests, for Bedrock without an API key.
    pub aws: Option<AwsCredentials>,
    /// Further headers of each request.
    pub headers: BTreeMap<String, SecretString>,
    /// The context window of its models where they don't say themselves, in tokens.
    pub context_window: Option<u64>,
    /// The most output tokens where a request doesn't say.
    pub max_output_tokens: Option<u32>,
    /// Replaces [`Config::stall_timeout`].
    pub stall_timeout: Option<Duration>,
    /// The provider of the price catalogue whose prices it charges; `None` for unknown prices. A known
    /// provider's own prices hold at its own address only: behind another one is somebody else's server.
    pub catalogue: Option<String>,
    /// How it is told how hard to think.
    pub effort: EffortStyle,
    /// What of its thoughts it wants back.
    pub reasoning_back: ReasoningBack,
    /// Its models, as far as the configuration lists them.
    pub models: Vec<ModelConfig>,
}

/// Long-lived or session credentials of AWS.
#[derive(Debug, Clone)]
pub struct AwsCredentials {
    /// The access key's id.
    pub access_key_id: String,
    /// The access key.
    pub secret_access_key: SecretString,
    /// The token of a temporary session.
    pub session_token: Option<SecretString>,
    /// The region that requests are signed for.
    pub region: String,
}

/// A model that the configuration lists.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Its id with the provider.
    pub id: String,
    /// A name for people.
    pub name: Option<String>,
    /// Its context window, in tokens.
    pub context_window: Option<u64>,
    /// What it takes besides text: `image`, `document`.
    #[serde(default)]
    pub input_modalities: Vec<String>,
}

/// The models section of the configuration file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Section {
    /// Seconds; see [`Config::connect_timeout`].
    pub connect_timeout_secs: Option<u64>,
    /// Seconds; see [`Config::stall_timeout`].
    pub stall_timeout_secs: Option<u64>,
    /// See [`Config::prices`].
    pub prices: HashMap<String, Override>,
    /// Providers by name, known ones and others.
    pub providers: BTreeMap<String, ProviderSection>,
}

/// One provider in the configuration file. What is absent keeps the value from the environment or the default.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderSection {
    /// See [`ProviderConfig::protocol`].
    pub protocol: Option<Protocol>,
    /// See [`ProviderConfig::base_url`].
    pub base_url: Option<String>,
    /// The key itself; better is `api_key_env`.
    pub api_key: Option<SecretString>,
    /// The variable that holds the key.
    pub api_key_env: Option<String>,
    /// See [`ProviderConfig::headers`].
    pub headers: BTreeMap<String, SecretString>,
    /// See [`ProviderConfig::context_window`].
    pub context_window: Option<u64>,
    /// See [`ProviderConfig::max_output_tokens`].
    pub max_output_tokens: Option<u32>,
    /// Seconds; see [`ProviderConfig::stall_timeout`].
    pub stall_timeout_secs: Option<u64>,
    /// See [`ProviderConfig::catalogue`].
    pub catalogue: Option<String>,
    /// See [`ProviderConfig::effort`].
    pub effort: Option<EffortStyle>,
    /// See [`ProviderConfig::reasoning_back`].
    pub reasoning_back: Option<ReasoningBack>,
    /// See [`ProviderConfig::models`].
    pub models: Vec<ModelConfig>,
}

/// A provider's configuration that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("models.providers.{provider}: {message}")]
pub struct ConfigError {
    /// The provider.
    pub provider: String,
    /// What is wrong.
    pub message: String,
}

impl Config {
    /// The providers that the environment has keys or addresses for.
    ///
    /// # Errors
    /// [`ConfigError`] when a variable holds an address that isn't one.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let lookup = |name: &str| {
            lookup(name)
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
        };
        let mut config = Self::default();
        for known in provider::KNOWN {
            let key = known.key_variables.iter().find_map(|name| lookup(name));
            let url = known.url_variables.iter().find_map(|name| lookup(name));
            let mut provider = ProviderConfig::known(known);
            provider.api_key = key.map(SecretString::from);
            if known.protocol == Protocol::Anthropic
                && let Some(token) = lookup("ANTHROPIC_AUTH_TOKEN")
            {
                provider.headers.insert(
                    "authorization".to_owned(),
                    SecretString::from(format!("Bearer {token}")),
                );
            }
            if known.protocol == Protocol::Bedrock {
                let region = lookup("AWS_REGION").or_else(|| lookup("AWS_DEFAULT_REGION"));
                if let Some(region) = &region {
                    provider.base_url = format!("https://bedrock-runtime.{region}.amazonaws.com");
                }
                provider.aws = aws_credentials(lookup, region);
            }
            let has_url = url.is_some();
            if let Some(url) = url {
                provider.move_to(known.name, &url, known.local)?;
            }
            if provider.has_credentials() || has_url {
                config.providers.insert(known.name.to_owned(), provider);
            }
        }
        Ok(config)
    }

    /// Puts the configuration file's section over what there is. `lookup` reads the variables that
    /// `api_key_env` names.
    ///
    /// # Errors
    /// [`ConfigError`], naming the provider.
    pub fn apply(
        &mut self,
        section: Section,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<(), ConfigError> {
        if let Some(seconds) = section.connect_timeout_secs {
            self.connect_timeout = Duration::from_secs(seconds);
        }
        if let Some(seconds) = section.stall_timeout_secs {
            self.stall_timeout = Duration::from_secs(seconds);
        }
        self.prices.0.extend(section.prices);
        for (name, section) in section.providers {
            let known = provider::known(&name);
            let canonical = known.map_or(name.as_str(), |known| known.name).to_owned();
            let existing = self.providers.remove(&canonical);
            let provider = section.over(existing, &name, &lookup)?;
            self.providers.insert(canonical, provider);
        }
        Ok(())
    }
}

impl ProviderConfig {
    /// A known provider as it is without any configuration.
    pub(crate) fn known(known: &provider::Known) -> Self {
        Self {
            protocol: known.protocol,
            base_url: known.base_url.to_owned(),
            api_key: None,
            aws: None,
            headers: BTreeMap::new(),
            context_window: None,
            max_output_tokens: known.max_output_tokens,
            stall_timeout: known.local.then_some(LOCAL_STALL_TIMEOUT),
            catalogue: known.catalogue.map(str::to_owned),
            effort: known.effort,
            reasoning_back: known.reasoning_back,
            models: Vec::new(),
        }
    }

    /// Whether there is anything to prove who we are with.
    pub(crate) fn has_credentials(&self) -> bool {
        self.api_key.is_some() || self.aws.is_some() || self.headers.contains_key("authorization")
    }

    /// Gives it another address. `openai` behind another's address is another's server, and what others have
    /// in common is Chat Completions.
    fn move_to(&mut self, name: &str, url: &str, local: bool) -> Result<(), ConfigError> {
        self.base_url = address(url, local).map_err(|message| ConfigError {
            provider: name.to_owned(),
            message,
        })?;
        if name == "openai" && !is_openai(&self.base_url) {
            self.protocol = Protocol::OpenaiChat;
        }
        if provider::known(name).is_some_and(|known| known.base_url != self.base_url) {
            self.catalogue = None;
        }
        Ok(())
    }
}

impl ProviderSection {
    fn over(
        self,
        existing: Option<ProviderConfig>,
        name: &str,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<ProviderConfig, ConfigError> {
        let fail = |message: String| ConfigError {
            provider: name.to_owned(),
            message,
        };
        let plain = |ch: char| ch.is_ascii_lowercase() || ch.is_ascii_digit() || ch == '-' || ch == '_';
        if name.is_empty() || !name.chars().all(plain) || name == crate::scripted::PROVIDER {
            let rule = "a provider's name has lower-case letters, digits, `-` and `_`, and is not `scripted`";
            return Err(fail(rule.to_owned()));
        }
        let known = provider::known(name);
        let mut provider = match (existing, known) {
            (Some(existing), _) => existing,
            (None, Some(known)) => ProviderConfig::known(known),
            (None, None) => {
                if self.base_url.is_none() || self.protocol.is_none() {
                    let message = "a provider that is not built in needs `protocol` and `base_url`";
                    return Err(fail(message.to_owned()));
                }
                ProviderConfig::known(&provider::UNKNOWN)
            }
        };
        if let Some(url) = &self.base_url {
            provider.move_to(
                known.map_or(name, |known| known.name),
                url,
                known.is_some_and(|known| known.local),
            )?;
        }
        if let Some(protocol) = self.protocol {
            provider.protocol = protocol;
        }
        if let Some(variable) = &self.api_key_env {
            let key = lookup(variable)
                .map(|key| key.trim().to_owned())
                .filter(|key| !key.is_empty());
            let key =
                key.ok_or_else(|| fail(format!("the variable {variable} of `api_key_env` is not set")))?;
            provider.api_key = Some(SecretString::from(key));
        }
        if self.api_key.is_some() {
            provider.api_key = self.api_key;
        }
        provider.headers.extend(
            self.headers
                .into_iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value)),
        );
        provider.context_window = self.context_window.or(provider.context_window);
        provider.max_output_tokens = self.max_output_tokens.or(provider.max_output_tokens);
        provider.stall_timeout = self
            .stall_timeout_secs
            .map(Duration::from_secs)
            .or(provider.stall_timeout);
        if let Some(catalogue) = self.catalogue {
            if price::all(&catalogue).is_empty() {
                return Err(fail(format!("the price catalogue has no provider `{catalogue}`")));
            }
            provider.catalogue = Some(catalogue);
        }
        provider.effort = self.effort.unwrap_or(provider.effort);
        provider.reasoning_back = self.reasoning_back.unwrap_or(provider.reasoning_back);
        if !self.models.is_empty() {
            provider.models = self.models;
        }
        Ok(provider)
    }
}

fn aws_credentials(
    lookup: impl Fn(&str) -> Option<String>,
    region: Option<String>,
) -> Option<AwsCredentials> {
    Some(AwsCredentials {
        access_key_id: lookup("AWS_ACCESS_KEY_ID")?,
        secret_access_key: SecretString::from(lookup("AWS_SECRET_ACCESS_KEY")?),
        session_token: lookup("AWS_SESSION_TOKEN").map(SecretString::from),
        region: region?,
    })
}

fn is_openai(base_url: &str) -> bool {
    reqwest::Url::parse(base_url).is_ok_and(|url| url.host_str() == Some("api.openai.com"))
}

/// A base URL in one form: with a scheme, without a trailing slash. Local servers are often given as
/// `host:port` (`OLLAMA_HOST`), as the address they listen on, and without the `/v1` of their OpenAI API.
fn address(text: &str, local: bool) -> Result<String, String> {
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let not_an_address = |_| format!("`{text}` is not an address");
    let mut url = reqwest::Url::parse(&with_scheme).map_err(not_an_address)?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("`{text}` is not an http or https address"));
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(
            "an address has no user, password, query or fragment; put secrets into `headers`".to_owned(),
        );
    }
    if local {
        if url.host_str() == Some("0.0.0.0") {
            url.set_host(Some("127.0.0.1"))
                .map_err(|error| error.to_string())?;
        }
        if url.path() == "/" {
            url.set_path("/v1");
        }
        if !text.contains("://") && url.port().is_none() {
            // The one variable that is given this way is OLLAMA_HOST.
            url.set_port(Some(11434))
                .map_err(|()| format!("`{text}` can't have a port"))?;
        }
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
