//! What the user types, line by line, without blocking the runtime.
//!
//! A thread of its own reads: a blocked read of a terminal can't be given up, and a runtime would wait for it
//! when it ends.

use std::io;
use std::sync::mpsc;

use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{Config, Editor};
use tokio::sync::mpsc as channel;

/// How many lines are remembered.
const HISTORY: usize = 1000;

/// What came of a prompt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line.
    Text(String),
    /// The user pressed Ctrl-C.
    Interrupted,
    /// There is no more input.
    End,
}

/// What a prompt asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// A message, which the history remembers.
    Message,
    /// An answer to a question.
    Answer,
}

/// The terminal, read when asked.
#[derive(Debug)]
pub(super) struct Input {
    prompts: mpsc::Sender<(String, Ask)>,
    lines: channel::Receiver<io::Result<Line>>,
}

impl Input {
    /// Starts the reader.
    ///
    /// # Errors
    /// That the terminal can't be used or no thread be started.
    pub(super) fn start() -> io::Result<Self> {
        let config = Config::builder()
            .max_history_size(HISTORY)
            .map_err(io::Error::other)?
            .build();
        let history = MemHistory::with_config(&config);
        let mut editor = Editor::<(), MemHistory>::with_history(config, history).map_err(io::Error::other)?;
        let (prompts, asked) = mpsc::channel::<(String, Ask)>();
        let (answers, lines) = channel::channel(1);
        std::thread::Builder::new()
            .name("terminal".to_owned())
            .spawn(move || {
                while let Ok((prompt, ask)) = asked.recv() {
                    let line = read(&mut editor, &prompt, ask);
                    if answers.blocking_send(line).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self { prompts, lines })
    }

    /// Shows a prompt and waits for a line.
    ///
    /// # Errors
    /// What reading gives.
    pub(super) async fn line(&mut self, prompt: &str, ask: Ask) -> io::Result<Line> {
        if self.prompts.send((prompt.to_owned(), ask)).is_err() {
            return Ok(Line::End);
        }
        self.lines.recv().await.unwrap_or(Ok(Line::End))
    }
}

fn read(editor: &mut Editor<(), MemHistory>, prompt: &str, ask: Ask) -> io::Result<Line> {
    match editor.readline(prompt) {
        Ok(line) => {
            if ask == Ask::Message && !line.trim().is_empty() {
                editor.add_history_entry(&line).map_err(io::Error::other)?;
            }
            Ok(Line::Text(line))
        }
        Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
        Err(ReadlineError::Eof) => Ok(Line::End),
        Err(ReadlineError::Io(error)) => Err(error),
        Err(error) => Err(io::Error::other(error)),
    }
}
