//! `oma serve`: the server.

pub(crate) mod announce;
pub(crate) mod http;
pub(crate) mod logging;
pub(crate) mod open_files;
pub(crate) mod signals;

use crate::config::{Config, args};
use crate::print::{Outcome, Output};

/// Run the server
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    flags: args::Flags,
}

impl Serve {
    /// Serves until a signal asks it to stop.
    ///
    /// # Errors
    /// What keeps it from serving.
    pub(crate) fn run(self, _output: Output) -> Outcome {
        let config = Config::load(self.flags)?;
        logging::start(&config.log)?;
        Ok(())
    }
}
