//! How the build of an environment goes on, as it is told in the logs of the sessions that wait for it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::packages::Manager;

/// The most packages that a step names.
const MAX_NAMED: usize = 32;

/// What a build does at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Step {
    /// An installer installs its packages.
    Packages {
        /// The installer.
        manager: Manager,
        /// The first of its packages.
        packages: Vec<String>,
        /// How many further ones there are.
        #[serde(default, skip_serializing_if = "is_zero")]
        further: usize,
    },
    /// The setup script runs.
    SetupScript,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes what it looks at by reference"
)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Step {
    /// The step in which an installer installs these.
    #[must_use]
    pub fn packages(manager: Manager, all: &[String]) -> Self {
        let named = all.len().min(MAX_NAMED);
        Self::Packages {
            manager,
            packages: all[..named].to_vec(),
            further: all.len() - named,
        }
    }

    /// Who does it: the installer's name, or `setup_script`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Packages { manager, .. } => manager.as_str(),
            Self::SetupScript => "setup_script",
        }
    }

    /// The packages that are named, and how many further ones there are.
    #[must_use]
    pub fn named(&self) -> (&[String], usize) {
        match self {
            Self::Packages {
                packages, further, ..
            } => (packages, *further),
            Self::SetupScript => (&[], 0),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packages {
                manager,
                packages,
                further,
            } => {
                write!(to, "{}: {}", manager.as_str(), packages.join(", "))?;
                match further {
                    0 => Ok(()),
                    further => write!(to, " and {further} more"),
                }
            }
            Self::SetupScript => to.write_str("the setup script"),
        }
    }
}

/// What has become of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Progress {
    /// Others are before it.
    Waiting,
    /// It has begun.
    Started,
    /// A step of it has begun.
    StepStarted {
        /// Which one.
        step: Step,
    },
    /// A step of it has ended.
    StepEnded {
        /// Which one.
        step: Step,
        /// How long it took, in milliseconds.
        took_ms: u64,
        /// Whether it failed.
        is_error: bool,
    },
    /// What the environment needs is there.
    Ready {
        /// How long the build took, in milliseconds, without the wait for others.
        took_ms: u64,
    },
    /// It failed.
    Failed {
        /// How long it took, in milliseconds, without the wait for others.
        took_ms: u64,
        /// Why, at the end in the installer's words.
        reason: String,
    },
}

impl Progress {
    /// What has become of it, as it is serialised.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Started => "started",
            Self::StepStarted { .. } => "step_started",
            Self::StepEnded { .. } => "step_ended",
            Self::Ready { .. } => "ready",
            Self::Failed { .. } => "failed",
        }
    }

    /// The step that it is about.
    #[must_use]
    pub fn step(&self) -> Option<&Step> {
        match self {
            Self::StepStarted { step } | Self::StepEnded { step, .. } => Some(step),
            Self::Waiting | Self::Started | Self::Ready { .. } | Self::Failed { .. } => None,
        }
    }

    /// How long took what has ended, in milliseconds.
    #[must_use]
    pub fn took_ms(&self) -> Option<u64> {
        match self {
            Self::StepEnded { took_ms, .. } | Self::Ready { took_ms } | Self::Failed { took_ms, .. } => {
                Some(*took_ms)
            }
            Self::Waiting | Self::Started | Self::StepStarted { .. } => None,
        }
    }

    /// Whether something failed.
    #[must_use]
    pub fn is_error(&self) -> bool {
        matches!(self, Self::StepEnded { is_error: true, .. } | Self::Failed { .. })
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "nobody waits for so many milliseconds")]
        let seconds = |ms: &u64| *ms as f64 / 1_000.0;
        match self {
            Self::Waiting => to.write_str("The environment waits for other builds."),
            Self::Started => to.write_str("The environment is being built."),
            Self::StepStarted { step } => write!(to, "Begun: {step}."),
            Self::StepEnded {
                step,
                took_ms,
                is_error,
            } => {
                let how = if *is_error { "Failed" } else { "Done" };
                write!(to, "{how} after {:.1} s: {step}.", seconds(took_ms))
            }
            Self::Ready { took_ms } => write!(to, "The environment was built in {:.1} s.", seconds(took_ms)),
            Self::Failed { reason, .. } => to.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_names_the_first_of_many_packages() {
        let all: Vec<String> = (0..40).map(|n| format!("p{n}")).collect();
        let step = Step::packages(Manager::Pip, &all);
        assert_eq!(step.named(), (&all[..32], 8));
        assert!(step.to_string().ends_with(", p31 and 8 more"), "{step}");
        let few = Step::packages(Manager::Apt, &all[..2]);
        assert_eq!(few.to_string(), "apt: p0, p1");
        let ended = Progress::StepEnded {
            step: few,
            took_ms: 1_250,
            is_error: false,
        };
        assert_eq!(ended.to_string(), "Done after 1.2 s: apt: p0, p1.");
    }
}
