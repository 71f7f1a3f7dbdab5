//! `oma`: the server of OpenClaw Managed Agents, the hand inside its sandboxes and the client, in one binary.
//!
//! Invariant: `oma hand` and `oma egress` are dispatched before anything else happens (no runtime, no configuration, no
//! allocation-heavy parsing): the one runs inside sandboxes and as the single-threaded launcher of them, the other gives
//! up its privileges while it has one thread.
//!
//! Entry points: [`serve`] puts the server together, [`commands`] and [`chat`] are the client side over the
//! HTTP API, [`config`] holds every setting.

mod chat;
mod cli;
mod client;
mod commands;
mod config;
mod print;
#[cfg(test)]
mod reference;
mod serve;
mod shown;
mod table;
mod transcript;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::print::{Failure, Outcome, Output};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == "hand" => return oma_sandbox::hand::main(arguments),
        Some(first) if first == "egress" => return oma_furnish::worker::main(arguments),
        _ => {}
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let output = Output::new(cli.json);
    match run(cli, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.silent() {
                output.failure(&failure);
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Answers a command line that could not be understood, or that asks for help.
fn refuse(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().any(|arg| arg == "--json");
    if wants_json && error.use_stderr() {
        let text = error.render().to_string();
        let message = text.trim().trim_start_matches("error: ").to_owned();
        Output::new(true).failure(&Failure::Usage(message));
    } else if error.print().is_err() {
        return ExitCode::FAILURE;
    }
    // clap: 0 for help and version, 2 for wrong usage.
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn run(cli: Cli, output: Output) -> Outcome {
    match cli.command {
        Command::Version => commands::version(output),
        Command::Config(show) => show.run(output),
        Command::Completions(completions) => completions.run(output),
        Command::Serve(serve) => serve.run(output),
        Command::Doctor(doctor) => doctor.run(output),
        client => {
            // A client waits for one server: one thread is plenty.
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(run_client(client, output))
        }
    }
}

async fn run_client(command: Command, output: Output) -> Outcome {
    match command {
        Command::Chat(chat) => chat.run(output).await,
        Command::Agent(agent) => agent.run(output).await,
        Command::Environment(environment) => environment.run(output).await,
        Command::Vault(vault) => vault.run(output).await,
        Command::Session(session) => session.run(output).await,
        Command::CallAgent(call) => call.run(output).await,
        Command::Key(key) => key.run(output).await,
        Command::Workspace(workspace) => workspace.run(output).await,
        Command::Usage(usage) => usage.run(output).await,
        Command::Audit(audit) => audit.run(output).await,
        Command::Models(models) => models.run(output).await,
        Command::Health(health) => health.run(output).await,
        Command::Version
        | Command::Config(_)
        | Command::Completions(_)
        | Command::Serve(_)
        | Command::Doctor(_) => Ok(()),
    }
}
