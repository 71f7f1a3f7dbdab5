//! What the fake provider answers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

/// Holds an answer at a place until a test lets it go on.
#[derive(Debug, Clone)]
pub struct Gate {
    reached: Arc<watch::Sender<bool>>,
    open: Arc<watch::Sender<bool>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self {
            reached: Arc::new(watch::Sender::new(false)),
            open: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Lets the answer go on, now or when it gets there.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until the answer has got there: all that stands before the gate has been sent.
    pub async fn reached(&self) {
        // The sender lives as long as `self`, so waiting can't fail.
        let _ = self.reached.subscribe().wait_for(|reached| *reached).await;
    }

    /// The server's side: notes the arrival and waits.
    pub(crate) async fn pass(&self) {
        self.reached.send_replace(true);
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}

/// One thing that a reply does.
#[derive(Debug, Clone)]
pub enum Step {
    /// A thought, signed where the protocol signs thoughts.
    Thinking(String),
    /// A thought that only the provider can read.
    Redacted(String),
    /// Text.
    Text(String),
    /// A tool use. Consecutive ones are parallel.
    Tool {
        /// The tool.
        name: String,
        /// Its arguments; not an object only to test what comes of that.
        input: Value,
    },
    /// Waits until a test opens the gate.
    Gate(Gate),
    /// Waits.
    Delay(Duration),
    /// Breaks the connection.
    Cut,
    /// Sends nothing any more and keeps the connection.
    Stall,
    /// Ends the answer in order, but without the protocol's end mark.
    EndEarly,
    /// Sends a frame that is no JSON.
    Malformed,
    /// Reports an error inside the stream.
    Error {
        /// The provider's type or code.
        kind: String,
        /// The message.
        message: String,
    },
}

/// Tokens. `input` leaves out what came from or went into a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    /// Uncached input.
    pub input: u64,
    /// Output, thoughts included.
    pub output: u64,
    /// Read from a cache.
    pub cache_read: u64,
    /// Written to a cache.
    pub cache_write: u64,
    /// Thoughts, where the protocol counts them apart.
    pub thinking: u64,
}

/// Why the answer ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// It is finished, or it wants tools.
    Done,
    /// The output limit is reached.
    MaxTokens,
    /// The model declines.
    Refusal(String),
}

/// A failure instead of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) message: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub(crate) steps: Vec<Step>,
    pub(crate) usage: Option<Usage>,
    /// A figure in dollars, for the protocols that have one.
    pub(crate) cost: Option<f64>,
    pub(crate) stop: Stop,
    /// Characters of a piece of text.
    pub(crate) chunk: usize,
    pub(crate) refused: Option<Refused>,
    /// Frames to be sent as they are, instead of the steps.
    pub(crate) raw: Option<Vec<String>>,
}

impl Default for Reply {
    fn default() -> Self {
        Self::new()
    }
}

impl Reply {
    /// An empty answer.
    #[must_use]
    pub fn new() -> Self {
        Self {
            steps: Vec::new(),
            usage: Some(Usage {
                input: 100,
                output: 20,
                ..Usage::default()
            }),
            cost: None,
            stop: Stop::Done,
            chunk: 7,
            refused: None,
            raw: None,
        }
    }

    /// A failure with a status and a message.
    #[must_use]
    pub fn failure(status: u16, kind: &str, message: &str) -> Self {
        let refused = Refused {
            status,
            kind: kind.to_owned(),
            message: message.to_owned(),
            headers: Vec::new(),
        };
        Self {
            refused: Some(refused),
            ..Self::new()
        }
    }

    /// Frames sent exactly as they are: the data of server-sent events.
    #[must_use]
    pub fn raw<S: Into<String>>(frames: impl IntoIterator<Item = S>) -> Self {
        Self {
            raw: Some(frames.into_iter().map(Into::into).collect()),
            ..Self::new()
        }
    }

    /// Adds a header to a failure.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Some(refused) = &mut self.refused {
            refused.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Adds a step.
    #[must_use]
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Adds text.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.step(Step::Text(text.to_owned()))
    }

    /// Adds a thought.
    #[must_use]
    pub fn thinking(self, text: &str) -> Self {
        self.step(Step::Thinking(text.to_owned()))
    }

    /// Adds a tool use.
    #[must_use]
    pub fn tool(self, name: &str, input: Value) -> Self {
        self.step(Step::Tool {
            name: name.to_owned(),
            input,
        })
    }

    /// Adds a gate.
    #[must_use]
    pub fn gate(self, gate: &Gate) -> Self {
        self.step(Step::Gate(gate.clone()))
    }

    /// Adds an error inside the stream.
    #[must_use]
    pub fn error(self, kind: &str, message: &str) -> Self {
        self.step(Step::Error {
            kind: kind.to_owned(),
            message: message.to_owned(),
        })
    }

    /// States the usage; `None` leaves it out.
    #[must_use]
    pub fn usage(mut self, usage: Option<Usage>) -> Self {
        self.usage = usage;
        self
    }

    /// States the cost in dollars, for the protocols that have it.
    #[must_use]
    pub fn cost(mut self, usd: f64) -> Self {
        self.cost = Some(usd);
        self
    }

    /// Says why the answer ends.
    #[must_use]
    pub fn stop(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// Sets the characters of a piece of text; at least one.
    #[must_use]
    pub fn chunk(mut self, chars: usize) -> Self {
        self.chunk = chars.max(1);
        self
    }

    /// Whether the steps end the stream before its own end.
    pub(crate) fn wants_tools(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Tool { .. }))
    }
}

/// A text in pieces of so many characters.
pub(crate) fn pieces(text: &str, chars: usize) -> Vec<String> {
    let mut rest = text.chars().peekable();
    let mut pieces = Vec::new();
    while rest.peek().is_some() {
        pieces.push(rest.by_ref().take(chars.max(1)).collect());
    }
    pieces
}
