//! A secret as it has to be written where a placeholder stood, and the forms of it that have to be decoded. How its
//! characters may be escaped is another matter ([`super::spelling`]).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
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
            Self::Json => json(text),
            Self::Percent => percent(text),
        }
    }
}

/// The forms that have to be decoded: hexadecimal digits in both cases, and of Base64 (in its first alphabet) what does
/// not depend on the bytes before and after the secret, for each of the three places where it may begin.
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
        let text = Zeroizing::new(STANDARD_NO_PAD.encode(&*padded));
        if last - first >= MIN_ENCODED {
            forms.push(Zeroizing::new(text.as_bytes()[first..last].to_vec()));
        }
    }
    forms
}

/// Everything but what no encoder touches (RFC 3986, section 2.3).
fn percent(text: &str) -> Text {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() * 3));
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value)];
            out.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    out
}

fn json(text: &str) -> Text {
    let mut out = Zeroizing::new(String::with_capacity(text.len() * 2));
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            other if other.is_ascii_control() => {
                // Writing to a text can't fail.
                let _ = write!(*out, "\\u{:04x}", u32::from(other));
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

    proptest! {
        #[test]
        fn a_secret_is_escaped_as_others_escape_it(secret in "[ -~é😀]{0,20}") {
            let json = serde_json::to_string(&secret).unwrap();
            prop_assert_eq!(&json.as_bytes()[1..json.len() - 1], &**Escape::Json.apply(&secret));
            let query = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>();
            let query = query.replace('+', "%20").replace('*', "%2A").replace("%7E", "~");
            prop_assert_eq!(query.as_bytes(), &**Escape::Percent.apply(&secret));
        }

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
            prop_assert!(found(hex::encode(&text)));
        }
    }
}
