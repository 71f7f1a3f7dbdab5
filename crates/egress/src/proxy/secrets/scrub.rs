//! From secrets to placeholders, in what comes back.

use std::sync::Arc;

use http::header::{
    ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName,
    HeaderValue, IF_RANGE, RANGE, SEC_WEBSOCKET_EXTENSIONS, TRANSFER_ENCODING,
};
use http::response::Parts;
use http::{Response, Version};
use hyper::body::{Body as _, Incoming};
use hyper::ext::ReasonPhrase;
use tokio::sync::Semaphore;

use super::Set;
use super::body::{self, Body};
use crate::Error;
use crate::proxy::http::end_to_end;

/// What would have an answer come in parts, compressed, in other characters, or not at all until it is asked for again.
const UNWANTED: [HeaderName; 8] = [
    RANGE,
    IF_RANGE,
    EXPECT,
    SEC_WEBSOCKET_EXTENSIONS,
    ACCEPT_CHARSET,
    HeaderName::from_static("x-ms-range"),
    HeaderName::from_static("grpc-accept-encoding"),
    HeaderName::from_static("connect-accept-encoding"),
];

/// What says that a body is written in some other way than as it is meant.
const ENCODINGS: [HeaderName; 3] = [
    CONTENT_ENCODING,
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("connect-content-encoding"),
];

/// The beginnings of what says what a body's bytes add up to. Of one in which a secret was they would tell it to whoever
/// can guess, and would be wrong.
const DIGESTS: [&str; 7] = [
    "content-digest",
    "repr-digest",
    "digest",
    "content-md5",
    "x-amz-checksum-",
    "x-goog-hash",
    "x-ms-content-crc64",
];

/// The beginnings of the names of character sets in which ASCII is written as it is, and in which its bytes stand for
/// nothing else.
const LEGIBLE: [&str; 8] = [
    "utf-8",
    "utf8",
    "us-ascii",
    "ascii",
    "iso-8859-",
    "iso8859-",
    "latin",
    "windows-125",
];

/// Has a request ask for an answer that can be searched: as it is, and whole.
pub(in crate::proxy) fn searchable(headers: &mut HeaderMap) {
    for name in UNWANTED {
        headers.remove(name);
    }
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    for (name, value) in headers.iter_mut() {
        if name == ACCEPT
            && let Some(stripped) = without_charset(value)
        {
            *value = stripped;
        }
    }
}

/// What a client accepts, where it asks for a character set, without that.
fn without_charset(accepted: &HeaderValue) -> Option<HeaderValue> {
    let text = accepted.to_str().ok()?;
    let is_charset = |parameter: &&str| {
        let name = parameter.trim_start().get(.."charset".len());
        name.is_some_and(|name| name.eq_ignore_ascii_case("charset"))
    };
    let kinds = text.split(',').map(|kind| {
        let kept: Vec<&str> = kind.split(';').filter(|part| !is_charset(part)).collect();
        kept.join(";")
    });
    HeaderValue::from_str(&kinds.collect::<Vec<_>>().join(",")).ok()
}

/// Why an answer with these headers and a body can't be searched.
fn illegible(headers: &HeaderMap) -> Option<&'static str> {
    let is_as_it_is = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    for name in &ENCODINGS {
        if !headers.get_all(name).iter().all(is_as_it_is) {
            return Some(
                "the answer came compressed, though that was not asked for, and can't be searched for secrets",
            );
        }
    }
    let mut transfers = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if !transfers.next().is_none_or(is_chunked) || transfers.next().is_some() {
        return Some("the answer came in a transfer encoding that can't be searched for secrets");
    }
    let mut kinds = headers.get_all(CONTENT_TYPE).iter();
    if !kinds.all(|kind| is_legible(&String::from_utf8_lossy(kind.as_bytes()))) {
        return Some("the answer came in a character set that can't be searched for secrets");
    }
    None
}

fn is_legible(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    let mut charsets = kind.split(';').skip(1).filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        (name.trim() == "charset").then(|| value.trim().trim_matches(['"', '\'']))
    });
    charsets.all(|charset| LEGIBLE.iter().any(|known| charset.starts_with(known)))
}

/// An answer without secrets in it.
///
/// # Errors
/// When it can't be searched, or breaks off.
pub(in crate::proxy) async fn answer(
    set: &Arc<Set>,
    response: Response<Incoming>,
    room: &Arc<Semaphore>,
) -> Result<Response<Body>, Error> {
    let (mut head, body) = response.into_parts();
    if !body.is_end_stream()
        && let Some(why) = illegible(&head.headers)
    {
        return Err(Error::Failed(why.to_owned()));
    }
    end_to_end(&mut head.headers);
    self::head(set, &mut head);
    let last_set = Arc::clone(set);
    let last = Box::new(move |trailers: &mut HeaderMap, has_replaced| {
        headers(&last_set, trailers);
        if has_replaced {
            remove_digests(trailers);
        }
    });
    let (patterns, masks) = (set.scrub.clone(), Some(&set.mask));
    let replaced = body::replace(body, &mut head.headers, patterns, masks, room, last);
    let replaced = replaced
        .await
        .map_err(|_| Error::Failed("the answer broke off".to_owned()))?;
    if replaced.has_replaced {
        remove_digests(&mut head.headers);
    }
    head.version = Version::default();
    Ok(Response::from_parts(head, replaced.body))
}

/// Takes secrets out of the answer after which a WebSocket is spoken.
pub(in crate::proxy) fn switched(set: &Set, answer: &mut Response<Body>) {
    answer.extensions_mut().remove::<ReasonPhrase>();
    answer.headers_mut().remove(SEC_WEBSOCKET_EXTENSIONS);
    headers(set, answer.headers_mut());
}

/// Takes secrets out of the head of an answer.
fn head(set: &Set, answer: &mut Parts) {
    // A word of the server's own for the status has no use but to say something else.
    answer.extensions.remove::<ReasonPhrase>();
    headers(set, &mut answer.headers);
}

/// Takes secrets out of headers, or of what comes like headers after a body.
fn headers(set: &Set, headers: &mut HeaderMap) {
    remove(headers, |name| set.scrub.whole(name.as_bytes()).is_some());
    for value in headers.values_mut() {
        if let Some(scrubbed) = set.scrub.whole(value.as_bytes()) {
            // What is put in has no character that a header can't carry.
            *value = HeaderValue::from_bytes(&scrubbed).unwrap_or(HeaderValue::from_static(""));
        }
    }
}

/// Takes away what says what a body added up to before something was replaced in it.
pub(super) fn remove_digests(headers: &mut HeaderMap) {
    remove(headers, |name| {
        DIGESTS.iter().any(|digest| name.starts_with(digest))
    });
}

fn remove(headers: &mut HeaderMap, is_unwanted: impl Fn(&str) -> bool) {
    let named: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_unwanted(name.as_str()))
        .cloned()
        .collect();
    for name in named {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SECRET, placeholder, set};
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn no_header_brings_a_secret_back() {
        let set = set();
        let echoed = STANDARD.encode(format!("me:{SECRET}"));
        let mut answer = http::Response::new(()).into_parts().0;
        answer
            .extensions
            .insert(ReasonPhrase::from_static(b"s3cret/value"));
        for (name, value) in [
            ("location", format!("https://evil.test/?k={SECRET}")),
            ("x-query", "a=s3cret%2Fvalue%2B%22one%22".to_owned()),
            ("x-basic", format!("Basic {echoed}")),
            ("x-other", "second-secret".to_owned()),
            ("x-second-secret", "1".to_owned()),
            ("x-7365636f6e642d736563726574", "1".to_owned()),
        ] {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            answer
                .headers
                .append(name, HeaderValue::from_str(&value).unwrap());
        }
        head(&set, &mut answer);
        let (one, two) = (placeholder(1), placeholder(2));
        assert_eq!(
            answer.headers["location"],
            format!("https://evil.test/?k={}", one.as_str())
        );
        assert_eq!(answer.headers["x-query"], format!("a={}", one.as_str()));
        assert_eq!(answer.headers["x-other"], two.as_str());
        assert_eq!(answer.headers.len(), 4, "{:?}", answer.headers);
        let basic = answer.headers["x-basic"].to_str().unwrap();
        assert!(
            basic.contains("****") && !basic.contains(&echoed[8..16]),
            "{basic}"
        );
        assert!(answer.extensions.get::<ReasonPhrase>().is_none());
    }

    #[test]
    fn values_of_before_are_still_taken_out() {
        let before = set();
        let now = Set::new(Vec::new(), Some(&before));
        let later = Set::new(Vec::new(), Some(&now));
        for set in [&before, &now, &later] {
            let out = set.scrub.whole(format!("<{SECRET}>").as_bytes()).unwrap();
            assert_eq!(
                String::from_utf8(out).unwrap(),
                format!("<{}>", placeholder(1).as_str())
            );
        }
        assert!(later.find(placeholder(1).as_str()).is_none());
    }

    #[test]
    fn what_cannot_be_searched_is_seen() {
        let said = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.append(name, HeaderValue::from_static(value));
            illegible(&headers).is_some()
        };
        for (name, value, is_illegible) in [
            ("content-encoding", "identity", false),
            ("content-encoding", "gzip", true),
            ("grpc-encoding", "gzip", true),
            ("connect-content-encoding", "br", true),
            ("transfer-encoding", "Chunked", false),
            ("transfer-encoding", "gzip, chunked", true),
            ("transfer-encoding", "gzip", true),
            ("content-type", "text/html", false),
            ("content-type", "text/html; charset=\"UTF-8\"", false),
            ("content-type", "text/html;charset=iso-8859-1", false),
            ("content-type", "text/html; Charset=UTF-16", true),
            ("content-type", "text/html; a=b; charset = utf-7", true),
            ("content-type", "text/html; charset=utf-8; charset=utf-16le", true),
        ] {
            assert_eq!(said(name, value), is_illegible, "{name}: {value}");
        }
        let mut twice = HeaderMap::new();
        for value in ["gzip", "chunked"] {
            twice.append(TRANSFER_ENCODING, HeaderValue::from_static(value));
        }
        assert!(illegible(&twice).is_some());
    }

    #[test]
    fn an_answer_that_can_be_searched_is_asked_for() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("range", "bytes=0-3"),
            ("x-ms-range", "bytes=0-3"),
            ("accept-encoding", "gzip"),
            ("accept-charset", "utf-16"),
            ("accept", "text/html;charset=utf-16;q=0.5, */*; Charset=utf-7"),
            ("grpc-accept-encoding", "gzip"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        searchable(&mut headers);
        assert_eq!(headers.len(), 2, "{headers:?}");
        assert_eq!(headers["accept"], "text/html;q=0.5, */*");
        assert_eq!(headers["accept-encoding"], "identity");
    }

    #[test]
    fn digests_are_taken_away() {
        let mut headers = HeaderMap::new();
        for name in ["content-md5", "digest", "x-amz-checksum-crc32", "content-type"] {
            headers.append(name, HeaderValue::from_static("x"));
        }
        remove_digests(&mut headers);
        assert_eq!(headers.len(), 1);
    }
}
