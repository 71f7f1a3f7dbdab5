//! The command line: what `oma` understands.

use clap::{Parser, Subcommand};

use crate::chat::Chat;
use crate::commands::agent::Agent;
use crate::commands::audit::Audit;
use crate::commands::call_agent::CallAgent;
use crate::commands::completions::Completions;
use crate::commands::config::Show;
use crate::commands::doctor::Doctor;
use crate::commands::environment::Environment;
use crate::commands::health::Health;
use crate::commands::key::Key;
use crate::commands::models::Models;
use crate::commands::session::Session;
use crate::commands::usage::Usage;
use crate::commands::vault::Vault;
use crate::commands::workspace::Workspace;
use crate::serve::Serve;

/// Runs and talks to autonomous AI agents
#[derive(Debug, Parser)]
#[command(
    name = "oma",
    version,
    max_term_width = 110,
    propagate_version = false,
    subcommand_required = true
)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.")]
pub(crate) struct Cli {
    /// Write results as JSON to standard output, and nothing else there
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(Serve),
    /// Tell what this machine offers and what is missing
    Doctor(Doctor),
    /// Talk to an agent in the terminal
    Chat(Chat),
    /// Create, look at and change agents
    Agent(Agent),
    /// Create, look at and remove environments
    #[command(visible_alias = "env")]
    Environment(Environment),
    /// Keep the credentials that MCP servers are called with
    Vault(Vault),
    /// Open, drive and look at sessions
    Session(Session),
    /// Have another agent do a task on a session's behalf, with a parent token
    CallAgent(CallAgent),
    /// Create, look at, rotate and revoke API keys
    Key(Key),
    /// Create and look at workspaces
    Workspace(Workspace),
    /// Show what model requests consumed
    Usage(Usage),
    /// Look at and verify the audit trail
    Audit(Audit),
    /// List the models that agents may name
    Models(Models),
    /// Ask a server whether it can take work; fails when it can't
    Health(Health),
    /// Show the settings in force and where each came from
    Config(Show),
    /// Write a completion script for a shell
    Completions(Completions),
    /// Show the version
    Version,
}
