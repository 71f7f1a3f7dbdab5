//! From secrets to placeholders, in what comes back.

use http::header::{CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue};
use http::response::Parts;
use hyper::ext::ReasonPhrase;

use super::Set;

/// Takes secrets out of the head of an answer.
pub(super) fn head(set: &Set, answer: &mut Parts) {
    // A word of the server's own for the status has no use but to say something else.
    answer.extensions.remove::<ReasonPhrase>();
    headers(set, &mut answer.headers);
}

/// Takes secrets out of headers, or of what comes like headers after a body.
pub(super) fn headers(set: &Set, headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .keys()
        .filter(|name| set.is_in_name(name.as_str()))
        .cloned()
        .collect();
    for name in named {
        headers.remove(name);
    }
    for value in headers.values_mut() {
        if let Some(scrubbed) = set.scrub.whole(value.as_bytes()) {
            // What is put in has no character that a header can't carry.
            *value = HeaderValue::from_bytes(&scrubbed).unwrap_or(HeaderValue::from_static(""));
        }
    }
}

impl Set {
    /// Whether a secret is part of a header's name, which is in lower case.
    fn is_in_name(&self, name: &str) -> bool {
        use secrecy::ExposeSecret as _;
        let values = self.secrets.iter().map(|secret| &secret.value);
        values
            .chain(self.past.iter().map(|(_, value)| value))
            .any(|value| {
                let value = value.expose_secret();
                name.len() >= value.len()
                    && name
                        .as_bytes()
                        .windows(value.len())
                        .any(|part| part.eq_ignore_ascii_case(value.as_bytes()))
            })
    }
}

/// Whether a body is written in some other way than as it is meant.
pub(super) fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|value| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
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
        assert!(!answer.headers.contains_key("x-second-secret"));
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
}
