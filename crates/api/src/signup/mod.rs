//! Signing up, where the operator has turned it on: anonymously, or with a GitHub account. Whoever does gets a workspace
//! of their own and a token for it, and nothing of anybody else's.
//!
//! Invariant: nobody gets a token here unless the operator has turned that way of signing up on.
//! Invariant: a token is in the body of one answer, which no cache keeps, and in no address and no log.

mod github;
mod page;
mod pending;

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use oma_domain::user::{GithubAccount, User};
use oma_domain::{Actor, Timestamp};
use oma_engine::{SignedUp, Terms};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use github::{Github, GithubConfig, InvalidUrl};

use crate::AppState;
use crate::audit::{self, Notes};
use crate::auth::Caller;
use crate::dialects::openclaw::error::ErrorBody;
use crate::fault::{Fault, Result};
use crate::params::Params;
use crate::rate::{self, Buckets, Peer, Taken};
use pending::Pending;

/// How many people may sign up from one address in a minute, and how many sign-ins it may begin.
const PER_MINUTE: u32 = 5;
/// How long a sign-in with GitHub may take, from the way there to the way back.
const SIGN_IN: Duration = Duration::from_secs(600);
/// The cookie that binds a sign-in to the browser that began it.
const COOKIE: &str = "oma_signin";

/// How people may sign up.
#[derive(Debug, Clone, Default)]
pub struct SignUp {
    /// Anonymously, on these terms.
    pub anonymous: Option<Terms>,
    /// With a GitHub account, on these terms.
    pub github: Option<(Terms, Github)>,
}

/// What is remembered of those who are signing up.
#[derive(Debug)]
pub(crate) struct Desk {
    addresses: Buckets<std::net::IpAddr>,
    pending: Pending,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            addresses: Buckets::per_minute(PER_MINUTE),
            pending: Pending::default(),
        }
    }
}

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(anonymous))
        .routes(routes!(to_github))
        .routes(routes!(from_github))
        .routes(routes!(me))
}

/// Somebody who has just signed up.
#[derive(Serialize, ToSchema)]
pub struct SignedUpView {
    user_id: String,
    /// What to present as the bearer token. Only this answer has it.
    api_token: String,
    /// `anonymous`.
    tier: &'static str,
    /// When the token ends and everything of the user's is removed, in milliseconds since the epoch.
    #[schema(required)]
    expires_at: Option<i64>,
}

/// Somebody.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Me {
    /// Somebody with the server's token or a key that an admin made.
    Admin {
        /// `admin`, `write` or `read`.
        role: &'static str,
        /// The same.
        tier: &'static str,
    },
    /// Somebody who signed up.
    User {
        /// The user.
        user_id: String,
        /// Their workspace.
        workspace_id: String,
        /// `anonymous` or `github`.
        tier: &'static str,
        /// The name of their GitHub account.
        #[schema(required)]
        github_username: Option<String>,
        /// Its picture.
        #[schema(required)]
        avatar_url: Option<String>,
        /// When everything of theirs is removed, in milliseconds since the epoch.
        #[schema(required)]
        expires_at: Option<i64>,
    },
}

fn disabled() -> Fault {
    let message = "The operator of this server has not turned this way of signing up on";
    Fault::new(StatusCode::NOT_IMPLEMENTED, "auth_disabled", message)
}

fn no_github() -> Fault {
    let message = "The operator of this server has not turned signing in with GitHub on";
    Fault::new(StatusCode::NOT_IMPLEMENTED, "github_not_configured", message)
}

/// Takes one of an address's few tries.
fn admit(state: &AppState, peer: Option<Extension<Peer>>, headers: &HeaderMap) -> Result<()> {
    let peer = peer.map(|Extension(peer)| peer);
    let address = rate::origin(peer.as_ref(), headers, &state.config.trusted_proxies);
    match state
        .desk
        .addresses
        .take(rate::neighbourhood(address), Instant::now())
    {
        Taken::Granted(_) => Ok(()),
        Taken::Refused(wait) => {
            let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).max(1);
            let message = format!("only {PER_MINUTE} people a minute may sign up from one address");
            let fault = Fault::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message);
            Err(fault.with_retry_after(seconds))
        }
    }
}

/// Notes for the audit trail who signs up, or in. From here on it is known who calls, so it is recorded in any case.
fn note(notes: &Notes, user: &User) {
    let home = oma_domain::WorkspaceId::default_workspace();
    notes.caller(&home, &Actor::Key(user.key.clone()));
    notes.target(user.id.to_string());
    notes.fact("tier", user.tier.as_str().into());
    notes.fact("workspace_id", user.workspace.as_str().into());
    if let Some(account) = &user.github {
        notes.fact("github_username", account.login.clone().into());
    }
}

/// Sign up anonymously.
///
/// Makes a user with a workspace of their own, which is removed with everything in it when the user expires. Only
/// where the operator has turned it on.
#[utoipa::path(
    post, path = "/auth/anonymous", tag = "signup", security(()),
    responses(
        (status = 200, body = SignedUpView), (status = 429, body = ErrorBody), (status = 501, body = ErrorBody),
    ),
)]
async fn anonymous(
    State(state): State<AppState>,
    Extension(notes): Extension<Notes>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<Response> {
    let terms = state.config.signup.anonymous.as_ref().ok_or_else(disabled)?;
    admit(&state, peer, &headers)?;
    let SignedUp { user, token } = sign_up(&state, &notes, terms, None).await?;
    let view = SignedUpView {
        user_id: user.id.to_string(),
        api_token: token.expose_secret().to_owned(),
        tier: user.tier.as_str(),
        expires_at: user.expires_at.map(Timestamp::as_millis),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(view)).into_response())
}

/// Sign in with GitHub.
///
/// Leads the browser to GitHub, which leads it back. Only where the operator has turned it on.
#[utoipa::path(
    get, path = "/auth/github", tag = "signup", security(()),
    responses((status = 302), (status = 429, body = ErrorBody), (status = 501, body = ErrorBody)),
)]
async fn to_github(
    State(state): State<AppState>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<Response> {
    let (_, github) = state.config.signup.github.as_ref().ok_or_else(no_github)?;
    admit(&state, peer, &headers)?;
    let begun = state
        .desk
        .pending
        .begin(Instant::now() + SIGN_IN)
        .map_err(|problem| match problem {
            pending::Problem::Full => {
                let message = "Too many people are signing in at this moment";
                Fault::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message).with_retry_after(60)
            }
            pending::Problem::NoRandomness(error) => Fault::internal(error),
        })?;
    let location = github.authorize(&begun.state, &begun.challenge);
    let secure = if github.is_secure() { "; Secure" } else { "" };
    let cookie = format!(
        "{COOKIE}={}; Path=/auth/github; Max-Age={}; HttpOnly; SameSite=Lax{secure}",
        begun.cookie.expose_secret(),
        SIGN_IN.as_secs()
    );
    let unusable = |_| Fault::internal("a header of the way to GitHub can't be written");
    let headers = [
        (
            header::LOCATION,
            HeaderValue::from_str(&location).map_err(unusable)?,
        ),
        (
            header::SET_COOKIE,
            HeaderValue::from_str(&cookie).map_err(unusable)?,
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    Ok((StatusCode::FOUND, headers).into_response())
}

/// Come back from GitHub.
///
/// Shows the user's new token on a page; the one before works no more. The sign-in must have been begun in the same
/// browser, within ten minutes, and counts once.
#[utoipa::path(
    get, path = "/auth/github/callback", tag = "signup", security(()),
    params(
        ("code" = Option<String>, Query, description = "What GitHub gives for the user's consent"),
        ("state" = Option<String>, Query, description = "What this server gave the browser on the way there"),
    ),
    responses(
        (status = 200, body = String, content_type = "text/html"), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 429, body = ErrorBody), (status = 501, body = ErrorBody),
    ),
)]
async fn from_github(
    State(state): State<AppState>,
    Extension(notes): Extension<Notes>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response> {
    let (terms, github) = state.config.signup.github.as_ref().ok_or_else(no_github)?;
    let Some(code) = params.get("code") else {
        let message = "The address has no code: GitHub did not say that the user agrees";
        return Err(Fault::new(StatusCode::BAD_REQUEST, "missing_code", message));
    };
    let cookie = cookie(&headers).unwrap_or_default();
    let begun = params.get("state").unwrap_or_default();
    let verifier = state.desk.pending.end(begun, cookie, Instant::now());
    let Some(verifier) = verifier else {
        let message =
            "This sign-in was not begun in this browser, has been used, or took too long; begin again";
        return Err(failed(message));
    };
    let account = github.account(code, &verifier).await.map_err(|error| {
        tracing::warn!(%error, "signing in with GitHub failed");
        failed("GitHub did not confirm who this is")
    })?;
    let signed_up = sign_in_with_github(&state, &notes, terms, account).await?;
    Ok(page::signed_in(&signed_up))
}

/// Lets the holder of a GitHub account in: makes a user at the first time, and later gives the one that there is a new
/// token.
async fn sign_in_with_github(
    state: &AppState,
    notes: &Notes,
    terms: &Terms,
    account: GithubAccount,
) -> Result<SignedUp> {
    let number = account.id;
    let known = state.engine.user_of_github(number).await?;
    let user = match known {
        Some(user) => user,
        None => match sign_up(state, notes, terms, Some(account)).await {
            // Somebody was faster, with the same account.
            Err(oma_engine::Error::UserExists) => {
                let user = state.engine.user_of_github(number).await?;
                user.ok_or(oma_engine::Error::UserNotFound)?
            }
            signed_up => return Ok(signed_up?),
        },
    };
    note(notes, &user);
    audit::note(state, notes).await?;
    Ok(state.engine.sign_in(user).await?)
}

/// Makes a user, with the entry of the audit trail that says so.
async fn sign_up(
    state: &AppState,
    notes: &Notes,
    terms: &Terms,
    account: Option<GithubAccount>,
) -> std::result::Result<SignedUp, oma_engine::Error> {
    let entry = |user: &User| {
        let about = notes.detached();
        note(&about, user);
        about.success()
    };
    let signed_up = state.engine.sign_up(terms, account, entry).await?;
    notes.recorded();
    Ok(signed_up)
}

fn failed(message: &str) -> Fault {
    Fault::new(StatusCode::UNAUTHORIZED, "github_auth_failed", message)
}

/// The value of our cookie.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::COOKIE).into_iter();
    let pairs = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value)
}

/// Who am I?
///
/// The user that the token belongs to; for other callers what their key may do.
#[utoipa::path(
    get, path = "/auth/me", tag = "signup",
    responses((status = 200, body = Me), (status = 401, body = ErrorBody)),
)]
async fn me(State(state): State<AppState>, caller: Caller) -> Result<Json<Me>> {
    let role = caller.scope().as_str();
    let Some(key) = caller.key() else {
        return Ok(Json(Me::Admin { role, tier: role }));
    };
    match state.engine.user_of_key(&key).await {
        Ok(user) => Ok(Json(Me::User {
            user_id: user.id.to_string(),
            workspace_id: user.workspace.to_string(),
            tier: user.tier.as_str(),
            github_username: user.github.as_ref().map(|account| account.login.clone()),
            avatar_url: user.github.and_then(|account| account.avatar_url),
            expires_at: user.expires_at.map(Timestamp::as_millis),
        })),
        Err(oma_engine::Error::UserNotFound) => Ok(Json(Me::Admin { role, tier: role })),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_cookie_is_found_among_others() {
        for (values, found) in [
            (&["oma_signin=a"][..], Some("a")),
            (&["x=1; oma_signin=b; y=2"], Some("b")),
            (&["x=1", "oma_signin=c=d"], Some("c=d")),
            (&["xoma_signin=a"], None),
            (&["oma_signin"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::COOKIE, value.parse().expect("legal"));
            }
            assert_eq!(cookie(&headers), found, "{values:?}");
        }
    }
}
