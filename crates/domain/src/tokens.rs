//! How many tokens a text may have, where no provider has counted them.
//!
//! Tokenisers differ, and no bound below a token for each byte holds for all of them. This one is meant to be
//! hardly ever too low, and not so high that budgets stop work that they would have had room for.

/// The most tokens that the text is reckoned to have. Two letters or spaces make one at the most, every other ASCII
/// character makes one (some tokenisers count each digit), and so does each letter of the alphabets whose letters
/// take two bytes (Greek, Cyrillic, Arabic). A character of Chinese, Japanese or Korean makes two. Of everything
/// else, which tokenisers may not know, each byte counts.
#[must_use]
pub fn at_most(text: &str) -> u64 {
    let mut halves: u64 = 0;
    for character in text.chars() {
        halves += match character {
            ' ' | 'a'..='z' | 'A'..='Z' => 1,
            '\0'..='\u{7ff}' => 2,
            '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' => 4,
            other => 2 * other.len_utf8() as u64,
        };
    }
    halves.div_ceil(2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scripts_differ() {
        for (text, tokens) in [
            ("", 0),
            ("a", 1),
            ("two words", 5),
            ("123", 3),
            ("{\"a\":1}", 7),
            ("слово", 5),
            ("漢字", 4),
            ("한글", 4),
            // Burmese and an emoji: every byte may be a token.
            ("\u{1019}\u{103c}", 6),
            ("\u{1f980}", 4),
        ] {
            assert_eq!(at_most(text), tokens, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_token_has_a_byte_at_least_and_parts_are_no_less_than_the_whole(one in ".*", other in ".*") {
            let whole = at_most(&format!("{one}{other}"));
            prop_assert!(whole <= (one.len() + other.len()) as u64);
            prop_assert!(at_most(&one) + at_most(&other) >= whole);
        }
    }
}
