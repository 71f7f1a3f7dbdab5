//! The output of a command as it is kept: all of it up to a bound, beyond that its head and its tail.
//!
//! Invariant: never more than the bound is held, however much a command prints.

use std::collections::VecDeque;

/// Collects output in pieces.
#[derive(Debug)]
pub(super) struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    max_head: usize,
    max_tail: usize,
    total: u64,
}

impl Capture {
    /// An empty one that keeps at most `max` bytes.
    pub(super) fn new(max: usize) -> Self {
        let max_tail = max / 2;
        Self {
            head: Vec::new(),
            tail: VecDeque::new(),
            max_head: max - max_tail,
            max_tail,
            total: 0,
        }
    }

    /// Takes the next bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let (front, rest) = bytes.split_at(bytes.len().min(self.max_head - self.head.len()));
        self.head.extend_from_slice(front);
        let rest = &rest[rest.len().saturating_sub(self.max_tail)..];
        let excess = (self.tail.len() + rest.len()).saturating_sub(self.max_tail);
        self.tail.drain(..excess);
        self.tail.extend(rest);
    }

    /// What was kept, as text: bytes that are not UTF-8 are shown as U+FFFD, and a remark stands where bytes
    /// are left out.
    pub(super) fn into_text(mut self) -> String {
        let tail = self.tail.make_contiguous();
        let left_out = self.total - (self.head.len() + tail.len()) as u64;
        if left_out == 0 {
            self.head.extend_from_slice(tail);
            return into_text(self.head);
        }
        let cut = whole_characters(&self.head);
        let skip = tail
            .iter()
            .take(3)
            .take_while(|byte| is_continuation(**byte))
            .count();
        let left_out = left_out + (self.head.len() - cut + skip) as u64;
        self.head.truncate(cut);
        let mut text = into_text(self.head);
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&format!("\n[{left_out} bytes of output are left out here]\n\n"));
        text.push_str(&String::from_utf8_lossy(&tail[skip..]));
        text
    }
}

fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// The length without a character that is cut off at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    let back = bytes
        .iter()
        .rev()
        .take(3)
        .take_while(|byte| is_continuation(**byte))
        .count();
    let start = bytes.len().saturating_sub(back + 1);
    match std::str::from_utf8(&bytes[start..]) {
        // Only an incomplete character has no length; other invalid bytes are part of the output.
        Err(error) if error.error_len().is_none() => start,
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kept(max: usize, pieces: &[&[u8]]) -> String {
        let mut capture = Capture::new(max);
        for piece in pieces {
            capture.write(piece);
        }
        capture.into_text()
    }

    #[test]
    fn table() {
        let note = |n| format!("\n[{n} bytes of output are left out here]\n\n");
        for (max, pieces, expected) in [
            (10, vec![&b""[..]], String::new()),
            (10, vec![b"01234", b"56789"], "0123456789".to_owned()),
            (10, vec![b"0123456789a"], format!("01234\n{}6789a", note(1))),
            (
                10,
                vec![b"0123", b"45678", b"9abcde\n"],
                format!("01234\n{}bcde\n", note(6)),
            ),
            (
                10,
                vec![b"abcd\n", b"xxxxxxx", b"12345"],
                format!("abcd\n{}12345", note(7)),
            ),
            (4, vec![b"\xff\xfe"], "\u{fffd}\u{fffd}".to_owned()),
            // Characters at the cuts: what is cut off is left out and counted.
            (
                8,
                vec!["abcé_____éxyz".as_bytes()],
                format!("abc\n{}xyz", note(9)),
            ),
            (
                10,
                vec!["ab😀_____".as_bytes(), b"12345"],
                format!("ab\n{}12345", note(9)),
            ),
        ] {
            assert_eq!(kept(max, &pieces), expected, "{max} {pieces:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_below_the_bound(pieces in prop::collection::vec("\\PC{0,20}", 0..10)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
            let whole = pieces.concat();
            prop_assert_eq!(kept(whole.len(), &pieces).into_bytes(), whole);
        }

        #[test]
        fn never_more_than_the_bound(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20), max in 0_usize..60) {
            let mut capture = Capture::new(max);
            let mut total = 0;
            for piece in &pieces {
                capture.write(piece);
                total += piece.len();
                prop_assert!(capture.head.len() + capture.tail.len() <= max);
                prop_assert!(total <= max || capture.head.len() + capture.tail.len() == max);
            }
            capture.into_text();
        }
    }
}
