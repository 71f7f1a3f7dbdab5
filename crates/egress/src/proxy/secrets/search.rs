//! Secrets looked for in what comes back, all at once.
//!
//! A secret is found character by character, however each of them is written ([`super::spelling`]) and in whichever case.
//! What has to be decoded is found too, also where it was broken into lines. Secrets are sorted, so that those with the
//! same beginning are followed together, and the first two bytes tell of almost every place that none is there.
//!
//! Invariant: what is found at a place depends on no more than the [`MAX_FORM`] bytes from there on.
//! Invariant: how much of a text is decided depends on the text alone, and on no secret: whoever may choose the text
//! would otherwise see, one character after the other, what a secret begins with.

use secrecy::zeroize::Zeroizing;

use super::forms;
use super::replace::{Find, Found, Seen};
use super::spelling::{backslashes_of, is_escape, spelled};

/// The longest form of a secret that is looked for, in bytes.
pub(super) const MAX_FORM: usize = 64 << 10;
/// The most ways in which a text is followed at once.
const MAX_PATHS: usize = 32;
/// From how many bytes on the beginning of a secret may not be something that is repeated: where that is repeated too in
/// what comes back, a secret may begin at each place of it.
const MAX_REGULAR: usize = 128;
/// The most backslashes in a row in a secret: each may be written in many ways.
const MAX_BACKSLASHES: usize = 16;
/// How many characters of Base64 a line has to end with, that it may go on in the next one.
const WRAPPED: usize = 40;
/// The most line ends between two characters of what was broken into lines, `\r` and `\n` counted apart.
const MAX_BREAKS: usize = 2;

/// A text that is looked for.
struct Entry {
    text: Zeroizing<Vec<u8>>,
    /// Which of the replacements it is replaced by; by none where that would have to be encoded.
    instead: Option<usize>,
}

/// How the characters of texts are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// In whichever case, and in one line: a secret has no control characters.
    Legible,
    /// In either alphabet of Base64, and over several lines.
    Encoded,
}

impl Kind {
    fn fold(self, character: char) -> char {
        match (self, character) {
            (Self::Legible, _) => character.to_ascii_lowercase(),
            (Self::Encoded, '-') => '+',
            (Self::Encoded, '_') => '/',
            (Self::Encoded, _) => character,
        }
    }

    /// The bytes that a character may begin with where it is not escaped.
    fn firsts(self, character: char) -> Vec<u8> {
        let mut firsts = vec![character.encode_utf8(&mut [0; 4]).as_bytes()[0]];
        match (self, character) {
            (Self::Legible, ' ') => firsts.push(b'+'),
            (Self::Legible, 'a'..='z') => firsts.push(character.to_ascii_uppercase() as u8),
            (Self::Encoded, '+') => firsts.push(b'-'),
            (Self::Encoded, '/') => firsts.push(b'_'),
            _ => firsts.extend(u8::try_from(u32::from(character))),
        }
        firsts
    }
}

/// Where in the sorted texts a way through a text has come to.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Path {
    /// The texts that begin with what was read.
    from: usize,
    to: usize,
    /// How much of them that is.
    depth: usize,
    /// How much was read.
    at: usize,
}

/// Texts of one kind.
struct Sorted {
    kind: Kind,
    entries: Vec<Entry>,
    /// A bit for each two bytes that one may begin with.
    pairs: Vec<u64>,
}

impl Sorted {
    fn new(kind: Kind, mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|one, other| one.text.cmp(&other.text));
        // Of equal ones the first counts.
        entries.dedup_by(|later, first| later.text == first.text);
        let mut pairs = vec![0; 1 << 10];
        let mut set = |first: u8, second: u8| {
            let bit = usize::from(first) << 8 | usize::from(second);
            pairs[bit >> 6] |= 1 << (bit & 63);
        };
        let any =
            |first: u8, set: &mut dyn FnMut(u8, u8)| (0..=u8::MAX).for_each(|second| set(first, second));
        for entry in &entries {
            let text = String::from_utf8_lossy(&entry.text);
            let mut characters = text.chars();
            let (Some(one), two) = (characters.next(), characters.next()) else {
                continue;
            };
            for first in kind.firsts(one) {
                match two.filter(|_| first.is_ascii() && !is_escape(first)) {
                    Some(two) => {
                        kind.firsts(two).iter().for_each(|second| set(first, *second));
                        b"%&\\\r\n".iter().for_each(|second| set(first, *second));
                    }
                    None => any(first, &mut set),
                }
            }
            b"%&\\".iter().for_each(|first| any(*first, &mut set));
        }
        Self { kind, entries, pairs }
    }

    fn may_begin(&self, text: &[u8]) -> bool {
        match text {
            [first, second, ..] => {
                let bit = usize::from(*first) << 8 | usize::from(*second);
                self.pairs[bit >> 6] & 1 << (bit & 63) != 0
            }
            _ => true,
        }
    }

    /// The longest text that stands at this place: where it ends, and which it is.
    fn at(&self, seen: &Seen<'_>, start: usize, paths: &mut [Vec<Path>; 2]) -> Option<(usize, &Entry)> {
        let limit = seen.bytes.len().min(start + MAX_FORM);
        let text = Seen {
            bytes: &seen.bytes[..limit],
            ..*seen
        };
        let mut found = None;
        let [now, next] = paths;
        now.clear();
        let begin = Path {
            from: 0,
            to: self.entries.len(),
            depth: 0,
            at: start,
        };
        self.follow(&text, begin, now, &mut found);
        while !now.is_empty() {
            next.clear();
            for path in now.drain(..) {
                let at = match self.kind {
                    Kind::Legible => path.at,
                    Kind::Encoded => after_breaks(&text, path.at),
                };
                self.follow(&text, Path { at, ..path }, next, &mut found);
            }
            std::mem::swap(now, next);
        }
        found.map(|(end, entry)| (end, &self.entries[entry]))
    }

    /// Reads one more character in each way.
    fn follow(&self, text: &Seen<'_>, path: Path, next: &mut Vec<Path>, found: &mut Option<(usize, usize)>) {
        spelled(&text.bytes[path.at..], &mut |character, taken| {
            let mut path = Path {
                at: path.at + taken,
                ..path
            };
            for byte in self.kind.fold(character).encode_utf8(&mut [0; 4]).bytes() {
                self.narrow(&mut path, byte);
            }
            let Some(first) = self.entries[..path.to].get(path.from) else {
                return;
            };
            if first.text.len() == path.depth {
                if found.is_none_or(|(end, _)| end < path.at) {
                    *found = Some((path.at, path.from));
                }
                path.from += 1;
            }
            if path.from < path.to && next.len() < MAX_PATHS && !next.contains(&path) {
                next.push(path);
            }
        });
    }

    fn narrow(&self, path: &mut Path, byte: u8) {
        let among = &self.entries[path.from..path.to];
        let depth = path.depth;
        let (from, to) = match among {
            // Mostly there is one left.
            [one] if one.text.get(depth) == Some(&byte) => (0, 1),
            [_] => (0, 0),
            _ => (
                among.partition_point(|entry| entry.text.get(depth) < Some(&byte)),
                among.partition_point(|entry| entry.text.get(depth) <= Some(&byte)),
            ),
        };
        path.to = path.from + to;
        path.from += from;
        path.depth += 1;
    }
}

/// The first place after line ends, as they are or as they are escaped, and what the next line is indented with.
fn after_breaks(text: &Seen<'_>, mut at: usize) -> usize {
    let bytes = text.bytes;
    for _ in 0..MAX_BREAKS {
        let rest = &bytes[at..];
        let backslashes = backslashes_of(rest);
        at += match rest {
            [b'\r', b'\n', ..] | [b'\n', ..] if is_wrapped(text, at) => {
                let end = if rest[0] == b'\r' { 2 } else { 1 };
                let indent = rest[end..].iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
                return at + end + indent.count();
            }
            [b'%', b'0', b'a' | b'A' | b'd' | b'D', ..] => 3,
            [b'\\', ..] if matches!(rest.get(backslashes), Some(b'n' | b'r')) => backslashes + 1,
            _ => return at,
        };
    }
    at
}

/// Whether the line that ends here may go on in the next one.
fn is_wrapped(text: &Seen<'_>, end: usize) -> bool {
    let own = base64_before(&text.bytes[..end]);
    own == WRAPPED || (own == end && own + text.run >= WRAPPED)
}

/// How many characters of Base64 a text ends with, as far as it matters.
pub(super) fn base64_before(text: &[u8]) -> usize {
    let last = text.iter().rev().take(WRAPPED);
    last.take_while(|byte| byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte))
        .count()
}

/// Whether a secret can be looked for in a time that is about as long as the text. Nothing that is hard to guess can't.
#[must_use]
pub fn can_be_looked_for(secret: &str) -> bool {
    let text = Zeroizing::new(secret.to_ascii_lowercase().into_bytes());
    let backslashes = [b'\\'; MAX_BACKSLASHES + 1];
    if text.windows(backslashes.len()).any(|part| part == backslashes) {
        return false;
    }
    // How much of each beginning is its own end too (Knuth, Morris and Pratt): where that is half of it, it is repeated.
    let mut ends = Zeroizing::new(vec![0; text.len()]);
    let mut same = 0;
    for at in 1..text.len() {
        while same > 0 && text[at] != text[same] {
            same = ends[same - 1];
        }
        if text[at] == text[same] {
            same += 1;
        }
        ends[at] = same;
        if at + 1 >= MAX_REGULAR && same >= (at + 1).div_ceil(2) {
            return false;
        }
    }
    true
}

/// All secrets of a session.
pub(super) struct Index {
    legible: Sorted,
    encoded: Sorted,
    replacements: Vec<Vec<u8>>,
}

impl Index {
    /// Secrets, each with what is put in its place. Of two equal ones the first counts.
    pub(super) fn new<'a>(secrets: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let (mut legible, mut encoded, mut replacements) = (Vec::new(), Vec::new(), Vec::new());
        for (secret, instead) in secrets.filter(|(secret, _)| !secret.is_empty()) {
            legible.push(Entry {
                text: Zeroizing::new(secret.to_ascii_lowercase().into_bytes()),
                instead: Some(replacements.len()),
            });
            replacements.push(instead.as_bytes().to_vec());
            let forms = forms::encoded(secret).into_iter();
            encoded.extend(forms.map(|text| Entry { text, instead: None }));
        }
        Self {
            legible: Sorted::new(Kind::Legible, legible),
            encoded: Sorted::new(Kind::Encoded, encoded),
            replacements,
        }
    }
}

impl Find for Index {
    fn is_empty(&self) -> bool {
        self.legible.entries.is_empty()
    }

    fn next(&self, seen: &Seen<'_>, from: usize, until: usize) -> Option<Found<'_>> {
        if self.is_empty() {
            return None;
        }
        let mut paths = [Vec::new(), Vec::new()];
        (from..until).find_map(|start| {
            let rest = &seen.bytes[start..];
            let mut longest: Option<(usize, &Entry)> = None;
            for sorted in [&self.legible, &self.encoded] {
                if sorted.may_begin(rest)
                    && let Some(found) = sorted.at(seen, start, &mut paths)
                    && longest.is_none_or(|(end, _)| end < found.0)
                {
                    longest = Some(found);
                }
            }
            let (end, entry) = longest?;
            let instead = entry.instead.and_then(|at| self.replacements.get(at));
            Some(Found {
                start,
                end,
                instead: instead.map(Vec::as_slice),
            })
        })
    }

    /// All lines that have ended, but for those at the end that what is in Base64 may go on after; and of one without an
    /// end what is further back than any form is long.
    fn decided(&self, seen: &Seen<'_>) -> usize {
        let bytes = seen.bytes;
        let last_break = |to: usize| bytes[..to].iter().rposition(|byte| *byte == b'\n');
        let mut decided = 0;
        let mut to = bytes.len();
        let held = bytes.len().saturating_sub(MAX_FORM - 1);
        while let Some(end) = last_break(to).filter(|end| *end >= held) {
            let line = if end > 0 && bytes[end - 1] == b'\r' {
                end - 1
            } else {
                end
            };
            if !is_wrapped(seen, line) {
                decided = end + 1;
                break;
            }
            to = end;
        }
        decided.max(held)
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
