//! The newest lines that commands printed, for `GET …/logs`.
//!
//! Invariant: the ring never holds more than [`MAX_LINES`] lines of at most [`MAX_LINE`] bytes each, so that
//! all of it fits in one frame however it is escaped.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most lines that are kept.
pub const MAX_LINES: usize = 1_000;

/// The longest line that is kept, in bytes; the rest of a longer one is cut off.
pub const MAX_LINE: usize = 1_024;

/// A bounded ring of printed lines. Shared by all tools of a hand.
#[derive(Debug, Default)]
pub struct LogRing {
    lines: Mutex<VecDeque<String>>,
}

/// One command's way into the ring: it joins what arrives in pieces into lines, so that the output of two
/// commands at once does not mix within a line. The last, unfinished line is kept on drop.
#[derive(Debug)]
pub struct LineWriter<'a> {
    ring: &'a LogRing,
    partial: Vec<u8>,
    cut: bool,
}

impl LogRing {
    /// An empty ring.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one line; the oldest goes when the ring is full.
    pub fn push_line(&self, line: &str) {
        let mut end = line.len().min(MAX_LINE);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        let mut lines = self.lock();
        if lines.len() == MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(line[..end].to_owned());
    }

    /// A writer for one command's output.
    #[must_use]
    pub fn writer(&self) -> LineWriter<'_> {
        LineWriter {
            ring: self,
            partial: Vec::new(),
            cut: false,
        }
    }

    /// The newest `tail` lines, oldest first, each ended by a line break.
    #[must_use]
    pub fn tail(&self, tail: usize) -> String {
        let lines = self.lock();
        let skip = lines.len().saturating_sub(tail);
        let mut text = String::new();
        for line in lines.iter().skip(skip) {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        // A panic while the lock was held can't leave half a line behind, so the lines are still good.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LineWriter<'_> {
    /// Takes the next bytes of the output, in pieces of any size.
    pub fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = MAX_LINE.saturating_sub(self.partial.len());
            self.cut |= text.len() > room;
            self.partial.extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        self.ring.push_line(&String::from_utf8_lossy(line));
        self.partial.clear();
        self.cut = false;
    }
}

impl Drop for LineWriter<'_> {
    fn drop(&mut self) {
        if !self.partial.is_empty() || self.cut {
            self.end_line();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines() {
        let ring = LogRing::new();
        {
            let mut one = ring.writer();
            let mut two = ring.writer();
            one.write(b"a");
            two.write(b"x\r\ny");
            one.write(b"b\n\nc");
        }
        // Two was dropped first: writers go in reverse order of their making.
        assert_eq!(ring.tail(10), "x\nab\n\ny\nc\n");
        assert_eq!(ring.tail(2), "y\nc\n");
        assert_eq!(ring.tail(0), "");
    }

    #[test]
    fn a_flood_is_bounded() {
        let ring = LogRing::new();
        let mut writer = ring.writer();
        for _ in 0..100 {
            writer.write(&vec![b'z'; 1 << 16]);
        }
        writer.write(b"\n");
        for n in 0..MAX_LINES + 5 {
            writer.write(format!("{n}\n").as_bytes());
        }
        let all = ring.tail(usize::MAX);
        assert_eq!(all.lines().count(), MAX_LINES);
        assert_eq!(all.lines().next(), Some("5"));
        ring.push_line(&"é".repeat(MAX_LINE));
        assert_eq!(ring.tail(1).trim_end().len(), MAX_LINE);
    }
}
