//! Showing a session's frames as they come: an answer in pieces, everything else in lines.
//!
//! Invariant: what an answer's pieces have shown is not shown again by the whole answer, and what they have
//! left out is.

use crate::client::stream::Frame;
use crate::print::{Output, plain};
use crate::transcript;

/// What has been shown.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// The messages of which pieces have been shown, oldest first. One answer may have several: all their pieces
    /// come before the first of them is there as a whole.
    partial: Vec<Partial>,
    /// Whether the cursor stands behind the pieces of the newest.
    line_is_open: bool,
    any: bool,
}

/// A message of which pieces have been shown.
#[derive(Debug)]
struct Partial {
    /// The event whose pieces these are.
    event: String,
    /// The pieces so far.
    text: String,
}

impl Shown {
    /// Shows a frame.
    ///
    /// # Errors
    /// What writing gives.
    pub(crate) fn frame(&mut self, frame: &Frame, output: Output) -> std::io::Result<()> {
        self.any = true;
        if output.json {
            return output.json(&frame.data);
        }
        output.piece(&self.text(frame, &output))
    }

    /// What to write for a frame.
    fn text(&mut self, frame: &Frame, output: &Output) -> String {
        let line = match frame.kind.as_str() {
            "agent.message_delta" => return self.delta(frame.text("event_id"), frame.text("content")),
            kind if kind.ends_with("_delta") => return String::new(),
            "agent.message" => {
                if let Some(rest) = self.whole(frame.text("event_id"), frame.text("content")) {
                    return rest;
                }
                transcript::render(&frame.data, output)
            }
            kind => {
                // Nothing more comes of the pieces of an attempt that failed or was cut off.
                if kind.starts_with("session.status_") || kind.ends_with(".error") {
                    self.partial.clear();
                }
                transcript::render(&frame.data, output)
            }
        };
        let start = self.line_end();
        match line {
            Some(line) if !line.is_empty() => format!("{start}{}\n", line.trim_end_matches('\n')),
            _ => start.to_owned(),
        }
    }

    fn delta(&mut self, event: &str, piece: &str) -> String {
        let shown = plain(piece);
        match self.partial.last_mut() {
            Some(partial) if partial.event == event => {
                partial.text.push_str(piece);
                self.line_is_open = true;
                shown.into_owned()
            }
            _ => {
                let start = self.line_end();
                self.partial.push(Partial {
                    event: event.to_owned(),
                    text: piece.to_owned(),
                });
                self.line_is_open = true;
                format!("{start}{shown}")
            }
        }
    }

    /// What the pieces left out of a whole message; `None` when there were no pieces of it.
    fn whole(&mut self, event: &str, content: &str) -> Option<String> {
        let at = self.partial.iter().position(|partial| partial.event == event)?;
        let is_last = at + 1 == self.partial.len();
        let partial = self.partial.remove(at);
        self.partial.drain(..at);
        // The line is that of a later message.
        if !is_last && content == partial.text {
            return Some(String::new());
        }
        let start = self.line_end();
        Some(match content.strip_prefix(&partial.text) {
            Some("") => start.to_owned(),
            Some(rest) if is_last => format!("{}\n", plain(rest)),
            // Pieces are dropped when the reader is too slow; the whole is never.
            _ => format!("{start}{}\n", plain(content)),
        })
    }

    /// Whether anything was shown.
    pub(crate) fn any(&self) -> bool {
        self.any
    }

    /// Ends the line of an answer that something else interrupts.
    ///
    /// # Errors
    /// What writing gives.
    pub(crate) fn end_line(&mut self, output: Output) -> std::io::Result<()> {
        output.piece(self.line_end())
    }

    fn line_end(&mut self) -> &'static str {
        if std::mem::take(&mut self.line_is_open) {
            "\n"
        } else {
            ""
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLAIN: Output = Output {
        json: false,
        color: false,
        color_remarks: false,
    };

    /// What is written for frames of type, event and content.
    fn written(frames: &[(&str, &str, &str)]) -> String {
        let mut shown = Shown::default();
        let mut all = String::new();
        for (kind, event, content) in frames {
            let frame = Frame {
                kind: (*kind).to_owned(),
                id: None,
                data: json!({"type": kind, "event_id": event, "content": content}),
            };
            all.push_str(&shown.text(&frame, &PLAIN));
        }
        all
    }

    #[test]
    fn every_text_is_shown_once() {
        let piece = "agent.message_delta";
        let whole = "agent.message";
        for (frames, expected) in [
            (&[(whole, "1", "Hello")][..], "Hello\n"),
            (
                &[(piece, "1", "Hel"), (piece, "1", "lo"), (whole, "1", "Hello")],
                "Hello\n",
            ),
            // The reader was too slow for the last piece.
            (&[(piece, "1", "Hel"), (whole, "1", "Hello")], "Hello\n"),
            // Two messages of one answer.
            (
                &[
                    (piece, "1", "One"),
                    (piece, "2", "Two"),
                    (whole, "1", "One"),
                    (whole, "2", "Two"),
                ],
                "One\nTwo\n",
            ),
            (
                &[
                    (piece, "1", "One"),
                    (piece, "2", "Tw"),
                    (whole, "1", "One"),
                    (whole, "2", "Two"),
                    (whole, "3", "Three"),
                ],
                "One\nTwo\nThree\n",
            ),
            // An attempt that failed half-way.
            (
                &[
                    (piece, "1", "Hel"),
                    ("agent.error", "2", "busy"),
                    (piece, "3", "Hello"),
                    (whole, "3", "Hello"),
                ],
                "Hel\nerror: busy\nHello\n",
            ),
            (
                &[(piece, "1", "a\x1b[2J"), (whole, "1", "a\x1b[2J")],
                "a\u{fffd}[2J\n",
            ),
        ] {
            assert_eq!(written(frames), expected, "{frames:?}");
        }
    }
}
