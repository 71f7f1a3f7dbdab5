use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use proptest::prelude::*;

use super::super::replace::{Patterns, Pieces};
use super::*;

fn patterns(secrets: &[(&str, &str)]) -> Patterns {
    Patterns::new(Arc::new(Index::new(secrets.iter().copied())))
}

/// What comes out for each piece, and at the end.
fn outputs(patterns: &Patterns, text: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    cuts.sort_unstable();
    let mut pieces = Pieces::new(patterns.clone());
    let mut outputs = Vec::new();
    let mut from = 0;
    for to in cuts.into_iter().chain([text.len()]) {
        let piece = Bytes::copy_from_slice(&text[from..to]);
        outputs.push(pieces.push(&piece).to_vec());
        from = to;
    }
    outputs.push(pieces.release().to_vec());
    assert_eq!(pieces.held(), 0);
    outputs
}

fn whole(patterns: &Patterns, text: &[u8]) -> Vec<u8> {
    patterns.whole(text).unwrap_or_else(|| text.to_vec())
}

/// The text as one of those who escape would write it.
fn escaped(text: &str, how: usize) -> String {
    let each = |write: &dyn Fn(char) -> String| text.chars().map(write).collect::<String>();
    let punctuation = |character: char, write: &dyn Fn() -> String| {
        if character.is_ascii_alphanumeric() {
            character.to_string()
        } else {
            write()
        }
    };
    match how {
        0 => text.to_owned(),
        1 => each(&|character| punctuation(character, &|| format!("&#x{:X};", u32::from(character)))),
        2 => each(&|character| punctuation(character, &|| format!("&#{:03};", u32::from(character)))),
        3 => each(&|character| punctuation(character, &|| format!("\\u{:04X}", u32::from(character)))),
        4 => each(&|character| punctuation(character, &|| format!("\\\\u{:04x}", u32::from(character)))),
        5 => each(&|character| punctuation(character, &|| format!("\\x{:02x}", u32::from(character)))),
        6 => each(&|character| punctuation(character, &|| format!("%{:02x}", u32::from(character)))),
        7 => each(&|character| punctuation(character, &|| format!("%25{:02X}", u32::from(character)))),
        8 => serde_json::to_string(text).unwrap(),
        9 => serde_json::to_string(&serde_json::to_string(text).unwrap()).unwrap(),
        10 => text.to_ascii_uppercase(),
        11 => each(&|character| format!("&#{};", u32::from(character))),
        12 => serde_json::to_string(text).unwrap().replace('/', "\\/"),
        // Of Python, which leaves slashes.
        _ => each(&|character| match character {
            '/' => "/".to_owned(),
            other => punctuation(other, &|| format!("%{:02X}", u32::from(other))),
        }),
    }
}
const WAYS: usize = 14;

/// As mail, PEM and others break lines.
fn broken(text: &str, width: usize, end: &str) -> String {
    let lines: Vec<&str> = (0..text.len())
        .step_by(width)
        .map(|at| &text[at..text.len().min(at + width)])
        .collect();
    lines.join(end)
}

#[test]
fn the_leftmost_and_longest_is_replaced() {
    let patterns = patterns(&[
        ("abcdefgh", "1"),
        ("abcdefghi", "2"),
        ("bcdefghij", "3"),
        ("ABCDEFGH", "4"),
    ]);
    for (text, expected) in [
        ("", ""),
        ("abcdefg", "abcdefg"),
        ("abcdefgh", "1"),
        ("abcdefghi", "2"),
        ("abcdefghij", "2j"),
        ("aabcdefgh_", "a1_"),
        ("bcdefghijabcdefgh", "31"),
    ] {
        assert_eq!(
            String::from_utf8(whole(&patterns, text.as_bytes())).unwrap(),
            expected,
            "{text}"
        );
    }
    assert_eq!(whole(&patterns.masking(), b"abcdefghi-"), b"*********-");
    assert_eq!(whole(&self::patterns(&[]), b"abcdefghi-"), b"abcdefghi-");
}

#[test]
fn what_is_broken_into_lines_is_found() {
    let secret = "s3cret/value+\"one\" that is long enough for more than one line of any width there is";
    let patterns = patterns(&[(secret, "-")]);
    for before in 0..70 {
        let text = format!("{}{secret} and after", "x".repeat(before));
        let encoded = STANDARD.encode(&text);
        let safe = URL_SAFE.encode(&text);
        for (form, name) in [(&encoded, "base64"), (&safe, "url"), (&hex::encode(&text), "hex")] {
            for (width, end) in [
                (60, "\n"),
                (64, "\r\n"),
                (76, "\n"),
                (76, "\\n"),
                (60, "\\r\\n"),
                (76, "\\\\n"),
                (64, "\n    "),
                (76, "%0D%0A"),
            ] {
                let text = broken(form, width, end);
                let out = whole(&patterns, text.as_bytes());
                let stars = out.iter().filter(|byte| **byte == b'*').count();
                assert!(
                    stars >= secret.len(),
                    "{name} {before} {width} {end:?}: {}",
                    String::from_utf8_lossy(&out)
                );
                for step in [1, 7, 61] {
                    let cuts: Vec<usize> = (0..text.len()).step_by(step).collect();
                    assert_eq!(
                        outputs(&patterns, text.as_bytes(), &cuts).concat(),
                        out,
                        "{name} {before} {width} {end:?} {step}"
                    );
                }
            }
        }
    }
}

#[test]
fn lines_are_passed_on_at_once() {
    let patterns = patterns(&[("secret-1", "-")]);
    let mut pieces = Pieces::new(patterns);
    for (said, expected) in [
        ("data: 1\n\n", "data: 1\n\n"),
        ("data: se", ""),
        ("cret-1\n\n", "data: -\n\n"),
        ("one\r\ntwo", "one\r\n"),
        ("\nsecret", "two\n"),
        // What may go on in the next line waits for it.
        (&format!("\n{}\n", "A".repeat(60)), "secret\n"),
        ("\n", &format!("{}\n\n", "A".repeat(60))),
    ] {
        let out = pieces.push(&Bytes::copy_from_slice(said.as_bytes()));
        assert_eq!(String::from_utf8_lossy(&out), expected, "{said:?}");
    }
}

/// Whoever chooses what comes before and after would otherwise see in the sizes what a secret begins with.
#[test]
fn sizes_do_not_tell_a_guess_from_another() {
    let secret = "canary-s3cret/1";
    let patterns = patterns(&[(secret, "-")]);
    let sizes = |guess: &str| -> Vec<usize> {
        let text = format!("{}{guess}", "x".repeat(100_000));
        outputs(&patterns, text.as_bytes(), &[50_000, text.len()])
            .iter()
            .map(Vec::len)
            .collect()
    };
    for length in 1..secret.len() {
        assert_eq!(sizes(&secret[..length]), sizes(&"#".repeat(length)));
    }
}

#[test]
fn following_many_secrets_takes_no_longer_than_few() {
    // With as much in common, and as often begun, as there may be.
    let many: Vec<String> = (0..200)
        .map(|number| format!("{}{number:04}", "a".repeat(MAX_REGULAR - 1)))
        .collect();
    let patterns = patterns(
        &many
            .iter()
            .map(|secret| (secret.as_str(), "-"))
            .collect::<Vec<_>>(),
    );
    let text = "a".repeat(3_000);
    assert_eq!(whole(&patterns, text.as_bytes()), text.as_bytes());
}

#[test]
fn what_would_take_long_to_look_for_is_told_from_secrets() {
    for (secret, is_fit) in [
        ("a".repeat(MAX_REGULAR), false),
        ("aB".repeat(MAX_REGULAR), false),
        (
            format!("{}{}", "Ab".repeat(MAX_REGULAR), "x".repeat(8_000)),
            false,
        ),
        (format!("x{}x", "\\".repeat(MAX_BACKSLASHES + 1)), false),
        ("0".repeat(64), true),
        (format!("-----BEGIN KEY-----{}", "A".repeat(4_000)), true),
        (hex::encode((0..=u8::MAX).collect::<Vec<_>>()), true),
        (format!("x{}x", "\\".repeat(MAX_BACKSLASHES)), true),
    ] {
        assert_eq!(can_be_looked_for(&secret), is_fit, "{secret}");
    }
}

proptest! {
    #[test]
    fn a_secret_is_found_however_it_is_written(
        secret in "[ -~]{8,24}",
        how in 0..WAYS,
        before in "[ -~\n]{0,12}",
        cuts in proptest::collection::vec(0usize..400, 0..6),
    ) {
        let patterns = patterns(&[(&secret, "\u{1}")]);
        let text = format!("{before}{}", escaped(&secret, how));
        let out = whole(&patterns, text.as_bytes());
        prop_assert!(out.contains(&1), "{} in {}: {}", secret, text, String::from_utf8_lossy(&out));
        prop_assert_eq!(outputs(&patterns, text.as_bytes(), &cuts).concat(), out);
    }

    #[test]
    fn cuts_change_nothing(
        pieces in proptest::collection::vec(proptest::sample::select(vec![
            "aaaaaaaa", "a", "aab", "\\", "\\\\", "\n", "\r\n", "%61", "&#97;", "&amp;", "\\u0061", "\\n", "+", "AAAAAAAAAAAAAAAAAAAAAAAA",
            "YWFhYWFhYWE", "FhYWFhYWFh", "6161616161616161", " ", "é", "%",
        ]), 0..40),
        cuts in proptest::collection::vec(0usize..400, 0..8),
        masks: bool,
    ) {
        let patterns = patterns(&[("aaaaaaaa", "-"), ("aabaabaab", "="), ("\\\\\\a\\a\\a", "_"), ("a%&\\+a a", "~")]);
        let patterns = if masks { patterns.masking() } else { patterns };
        let text = pieces.concat();
        let out = whole(&patterns, text.as_bytes());
        prop_assert!(!masks || out.len() == text.len());
        prop_assert_eq!(outputs(&patterns, text.as_bytes(), &cuts).concat(), out);
    }

    #[test]
    fn cuts_change_nothing_of_long_lines(
        fill in 0usize..3 * MAX_FORM,
        cuts in proptest::collection::vec(0usize..4 * MAX_FORM, 0..8),
        line in proptest::sample::select(vec!["x", "A", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"]),
    ) {
        let secret = "canary-s3cret/1 and some more";
        let patterns = patterns(&[(secret, "-")]);
        let encoded = broken(&STANDARD.encode(secret), 30, "\n");
        let text = format!("{}{secret}{}{encoded}{secret}", line.repeat(fill / line.len()), "B".repeat(40));
        prop_assert!(outputs(&patterns, text.as_bytes(), &cuts).concat() == whole(&patterns, text.as_bytes()));
    }

    #[test]
    fn what_is_released_when_depends_on_no_secret(
        text in proptest::collection::vec(proptest::sample::select(b"secrt-1\\%&\nAAAAAAAAAAAAA".to_vec()), 0..300),
        guess in 0usize..8,
        cuts in proptest::collection::vec(0usize..400, 0..8),
    ) {
        let one = patterns(&[("secret-1", "-"), ("secrecy1", "-")]);
        let other = patterns(&[("0123456789", "-")]);
        let mut text = text;
        text.extend_from_slice(&b"secret-1"[..guess]);
        prop_assume!(one.whole(&text).is_none());
        prop_assert_eq!(outputs(&one, &text, &cuts), outputs(&other, &text, &cuts));
    }
}

/// For whoever measures: `cargo test --release -- --ignored --nocapture throughput`.
#[test]
#[ignore = "it measures"]
#[expect(clippy::print_stdout, reason = "it tells what it has measured")]
fn throughput() {
    let line = "{\"id\": \"chatcmpl-0a1b2c3d\", \"text\": \"A line of an answer, with a \\\"quote\\\" and an https:\\/\\/url.test\\/?a=b&c=d%20e\"}\n";
    let json = line.repeat((16 << 20) / line.len());
    let random: Vec<u8> = (0..16_u64 << 20)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).to_le_bytes()[0])
        .collect();
    for count in [1, 10, 200] {
        let secrets: Vec<String> = (0..count)
            .map(|number| format!("sk-{number:04}-{}", hex::encode(format!("{number}-and-more"))))
            .collect();
        let patterns = patterns(
            &secrets
                .iter()
                .map(|secret| (secret.as_str(), "-"))
                .collect::<Vec<_>>(),
        );
        for (name, text) in [("json", json.as_bytes()), ("random", &random[..])] {
            let start = std::time::Instant::now();
            let mut pieces = Pieces::new(patterns.clone());
            let mut out = 0;
            for piece in text.chunks(16 << 10) {
                out += pieces.push(&Bytes::copy_from_slice(piece)).len();
            }
            out += pieces.release().len();
            assert_eq!(out, text.len());
            let rate = text.len() as f64 / start.elapsed().as_secs_f64() / f64::from(1 << 20);
            println!("{count} secrets, {name}: {rate:.0} MiB/s");
        }
    }
}
