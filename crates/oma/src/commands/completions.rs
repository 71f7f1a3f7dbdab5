//! `oma completions`: completion scripts for shells.

use clap::CommandFactory as _;

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
        output.bytes(&script)?;
        Ok(())
    }
}
