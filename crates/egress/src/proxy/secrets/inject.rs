//! From placeholders to secrets, in requests.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;

use super::forms::Escape;
use super::replace::{Find, Found, Patterns, Seen};
use super::{DIGITS, PLACEHOLDER, PREFIX, Secret, Set, Withheld};
use crate::target::Host;

/// Why a request is not sent as it is.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Refused {
    /// For a placeholder in it, that of a secret with this name where there is one.
    Withheld(Withheld, String),
    /// With the secret in it, it is no request.
    Unfit(&'static str),
}

/// The names of the secrets that a request has been given.
pub(super) type Used = BTreeSet<String>;

/// What becomes of placeholders on the way to one host.
struct Way<'a> {
    set: &'a Set,
    host: &'a Host,
    used: Used,
}

impl Way<'_> {
    /// The secret of a placeholder that may be used here.
    fn secret(&self, placeholder: &str) -> Result<&Secret, Refused> {
        let secret = self.set.find(placeholder);
        let secret = secret.ok_or_else(|| Refused::Withheld(Withheld::Unknown, String::new()))?;
        if secret.is_for(self.host) {
            Ok(secret)
        } else {
            Err(Refused::Withheld(Withheld::OtherHost, secret.name.clone()))
        }
    }

    /// A text with secrets in it; `None` when nothing is put in.
    fn text(&mut self, text: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Refused> {
        let mut out: Option<Zeroizing<Vec<u8>>> = None;
        let (mut at, mut kept) = (0, 0);
        while let Some(found) = find(&text[at..]) {
            let start = at + found;
            at = start + PLACEHOLDER;
            let secret = self.secret(&String::from_utf8_lossy(&text[start..at]))?;
            if !secret.places.header {
                continue;
            }
            let (name, value) = (secret.name.clone(), secret.value.expose_secret().as_bytes());
            let out = out.get_or_insert_default();
            out.extend_from_slice(&text[kept..start]);
            out.extend_from_slice(value);
            kept = at;
            self.used.insert(name);
        }
        if let Some(out) = &mut out {
            out.extend_from_slice(&text[kept..]);
        }
        Ok(out)
    }

    fn header(&mut self, value: &HeaderValue) -> Result<Option<HeaderValue>, Refused> {
        let text = match basic(value.as_bytes()) {
            Some(pair) => self.text(&pair)?.map(|pair| {
                let text = Zeroizing::new(STANDARD.encode(&*pair));
                Zeroizing::new(format!("Basic {}", *text).into_bytes())
            }),
            None => self.text(value.as_bytes())?,
        };
        let Some(text) = text else { return Ok(None) };
        let mut value = HeaderValue::from_bytes(&text)
            .map_err(|_| Refused::Unfit("a secret has characters that a header can't carry"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn query(&mut self, query: &str) -> Result<Option<Zeroizing<String>>, Refused> {
        let mut out: Option<Zeroizing<String>> = None;
        let mut kept = 0;
        let mut at = 0;
        while at < query.len() {
            let Some((placeholder, length)) = written_at(&query.as_bytes()[at..]) else {
                at += 1;
                continue;
            };
            let secret = self.secret(&placeholder)?;
            if secret.places.query {
                let (name, value) = (
                    secret.name.clone(),
                    Escape::Percent.apply(secret.value.expose_secret()),
                );
                let out = out.get_or_insert_default();
                out.push_str(&query[kept..at]);
                out.push_str(&String::from_utf8_lossy(&value));
                kept = at + length;
                self.used.insert(name);
            }
            at += length;
        }
        if let Some(out) = &mut out {
            out.push_str(&query[kept..]);
        }
        Ok(out)
    }
}

/// Where something that looks like a placeholder begins.
fn find(text: &[u8]) -> Option<usize> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.windows(PLACEHOLDER).position(|window| {
        window.starts_with(PREFIX.as_bytes()) && window[PREFIX.len()..].iter().all(is_digit)
    })
}

/// The placeholder that a text of a URL begins with, and how long it is there: any of its characters may be escaped.
fn written_at(text: &[u8]) -> Option<(String, usize)> {
    // Most texts are done with their first character.
    if !matches!(text.first(), Some(b'%' | b'o')) {
        return None;
    }
    let mut placeholder = String::with_capacity(PLACEHOLDER);
    let mut at = 0;
    while placeholder.len() < PLACEHOLDER {
        let (byte, length) = match text.get(at)? {
            b'%' => {
                let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
                (u8::try_from(digit(at + 1)? * 16 + digit(at + 2)?).ok()?, 3)
            }
            byte => (*byte, 1),
        };
        let is_next = match PREFIX.as_bytes().get(placeholder.len()) {
            Some(expected) => byte == *expected,
            None => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        };
        if !is_next {
            return None;
        }
        placeholder.push(char::from(byte));
        at += length;
    }
    debug_assert_eq!(placeholder.len(), PREFIX.len() + DIGITS);
    Some((placeholder, at))
}

/// Name and password of basic authentication (RFC 7617).
fn basic(value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, pair) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = pair.trim_ascii();
    let pair = pair
        .strip_suffix(b"==")
        .or_else(|| pair.strip_suffix(b"="))
        .unwrap_or(pair);
    STANDARD_NO_PAD.decode(pair).ok().map(Zeroizing::new)
}

/// Puts secrets into the head of a request to this host.
///
/// # Errors
/// When there is a placeholder in it that must not go there.
pub(super) fn head(
    set: &Set,
    host: &Host,
    target: &PathAndQuery,
    headers: &mut HeaderMap,
) -> Result<(PathAndQuery, Used), Refused> {
    let mut way = Way {
        set,
        host,
        used: Used::new(),
    };
    if let Some(placeholder) = in_path(target.path()) {
        let name = way.secret(&placeholder)?.name.clone();
        return Err(Refused::Withheld(Withheld::InPath, name));
    }
    let mut target = target.clone();
    if let Some(query) = target.query()
        && let Some(query) = way.query(query)?
    {
        let text = Zeroizing::new(format!("{}?{}", target.path(), *query));
        target = PathAndQuery::try_from(text.as_bytes())
            .map_err(|_| Refused::Unfit("with the secret in it, the query is too long"))?;
    }
    for value in headers.values_mut() {
        if let Some(with) = way.header(value)? {
            *value = with;
        }
    }
    Ok((target, way.used))
}

fn in_path(path: &str) -> Option<String> {
    (0..path.len()).find_map(|at| written_at(&path.as_bytes()[at..]).map(|(placeholder, _)| placeholder))
}

/// Whether there is a placeholder in the head of a request that goes in the clear: that of which secret, where the
/// session has one.
pub(in crate::proxy) fn in_the_clear(set: &Set, target: &str, headers: &HeaderMap) -> Option<Refused> {
    let mut placeholder = in_path(target);
    for value in headers.values() {
        let decoded = basic(value.as_bytes());
        let text = decoded.as_ref().map_or(value.as_bytes(), |pair| pair.as_slice());
        placeholder = placeholder.or_else(|| {
            let start = find(text)?;
            Some(String::from_utf8_lossy(&text[start..start + PLACEHOLDER]).into_owned())
        });
    }
    let secret = set.find(&placeholder?);
    Some(match secret {
        Some(secret) => Refused::Withheld(Withheld::InTheClear, secret.name.clone()),
        None => Refused::Withheld(Withheld::Unknown, String::new()),
    })
}

/// Placeholders in a body, each with its secret as it is written there.
struct Placeholders(Vec<(String, Zeroizing<Vec<u8>>)>);

impl Find for Placeholders {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn next(&self, seen: &Seen<'_>, mut from: usize, until: usize) -> Option<Found<'_>> {
        while from < until {
            let start = from + find(&seen.bytes[from..])?;
            let end = start + PLACEHOLDER;
            let text = &seen.bytes[start..end];
            let known = self.0.iter().find(|(known, _)| known.as_bytes() == text);
            if let Some((_, secret)) = known {
                return (start < until).then_some(Found {
                    start,
                    end,
                    instead: Some(secret),
                });
            }
            from = end;
        }
        None
    }

    /// All but what may be the beginning of a placeholder. How much that is tells the process nothing: it has them.
    fn decided(&self, seen: &Seen<'_>) -> usize {
        let length = seen.bytes.len();
        let mut last = length.saturating_sub(PLACEHOLDER - 1)..length;
        let is_beginning = |start: &usize| {
            self.0
                .iter()
                .any(|(known, _)| known.as_bytes().starts_with(&seen.bytes[*start..]))
        };
        last.find(is_beginning).unwrap_or(length)
    }
}

/// What is to be replaced in the body of a request with these headers.
pub(super) fn body(set: &Set, host: &Host, headers: &HeaderMap) -> Patterns {
    let kind = headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let escape = if kind.ends_with("json") {
        Escape::Json
    } else if kind == "application/x-www-form-urlencoded" {
        Escape::Percent
    } else {
        Escape::None
    };
    let secrets = set
        .secrets
        .iter()
        .filter(|secret| secret.places.body && secret.is_for(host));
    let secrets = secrets.map(|secret| {
        let value = escape.apply(secret.value.expose_secret());
        (secret.placeholder.as_str().to_owned(), value)
    });
    Patterns::new(Arc::new(Placeholders(secrets.collect())))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SECRET, placeholder, secret, set};
    use super::*;
    use crate::proxy::secrets::Places;

    fn host(name: &str) -> Host {
        Host::Name(name.to_owned())
    }

    fn inject(set: &Set, target: &str, value: &str) -> Result<(String, String), Refused> {
        let mut headers = HeaderMap::new();
        headers.insert("x-any", HeaderValue::from_str(value).unwrap());
        let target = PathAndQuery::try_from(target).unwrap();
        let (target, _) = head(set, &host("api.test"), &target, &mut headers)?;
        let value = String::from_utf8_lossy(headers["x-any"].as_bytes()).into_owned();
        Ok((target.to_string(), value))
    }

    #[test]
    fn placeholders_become_secrets_in_headers_and_queries() {
        let set = set();
        let one = placeholder(1);
        let one = one.as_str();
        let (target, value) = inject(
            &set,
            &format!("/p?a=1&key={one}&b"),
            &format!("Bearer {one};{one}"),
        )
        .unwrap();
        assert_eq!(target, "/p?a=1&key=s3cret%2Fvalue%2B%22one%22&b");
        assert_eq!(value, format!("Bearer {SECRET};{SECRET}"));
        // As an encoder might write it that escapes more than it has to.
        let escaped = one.replacen("oma_", "%6Fma%5f", 1);
        let (target, _) = inject(&set, &format!("/?k={escaped}"), "-").unwrap();
        assert_eq!(target, "/?k=s3cret%2Fvalue%2B%22one%22");
        for scheme in ["Basic", "basic"] {
            let (_, value) = inject(
                &set,
                "/",
                &format!("{scheme} {}", STANDARD.encode(format!("me:{one}"))),
            )
            .unwrap();
            assert_eq!(
                value,
                format!("Basic {}", STANDARD.encode(format!("me:{SECRET}")))
            );
        }
        let same = [
            "Basic",
            "Basic ",
            "Basic ???",
            "oma_placeholder_",
            "oma_placeholder_00",
        ];
        for value in same {
            assert_eq!(
                inject(&set, "/a?b=c", value).unwrap(),
                ("/a?b=c".to_owned(), value.to_owned())
            );
        }
    }

    #[test]
    fn placeholders_that_must_not_go_there_hold_the_request() {
        let set = set();
        let withheld = |why, name: &str| Err(Refused::Withheld(why, name.to_owned()));
        let (one, other, unknown) = (placeholder(1), placeholder(2), placeholder(9));
        for (placeholder, expected) in [
            (&other, withheld(Withheld::OtherHost, "TWO")),
            (&unknown, withheld(Withheld::Unknown, "")),
        ] {
            let text = placeholder.as_str();
            assert_eq!(inject(&set, "/", &format!("Bearer {text}")), expected);
            assert_eq!(inject(&set, &format!("/?{text}"), "-"), expected);
            assert_eq!(
                inject(
                    &set,
                    "/",
                    &format!("Basic {}", STANDARD.encode(format!("{text}:")))
                ),
                expected
            );
        }
        let escaped = one.as_str().replacen('o', "%6f", 1);
        for path in [one.as_str(), &escaped] {
            assert_eq!(
                inject(&set, &format!("/bot{path}/send"), "-"),
                withheld(Withheld::InPath, "ONE")
            );
        }
    }

    #[test]
    fn a_secret_is_put_where_it_is_for_and_nowhere_else() {
        let mut one = secret(1);
        one.places = Places {
            header: false,
            query: false,
            body: false,
        };
        let set = Set::new(vec![one], None);
        let one = placeholder(1);
        let one = one.as_str();
        let target = format!("/?{one}");
        assert_eq!(inject(&set, &target, one), Ok((target.clone(), one.to_owned())));
        assert!(body(&set, &host("api.test"), &HeaderMap::new()).is_empty());
    }

    #[test]
    fn bodies_are_escaped_as_they_are_written() {
        let set = set();
        for (kind, expected) in [
            ("text/plain", SECRET.to_owned()),
            (
                "application/json; charset=utf-8",
                "s3cret/value+\\\"one\\\"".to_owned(),
            ),
            ("application/vnd.api+json", "s3cret/value+\\\"one\\\"".to_owned()),
            (
                "application/x-www-form-urlencoded",
                "s3cret%2Fvalue%2B%22one%22".to_owned(),
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            let patterns = body(&set, &host("api.test"), &headers);
            let out = patterns
                .whole(format!("a={}", placeholder(1).as_str()).as_bytes())
                .unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), format!("a={expected}"), "{kind}");
            assert_eq!(
                patterns.whole(placeholder(2).as_str().as_bytes()),
                None,
                "for another host"
            );
        }
        assert!(body(&set, &host("other.test"), &HeaderMap::new()).is_empty());
    }

    #[test]
    fn requests_in_the_clear_are_searched() {
        let set = set();
        let one = placeholder(1);
        let one = one.as_str();
        let mut headers = HeaderMap::new();
        assert_eq!(in_the_clear(&set, "/a?b", &headers), None);
        let expected = || Some(Refused::Withheld(Withheld::InTheClear, "ONE".to_owned()));
        assert_eq!(in_the_clear(&set, &format!("/a?b={one}"), &headers), expected());
        assert_eq!(in_the_clear(&set, &format!("/{one}"), &headers), expected());
        let pair = format!("Basic {}", STANDARD.encode(format!("me:{one}")));
        headers.insert("authorization", HeaderValue::from_str(&pair).unwrap());
        assert_eq!(in_the_clear(&set, "/", &headers), expected());
    }
}
