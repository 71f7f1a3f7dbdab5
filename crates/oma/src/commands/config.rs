//! `oma config`: the settings in force, or the reference of all settings.

use serde_json::{Value, json};

use crate::config::{Config, args, document};
use crate::print::{Outcome, Output, Style};
use crate::table::table;

/// Show the settings in force and where each came from
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// Write the reference of all settings in Markdown instead
    #[arg(long)]
    table: bool,
    #[command(flatten)]
    flags: args::Flags,
}

impl Show {
    /// Shows them.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub(crate) fn run(self, output: Output) -> Outcome {
        if self.table {
            let markdown = document::markdown();
            if output.json {
                output.json(&json!({"markdown": markdown}))?;
            } else {
                output.piece(&markdown)?;
            }
            return Ok(());
        }
        let config = Config::load(self.flags)?;
        if output.json {
            let settings: serde_json::Map<String, Value> = config
                .effective
                .iter()
                .map(|effective| {
                    let shown = json!({"value": effective.value, "source": effective.origin.to_string()});
                    (effective.key.clone(), shown)
                })
                .collect();
            output.json(&json!({"file": config.file, "settings": settings}))?;
            return Ok(());
        }
        let rows: Vec<Vec<String>> = config
            .effective
            .iter()
            .map(|effective| {
                let value = match &effective.value {
                    Value::Null => "-".to_owned(),
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                vec![effective.key.clone(), value, effective.origin.to_string()]
            })
            .collect();
        output.line(&table(&["setting", "value", "source"], &rows))?;
        match &config.file {
            Some(file) => output.remark(Style::Dim, &format!("configuration file: {}", file.display()))?,
            None => output.remark(Style::Dim, "no configuration file")?,
        }
        Ok(())
    }
}
