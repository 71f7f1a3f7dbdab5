//! Runs a test once more in a process of its own, where it plays the part that is killed.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

const ARGUMENT: &str = "OMA_VAULT_TEST_CHILD";

/// What the child is told; `None` in the parent.
pub(crate) fn argument() -> Option<String> {
    std::env::var(ARGUMENT).ok()
}

/// A child that plays its part until it is killed.
pub(crate) struct Victim {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Victim {
    pub(crate) fn start(test: &str, argument: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(ARGUMENT, argument)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next thing that the child says.
    pub(crate) fn says(&mut self) -> String {
        loop {
            let line = self
                .lines
                .next()
                .unwrap_or_else(|| panic!("the child ended"))
                .unwrap();
            if let Some(said) = line.strip_prefix("child: ") {
                return said.to_owned();
            }
        }
    }

    /// Kills it where it stands, and returns what it had still said.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let rest = self.lines.map_while(Result::ok);
        rest.filter_map(|line| Some(line.strip_prefix("child: ")?.to_owned()))
            .collect()
    }
}

/// Says something to the parent, in one write.
pub(crate) fn say(what: &str) {
    use std::io::Write as _;
    std::io::stdout()
        .lock()
        .write_all(format!("child: {what}\n").as_bytes())
        .unwrap();
}
