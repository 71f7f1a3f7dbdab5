//! Running one command of a build, and hearing how it ended.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use oma_sandbox::protocol::Service;
use oma_sandbox::{Error, Hand};
use tokio::io::AsyncReadExt as _;

use super::steps::{Command, VARIABLES};

/// How much of a build's output is kept, in bytes; the newest.
const KEPT: usize = 64 << 10;

/// How much of it is told with a failure.
const TOLD_LINES: usize = 40;
const TOLD: usize = 4 << 10;

/// How much is read at once.
const CHUNK: usize = 8 << 10;

/// Runs a command in an empty folder, in which no installer finds a file that it would take for a package, with its
/// output as one, and says how it ended: after that nothing is waited for, whatever it has left running.
const WRAPPER: &str = "{ mkdir -p \"/tmp/$0\" && cd \"/tmp/$0\" && \"$@\"; } </dev/null 2>&1; \
                       printf '\\n%s %d\\n' \"$0\" \"$?\"";

/// The newest that a build has printed.
#[derive(Default)]
pub(super) struct Log(Mutex<VecDeque<u8>>);

impl Log {
    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, bytes: &[u8]) {
        let mut kept = self.lock();
        kept.extend(bytes);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }

    /// All that is kept, in whole characters.
    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = self.lock().iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// What is told of an output with a failure: its end.
pub(super) fn told(output: &str) -> String {
    let lines: Vec<&str> = output.trim_end().lines().collect();
    let mut text = lines[lines.len().saturating_sub(TOLD_LINES)..].join("\n");
    let mut from = text.len().saturating_sub(TOLD);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text.split_off(from)
}

/// How a command ended, and what it printed last.
pub(super) struct Ended {
    pub(super) status: i32,
    pub(super) output: String,
}

/// Runs a command to its end.
///
/// # Errors
/// [`Error`] when it can't be started, or the build's sandbox is lost.
pub(super) async fn run(
    hand: &dyn Hand,
    command: &Command,
    variables: &[(String, String)],
    log: &Log,
) -> Result<Ended, Error> {
    let nonce = format!("oma-{}", oma_domain::EventId::generate());
    let own = VARIABLES.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut arguments = vec!["-c".to_owned(), WRAPPER.to_owned(), nonce.clone()];
    arguments.extend_from_slice(&command.0);
    let service = Service {
        program: "sh".to_owned(),
        arguments,
        variables: own.into_iter().chain(variables.iter().cloned()).collect(),
        folder: None,
    };
    let mut pipe = hand.serve(service).await?;
    let output = Log::default();
    let mark = format!("\n{nonce} ");
    let mut pending: Vec<u8> = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = pipe
            .read(&mut chunk)
            .await
            .map_err(|error| Error::Lost(format!("its connection broke: {error}")))?;
        pending.extend_from_slice(&chunk[..read]);
        if let Some(status) = ending(&pending, &mark) {
            let at = pending.len() - status.1;
            for kept in [log, &output] {
                kept.add(&pending[..at]);
            }
            return Ok(Ended {
                status: status.0,
                output: output.text(),
            });
        }
        if read == 0 {
            return Err(Error::Lost("it ended in the middle of a build".to_owned()));
        }
        // What may yet be the beginning of the last line stays.
        let done = pending.len().saturating_sub(mark.len() + 16);
        for kept in [log, &output] {
            kept.add(&pending[..done]);
        }
        pending.drain(..done);
    }
}

/// The exit status that the last line gives, and the length of that line.
fn ending(text: &[u8], mark: &str) -> Option<(i32, usize)> {
    let at = text
        .windows(mark.len())
        .rposition(|part| part == mark.as_bytes())?;
    let rest = std::str::from_utf8(&text[at + mark.len()..]).ok()?;
    let status = rest.strip_suffix('\n')?.parse().ok()?;
    Some((status, text.len() - at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_ends_with_its_line() {
        let mark = "\nx ";
        assert_eq!(ending(b"out\nx 7\n", mark), Some((7, 5)));
        for unfinished in ["out", "out\nx", "out\nx 7", "out\nx y\n", "out\nx 7\nmore"] {
            assert_eq!(ending(unfinished.as_bytes(), mark), None, "{unfinished}");
        }
    }

    #[test]
    fn a_log_keeps_the_newest_and_a_failure_tells_the_end() {
        let log = Log::default();
        log.add(&vec![b'a'; KEPT]);
        log.add(b"end");
        assert_eq!(log.text().len(), KEPT);
        assert!(log.text().ends_with("aend"));
        let long: String = (0..1_000)
            .map(|n| format!("line {n} é{}\n", "x".repeat(200)))
            .collect();
        let told = told(&long);
        assert!(told.len() <= TOLD && told.contains("line 999"), "{}", told.len());
        assert_eq!(super::told("one\ntwo\n\n"), "one\ntwo");
    }
}
