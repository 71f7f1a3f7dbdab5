//! Cloning what is missing, in the sandbox, before anybody else uses that.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use oma_domain::SessionId;
use oma_domain::event::{Failure, FailureKind};
use oma_domain::resource::Checkout;
use oma_sandbox::protocol::Service as Process;
use oma_sandbox::{Attached, Hand, Origin, Spec};
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, timeout_at};

use super::bridge;
use super::skills::Found;
use super::upstream::{Service, Trouble, Upstream, broken};
use super::{Hosts, Missing, Repository, Seen};
use crate::Files;
use crate::mount_path::WORKSPACE;

/// What runs in the sandbox.
const SCRIPT: &str = include_str!("clone.sh");
/// How long the clones of a session may take before its sandbox is used without them.
const CLONE_TIMEOUT: Duration = Duration::from_secs(600);
/// The longest last word of the script, in bytes.
const MAX_WORD: u64 = 16 << 10;
/// How many sessions are remembered; beyond that those without a bridge are looked at once more.
const MAX_SEEN: usize = 10_000;

impl Files {
    pub(crate) fn seen(&self) -> MutexGuard<'_, std::collections::HashMap<SessionId, Seen>> {
        self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that the session's repositories are in its workspace and that git reaches their hosts, and tells
    /// what went wrong.
    pub(crate) async fn settle_repositories(&self, spec: &Spec, attached: &Attached) -> Vec<Failure> {
        let Some(hosts) = &self.inner.hosts else {
            return Vec::new();
        };
        let is_settled = |seen: &Seen| seen.is_settled(Instant::now());
        if attached.origin == Origin::Running && self.seen().get(&spec.session).is_some_and(is_settled) {
            return Vec::new();
        }
        let resources = match self.inner.store.resources(&spec.workspace, &spec.session).await {
            Ok(resources) => resources,
            Err(error) => {
                tracing::error!(session_id = %spec.session, %error, "a session's repositories can't be read");
                return Vec::new();
            }
        };
        let repositories: Vec<_> = resources.iter().filter_map(Repository::of).collect();
        let has_bridge = repositories.is_empty() || self.bridge(hosts, spec, attached).await;
        let deadline = Instant::now() + CLONE_TIMEOUT;
        let mut failures = Vec::new();
        let mut has_cloned = false;
        for repository in &repositories {
            if self.is_there(&spec.session, repository.mount_path).await {
                continue;
            }
            let cloned = async {
                if !has_bridge {
                    return Err(broken("its sandbox gives git no way out"));
                }
                let cloning = clone(hosts, spec, &*attached.hand, repository);
                let late = |_| broken("there was no time left for it");
                timeout_at(deadline, cloning).await.map_err(late)?
            };
            match cloned.await {
                Ok(()) => has_cloned = true,
                Err(trouble) => {
                    tracing::info!(session_id = %spec.session, ?trouble, "a repository could not be cloned");
                    failures.push(failure(repository, trouble));
                }
            }
        }
        let has_failed = !failures.is_empty();
        let found = self.skills(spec, &repositories).await;
        // Told once: each of the session's sandboxes would say the same again.
        if has_cloned {
            let complaints = found.complaints.iter().map(|message| Failure {
                kind: FailureKind::RepositorySkill,
                message: message.clone(),
            });
            failures.extend(complaints);
        }
        let mut all = self.seen();
        if all.len() >= MAX_SEEN {
            all.retain(|_, seen| seen.has_bridge());
        }
        let seen = all.entry(spec.session.clone()).or_default();
        let missing = has_failed.then(|| Missing::after(seen.missing.as_ref(), Instant::now()));
        seen.missing = missing;
        seen.skills = found.note();
        failures
    }

    /// The skills that are in the session's repositories now.
    async fn skills(&self, spec: &Spec, repositories: &[Repository<'_>]) -> Found {
        let mut found = Found::default();
        let Some(provider) = self.inner.provider.as_ref().filter(|_| !repositories.is_empty()) else {
            return found;
        };
        match provider.workspace(&spec.session).await {
            Ok(files) => {
                for repository in repositories {
                    found.look(&*files, repository).await;
                }
            }
            Err(error) => {
                tracing::error!(session_id = %spec.session, %error, "repositories can't be searched for skills");
            }
        }
        found
    }

    /// Sees to it that git in a sandbox is answered; whether it is.
    async fn bridge(&self, hosts: &Arc<Hosts>, spec: &Spec, attached: &Attached) -> bool {
        let is_open = self.seen().get(&spec.session).is_some_and(Seen::has_bridge);
        if attached.origin == Origin::Running && is_open {
            return true;
        }
        match bridge::open(hosts, spec, Arc::clone(&attached.hand)).await {
            Ok(bridge) => {
                self.seen().entry(spec.session.clone()).or_default().bridge = Some(bridge);
                true
            }
            Err(error) => {
                tracing::error!(session_id = %spec.session, %error, "git can't be given a port");
                false
            }
        }
    }

    /// Whether something is at a repository's path, from before and perhaps with work in it.
    async fn is_there(&self, session: &SessionId, mount_path: &str) -> bool {
        let inside = mount_path.trim_start_matches(WORKSPACE);
        match &self.inner.provider {
            Some(provider) => match provider.workspace(session).await {
                Ok(workspace) => workspace.list(inside, 1).await.is_ok(),
                Err(_) => false,
            },
            None => false,
        }
    }
}

async fn clone(
    hosts: &Arc<Hosts>,
    spec: &Spec,
    hand: &dyn Hand,
    repository: &Repository<'_>,
) -> Result<(), Trouble> {
    let way = bridge::way(repository)?;
    let token = hosts.token(&spec.workspace, &spec.session, repository).await;
    let upstream = Upstream {
        id: repository.id,
        url: repository.url,
        token: token.map_err(|error| {
            tracing::error!(session_id = %spec.session, %error, "a repository can't be cloned");
            broken("the server can't read its token")
        })?,
    };
    // Asked first: the host tells more than git makes of it, and what is not there costs no process.
    hosts
        .refs(&upstream, Service::UploadPack, HeaderMap::new())
        .await?;
    let (kind, reference) = match repository.checkout {
        None => ("default", ""),
        Some(Checkout::Branch { name }) => ("branch", name.as_str()),
        Some(Checkout::Commit { sha }) => ("commit", sha.as_str()),
    };
    let (url, target) = (repository.url, repository.mount_path);
    let arguments = ["-c", SCRIPT, "clone", url, &way, target, kind, reference];
    let process = Process {
        program: "bash".to_owned(),
        arguments: arguments.map(str::to_owned).to_vec(),
        variables: Vec::new(),
        folder: None,
    };
    let pipe = hand.serve(process).await.map_err(broken)?;
    let mut word = String::new();
    let read = pipe.take(MAX_WORD).read_to_string(&mut word).await;
    read.map_err(broken)?;
    ended(&word)
}

fn ended(word: &str) -> Result<(), Trouble> {
    let (how, said) = word.split_once('\n').unwrap_or((word, ""));
    // The last line says what it came to.
    let reason = said.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let reason = reason.unwrap_or("it was cut off").to_owned();
    match how {
        "done" => Ok(()),
        "checkout" => Err(Trouble::Checkout(reason)),
        _ => Err(Trouble::Clone(reason)),
    }
}

/// What a session's log says of it.
fn failure(repository: &Repository<'_>, trouble: Trouble) -> Failure {
    let has_token = repository.token.is_some();
    let (kind, what) = match trouble {
        Trouble::Authentication if has_token => (
            FailureKind::RepositoryAuthentication,
            "its host does not accept the token".to_owned(),
        ),
        Trouble::Authentication => (
            FailureKind::RepositoryAuthentication,
            "its host asks for a token".to_owned(),
        ),
        Trouble::Forbidden => (FailureKind::RepositoryForbidden, "access is forbidden".to_owned()),
        Trouble::NotFound if has_token => (
            FailureKind::RepositoryNotFound,
            "there is none, or not for this token".to_owned(),
        ),
        Trouble::NotFound => (FailureKind::RepositoryNotFound, "there is none".to_owned()),
        Trouble::Checkout(why) => (FailureKind::RepositoryCheckout, why),
        Trouble::Clone(why) => (FailureKind::RepositoryClone, why),
    };
    Failure {
        kind,
        message: format!("The repository {} is not there: {what}", repository.url),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_last_word_says_how_it_ended() {
        for (word, expected) in [
            ("done\n", Ok(())),
            ("done\nfatal: x\n", Ok(())),
            (
                "clone\nfatal: x\nfatal: disk full\n\n",
                Err(Trouble::Clone("fatal: disk full".to_owned())),
            ),
            (
                "checkout\nit has no branch x",
                Err(Trouble::Checkout("it has no branch x".to_owned())),
            ),
            ("clone\n", Err(Trouble::Clone("it was cut off".to_owned()))),
            ("", Err(Trouble::Clone("it was cut off".to_owned()))),
        ] {
            assert_eq!(ended(word), expected, "{word:?}");
        }
    }

    /// Runs the script with nothing but these programs.
    fn run(programs: &[&str], target: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        for program in programs {
            let found = Command::new("sh")
                .args(["-c", &format!("command -v {program}")])
                .output();
            let found = String::from_utf8(found.unwrap().stdout).unwrap();
            symlink(found.trim(), folder.path().join(program)).unwrap();
        }
        let arguments = [
            "-c",
            SCRIPT,
            "clone",
            "https://h/a",
            "http://127.0.0.1:1/a",
            target,
            "default",
            "",
        ];
        let output = Command::new("/bin/bash")
            .args(arguments)
            .env("PATH", folder.path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_sandbox_without_git_says_so() {
        let workspace = tempfile::tempdir().unwrap();
        let target = workspace.path().join("a");
        let tools = ["mktemp", "dirname", "mkdir", "rm", "tail", "mv"];
        let word = run(&tools, target.to_str().unwrap());
        let Err(Trouble::Clone(reason)) = ended(&word) else {
            panic!("{word}");
        };
        assert!(reason.starts_with("there is no git in the sandbox"), "{reason}");
        assert_eq!(std::fs::read_dir(workspace.path()).unwrap().count(), 0);
        // What is there is left alone, whatever is missing.
        assert_eq!(ended(&run(&tools, workspace.path().to_str().unwrap())), Ok(()));
    }
}
