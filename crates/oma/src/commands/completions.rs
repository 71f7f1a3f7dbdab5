//! `oma completions`: completion scripts for shells.

use clap::CommandFactory as _;
use serde_json::json;

use crate::print::{Outcome, Output};

/// Write a completion script for a shell
#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completions {
    /// Writes the script.
    ///
    /// # Errors
    /// What writing gives.
    pub(crate) fn run(&self, output: Output) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::cli::Cli::command(), "oma", &mut script);
        let script = String::from_utf8_lossy(&script);
        let shell = self.shell.to_string();
        output.result(&json!({"shell": shell, "script": script}), |_| {
            script.trim_end().to_owned()
        })?;
        Ok(())
    }
}
