//! Texts put in the place of others, in what comes whole and in what comes in pieces.
//!
//! Invariant: how a text is cut into pieces changes nothing of what comes out.
//! Invariant: nothing that is not decided comes out because somebody has waited.

use std::sync::Arc;

use bytes::Bytes;
use secrecy::zeroize::Zeroizing;

use super::search::base64_before;

/// What stands where something was taken out that has no other name.
const MASK: u8 = b'*';

/// As much as there is of a text.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) bytes: &'a [u8],
    /// How many characters of Base64 there were right before.
    pub(super) run: usize,
}

/// Something that is to be replaced.
pub(super) struct Found<'a> {
    pub(super) start: usize,
    pub(super) end: usize,
    /// By what; `None` for as many [`MASK`]s as it is long.
    pub(super) instead: Option<&'a [u8]>,
}

/// What is looked for in a text, and what is put there.
pub(super) trait Find: Send + Sync {
    /// Whether that is nothing.
    fn is_empty(&self) -> bool;
    /// The first that begins at `from` or later, and before `until`.
    fn next(&self, seen: &Seen<'_>, from: usize, until: usize) -> Option<Found<'_>>;
    /// How much of the text is decided: whatever comes after it, nothing else will be found to begin there.
    fn decided(&self, seen: &Seen<'_>) -> usize;
}

/// How a text is changed. Cheap to clone.
#[derive(Clone)]
pub(super) struct Patterns {
    find: Arc<dyn Find>,
    /// Whether everything is replaced by something of its own length.
    keeps_length: bool,
}

impl Patterns {
    pub(super) fn new(find: Arc<dyn Find>) -> Self {
        Self {
            find,
            keeps_length: false,
        }
    }

    /// The same, where everything is replaced by something of its own length.
    pub(super) fn masking(&self) -> Self {
        Self {
            find: Arc::clone(&self.find),
            keeps_length: true,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.find.is_empty()
    }

    pub(super) fn keeps_length(&self) -> bool {
        self.keeps_length
    }

    /// Replaces what begins before `until`, and says up to where the text is done with then. `None` when nothing is
    /// replaced.
    fn replace(&self, seen: &Seen<'_>, until: usize) -> (Option<Vec<u8>>, usize) {
        let mut out: Option<Vec<u8>> = None;
        let mut at = 0;
        while let Some(found) = self.find.next(seen, at, until) {
            let out = out.get_or_insert_default();
            out.extend_from_slice(&seen.bytes[at..found.start]);
            match found.instead.filter(|_| !self.keeps_length) {
                Some(instead) => out.extend_from_slice(instead),
                None => out.extend(std::iter::repeat_n(MASK, found.end - found.start)),
            }
            at = found.end;
        }
        let end = until.max(at);
        if let Some(out) = &mut out {
            out.extend_from_slice(&seen.bytes[at..end]);
        }
        (out, end)
    }

    /// Replaces in a whole text; `None` when there is nothing to replace.
    pub(super) fn whole(&self, text: &[u8]) -> Option<Vec<u8>> {
        let seen = Seen { bytes: text, run: 0 };
        self.replace(&seen, text.len()).0
    }
}

/// Replaces in a text that comes in pieces.
pub(super) struct Pieces {
    patterns: Patterns,
    held: Zeroizing<Vec<u8>>,
    /// See [`Seen::run`].
    run: usize,
    has_replaced: bool,
}

impl Pieces {
    pub(super) fn new(patterns: Patterns) -> Self {
        Self {
            patterns,
            held: Zeroizing::default(),
            run: 0,
            has_replaced: false,
        }
    }

    /// Takes the next piece, and gives what is decided.
    pub(super) fn push(&mut self, piece: &Bytes) -> Bytes {
        if !self.held.is_empty() {
            self.held.extend_from_slice(piece);
            return self.advance(false);
        }
        let seen = Seen {
            bytes: piece,
            run: self.run,
        };
        let (replaced, end) = self.patterns.replace(&seen, self.patterns.find.decided(&seen));
        self.run = run_after(&seen, end);
        self.has_replaced |= replaced.is_some();
        self.held.extend_from_slice(&piece[end..]);
        replaced.map_or_else(|| piece.slice(..end), Bytes::from)
    }

    /// How much is held back, in bytes.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether anything has been replaced.
    pub(super) fn has_replaced(&self) -> bool {
        self.has_replaced
    }

    /// Gives all of it: the text ends here, and what comes is another one.
    pub(super) fn release(&mut self) -> Bytes {
        let out = self.advance(true);
        self.run = 0;
        out
    }

    fn advance(&mut self, is_end: bool) -> Bytes {
        let seen = Seen {
            bytes: &self.held,
            run: self.run,
        };
        let until = if is_end {
            seen.bytes.len()
        } else {
            self.patterns.find.decided(&seen)
        };
        let (replaced, end) = self.patterns.replace(&seen, until);
        self.run = run_after(&seen, end);
        self.has_replaced |= replaced.is_some();
        let out = replaced.unwrap_or_else(|| self.held[..end].to_vec());
        self.held.drain(..end);
        Bytes::from(out)
    }
}

/// How many characters of Base64 there are right before this place.
fn run_after(seen: &Seen<'_>, end: usize) -> usize {
    let run = base64_before(&seen.bytes[..end]);
    if run == end {
        run.saturating_add(seen.run)
    } else {
        run
    }
}
