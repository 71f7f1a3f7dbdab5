//! GitHub's OAuth: the way there, and what is asked for with what the browser brings back.

use std::sync::Arc;
use std::time::Duration;

use oma_domain::user::GithubAccount;
use oma_egress::Guard;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::{RequestBuilder, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::Serializer;

/// How long both requests to GitHub may take together.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer, in bytes.
const MAX_ANSWER: usize = 256 << 10;
/// The longest name that is kept, in characters.
const MAX_NAME: usize = 256;

/// How to reach GitHub.
#[derive(Debug, Clone)]
pub struct GithubConfig {
    /// The OAuth app's id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretString,
    /// Where GitHub leads browsers back: this server's `/auth/github/callback`, as browsers reach it.
    pub redirect_url: String,
    /// `https://github.com`, or an enterprise server's address.
    pub url: String,
    /// `https://api.github.com`, or an enterprise server's.
    pub api_url: String,
}

/// GitHub, as far as signing in needs it.
#[derive(Debug, Clone)]
pub struct Github {
    config: Arc<GithubConfig>,
    redirect: Url,
    authorize: Url,
    guard: Arc<Guard>,
}

/// An address that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidUrl {
    /// Which one.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// Why GitHub did not say who somebody is. No secret is in its words.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("GitHub can't be reached: {0}")]
    Unreachable(oma_egress::Error),
    #[error("GitHub answered with status {0}")]
    Refused(u16),
    #[error("GitHub's answer can't be read: {0}")]
    BadAnswer(&'static str),
}

#[derive(Deserialize)]
struct Token {
    access_token: SecretString,
}

#[derive(Deserialize)]
struct Account {
    id: u64,
    login: String,
    avatar_url: Option<String>,
}

impl Github {
    /// Checks the addresses.
    ///
    /// # Errors
    /// [`InvalidUrl`].
    pub fn new(config: GithubConfig, guard: Arc<Guard>) -> Result<Self, InvalidUrl> {
        let wrong = |field, problem| InvalidUrl { field, problem };
        let parse = |field, text: &str| {
            let url = Url::parse(text).map_err(|_| wrong(field, "it is not an address"))?;
            if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
                return Err(wrong(field, "it is not an http or https address"));
            }
            Ok(url)
        };
        let redirect = parse("redirect_url", &config.redirect_url)?;
        let loopback = matches!(redirect.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        if redirect.scheme() != "https" && !loopback {
            return Err(wrong(
                "redirect_url",
                "a token is shown there, so it must be https",
            ));
        }
        if redirect.path() != "/auth/github/callback" || redirect.query().is_some() {
            return Err(wrong("redirect_url", "its path must be /auth/github/callback"));
        }
        let mut authorize = parse("github_url", &config.url)?;
        parse("github_api_url", &config.api_url)?;
        authorize.set_path(&format!(
            "{}/login/oauth/authorize",
            authorize.path().trim_end_matches('/')
        ));
        Ok(Self {
            config: Arc::new(config),
            redirect,
            authorize,
            guard,
        })
    }

    /// Whether browsers come back over TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.redirect.scheme() == "https"
    }

    /// Where to lead a browser.
    pub(super) fn authorize(&self, state: &str, challenge: &str) -> String {
        let mut url = self.authorize.clone();
        url.query_pairs_mut()
            .append_pair("client_id", &self.config.client_id)
            .append_pair("redirect_uri", self.redirect.as_str())
            .append_pair("scope", "read:user")
            .append_pair("state", state)
            .append_pair("code_challenge", challenge)
            .append_pair("code_challenge_method", "S256");
        url.into()
    }

    /// Whose consent a code stands for.
    pub(super) async fn account(&self, code: &str, verifier: &SecretString) -> Result<GithubAccount, Error> {
        let asked = Box::pin(self.ask(code, verifier));
        tokio::time::timeout(TIMEOUT, asked)
            .await
            .map_err(|_| Error::Unreachable(oma_egress::Error::Timeout(TIMEOUT)))?
    }

    async fn ask(&self, code: &str, verifier: &SecretString) -> Result<GithubAccount, Error> {
        let config = &self.config;
        let form = Serializer::new(String::new())
            .append_pair("client_id", &config.client_id)
            .append_pair("client_secret", config.client_secret.expose_secret())
            .append_pair("code", code)
            .append_pair("redirect_uri", self.redirect.as_str())
            .append_pair("code_verifier", verifier.expose_secret())
            .finish();
        let endpoint = format!("{}/login/oauth/access_token", config.url.trim_end_matches('/'));
        let (client, url) = self.guard.client_for(&endpoint).map_err(Error::Unreachable)?;
        let request = client
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        // An error comes with status 200, and without a token.
        let Token { access_token } = answer(request, "it has no access token").await?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", access_token.expose_secret()))
            .map_err(|_| Error::BadAnswer("its access token is no token"))?;
        bearer.set_sensitive(true);
        let endpoint = format!("{}/user", config.api_url.trim_end_matches('/'));
        let (client, url) = self.guard.client_for(&endpoint).map_err(Error::Unreachable)?;
        let request = client.get(url).header(AUTHORIZATION, bearer);
        let Account {
            id,
            login,
            avatar_url,
        } = answer(request, "it does not say who it is").await?;
        if login.is_empty() || login.chars().count() > MAX_NAME {
            return Err(Error::BadAnswer("the name in it is empty or too long"));
        }
        // A picture that a page may show: nothing but an https address.
        let avatar_url = avatar_url.filter(|url| url.starts_with("https://") && url.len() <= 2048);
        Ok(GithubAccount {
            id,
            login,
            avatar_url,
        })
    }
}

async fn answer<T: for<'de> Deserialize<'de>>(
    request: RequestBuilder,
    wrong: &'static str,
) -> Result<T, Error> {
    let unreachable = |error: reqwest::Error| Error::Unreachable(oma_egress::dial::failed(&error));
    let mut response: Response = request
        .header(ACCEPT, "application/json")
        .send()
        .await
        .map_err(unreachable)?;
    if !response.status().is_success() {
        return Err(Error::Refused(response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(unreachable)? {
        if body.len() + piece.len() > MAX_ANSWER {
            return Err(Error::BadAnswer("it is too long"));
        }
        body.extend_from_slice(&piece);
    }
    serde_json::from_slice(&body).map_err(|_| Error::BadAnswer(wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(redirect: &str) -> GithubConfig {
        GithubConfig {
            client_id: "app".into(),
            client_secret: SecretString::from("s"),
            redirect_url: redirect.into(),
            url: "https://github.com".into(),
            api_url: "https://api.github.com".into(),
        }
    }

    #[test]
    fn where_browsers_come_back_to_is_checked() {
        let guard = Arc::new(Guard::new(oma_egress::Policy::default()));
        for (redirect, good) in [
            ("https://a.example/auth/github/callback", true),
            ("http://127.0.0.1:8080/auth/github/callback", true),
            ("http://localhost/auth/github/callback", true),
            ("http://a.example/auth/github/callback", false),
            ("https://a.example/", false),
            ("https://a.example/auth/github/callback?x=1", false),
            ("javascript:alert(1)", false),
            ("/auth/github/callback", false),
            ("", false),
        ] {
            let made = Github::new(config(redirect), Arc::clone(&guard));
            assert_eq!(made.is_ok(), good, "{redirect}");
        }
        let github = Github::new(config("https://a.example/auth/github/callback"), guard).expect("good");
        assert_eq!(
            github.authorize("s t", "c"),
            "https://github.com/login/oauth/authorize?client_id=app&redirect_uri=https%3A%2F%2Fa.example%2Fauth%2F\
             github%2Fcallback&scope=read%3Auser&state=s+t&code_challenge=c&code_challenge_method=S256"
        );
    }
}
