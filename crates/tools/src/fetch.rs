//! The `web_fetch` tool.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use encoding_rs::{Encoding, UTF_8};
use http::header::{ACCEPT, HeaderMap, HeaderValue};
use oma_domain::ContentBlock;
use oma_domain::content::Source;
use oma_domain::session::Outcome;
use oma_domain::tokens::at_most;
use oma_domain::web;
use oma_egress::{Error, Excess, Fetched, Guard, Limits};
use oma_sandbox::input::from_object;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use url::Url;

use crate::page;
use crate::toolbox::Definition;

/// Pages that are converted at once: each takes a thread and some memory for up to seconds.
const MAX_CONVERSIONS: usize = 4;

/// How long a page may wait for its conversion and be converted.
const CONVERSION_TIMEOUT: Duration = Duration::from_secs(20);

/// The largest picture that is given, in bytes before base64.
const MAX_IMAGE: usize = 5 << 20;

/// Characters of an error page that are shown.
const MAX_ERROR_TEXT: usize = 2_000;

/// How much of a body tells what it is.
const SNIFF: usize = 1_024;

/// Bounds on one fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchLimits {
    /// How long a fetch may take.
    pub timeout: Duration,
    /// The largest body, in bytes. More of a text is left out; other bodies are refused.
    pub max_bytes: u64,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            max_bytes: 10 << 20,
        }
    }
}

/// The input of `web_fetch`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    url: String,
    #[serde(default)]
    max_chars: Option<usize>,
}

pub(crate) fn definition() -> Definition {
    Definition {
        name: "web_fetch".to_owned(),
        description:
            "Fetches a page from the public web by HTTP GET: HTML as Markdown, other text as it is, \
                      images and PDFs as themselves. Nothing of the session is sent along."
                .to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": {
                "url": {"type": "string", "description": "The full address, with http:// or https://."},
                "max_chars": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "Characters of the text to return; the rest is left out."
                },
            },
            "required": ["url"],
            "additionalProperties": false,
        }),
    }
}

/// Fetches pages through the guard.
#[derive(Debug)]
pub(crate) struct Fetcher {
    limits: Limits,
    conversions: Arc<Semaphore>,
}

impl Fetcher {
    pub(crate) fn new(limits: &FetchLimits) -> Self {
        let limits = Limits {
            max_body: limits.max_bytes,
            excess: Excess::Cut,
            timeout: limits.timeout,
            ..Limits::default()
        };
        Self {
            limits,
            conversions: Arc::new(Semaphore::new(MAX_CONVERSIONS)),
        }
    }

    /// Checks what can be checked without a fetch.
    pub(crate) fn check(guard: &Guard, input: &Value) -> Result<(), String> {
        let input = parse(input)?;
        guard
            .check(&input.url)
            .map(drop)
            .map_err(|error| explain(&input.url, &error))
    }

    pub(crate) async fn run(&self, guard: &Guard, input: &Value, web: &web::Limits) -> Outcome {
        let input = match parse(input) {
            Ok(input) => input,
            Err(message) => return Outcome::error(message),
        };
        let mut headers = HeaderMap::new();
        let accept =
            "text/markdown, text/html;q=0.9, application/xhtml+xml;q=0.9, text/plain;q=0.8, */*;q=0.5";
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        let admits = |url: &Url| web.admit(url.host_str().unwrap_or_default(), url.path());
        match guard.get_where(&input.url, headers, &self.limits, &admits).await {
            Ok(fetched) => self.show(fetched, &input, web.max_content_tokens).await,
            Err(Error::NotAdmitted(url)) => Outcome::error(not_allowed(&url)),
            Err(error) => Outcome::error(explain(&input.url, &error)),
        }
    }

    async fn show(&self, fetched: Fetched, input: &Input, tokens: Option<u64>) -> Outcome {
        let kind = kind(&fetched);
        if !(200..300).contains(&fetched.status) {
            return self.show_error(fetched, kind).await;
        }
        let size = fetched.body.len();
        let too_large = |what: &str, max: u64| {
            Outcome::error(format!(
                "{} is {what} of more than {max} bytes, which can't be shown.",
                fetched.final_url
            ))
        };
        let url = fetched.final_url.as_str();
        let block = match kind {
            Kind::Html | Kind::Text => {
                return self.show_text(fetched, kind, input.max_chars, tokens).await;
            }
            // These can't be cut.
            Kind::Image(_) | Kind::Pdf if tokens.is_some_and(|tokens| media_tokens(size) > tokens) => {
                let tokens = tokens.unwrap_or_default();
                return Outcome::error(format!(
                    "{url} takes more than {tokens} tokens, which is all that may be shown."
                ));
            }
            Kind::Image(_) if fetched.truncated || size > MAX_IMAGE => {
                return too_large("a picture", self.limits.max_body.min(MAX_IMAGE as u64));
            }
            Kind::Pdf if fetched.truncated => return too_large("a PDF", self.limits.max_body),
            Kind::Image(media_type) => ContentBlock::Image {
                source: base64(media_type, &fetched.body),
            },
            Kind::Pdf => ContentBlock::Document {
                source: base64("application/pdf", &fetched.body),
                title: Some(url.to_owned()),
                context: None,
            },
            Kind::Other => {
                let media_type = fetched.content_type.as_deref().unwrap_or("of no stated type");
                return Outcome::error(format!(
                    "{url} is not text ({media_type}, {size} bytes) and can't be shown."
                ));
            }
        };
        Outcome {
            content: vec![ContentBlock::text(format!("URL: {url}")), block],
            is_error: false,
        }
    }

    async fn show_text(
        &self,
        fetched: Fetched,
        kind: Kind,
        max_chars: Option<usize>,
        tokens: Option<u64>,
    ) -> Outcome {
        let url = fetched.final_url.clone();
        let mut complete = !fetched.truncated;
        let mut text = format!("URL: {url}\n");
        match self.text(fetched, kind).await {
            Ok(page) => {
                if let Some(title) = page.title {
                    text.push_str(&format!("Title: {title}\n"));
                }
                complete &= page.complete;
                text.push('\n');
                let shown = match max_chars.and_then(|max| page.markdown.char_indices().nth(max)) {
                    Some((end, _)) => &page.markdown[..end],
                    None => page.markdown.as_str(),
                };
                let shown = tokens.map_or(shown, |tokens| within(shown, tokens));
                text.push_str(if shown.is_empty() {
                    "[The page has no text.]"
                } else {
                    shown
                });
                if shown.len() < page.markdown.len() {
                    let total = page.markdown.chars().count();
                    text.push_str(&format!("\n\n[The text goes on: it has {total} characters.]"));
                } else if !complete {
                    text.push_str("\n\n[The page goes on; it is too large to be shown whole.]");
                }
                Outcome {
                    content: vec![ContentBlock::text(text)],
                    is_error: false,
                }
            }
            Err(message) => Outcome::error(format!("{url}: {message}")),
        }
    }

    async fn show_error(&self, fetched: Fetched, kind: Kind) -> Outcome {
        let reason = http::StatusCode::from_u16(fetched.status)
            .ok()
            .and_then(|status| status.canonical_reason());
        let mut message = format!(
            "{} answered with status {} {}.",
            fetched.final_url,
            fetched.status,
            reason.unwrap_or("")
        );
        if matches!(kind, Kind::Html | Kind::Text)
            && let Ok(page) = self.text(fetched, kind).await
            && !page.markdown.is_empty()
        {
            let text: String = page.markdown.chars().take(MAX_ERROR_TEXT).collect();
            message.push_str("\n\n");
            message.push_str(&text);
        }
        Outcome::error(message)
    }

    /// The text of a body, converted where it is HTML.
    async fn text(&self, fetched: Fetched, kind: Kind) -> Result<page::Page, String> {
        let work = move || {
            let text = decode(&fetched);
            if kind == Kind::Html {
                return page::convert(&text, &fetched.final_url);
            }
            page::Page {
                title: None,
                markdown: text,
                complete: true,
            }
        };
        in_turn(&self.conversions, CONVERSION_TIMEOUT, work).await
    }
}

/// Does work on a thread of its own, when it is its turn. Work that takes too long is not waited for; it runs
/// on and keeps its turn, so that there are never more threads than turns.
async fn in_turn<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    timeout: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let done = async {
        let turn = Arc::clone(turns)
            .acquire_owned()
            .await
            .map_err(|error| error.to_string())?;
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        work.await.map_err(|error| {
            tracing::error!(%error, "a page could not be converted");
            "the page could not be converted to text".to_owned()
        })
    };
    tokio::time::timeout(timeout, done).await.unwrap_or_else(|_| {
        tracing::warn!("a page was not converted in time");
        let seconds = timeout.as_secs();
        Err(format!(
            "the page could not be converted to text within {seconds} seconds"
        ))
    })
}

fn parse(input: &Value) -> Result<Input, String> {
    let invalid = |reason: String| format!("invalid input for `web_fetch`: {reason}");
    let input: Input = from_object(input).map_err(invalid)?;
    if input.max_chars == Some(0) {
        return Err(invalid("max_chars: must be at least 1".to_owned()));
    }
    Ok(input)
}

fn base64(media_type: &str, bytes: &[u8]) -> Source {
    let data = base64::engine::general_purpose::STANDARD.encode(bytes);
    Source::Base64 {
        media_type: media_type.to_owned(),
        data,
    }
}

fn explain(url: &str, error: &Error) -> String {
    // A URL may be as long as the model likes; a message about it need not.
    let url: String = url.chars().take(200).collect();
    format!("{url:?} could not be fetched: {error}.")
}

/// What the model is told of an address that the agent may not read.
pub(crate) fn not_allowed(url: &str) -> String {
    let url: String = url.chars().take(200).collect();
    format!("url_not_allowed: {url} is not among the addresses that this agent may fetch.")
}

/// About how many tokens an image or a PDF takes.
fn media_tokens(bytes: usize) -> u64 {
    (bytes as u64 / 12).max(1_600)
}

/// The longest start of a text that has no more than so many tokens.
fn within(text: &str, tokens: u64) -> &str {
    let (mut fits, mut too_long) = (0, text.len() + 1);
    while too_long - fits > 1 {
        let middle = text.floor_char_boundary(fits + (too_long - fits) / 2);
        if middle <= fits {
            break;
        }
        if at_most(&text[..middle]) <= tokens {
            fits = middle;
        } else {
            too_long = middle;
        }
    }
    &text[..fits]
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Html,
    Text,
    Image(&'static str),
    Pdf,
    Other,
}

/// Tells by the body where its first bytes are clear, otherwise by its stated type.
fn kind(fetched: &Fetched) -> Kind {
    let body = &fetched.body[..];
    match body {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => return Kind::Image("image/png"),
        [0xff, 0xd8, 0xff, ..] => return Kind::Image("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => return Kind::Image("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => return Kind::Image("image/webp"),
        [b'%', b'P', b'D', b'F', b'-', ..] => return Kind::Pdf,
        _ => {}
    }
    let stated = fetched.content_type.as_deref().unwrap_or("");
    let stated = stated.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let start = &body[..body.len().min(SNIFF)];
    let looks_like_text = !start.contains(&0);
    match stated.as_str() {
        "text/html" | "application/xhtml+xml" => Kind::Html,
        "" if looks_like_text => {
            let start = String::from_utf8_lossy(start).trim_start().to_ascii_lowercase();
            if start.starts_with("<!doctype html") || start.starts_with("<html") {
                Kind::Html
            } else {
                Kind::Text
            }
        }
        media if media.starts_with("text/") => Kind::Text,
        media if media.ends_with("+json") || media.ends_with("+xml") => Kind::Text,
        "application/json"
        | "application/xml"
        | "application/javascript"
        | "application/x-javascript"
        | "application/ecmascript"
        | "application/yaml"
        | "application/x-yaml"
        | "application/toml"
        | "application/x-ndjson"
        | "application/jsonlines"
        | "application/sql"
        | "application/graphql"
        | "application/x-sh"
        | "application/rtf" => Kind::Text,
        "application/octet-stream" if looks_like_text && std::str::from_utf8(body).is_ok() => Kind::Text,
        _ => Kind::Other,
    }
}

/// The body as text: in the encoding of its byte order mark, its stated type, or its own `<meta>`; UTF-8
/// otherwise.
fn decode(fetched: &Fetched) -> String {
    let stated = fetched.content_type.as_deref().and_then(|stated| {
        let stated = stated.to_ascii_lowercase();
        let (_, label) = stated.split_once("charset=")?;
        let label = label.split(';').next()?.trim().trim_matches(['"', '\'']);
        Encoding::for_label(label.as_bytes())
    });
    let encoding = stated.or_else(|| meta_charset(&fetched.body)).unwrap_or(UTF_8);
    // This looks for the byte order mark first.
    encoding.decode(&fetched.body).0.into_owned()
}

fn meta_charset(body: &[u8]) -> Option<&'static Encoding> {
    let start = String::from_utf8_lossy(&body[..body.len().min(SNIFF)]).to_ascii_lowercase();
    let (_, rest) = start.split_once("<meta")?;
    let (_, rest) = rest.split_once("charset=")?;
    let label: String = rest
        .trim_start_matches(['"', '\'', ' '])
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c))
        .collect();
    Encoding::for_label(label.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    /// A body as if fetched.
    fn fetched(content_type: Option<&str>, body: &[u8]) -> Fetched {
        Fetched {
            final_url: url::Url::parse("https://example.com/").unwrap(),
            status: 200,
            content_type: content_type.map(str::to_owned),
            body: body.to_vec().into(),
            truncated: false,
        }
    }

    #[tokio::test]
    async fn slow_conversions_are_not_waited_for() {
        let turns = Arc::new(Semaphore::new(1));
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let short = Duration::from_millis(20);
        let slow = in_turn(&turns, short, move || finished.recv().is_ok()).await;
        assert!(slow.is_err_and(|message| message.contains("within 0 seconds")));
        // It keeps its turn until it is done, and others do not wait for ever.
        assert_eq!(turns.available_permits(), 0);
        assert!(in_turn(&turns, short, || ()).await.is_err());
        finish.send(()).unwrap();
        assert_eq!(in_turn(&turns, Duration::from_secs(20), || 1).await, Ok(1));
    }

    #[test]
    fn kinds() {
        for (stated, body, expected) in [
            (Some("text/html; charset=utf-8"), &b"x"[..], Kind::Html),
            (Some("TEXT/HTML"), b"x", Kind::Html),
            (Some("text/plain"), b"<html>", Kind::Text),
            (Some("application/json"), b"{}", Kind::Text),
            (Some("application/ld+json"), b"{}", Kind::Text),
            (None, b"  <!DOCTYPE html>", Kind::Html),
            (None, b"text", Kind::Text),
            (None, b"te\0xt", Kind::Other),
            (Some("application/octet-stream"), b"text", Kind::Text),
            (Some("application/octet-stream"), b"\xff\xfe\xfd", Kind::Other),
            (Some("application/zip"), b"PK", Kind::Other),
            (Some("text/plain"), b"%PDF-1.7", Kind::Pdf),
            (Some("image/png"), b"not a picture", Kind::Other),
            (
                Some("application/octet-stream"),
                b"\x89PNG\r\n\x1a\n",
                Kind::Image("image/png"),
            ),
        ] {
            assert_eq!(kind(&fetched(stated, body)), expected, "{stated:?} {body:?}");
        }
    }

    #[test]
    fn encodings() {
        for (stated, body, expected) in [
            (None, "é".as_bytes(), "é"),
            (Some("text/plain; charset=ISO-8859-1"), b"\xe9", "é"),
            (Some("text/plain; charset=\"windows-1252\"; x=y"), b"\x80", "€"),
            (Some("text/html; charset=nonsense"), "é".as_bytes(), "é"),
            (
                Some("text/html"),
                b"<meta charset=iso-8859-1>\xe9",
                "<meta charset=iso-8859-1>é",
            ),
            (
                Some("text/html"),
                b"<meta http-equiv=x content='text/html; charset=shift_jis'>\x82\xa0",
                "<meta http-equiv=x content='text/html; charset=shift_jis'>あ",
            ),
            (Some("text/plain; charset=utf-8"), b"\xff\xfeh\0i\0", "hi"),
            (None, b"\xff!", "\u{fffd}!"),
        ] {
            assert_eq!(decode(&fetched(stated, body)), expected, "{stated:?}");
        }
    }
}
