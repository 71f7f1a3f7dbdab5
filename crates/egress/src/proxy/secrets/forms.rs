//! The forms that a secret takes in what is written down: as it is, escaped for where it stands, and encoded.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use secrecy::zeroize::Zeroizing;

type Text = Zeroizing<Vec<u8>>;

/// The shortest piece of an encoded secret that is told from chance, in characters.
const MIN_ENCODED: usize = 8;

/// How a text is written in a part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// As it is.
    None,
    /// In a string of JSON.
    Json,
    /// In a query, or in a form that is written like one.
    Percent,
}

impl Escape {
    pub(super) fn apply(self, text: &str) -> Text {
        match self {
            Self::None => Zeroizing::new(text.as_bytes().to_vec()),
            Self::Json => json(text, false, false),
            Self::Percent => percent(text, b'A'),
        }
    }
}

/// The forms in which a secret can be read at once; each stands for the whole of it.
pub(super) fn legible(secret: &str) -> Vec<Text> {
    let mut forms = vec![
        Escape::None.apply(secret),
        percent(secret, b'A'),
        percent(secret, b'a'),
        html(secret, "&#39;", "&quot;"),
        html(secret, "&#x27;", "&#34;"),
        html(secret, "'", "\""),
    ];
    for slashes in [false, true] {
        for ascii in [false, true] {
            forms.push(json(secret, slashes, ascii));
        }
    }
    if secret.contains(' ') {
        let spaced = |form: &Text| {
            let text = String::from_utf8_lossy(form).replace("%20", "+");
            Zeroizing::new(text.into_bytes())
        };
        forms.push(spaced(&forms[1]));
        forms.push(spaced(&forms[2]));
    }
    forms
}

/// The forms that have to be decoded. Of Base64 what does not depend on the bytes before and after the secret, for each
/// of the three places where it may begin.
pub(super) fn encoded(secret: &str) -> Vec<Text> {
    let bytes = secret.as_bytes();
    let mut forms = vec![
        Zeroizing::new(hex::encode(bytes).into_bytes()),
        Zeroizing::new(hex::encode_upper(bytes).into_bytes()),
    ];
    for before in 0..3 {
        let mut padded = Zeroizing::new(vec![0; before]);
        padded.extend_from_slice(bytes);
        // Each character is six bits; the first and the last may share theirs with somebody else's.
        let (first, last) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let text = Zeroizing::new(engine.encode(&*padded));
            if last - first >= MIN_ENCODED {
                forms.push(Zeroizing::new(text.as_bytes()[first..last].to_vec()));
            }
        }
    }
    forms
}

/// Everything but what no encoder touches (RFC 3986, section 2.3), with digits that begin at `ten`.
fn percent(text: &str, ten: u8) -> Text {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() * 3));
    let digit = |value: u8| {
        if value < 10 {
            b'0' + value
        } else {
            ten + value - 10
        }
    };
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    out
}

fn html(text: &str, apostrophe: &str, quote: &str) -> Text {
    let mut out = Zeroizing::new(String::with_capacity(text.len() * 6));
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str(apostrophe),
            '"' => out.push_str(quote),
            other => out.push(other),
        }
    }
    Zeroizing::new(out.as_bytes().to_vec())
}

fn json(text: &str, slashes: bool, ascii: bool) -> Text {
    let mut out = Zeroizing::new(String::with_capacity(text.len() * 2));
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '/' if slashes => out.push_str("\\/"),
            '\u{20}'..='\u{7e}' => out.push(character),
            other if ascii || other.is_ascii_control() => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    // Writing to a text can't fail.
                    let _ = write!(*out, "\\u{unit:04x}");
                }
            }
            other => out.push(other),
        }
    }
    Zeroizing::new(out.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    #[test]
    fn what_is_escaped_is_found() {
        let secret = "a b/\"&<é";
        let forms: Vec<String> = legible(secret)
            .iter()
            .map(|form| String::from_utf8(form.to_vec()).unwrap())
            .collect();
        for expected in [
            secret,
            "a%20b%2F%22%26%3C%C3%A9",
            "a%20b%2f%22%26%3c%c3%a9",
            "a+b%2F%22%26%3C%C3%A9",
            "a b/\\\"&<é",
            "a b\\/\\\"&<\\u00e9",
            "a b/&quot;&amp;&lt;é",
        ] {
            assert!(forms.iter().any(|form| form == expected), "{expected}: {forms:?}");
        }
        let as_json = serde_json::to_string(secret).unwrap();
        assert_eq!(
            as_json.trim_matches('"').as_bytes(),
            Escape::Json.apply(secret).as_slice()
        );
    }

    proptest! {
        #[test]
        fn a_secret_is_found_in_base64_wherever_it_stands(
            before in "[ -~]{0,9}",
            secret in "[!-~]{8,20}",
            after in "[ -~]{0,9}",
        ) {
            let text = format!("{before}{secret}{after}");
            let found = |text: String| {
                encoded(&secret)
                    .iter()
                    .any(|form| text.contains(std::str::from_utf8(form).unwrap()))
            };
            prop_assert!(found(STANDARD.encode(&text)));
            prop_assert!(found(URL_SAFE_NO_PAD.encode(&text)));
            prop_assert!(found(hex::encode(&text)));
        }
    }
}
