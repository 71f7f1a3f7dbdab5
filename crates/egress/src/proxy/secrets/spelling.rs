//! How a character may be written in a text: as it is, or escaped as URLs, JSON, programs, HTML and XML do.
//!
//! A text can be read in more than one way, so each way is told. What was escaped may have been escaped again in the
//! same way, as JSON in a string of JSON is.

/// How often a character may have been escaped again.
const MAX_DEPTH: usize = 3;
/// The most backslashes before one character.
const MAX_BACKSLASHES: usize = 1 << MAX_DEPTH;
/// The longest name or number of a character in HTML, in bytes.
const MAX_ENTITY: usize = 10;

/// The names that HTML has for characters of ASCII which are neither letters nor digits.
const NAMED: &[(&[u8], char)] = &[
    (b"amp", '&'),
    (b"lt", '<'),
    (b"gt", '>'),
    (b"quot", '"'),
    (b"apos", '\''),
    (b"excl", '!'),
    (b"num", '#'),
    (b"dollar", '$'),
    (b"percnt", '%'),
    (b"lpar", '('),
    (b"rpar", ')'),
    (b"ast", '*'),
    (b"midast", '*'),
    (b"plus", '+'),
    (b"comma", ','),
    (b"period", '.'),
    (b"sol", '/'),
    (b"colon", ':'),
    (b"semi", ';'),
    (b"equals", '='),
    (b"quest", '?'),
    (b"commat", '@'),
    (b"lsqb", '['),
    (b"lbrack", '['),
    (b"bsol", '\\'),
    (b"rsqb", ']'),
    (b"rbrack", ']'),
    (b"hat", '^'),
    (b"lowbar", '_'),
    (b"grave", '`'),
    (b"lcub", '{'),
    (b"lbrace", '{'),
    (b"verbar", '|'),
    (b"vert", '|'),
    (b"rcub", '}'),
    (b"rbrace", '}'),
];

/// Tells `found` each character that the text may begin with, and how many bytes it takes.
pub(super) fn spelled(text: &[u8], found: &mut impl FnMut(char, usize)) {
    octets(text, |text| Some((*text.first()?, 1)), found);
    match text.first() {
        Some(b'+') => found(' ', 1),
        Some(b'%') => percent(text, found),
        Some(b'&') => entity(text, found),
        Some(b'\\') => backslashes(text, found),
        _ => {}
    }
}

/// Whether a byte begins what stands for another character.
pub(super) fn is_escape(byte: u8) -> bool {
    matches!(byte, b'%' | b'&' | b'\\')
}

/// A character in UTF-8 or in Latin-1, of which `octet` reads each byte and tells how many it is written with.
fn octets(text: &[u8], octet: impl Fn(&[u8]) -> Option<(u8, usize)>, found: &mut impl FnMut(char, usize)) {
    let Some((first, mut at)) = octet(text) else {
        return;
    };
    found(char::from(first), at);
    let length = match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return,
    };
    let mut bytes = [first, 0, 0, 0];
    for byte in &mut bytes[1..length] {
        let Some((next, taken)) = octet(&text[at..]) else {
            return;
        };
        *byte = next;
        at += taken;
    }
    let character = std::str::from_utf8(&bytes[..length]);
    if let Some(character) = character.ok().and_then(|text| text.chars().next()) {
        found(character, at);
    }
}

/// A character in UTF-16, of which `unit` reads each half.
fn units(text: &[u8], unit: impl Fn(&[u8]) -> Option<(u32, usize)>, found: &mut impl FnMut(char, usize)) {
    let Some((first, at)) = unit(text) else { return };
    if let Some(character) = char::from_u32(first) {
        return found(character, at);
    }
    let Some((second, taken)) = unit(&text[at..]) else {
        return;
    };
    let pair = [first, second].map(|unit| u16::try_from(unit).unwrap_or_default());
    if let Some(Ok(character)) = char::decode_utf16(pair).next() {
        found(character, at + taken);
    }
}

/// `%2F`, `%252F`, `%u002F`.
fn percent(text: &[u8], found: &mut impl FnMut(char, usize)) {
    for depth in 0..=MAX_DEPTH {
        let octet = |text: &[u8]| {
            let mut rest = text.strip_prefix(b"%")?;
            for _ in 0..depth {
                rest = rest.strip_prefix(b"25")?;
            }
            Some((u8::try_from(digits(rest, 2)?).ok()?, 3 + 2 * depth))
        };
        octets(text, octet, found);
    }
    let unit = |text: &[u8]| Some((digits(text.strip_prefix(b"%u")?, 4)?, 6));
    units(text, unit, found);
}

/// `&amp;`, `&#47;`, `&#x2F;`, `&amp;amp;`.
fn entity(text: &[u8], found: &mut impl FnMut(char, usize)) {
    let mut at = 1;
    for _ in 0..=MAX_DEPTH {
        let rest = &text[at..];
        let Some(length) = rest.iter().take(MAX_ENTITY + 1).position(|byte| *byte == b';') else {
            return;
        };
        let Some(character) = named(&rest[..length]) else {
            return;
        };
        at += length + 1;
        found(character, at);
        if character != '&' {
            return;
        }
    }
}

fn named(name: &[u8]) -> Option<char> {
    if let Some(number) = name.strip_prefix(b"#") {
        let (digits, radix) = match number.split_first() {
            Some((b'x' | b'X', digits)) => (digits, 16),
            _ => (number, 10),
        };
        let digits = std::str::from_utf8(digits).ok()?;
        return char::from_u32(u32::from_str_radix(digits, radix).ok()?);
    }
    let known = NAMED.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
    known.map(|(_, character)| *character)
}

/// `\/`, `\"`, `\u002f`, `\x2f`, `\u{2f}`, `\U0000002f`, and a backslash written as two.
fn backslashes(text: &[u8], found: &mut impl FnMut(char, usize)) {
    let count = backslashes_of(text);
    for depth in 1..=MAX_DEPTH {
        if 1 << depth <= count {
            found('\\', 1 << depth);
        }
    }
    match text.get(count) {
        Some(b'u') if text.get(count + 1) == Some(&b'{') => {
            let rest = &text[count + 2..];
            let length = rest.iter().take(7).position(|byte| *byte == b'}');
            let character = length.and_then(|length| char::from_u32(digits(rest, length)?));
            if let (Some(length), Some(character)) = (length, character) {
                found(character, count + 3 + length);
            }
        }
        Some(b'u') => {
            let unit = |text: &[u8]| {
                let count = backslashes_of(text);
                let rest = text.get(count..)?.strip_prefix(b"u")?;
                (count > 0).then_some((digits(rest, 4)?, count + 5))
            };
            units(text, unit, found);
        }
        Some(b'U') => {
            if let Some(character) = digits(&text[count + 1..], 8).and_then(char::from_u32) {
                found(character, count + 9);
            }
        }
        Some(b'x') => {
            let octet = |text: &[u8]| {
                let count = backslashes_of(text);
                let rest = text.get(count..)?.strip_prefix(b"x")?;
                let byte = u8::try_from(digits(rest, 2)?).ok()?;
                (count > 0).then_some((byte, count + 3))
            };
            octets(text, octet, found);
        }
        // Before a letter or a digit a backslash makes something else of it.
        Some(other) if other.is_ascii_punctuation() && *other != b'\\' => {
            found(char::from(*other), count + 1);
        }
        _ => {}
    }
}

/// How many backslashes a text begins with, as far as they may belong to one character.
pub(super) fn backslashes_of(text: &[u8]) -> usize {
    let first = text.iter().take(MAX_BACKSLASHES);
    first.take_while(|byte| **byte == b'\\').count()
}

/// A number of this many hexadecimal digits.
fn digits(text: &[u8], count: usize) -> Option<u32> {
    let digits = text.get(..count)?;
    if count == 0 {
        return None;
    }
    digits.iter().try_fold(0, |number: u32, digit| {
        Some(number.checked_mul(16)? + char::from(*digit).to_digit(16)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str) -> Vec<(char, usize)> {
        let mut all = Vec::new();
        spelled(text.as_bytes(), &mut |character, taken| {
            all.push((character, taken))
        });
        all
    }

    #[test]
    fn a_character_is_read_however_it_is_written() {
        for (text, character) in [
            ("/", '/'),
            ("%2F", '/'),
            ("%2f", '/'),
            ("%252F", '/'),
            ("%25252f", '/'),
            ("%u002f", '/'),
            ("+", ' '),
            ("\\/", '/'),
            ("\\\\/", '/'),
            ("\\u002F", '/'),
            ("\\\\u002f", '/'),
            ("\\u{2f}", '/'),
            ("\\U0000002f", '/'),
            ("\\x2F", '/'),
            ("&#x2F;", '/'),
            ("&#X2f;", '/'),
            ("&#47;", '/'),
            ("&#047;", '/'),
            ("&sol;", '/'),
            ("&amp;#x2F;", '/'),
            ("&amp;amp;amp;", '&'),
            ("&#039;", '\''),
            ("\\u0026", '&'),
            ("\\\\", '\\'),
            ("\\\\\\\\", '\\'),
            ("&bsol;", '\\'),
            ("é", 'é'),
            ("%C3%A9", 'é'),
            ("%c3%a9", 'é'),
            ("%E9", 'é'),
            ("%25C3%25A9", 'é'),
            ("\\xc3\\xa9", 'é'),
            ("\\u00e9", 'é'),
            ("\\ud83d\\ude00", '😀'),
            ("%F0%9F%98%80", '😀'),
            ("&#128512;", '😀'),
        ] {
            assert!(
                all(text).contains(&(character, text.len())),
                "{text}: {:?}",
                all(text)
            );
        }
    }

    proptest! {
        #[test]
        fn nothing_takes_more_than_there_is(text in proptest::collection::vec(
            proptest::sample::select(b"\\%&u{}x25Ff#;ampUd8\xc3\xa9\xf0".to_vec()), 0..24)) {
            spelled(&text, &mut |_, taken| assert!(taken > 0 && taken <= text.len()));
        }
    }
}
