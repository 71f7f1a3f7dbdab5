//! `oma doctor`: what this machine offers and what is missing.

use crate::config::{Config, args};
use crate::print::{Outcome, Output};

/// Tell what this machine offers and what is missing
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    flags: args::Flags,
}

impl Doctor {
    /// Looks and tells.
    ///
    /// # Errors
    /// That something that the server needs is missing.
    pub(crate) fn run(self, _output: Output) -> Outcome {
        let _config = Config::load(self.flags)?;
        Ok(())
    }
}
