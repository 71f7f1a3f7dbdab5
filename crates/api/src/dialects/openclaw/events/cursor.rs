//! Cursors: the ids of frames. An event of the log is one frame under its own id, or several: then the n-th
//! further one has the id `<event id>:<n>`.

use std::fmt;

use oma_domain::EventId;
use oma_domain::page::Order;

/// The id of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The event of the log.
    pub event: EventId,
    /// Which of its frames; 0 is the event itself.
    pub index: usize,
}

impl Cursor {
    /// Reads a frame's id; `None` when it can't be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (event, index) = match text.split_once(':') {
            None => (text, 0),
            Some((event, index)) => {
                // One spelling only: what is accepted is what was given out.
                let number: usize = index.parse().ok()?;
                let canonical = number > 0 && number.to_string() == index;
                (event, canonical.then_some(number)?)
            }
        };
        Some(Self {
            event: EventId::parse(event).ok()?,
            index,
        })
    }

    /// Whether a client that reads in this order and has got this frame has got that one too. Both belong to
    /// the same event.
    #[must_use]
    pub(crate) fn covers(&self, event: &EventId, index: usize, order: Order) -> bool {
        self.event == *event
            && match order {
                Order::Ascending => index <= self.index,
                Order::Descending => index >= self.index,
            }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            0 => write!(f, "{}", self.event),
            index => write!(f, "{}:{index}", self.event),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn odd_cursors_are_none() {
        for text in [
            "",
            ":",
            "evt_a:",
            "evt_a:0",
            "evt_a:01",
            "evt_a:-1",
            "evt_a:+1",
            "evt_a:1:2",
            "a b",
            ":1",
            "heartbeat:x",
        ] {
            assert_eq!(Cursor::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_cursor_reads_back(event in "[A-Za-z0-9_-]{1,128}", index in 0_usize..1000) {
            let cursor = Cursor { event: EventId::parse(&event).expect("legal"), index };
            prop_assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        }

        #[test]
        fn no_text_is_read_in_two_ways(text in "\\PC{0,40}") {
            if let Some(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
