//! What the user types, line by line, without blocking the runtime.
//!
//! A thread of its own reads: a blocked read of a terminal can't be given up, and a runtime would wait for it
//! when it ends.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::sync::mpsc;

use tokio::sync::mpsc as channel;

/// The longest line that is taken, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// Standard input, read when asked.
#[derive(Debug)]
pub(crate) struct Input {
    wanted: mpsc::Sender<()>,
    lines: channel::Receiver<io::Result<Option<String>>>,
    /// Whether a line has been asked for and not come yet.
    pending: bool,
}

impl Input {
    /// Starts the reader.
    ///
    /// # Errors
    /// That no thread can be started.
    pub(crate) fn start() -> io::Result<Self> {
        let (wanted, requests) = mpsc::channel::<()>();
        let (answers, lines) = channel::channel(1);
        std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            while requests.recv().is_ok() {
                if answers.blocking_send(read_line()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { wanted, lines, pending: false })
    }

    /// Shows a prompt and waits for a line; `None` at the end of input. Cancel-safe: a line that is typed
    /// after the wait was given up answers the next one.
    ///
    /// # Errors
    /// What reading gives.
    pub(crate) async fn line(&mut self, prompt: &str) -> io::Result<Option<String>> {
        let mut stderr = io::stderr().lock();
        stderr.write_all(prompt.as_bytes())?;
        stderr.flush()?;
        drop(stderr);
        if !self.pending {
            if self.wanted.send(()).is_err() {
                return Ok(None);
            }
            self.pending = true;
        }
        let line = self.lines.recv().await;
        self.pending = false;
        line.unwrap_or(Ok(None))
    }
}

fn read_line() -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let read = io::stdin().lock().take(MAX_LINE).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&line);
    Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
}
