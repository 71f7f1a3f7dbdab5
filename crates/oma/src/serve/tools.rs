//! From the configuration to the tools that run in the server.

use oma_tools::search::Provider;
use oma_tools::{FetchLimits, Policy, Search};

use crate::config::Config;
use crate::config::sections::SearchProvider;
use crate::print::Failure;

/// How the tools are set up.
///
/// # Errors
/// What is wrong with the configuration.
pub(crate) fn configure(config: &Config) -> Result<oma_tools::Config, Failure> {
    let tools = &config.tools;
    let policy = Policy {
        allow: tools.dial_allow.0.clone(),
    };
    let fetch = FetchLimits {
        timeout: tools.fetch_timeout,
        max_bytes: tools.fetch_max_bytes.0,
    };
    let search = match search_provider(config)? {
        None => None,
        Some(provider) => {
            let search = Search::new(provider, tools.search_url.as_deref())
                .map_err(|error| Failure::Other(format!("tools.search_provider: {error}")))?;
            Some(search)
        }
    };
    Ok(oma_tools::Config::new(policy, &fetch, search))
}

fn search_provider(config: &Config) -> Result<Option<Provider>, Failure> {
    let key = || {
        let missing =
            || Failure::Other("tools.search_provider: this provider needs `tools.search_api_key`".to_owned());
        config.tools.search_api_key.clone().ok_or_else(missing)
    };
    Ok(match config.tools.search_provider {
        None => None,
        Some(SearchProvider::Brave) => Some(Provider::Brave { key: key()? }),
        Some(SearchProvider::Tavily) => Some(Provider::Tavily { key: key()? }),
        Some(SearchProvider::Searxng) => Some(Provider::Searxng),
    })
}
