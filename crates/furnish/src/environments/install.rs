//! What is done in the sandbox of a build: the installers one after the other, the script, and the tidying up.

use std::sync::Arc;

use oma_domain::WorkspaceId;
use oma_domain::environment::build::Step as BuildStep;
use oma_domain::environment::{Manager, Networking, Packages, Spec};
use oma_sandbox::Spec as SandboxSpec;
use oma_sandbox::layers::Site;

use super::builds::Builds;
use super::collect::Room;
use super::job::Job;
use super::key::with_registries;
use super::run::{Ended, Log, run, told};
use super::steps::{self, Command, Step};

/// A build's steps, one after the other.
pub(super) struct Run<'a> {
    pub(super) builds: &'a Builds,
    pub(super) job: &'a Job,
    pub(super) site: &'a Site,
    pub(super) room: Room,
    pub(super) variables: Vec<(String, String)>,
    /// The lists of Debian's packages are new.
    pub(super) is_refreshed: bool,
}

impl Run<'_> {
    pub(super) async fn go(mut self, workspace: &WorkspaceId, spec: &Spec) -> Result<(), String> {
        let none = Packages::default();
        let packages = spec.packages.as_ref().unwrap_or(&none);
        let sandbox = SandboxSpec {
            session: self.site.id.clone(),
            workspace: workspace.clone(),
        };
        self.demand(&steps::prepare(), "the build could not begin")
            .await?;
        if !packages.is_empty() {
            let _way = self.way(&sandbox, &with_registries(&spec.networking)).await?;
            for manager in Manager::ALL {
                let names = packages.of(manager);
                if names.is_empty() {
                    continue;
                }
                self.job.begin_step(BuildStep::packages(manager, names));
                let installed = self.install(manager, names).await;
                self.job.end_step(installed.is_err());
                installed?;
            }
        }
        if let Some(step) = steps::script(spec) {
            self.job.begin_step(BuildStep::SetupScript);
            let done = self.script(&sandbox, spec, &step).await;
            self.job.end_step(done.is_err());
            done?;
        }
        self.demand(&steps::tidy(), "the layer could not be tidied up")
            .await
    }

    /// Installs what an installer is to install.
    async fn install(&mut self, manager: Manager, names: &[String]) -> Result<(), String> {
        self.bring(manager).await?;
        for step in steps::install(manager, names) {
            self.step(&step).await?;
        }
        Ok(())
    }

    /// Runs the setup script.
    async fn script(&mut self, sandbox: &SandboxSpec, spec: &Spec, step: &Step) -> Result<(), String> {
        let _way = self.way(sandbox, &spec.networking).await?;
        // They are the script's alone: what tidies up afterwards is ours.
        let given = self.variables.clone();
        self.variables.extend(spec.variables.clone());
        let done = self.step(step).await;
        self.variables = given;
        done
    }

    /// Opens the doors of the build.
    async fn way(
        &self,
        sandbox: &SandboxSpec,
        networking: &Networking,
    ) -> Result<Option<crate::network::Passage>, String> {
        let Some(network) = &self.builds.network else {
            return Ok(None);
        };
        let hand = Arc::clone(&self.site.hand);
        let passage = network.open_passage(sandbox, hand, networking).await;
        passage.map(Some).map_err(|error| {
            tracing::error!(error, "a build could not have its doors");
            unsaid("the build could not have a network")
        })
    }

    /// Makes sure that a manager is there.
    async fn bring(&mut self, manager: Manager) -> Result<(), String> {
        if manager == Manager::Apt {
            self.demand(
                &steps::presence(manager),
                "there is no apt-get where packages are installed",
            )
            .await?;
            return self.refresh().await;
        }
        if self.quietly(&steps::presence(manager)).await?.status == 0 {
            return Ok(());
        }
        let lack = format!("there is no {} where packages are installed", manager.as_str());
        if self.quietly(&steps::presence(Manager::Apt)).await?.status != 0 {
            return Err(format!("{lack}, and no apt-get that could bring it"));
        }
        self.refresh().await?;
        for package in steps::bringing(manager) {
            if self.quietly(&steps::is_known(package)).await?.status != 0 {
                continue;
            }
            for step in steps::install(Manager::Apt, &[(*package).to_owned()]) {
                self.step(&step)
                    .await
                    .map_err(|reason| format!("{lack}: {reason}"))?;
            }
            return self.demand(&steps::presence(manager), &lack).await;
        }
        Err(format!("{lack}, and none that apt-get could bring"))
    }

    async fn refresh(&mut self) -> Result<(), String> {
        if !self.is_refreshed {
            for command in steps::refresh() {
                self.demand(&command, "apt could not read its lists of packages")
                    .await?;
            }
            self.is_refreshed = true;
        }
        Ok(())
    }

    async fn step(&self, step: &Step) -> Result<(), String> {
        self.demand(&step.command, &step.failed()).await
    }

    /// Runs a command that has to succeed; in these words it failed.
    async fn demand(&self, command: &Command, words: &str) -> Result<(), String> {
        let shown = command.to_string();
        let first = shown.lines().next().unwrap_or_default();
        self.job.log.add(format!("$ {first}\n").as_bytes());
        let ended = self.run(command, &self.job.log).await?;
        match ended.status {
            0 => Ok(()),
            status => Err(with_output(
                &format!("{words} (exit status {status})"),
                &ended.output,
            )),
        }
    }

    /// Runs a command whose failure is an answer.
    async fn quietly(&self, command: &Command) -> Result<Ended, String> {
        self.run(command, &Log::default()).await
    }

    async fn run(&self, command: &Command, log: &Log) -> Result<Ended, String> {
        match run(&*self.site.hand, command, &self.variables, log).await {
            Ok(ended) => Ok(ended),
            Err(error) => {
                // Its hand ends what takes too much, too, and may be the first to see it.
                let words = match self.builds.excess(self.site, self.room).await {
                    Ok(Some(excess)) => excess,
                    Ok(None) | Err(_) => {
                        tracing::error!(%error, "a build was lost");
                        unsaid("the build was lost")
                    }
                };
                Err(with_output(&words, &log.text()))
            }
        }
    }
}

/// What a failure says whose reason is the operator's: it may name what is on the host.
pub(super) fn unsaid(words: &str) -> String {
    format!("{words}; the server's log says why")
}

/// What a failure says: in our words, and at the end in the installer's.
pub(super) fn with_output(words: &str, output: &str) -> String {
    let output = told(output);
    if output.is_empty() {
        words.to_owned()
    } else {
        format!("{words}:\n{output}")
    }
}
