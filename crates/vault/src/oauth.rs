//! The refresh request of OAuth 2.0 (RFC 6749, section 6), and how its answer is read.

use std::time::Duration;

use base64::Engine as _;
use oma_domain::vault::{ClientAuth, Refresh};
use oma_egress::Guard;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::form_urlencoded::{Serializer, byte_serialize, parse};

use crate::error::RefreshFailure;

/// How long the token endpoint may take, from the lookup of its name to the last byte.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest answer, in bytes.
const MAX_ANSWER: usize = 256 << 10;

/// The longest token, in bytes.
const MAX_TOKEN: usize = 65_536;

/// How long a token is taken to live when the issuer does not say.
const DEFAULT_LIFE: Duration = Duration::from_secs(3600);

/// How long a token is taken to live at least, so that not every request asks for another one. If it does not, the
/// server that it is for will say so.
const MIN_LIFE: Duration = Duration::from_secs(10);

/// The error codes that OAuth defines for a token endpoint. Others are not repeated, for they may say anything.
const CODES: [&str; 8] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "temporarily_unavailable",
    "server_error",
];

/// What a token endpoint issued.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) access_token: SecretString,
    /// The next refresh token; the one that was used goes on when there is none.
    pub(crate) refresh_token: Option<SecretString>,
    /// For how long the access token is good.
    pub(crate) life: Duration,
}

/// Asks for new tokens.
///
/// # Errors
/// [`RefreshFailure`].
pub(crate) async fn refresh(
    guard: &Guard,
    refresh: &Refresh,
    refresh_token: &SecretString,
    client_secret: Option<&SecretString>,
) -> Result<Issued, RefreshFailure> {
    let asked = Box::pin(ask(guard, refresh, refresh_token, client_secret));
    tokio::time::timeout(TIMEOUT, asked)
        .await
        .map_err(|_| RefreshFailure::Unreachable(oma_egress::Error::Timeout(TIMEOUT)))?
}

async fn ask(
    guard: &Guard,
    refresh: &Refresh,
    refresh_token: &SecretString,
    client_secret: Option<&SecretString>,
) -> Result<Issued, RefreshFailure> {
    let (client, url) = guard.client_for(&refresh.token_endpoint)?;
    let mut request = client
        .post(url)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form(refresh, refresh_token, client_secret).as_bytes().to_vec());
    if let (ClientAuth::ClientSecretBasic, Some(secret)) = (refresh.client_auth, client_secret) {
        request = request.header(AUTHORIZATION, basic(&refresh.client_id, secret)?);
    }
    let mut response = request.send().await.map_err(|error| unreachable(&error))?;
    let status = response.status().as_u16();
    let media_type = media_type(response.headers());
    let mut body = Zeroizing::new(Vec::new());
    while let Some(piece) = response.chunk().await.map_err(|error| unreachable(&error))? {
        if body.len() + piece.len() > MAX_ANSWER {
            return Err(RefreshFailure::BadAnswer("it is too long"));
        }
        body.extend_from_slice(&piece);
    }
    read(status, media_type, &body)
}

/// The media types that are repeated to clients. Others may say anything.
const MEDIA_TYPES: [&str; 5] = [
    "application/json",
    "application/x-www-form-urlencoded",
    "text/html",
    "text/plain",
    "text/event-stream",
];

/// The media type of an answer, if it is a common one; empty otherwise.
pub(crate) fn media_type(headers: &HeaderMap) -> &'static str {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = text.unwrap_or_default().split(';').next().unwrap_or_default();
    let known = MEDIA_TYPES
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(essence.trim()));
    known.unwrap_or_default()
}

/// The guard's own word where there is one; never the URL.
fn unreachable(error: &reqwest::Error) -> RefreshFailure {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(ours) = inner.downcast_ref::<oma_egress::Error>() {
            return RefreshFailure::Unreachable(ours.clone());
        }
        cause = inner.source();
    }
    let text = if error.is_connect() {
        "no connection"
    } else {
        "the connection broke off"
    };
    RefreshFailure::Unreachable(oma_egress::Error::Failed(text.to_owned()))
}

fn form(refresh: &Refresh, token: &SecretString, client_secret: Option<&SecretString>) -> Zeroizing<String> {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token")
        .append_pair("refresh_token", token.expose_secret());
    match (refresh.client_auth, client_secret) {
        (ClientAuth::None, _) => {
            form.append_pair("client_id", &refresh.client_id);
        }
        (ClientAuth::ClientSecretPost, secret) => {
            form.append_pair("client_id", &refresh.client_id);
            if let Some(secret) = secret {
                form.append_pair("client_secret", secret.expose_secret());
            }
        }
        (ClientAuth::ClientSecretBasic, _) => {}
    }
    if let Some(scopes) = refresh.scopes.as_ref().filter(|scopes| !scopes.is_empty()) {
        form.append_pair("scope", &scopes.join(" "));
    }
    if let Some(resource) = &refresh.resource {
        form.append_pair("resource", resource);
    }
    Zeroizing::new(form.finish())
}

fn basic(client: &str, secret: &SecretString) -> Result<HeaderValue, RefreshFailure> {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encoded(client), encoded(secret.expose_secret())));
    let text = Zeroizing::new(format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair.as_bytes())
    ));
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| RefreshFailure::BadAnswer("the client's secret fits no header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads an answer, which is JSON or, from some issuers, a form.
pub(crate) fn read(status: u16, media_type: &'static str, body: &[u8]) -> Result<Issued, RefreshFailure> {
    let fields = Fields::of(body);
    // Some issuers answer errors with 200.
    let code = fields.text("error");
    if !(200..300).contains(&status) || code.is_some() {
        let code = code.and_then(|code| CODES.into_iter().find(|known| *known == code));
        return Err(RefreshFailure::Refused {
            status,
            code,
            media_type,
        });
    }
    let access_token = fields
        .text("access_token")
        .ok_or(RefreshFailure::BadAnswer("it has no access token"))?;
    let refresh_token = fields.text("refresh_token").filter(|token| !token.is_empty());
    for token in [Some(&access_token), refresh_token.as_ref()]
        .into_iter()
        .flatten()
    {
        if !is_token(token) {
            return Err(RefreshFailure::BadAnswer(
                "a token in it is empty, too long or no token",
            ));
        }
    }
    Ok(Issued {
        access_token: SecretString::from(access_token),
        refresh_token: refresh_token.map(SecretString::from),
        life: fields.seconds("expires_in").unwrap_or(DEFAULT_LIFE).max(MIN_LIFE),
    })
}

/// Whether a text can be presented as a bearer token: visible ASCII.
#[must_use]
pub(crate) fn is_token(text: &str) -> bool {
    (1..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

enum Fields<'a> {
    Json(Value),
    Form(&'a [u8]),
}

impl<'a> Fields<'a> {
    fn of(body: &'a [u8]) -> Self {
        match serde_json::from_slice(body) {
            Ok(value @ Value::Object(_)) => Self::Json(value),
            _ => Self::Form(body),
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        match self {
            Self::Json(value) => value.get(name)?.as_str().map(str::to_owned),
            Self::Form(body) => parse(body)
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned()),
        }
    }

    fn seconds(&self, name: &str) -> Option<Duration> {
        let number = match self {
            Self::Json(value) => value.get(name)?.as_f64(),
            Self::Form(_) => None,
        };
        let number = number.or_else(|| self.text(name)?.trim().parse().ok())?;
        // No issuer means more than some years; what is no duration counts as not said.
        Duration::try_from_secs_f64(number)
            .ok()
            .map(|life| life.min(Duration::from_secs(10 * 366 * 24 * 3600)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        for (status, body, expected) in [
            (
                200,
                r#"{"access_token":"a1","refresh_token":"r1","expires_in":60,"token_type":"Bearer"}"#,
                Ok(("a1", Some("r1"), 60)),
            ),
            (200, r#"{"access_token":"a1"}"#, Ok(("a1", None, 3600))),
            (
                200,
                r#"{"access_token":"a1","expires_in":"90"}"#,
                Ok(("a1", None, 90)),
            ),
            (
                200,
                r#"{"access_token":"a1","expires_in":-1}"#,
                Ok(("a1", None, 3600)),
            ),
            (
                200,
                r#"{"access_token":"a1","expires_in":1e300}"#,
                Ok(("a1", None, 3600)),
            ),
            (
                200,
                "access_token=a%2B1&refresh_token=r1&expires_in=5",
                Ok(("a+1", Some("r1"), 10)),
            ),
            (
                200,
                r#"{"access_token":"a1","refresh_token":""}"#,
                Ok(("a1", None, 3600)),
            ),
            (
                200,
                "{}",
                Err("the token endpoint's answer can't be used: it has no access token"),
            ),
            (
                200,
                "",
                Err("the token endpoint's answer can't be used: it has no access token"),
            ),
            (
                200,
                "[1]",
                Err("the token endpoint's answer can't be used: it has no access token"),
            ),
            (
                200,
                r#"{"access_token":"a\r\nX-Evil: 1"}"#,
                Err(
                    "the token endpoint's answer can't be used: a token in it is empty, too long or no token",
                ),
            ),
            (
                400,
                r#"{"error":"invalid_grant"}"#,
                Err("the token endpoint answered 400 (invalid_grant)"),
            ),
            (
                200,
                "error=invalid_grant",
                Err("the token endpoint answered 200 (invalid_grant)"),
            ),
            (
                400,
                r#"{"error":"your token rt-canary is bad"}"#,
                Err("the token endpoint answered 400"),
            ),
            (302, "", Err("the token endpoint answered 302")),
            (503, "busy", Err("the token endpoint answered 503")),
        ] {
            let found = read(status, "", body.as_bytes());
            let found = found
                .as_ref()
                .map(|issued| {
                    (
                        issued.access_token.expose_secret(),
                        issued.refresh_token.as_ref().map(|token| token.expose_secret()),
                        issued.life.as_secs(),
                    )
                })
                .map_err(ToString::to_string);
            assert_eq!(found, expected.map_err(str::to_owned), "{body}");
        }
    }

    #[test]
    fn requests() {
        let refresh = |client_auth, scopes: &[&str]| Refresh {
            token_endpoint: "https://id.example/token".into(),
            client_id: "c 1".into(),
            client_auth,
            scopes: Some(scopes.iter().map(|scope| (*scope).to_owned()).collect()),
            resource: (client_auth == ClientAuth::None).then(|| "https://a.example/".into()),
        };
        let (token, secret) = (SecretString::from("r&1"), SecretString::from("s:1"));
        for (auth, scopes, expected) in [
            (
                ClientAuth::ClientSecretPost,
                &[][..],
                "grant_type=refresh_token&refresh_token=r%261&client_id=c+1&client_secret=s%3A1",
            ),
            (
                ClientAuth::None,
                &["a", "b"],
                "grant_type=refresh_token&refresh_token=r%261&client_id=c+1&scope=a+b&resource=https%3A%2F%2Fa.example%2F",
            ),
            (
                ClientAuth::ClientSecretBasic,
                &[],
                "grant_type=refresh_token&refresh_token=r%261",
            ),
        ] {
            let form = form(&refresh(auth, scopes), &token, Some(&secret));
            assert_eq!(form.as_str(), expected);
        }
        let header = basic("c 1", &secret).unwrap();
        assert!(header.is_sensitive());
        assert_eq!(header, "Basic YysxOnMlM0Ex");
    }
}
