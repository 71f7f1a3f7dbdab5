//! `oma health`: whether a server can take work, for container health checks and scripts.

use std::time::Duration;

use crate::client::{Client, Connection, Request};
use crate::print::{Outcome, Output};

/// Ask a server whether it can take work; fails when it can't
#[derive(Debug, clap::Args)]
pub(crate) struct Health {
    #[command(flatten)]
    connection: Connection,
    /// How long it may take to answer
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = crate::config::units::parse_duration)]
    timeout: Duration,
}

impl Health {
    /// Asks it.
    ///
    /// # Errors
    /// That it can't take work, or does not answer.
    pub(crate) async fn run(self, output: Output) -> Outcome {
        let client = Client::connect(&self.connection)?;
        let ready = client
            .json(Request::get(&["readyz"]).within(self.timeout))
            .await?;
        output.result(&ready, |_| format!("{} is ready", client.base()))?;
        Ok(())
    }
}
