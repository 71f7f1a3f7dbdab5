//! The command line flags of the settings, made from their declarations.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::places::FILE_VARIABLE;
use crate::config::sections::all;

/// The flags that were given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags {
    /// The configuration file.
    pub(crate) file: Option<PathBuf>,
    /// Settings by flag.
    pub(crate) values: BTreeMap<&'static str, String>,
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>("config").cloned();
        for flag in all()
            .flat_map(|section| section.settings)
            .filter_map(|setting| setting.flag)
        {
            if let Some(text) = matches.get_one::<String>(flag) {
                self.values.insert(flag, text.clone());
            }
        }
        Ok(())
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!(
                "The configuration file [env: {FILE_VARIABLE}] [default: the first of ~/.config/openclaw/oma.toml \
                 and /etc/openclaw/oma.toml that exists]"
            ));
        all().fold(command.arg(file), |command, section| {
            section.settings.iter().fold(command, |command, setting| {
                let Some(flag) = setting.flag else { return command };
                let doc = crate::config::document::one_line(setting.doc);
                let mut help = doc.trim_end_matches('.').to_owned();
                if !setting.env.is_empty() {
                    help.push_str(&format!(" [env: {}]", setting.env.join(", ")));
                }
                if let Some(default) = setting.default {
                    help.push_str(&format!(" [default: {default}]"));
                }
                let mut arg = Arg::new(flag)
                    .long(flag)
                    .help(help)
                    .help_heading("Settings")
                    .action(ArgAction::Set)
                    .value_name(setting.placeholder);
                if setting.placeholder == <bool as crate::config::value::Value>::PLACEHOLDER {
                    arg = arg
                        .num_args(0..=1)
                        .require_equals(true)
                        .default_missing_value("true");
                }
                command.arg(arg)
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
