//! Texts put in the place of others, in what comes whole and in what comes in pieces.
//!
//! Invariant: how a text is cut into pieces changes nothing of what comes out.
//! Invariant: of a stream no more is held back than what may be the beginning of a text that is to be replaced.

use std::sync::Arc;

use bytes::Bytes;
use secrecy::zeroize::{Zeroize as _, Zeroizing};

/// What stands where something was taken out that has no other name.
const MASK: u8 = b'*';

/// What is looked for, and what is put there.
struct Pattern {
    text: Zeroizing<Vec<u8>>,
    /// `None` for as many [`MASK`]s as the text is long.
    instead: Option<Zeroizing<Vec<u8>>>,
}

/// Texts that are looked for all at once. Where several begin at one place, the longest counts.
pub(super) struct Patterns {
    /// By their first bytes.
    by_first: Vec<Vec<Pattern>>,
    /// Whether each is replaced by something of its own length.
    keeps_length: bool,
}

/// What is known of one place in a text.
enum Here<'a> {
    Nothing,
    Found(&'a Pattern),
    /// What comes next decides.
    Perhaps,
}

impl Patterns {
    pub(super) fn new() -> Self {
        Self {
            by_first: (0..=u8::MAX).map(|_| Vec::new()).collect(),
            keeps_length: false,
        }
    }

    /// Adds a text to look for. Of two equal ones the first counts, and an empty one is nowhere.
    pub(super) fn add(&mut self, text: Zeroizing<Vec<u8>>, instead: Option<Zeroizing<Vec<u8>>>) {
        let Some(first) = text.first() else { return };
        let among = &mut self.by_first[usize::from(*first)];
        if among.iter().all(|known| known.text != text) {
            among.push(Pattern { text, instead });
        }
    }

    /// The same texts, each to be replaced by something of its own length.
    pub(super) fn masking(&self) -> Self {
        let masked = |pattern: &Pattern| Pattern {
            text: pattern.text.clone(),
            instead: None,
        };
        Self {
            by_first: self
                .by_first
                .iter()
                .map(|among| among.iter().map(masked).collect())
                .collect(),
            keeps_length: true,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_first.iter().all(Vec::is_empty)
    }

    pub(super) fn keeps_length(&self) -> bool {
        self.keeps_length
    }

    fn at(&self, rest: &[u8], is_end: bool) -> Here<'_> {
        let Some(first) = rest.first() else {
            return Here::Nothing;
        };
        let mut found: Option<&Pattern> = None;
        for pattern in &self.by_first[usize::from(*first)] {
            if rest.starts_with(&pattern.text) {
                if found.is_none_or(|shorter| shorter.text.len() < pattern.text.len()) {
                    found = Some(pattern);
                }
            } else if !is_end && pattern.text.starts_with(rest) {
                return Here::Perhaps;
            }
        }
        found.map_or(Here::Nothing, Here::Found)
    }

    /// Replaces in as much of the text as is decided, and says how much that is. `None` when nothing is replaced in it.
    fn replace(&self, text: &[u8], is_end: bool) -> (Option<Vec<u8>>, usize) {
        let mut out: Option<Vec<u8>> = None;
        let (mut at, mut kept) = (0, 0);
        while at < text.len() {
            match self.at(&text[at..], is_end) {
                Here::Nothing => at += 1,
                Here::Perhaps => break,
                Here::Found(pattern) => {
                    let out = out.get_or_insert_default();
                    out.extend_from_slice(&text[kept..at]);
                    match &pattern.instead {
                        Some(instead) => out.extend_from_slice(instead),
                        None => out.extend(std::iter::repeat_n(MASK, pattern.text.len())),
                    }
                    at += pattern.text.len();
                    kept = at;
                }
            }
        }
        if let Some(out) = &mut out {
            out.extend_from_slice(&text[kept..at]);
        }
        (out, at)
    }

    /// Replaces in a whole text; `None` when there is nothing to replace.
    pub(super) fn whole(&self, text: &[u8]) -> Option<Vec<u8>> {
        self.replace(text, true).0
    }
}

/// Replaces in a text that comes in pieces.
pub(super) struct Pieces {
    patterns: Arc<Patterns>,
    held: Vec<u8>,
}

impl Pieces {
    pub(super) fn new(patterns: Arc<Patterns>) -> Self {
        Self {
            patterns,
            held: Vec::new(),
        }
    }

    /// Takes the next piece, and gives what is decided.
    pub(super) fn push(&mut self, piece: Bytes) -> Bytes {
        if self.held.is_empty() {
            let (replaced, decided) = self.patterns.replace(&piece, false);
            self.held.extend_from_slice(&piece[decided..]);
            return replaced.map_or_else(|| piece.slice(..decided), Bytes::from);
        }
        self.held.extend_from_slice(&piece);
        self.advance(false)
    }

    /// Whether something is held back.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// How much is held back, in bytes.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// What was held back, as if nothing came after it.
    pub(super) fn release(&mut self) -> Bytes {
        self.advance(true)
    }

    fn advance(&mut self, is_end: bool) -> Bytes {
        let (replaced, decided) = self.patterns.replace(&self.held, is_end);
        let out = replaced.unwrap_or_else(|| self.held[..decided].to_vec());
        let rest = self.held[decided..].to_vec();
        self.held.zeroize();
        self.held = rest;
        Bytes::from(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn patterns(pairs: &[(&str, Option<&str>)]) -> Arc<Patterns> {
        let mut patterns = Patterns::new();
        let own = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
        for (text, instead) in pairs {
            patterns.add(own(text), instead.map(own));
        }
        Arc::new(patterns)
    }

    fn in_pieces(patterns: &Arc<Patterns>, text: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut pieces = Pieces::new(Arc::clone(patterns));
        let mut out = Vec::new();
        let mut from = 0;
        for to in cuts.iter().copied().chain([text.len()]) {
            out.extend_from_slice(&pieces.push(Bytes::copy_from_slice(&text[from..to])));
            from = to;
        }
        out.extend_from_slice(&pieces.release());
        assert!(!pieces.holds());
        out
    }

    #[test]
    fn the_leftmost_and_longest_is_replaced() {
        let patterns = patterns(&[
            ("abc", Some("1")),
            ("abcd", Some("2")),
            ("bcde", Some("3")),
            ("xy", None),
        ]);
        for (text, expected) in [
            ("", None),
            ("ab", None),
            ("abc", Some("1")),
            ("abcd", Some("2")),
            ("abcde", Some("2e")),
            ("aabce", Some("a1e")),
            ("bcdeabc", Some("31")),
            ("axyb", Some("a**b")),
            ("xxyy", Some("x**y")),
        ] {
            let replaced = patterns.whole(text.as_bytes());
            assert_eq!(replaced.as_deref(), expected.map(str::as_bytes), "{text}");
        }
        let masked = patterns.masking().whole(b"abcd-xy").unwrap();
        assert_eq!(masked, b"****-**");
    }

    #[test]
    fn only_what_may_be_a_beginning_is_held_back() {
        let patterns = patterns(&[("secret", Some("-"))]);
        let mut pieces = Pieces::new(patterns);
        assert_eq!(
            &pieces.push(Bytes::from_static(b"data: 1\n\n"))[..],
            b"data: 1\n\n"
        );
        assert!(!pieces.holds());
        assert_eq!(&pieces.push(Bytes::from_static(b"a sec"))[..], b"a ");
        assert_eq!(&pieces.push(Bytes::from_static(b"sec"))[..], b"sec");
        assert_eq!(&pieces.push(Bytes::from_static(b"ret!"))[..], b"-!");
        assert_eq!(&pieces.push(Bytes::from_static(b"se"))[..], b"");
        assert_eq!(&pieces.release()[..], b"se");
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            text in "[ab]{0,40}",
            found in proptest::collection::vec("[ab]{1,5}", 1..5),
            mut cuts in proptest::collection::vec(0usize..40, 0..8),
        ) {
            let pairs: Vec<(&str, Option<&str>)> = found
                .iter()
                .enumerate()
                .map(|(number, text)| (text.as_str(), (number % 2 == 0).then_some("-")))
                .collect();
            let patterns = patterns(&pairs);
            cuts.retain(|cut| *cut <= text.len());
            cuts.sort_unstable();
            let whole = patterns.whole(text.as_bytes()).unwrap_or_else(|| text.clone().into_bytes());
            prop_assert_eq!(in_pieces(&patterns, text.as_bytes(), &cuts), whole);
        }

        #[test]
        fn nothing_that_is_looked_for_comes_out(text in "[ab]{0,40}", found in "[ab]{2,5}", cut in 0usize..40) {
            let patterns = patterns(&[(found.as_str(), Some("-"))]);
            let out = in_pieces(&patterns, text.as_bytes(), &[cut.min(text.len())]);
            prop_assert!(!String::from_utf8(out).unwrap().contains(&found));
        }
    }
}
