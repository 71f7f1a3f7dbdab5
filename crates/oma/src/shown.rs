//! Showing a session's frames as they come: an answer in pieces, everything else in lines.
//!
//! Invariant: what an answer's pieces have shown is not shown again by the whole answer, and what they have
//! left out is.

use crate::client::stream::Frame;
use crate::print::Output;
use crate::transcript;

/// What has been shown.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    partial: Option<Partial>,
    any: bool,
}

/// An answer of which pieces have been shown.
#[derive(Debug)]
struct Partial {
    /// The event whose pieces these are.
    event: String,
    /// The pieces so far.
    text: String,
    /// Whether the cursor stands behind them.
    line_is_open: bool,
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
        match frame.kind.as_str() {
            "agent.message_delta" => return self.delta(frame, output),
            kind if kind.ends_with("_delta") => return Ok(()),
            "agent.message" => {
                if let Some(partial) = self
                    .partial
                    .take_if(|partial| partial.event == frame.text("event_id"))
                {
                    return whole(&partial, frame.text("content"), output);
                }
            }
            _ => {}
        }
        self.end_line(output)?;
        match transcript::render(&frame.data, &output) {
            Some(line) => output.line(&line),
            None => Ok(()),
        }
    }

    fn delta(&mut self, frame: &Frame, output: Output) -> std::io::Result<()> {
        let (event, piece) = (frame.text("event_id"), frame.text("content"));
        match &mut self.partial {
            Some(partial) if partial.event == event => {
                partial.text.push_str(piece);
                partial.line_is_open = true;
            }
            _ => {
                self.end_line(output)?;
                self.partial = Some(Partial {
                    event: event.to_owned(),
                    text: piece.to_owned(),
                    line_is_open: true,
                });
            }
        }
        output.piece(&crate::print::plain(piece))
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
        match &mut self.partial {
            Some(partial) if partial.line_is_open => {
                partial.line_is_open = false;
                output.piece("\n")
            }
            _ => Ok(()),
        }
    }
}

/// Shows what the pieces left out of the whole answer.
fn whole(partial: &Partial, content: &str, output: Output) -> std::io::Result<()> {
    let line_end = if partial.line_is_open { "\n" } else { "" };
    match content.strip_prefix(&partial.text) {
        Some("") => output.piece(line_end),
        Some(rest) => output.piece(&format!("{}\n", crate::print::plain(rest))),
        // Pieces are dropped when the reader is too slow; the whole is never.
        None => output.piece(&format!("{line_end}{}\n", crate::print::plain(content))),
    }
}
