//! Trying a credential against its MCP server: whether the server takes the token, and what a refresh brings when it
//! does not.
//!
//! The probe is a client's first steps in the protocol (`initialize`, `notifications/initialized`, `tools/list`), each
//! with the credential's token, through the dial guard and to nowhere but the places that the credential is for. What
//! the server says is repeated in part, with the token taken out.

use std::time::Duration;

use oma_domain::vault::{Field, Kind};
use oma_domain::{CredentialId, Timestamp, VaultId, WorkspaceId};
use oma_egress::target::Target;
use reqwest::header::{ACCEPT, HeaderMap, LOCATION};
use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use url::Url;

use crate::error::{Error, RefreshFailure, Result};
use crate::lookup::Bearer;
use crate::oauth::media_type;
use crate::rule::Rule;
use crate::vaults::{Vaults, now};

/// How long one attempt may take, from the first lookup to the last byte.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How much of an answer is repeated, in characters.
const MAX_SHOWN: usize = 2_000;

/// How much of an answer is read beyond the length of the token, in bytes: all that is repeated, so that a token that
/// begins in it ends in what was read.
const MAX_READ: usize = 4 * MAX_SHOWN;

/// How much of an answer is read for what it says in the protocol, in bytes.
const MAX_ANSWER: usize = 256 << 10;

/// The most redirects that are followed.
const MAX_REDIRECTS: u32 = 3;

/// What stands in a token's place.
const MASK: &str = "[secret]";

/// The version of the protocol that is asked for.
const PROTOCOL: &str = "2025-06-18";

/// The header that names the protocol's own session.
const SESSION: &str = "mcp-session-id";

/// The header that names the version that was agreed on.
const VERSION: &str = "mcp-protocol-version";

/// What came of trying a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validation {
    /// The verdict.
    pub verdict: Verdict,
    /// Whether the credential has a refresh token.
    pub has_refresh_token: bool,
    /// The step that failed, if one did.
    pub failed: Option<FailedStep>,
    /// What came of a refresh, if one was due.
    pub refresh: Option<Refreshed>,
    /// When.
    pub at: Timestamp,
}

/// Whether a credential works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The server took it.
    Valid,
    /// The server refused it, and there is none to be had that it takes.
    Invalid,
    /// Nobody can say.
    Unknown,
}

/// A step of the protocol that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedStep {
    /// The method.
    pub method: &'static str,
    /// What the server answered; `None` when it did not.
    pub answer: Option<Answer>,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The media type, if it is a common one; empty otherwise.
    pub media_type: &'static str,
    /// The beginning of the body, without the token.
    pub body: String,
    /// Whether there is more.
    pub truncated: bool,
}

/// What came of a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refreshed {
    /// The issuer gave another token.
    Succeeded,
    /// There is no refresh token.
    NoRefreshToken,
    /// The issuer could not be asked.
    Unreachable,
    /// The issuer refused, or gave nothing that can be used or kept. Of what it said only the error codes that OAuth
    /// defines are repeated.
    Failed(Option<Answer>),
}

/// How an attempt ended.
enum Attempt {
    Accepted,
    /// With 401.
    Refused(FailedStep),
    /// With 403.
    Forbidden(FailedStep),
    Failed(FailedStep),
}

impl Vaults {
    /// Tries a credential of OAuth against its MCP server. A token that the server refuses is refreshed, and the next
    /// one tried.
    ///
    /// # Errors
    /// [`Error::VaultNotFound`], [`Error::CredentialNotFound`], [`Error::CredentialArchived`], [`Error::Invalid`] for
    /// one of another type, [`Error::Unreadable`], [`Error::Store`].
    pub async fn validate(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<Validation> {
        let stored = self.found(workspace, vault, id).await?;
        let credential = &stored.credential;
        if credential.archived_at.is_some() {
            return Err(Error::CredentialArchived);
        }
        let Kind::McpOauth { refresh, .. } = &credential.spec.kind else {
            return Err(Error::Invalid {
                field: "type",
                message: "only credentials of the type mcp_oauth can be validated".to_owned(),
            });
        };
        let url = &credential.spec.match_url;
        let bearer = self.inner.bearer(&stored).await?;
        let (refresh, attempt) = match self.attempt(url, &bearer.token).await {
            Attempt::Refused(step) if refresh.is_none() => {
                (Some(Refreshed::NoRefreshToken), Attempt::Refused(step))
            }
            Attempt::Refused(step) => match self.refresh(credential, stored.revision).await {
                Ok(Bearer { token, .. }) => (Some(Refreshed::Succeeded), self.attempt(url, &token).await),
                Err(Error::Refresh { reason, .. }) => (Some(not_refreshed(&reason)), Attempt::Refused(step)),
                Err(error) => return Err(error),
            },
            attempt => (None, attempt),
        };
        let unreachable = matches!(refresh, Some(Refreshed::Unreachable | Refreshed::Failed(None)));
        let (verdict, failed) = match attempt {
            Attempt::Accepted => (Verdict::Valid, None),
            // The token is refused, but another one may be had later.
            Attempt::Refused(step) if unreachable => (Verdict::Unknown, Some(step)),
            Attempt::Refused(step) | Attempt::Forbidden(step) => (Verdict::Invalid, Some(step)),
            Attempt::Failed(step) => (Verdict::Unknown, Some(step)),
        };
        Ok(Validation {
            verdict,
            has_refresh_token: stored.secrets.contains_key(&Field::RefreshToken),
            failed,
            refresh,
            at: now(),
        })
    }

    async fn attempt(&self, url: &str, token: &SecretString) -> Attempt {
        let failed = |answer| {
            Attempt::Failed(FailedStep {
                method: "initialize",
                answer,
            })
        };
        let Ok(rule) = Rule::parse(url) else {
            return failed(None);
        };
        let mut probe = Probe {
            vaults: self,
            rule,
            url: url.to_owned(),
            token,
            session: None,
            version: None,
        };
        let attempt = tokio::time::timeout(TIMEOUT, Box::pin(probe.run())).await;
        attempt.unwrap_or_else(|_| failed(None))
    }
}

fn not_refreshed(reason: &RefreshFailure) -> Refreshed {
    match reason {
        RefreshFailure::NoRefreshToken => Refreshed::NoRefreshToken,
        RefreshFailure::Unreachable(_) => Refreshed::Unreachable,
        RefreshFailure::Refused {
            status,
            code,
            media_type,
        } => Refreshed::Failed(Some(Answer {
            status: *status,
            media_type,
            body: code
                .map(|code| json!({"error": code}).to_string())
                .unwrap_or_default(),
            truncated: true,
        })),
        RefreshFailure::BadAnswer(_) => Refreshed::Failed(Some(Answer {
            status: StatusCode::OK.as_u16(),
            media_type: "",
            body: String::new(),
            truncated: true,
        })),
        RefreshFailure::NotKept(_) | RefreshFailure::Stopping | RefreshFailure::CutOff => {
            Refreshed::Failed(None)
        }
    }
}

struct Probe<'a> {
    vaults: &'a Vaults,
    /// What the credential is for.
    rule: Rule,
    /// Where the server is; another address after redirects.
    url: String,
    token: &'a SecretString,
    session: Option<String>,
    version: Option<String>,
}

impl Probe<'_> {
    async fn run(&mut self) -> Attempt {
        let attempt = self.steps().await;
        if self.session.is_some() {
            // Whether it takes the end of its session or not: the verdict is known.
            self.end().await;
        }
        attempt
    }

    async fn steps(&mut self) -> Attempt {
        let client = json!({"name": "openclaw-managed-agents", "version": env!("CARGO_PKG_VERSION")});
        let params = json!({"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": client});
        for (method, message) in [
            (
                "initialize",
                json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}),
            ),
            (
                "notifications/initialized",
                json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
            ),
            (
                "tools/list",
                json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}),
            ),
        ] {
            let Some(response) = self.send(&message).await else {
                return Attempt::Failed(FailedStep { method, answer: None });
            };
            if !response.status().is_success() {
                return self.refusal(method, response).await;
            }
            if method != "initialize" {
                continue;
            }
            let (status, headers) = (response.status(), response.headers().clone());
            let (bytes, whole) = read(response, MAX_ANSWER).await;
            let Some(answer) = first_message(&bytes).filter(|answer| answer["result"].is_object()) else {
                let answer = self.answer(status, media_type(&headers), &bytes, whole);
                return Attempt::Failed(FailedStep {
                    method,
                    answer: Some(answer),
                });
            };
            self.agree(&headers, &answer);
        }
        Attempt::Accepted
    }

    /// Makes a request, also where the server redirects it to, as far as the credential is for that. `None` when
    /// there is no answer.
    async fn send(&mut self, message: &Value) -> Option<Response> {
        for _ in 0..=MAX_REDIRECTS {
            let (client, url) = self.vaults.inner.guard.client_for(&self.url).ok()?;
            let mut request = client
                .post(url.clone())
                .header(ACCEPT, "application/json, text/event-stream")
                .header(reqwest::header::CONTENT_TYPE, "application/json")
                .bearer_auth(self.token.expose_secret())
                .body(message.to_string());
            for (name, value) in [(SESSION, &self.session), (VERSION, &self.version)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            let response = request.send().await.ok()?;
            let Some(next) = self.redirect(&url, &response) else {
                return Some(response);
            };
            self.url = next;
        }
        None
    }

    /// Where an answer redirects the same request to, if the credential is for that.
    fn redirect(&self, url: &Url, response: &Response) -> Option<String> {
        if !matches!(response.status().as_u16(), 307 | 308) {
            return None;
        }
        let location = response.headers().get(LOCATION)?.to_str().ok()?;
        let next = Target::from_url(url.join(location).ok()?).ok()?;
        self.rule.matches(&next).then(|| next.url.to_string())
    }

    /// Takes what the server says of the protocol.
    fn agree(&mut self, headers: &HeaderMap, answer: &Value) {
        let session = headers.get(SESSION).and_then(|value| value.to_str().ok());
        self.session = session.map(str::to_owned);
        let version = answer["result"]["protocolVersion"].as_str();
        let is_sane =
            |version: &&str| version.len() <= 32 && version.bytes().all(|byte| byte.is_ascii_graphic());
        self.version = version.filter(is_sane).map(str::to_owned);
    }

    async fn refusal(&self, method: &'static str, response: Response) -> Attempt {
        let status = response.status();
        let media_type = media_type(response.headers());
        let (bytes, whole) = read(response, MAX_READ + self.token.expose_secret().len()).await;
        let step = FailedStep {
            method,
            answer: Some(self.answer(status, media_type, &bytes, whole)),
        };
        match status {
            StatusCode::UNAUTHORIZED => Attempt::Refused(step),
            StatusCode::FORBIDDEN => Attempt::Forbidden(step),
            _ => Attempt::Failed(step),
        }
    }

    /// What may be repeated of an answer.
    fn answer(&self, status: StatusCode, media_type: &'static str, bytes: &[u8], whole: bool) -> Answer {
        // Read this far, no token that begins in what is shown is cut off.
        let most = MAX_READ + self.token.expose_secret().len();
        let text = String::from_utf8_lossy(bytes.get(..most).unwrap_or(bytes));
        let masked = text.replace(self.token.expose_secret(), MASK);
        let body: String = masked.chars().take(MAX_SHOWN).collect();
        Answer {
            status: status.as_u16(),
            media_type,
            truncated: !whole || body.len() < masked.len() || text.len() < bytes.len(),
            body,
        }
    }

    async fn end(&self) {
        let Ok((client, url)) = self.vaults.inner.guard.client_for(&self.url) else {
            return;
        };
        let mut request = client
            .delete(url)
            .timeout(Duration::from_secs(2))
            .bearer_auth(self.token.expose_secret());
        for (name, value) in [(SESSION, &self.session), (VERSION, &self.version)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        if let Err(error) = request.send().await {
            tracing::debug!(error = %oma_egress::dial::failed(&error), "an MCP session could not be ended");
        }
    }
}

/// Reads an answer up to a bound, or up to the first message of an event stream, which need not end; and whether that
/// is all.
async fn read(mut response: Response, most: usize) -> (Vec<u8>, bool) {
    let is_stream = media_type(response.headers()) == "text/event-stream";
    let mut bytes = Vec::new();
    loop {
        let piece = match response.chunk().await {
            Ok(Some(piece)) => piece,
            Ok(None) => return (bytes, true),
            Err(_) => return (bytes, false),
        };
        let room = most - bytes.len();
        if piece.len() > room {
            bytes.extend_from_slice(piece.get(..room).unwrap_or_default());
            return (bytes, false);
        }
        bytes.extend_from_slice(&piece);
        if is_stream && first_message(&bytes).is_some() {
            return (bytes, false);
        }
    }
}

/// The protocol's first message in an answer, which is JSON or an event stream.
fn first_message(answer: &[u8]) -> Option<Value> {
    if let Ok(value @ Value::Object(_)) = serde_json::from_slice(answer) {
        return Some(value);
    }
    let text = std::str::from_utf8(answer).ok()?;
    let mut data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    data.find_map(|line| serde_json::from_str::<Value>(line.trim()).ok())
        .filter(Value::is_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_in_both_kinds_of_answers() {
        for (answer, expected) in [
            (r#"{"id":1}"#, Some(json!({"id": 1}))),
            ("event: message\ndata: {\"id\":1}\n\n", Some(json!({"id": 1}))),
            ("id: 0\ndata:\n\ndata:{\"id\":2}\n\n", Some(json!({"id": 2}))),
            ("data: {\"id\"", None),
            ("", None),
            ("[]", None),
        ] {
            assert_eq!(first_message(answer.as_bytes()), expected, "{answer}");
        }
    }
}
