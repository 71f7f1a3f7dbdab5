//! From the configuration to how people may sign up.

use std::sync::Arc;

use oma_api::signup::{Github, GithubConfig, SignUp};
use oma_domain::quota::Monthly;
use oma_domain::usage::NanoUsd;
use oma_domain::user::Tier;
use oma_egress::{Guard, Policy};
use oma_engine::Terms;

use crate::config::Config;
use crate::print::Failure;

/// How people may sign up.
///
/// # Errors
/// An address that can't be used, by its setting.
pub(crate) fn configure(config: &Config) -> Result<SignUp, Failure> {
    let settings = &config.signup;
    let budget = |usd: f64, tokens: u64| Monthly {
        max_cost: Some(NanoUsd::from_usd(usd).max(NanoUsd(1))),
        max_tokens: Some(tokens),
    };
    let anonymous = settings.anonymous.then(|| Terms {
        tier: Tier::Anonymous,
        lifetime: Some(settings.anonymous_lifetime),
        max_users: settings.anonymous_max_users,
        max_sessions: settings.anonymous_max_sessions,
        budget: budget(settings.anonymous_max_cost_usd, settings.anonymous_max_tokens),
    });
    let app = (
        &settings.github_client_id,
        &settings.github_client_secret,
        &settings.github_redirect_url,
    );
    // That they are set has been checked.
    let github = match app {
        (Some(id), Some(secret), Some(redirect)) if settings.github => {
            let github = GithubConfig {
                client_id: id.clone(),
                client_secret: secret.clone(),
                redirect_url: redirect.clone(),
                url: settings.github_url.clone(),
                api_url: settings.github_api_url.clone(),
            };
            let guard = Guard::new(Policy {
                allow: config.tools.dial_allow.0.clone(),
            });
            let github = Github::new(github, Arc::new(guard))
                .map_err(|error| Failure::Other(format!("signup.{error}")))?;
            let terms = Terms {
                tier: Tier::Github,
                lifetime: None,
                max_users: settings.github_max_users,
                max_sessions: settings.github_max_sessions,
                budget: budget(settings.github_max_cost_usd, settings.github_max_tokens),
            };
            Some((terms, github))
        }
        _ => None,
    };
    Ok(SignUp { anonymous, github })
}
