//! `oma models`: the models that agents may name.

use crate::client::{Client, Connection, Request};
use crate::print::{Outcome, Output};
use crate::table::{cell, list_table};

/// List the models that agents may name
#[derive(Debug, clap::Args)]
pub(crate) struct Models {
    #[command(flatten)]
    connection: Connection,
}

impl Models {
    /// Lists them.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn run(self, output: Output) -> Outcome {
        let client = Client::connect(&self.connection)?;
        let models = client.json(Request::get(&["v1", "models"])).await?;
        output.result(&models, |models| {
            list_table(models, "models", &["id", "name", "context", "input"], |model| {
                vec![
                    cell(model, "id"),
                    cell(model, "name"),
                    cell(model, "context_length"),
                    cell(model, "input_modalities"),
                ]
            })
        })?;
        Ok(())
    }
}
