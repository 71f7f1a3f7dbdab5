//! What a build runs: one command after the other, each as a program with its arguments, so that nothing of what an
//! environment says is read by a shell. The setup script is the one thing that is meant for one.

use oma_domain::environment::{Manager, Spec};

/// The environment of every command of a build.
pub(super) const VARIABLES: [(&str, &str); 18] = [
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("TMPDIR", "/tmp"),
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
    ("NEEDRESTART_SUSPEND", "1"),
    ("CARGO_HOME", "/workspace/.cargo"),
    ("CARGO_TERM_COLOR", "never"),
    ("GOBIN", "/usr/local/bin"),
    ("GOPATH", "/workspace/go"),
    ("GOCACHE", "/tmp/go-build"),
    ("GOFLAGS", "-modcacherw"),
    ("NO_COLOR", "1"),
    ("PIP_BREAK_SYSTEM_PACKAGES", "1"),
    ("PIP_ROOT_USER_ACTION", "ignore"),
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ("PIP_NO_CACHE_DIR", "1"),
    ("PIP_NO_INPUT", "1"),
];

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command(pub(super) Vec<String>);

impl Command {
    fn new(words: &[&str]) -> Self {
        Self(words.iter().map(|word| (*word).to_owned()).collect())
    }

    fn with(words: &[&str], packages: &[String]) -> Self {
        let mut command = Self::new(words);
        command.0.extend_from_slice(packages);
        command
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(&self.0.join(" "))
    }
}

/// Something to do, and in what words it failed if it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// Who does it; nobody for the setup script.
    pub(super) manager: Option<Manager>,
    /// What is installed.
    pub(super) packages: Vec<String>,
    pub(super) command: Command,
}

impl Step {
    /// What it is called where its failure is told.
    pub(super) fn failed(&self) -> String {
        match self.manager {
            Some(manager) => format!(
                "{} could not install {}",
                manager.as_str(),
                self.packages.join(", ")
            ),
            None => "the setup script failed".to_owned(),
        }
    }
}

/// Whether a manager is there.
pub(super) fn presence(manager: Manager) -> Command {
    match manager {
        Manager::Apt => Command::new(&["sh", "-c", "command -v apt-get"]),
        Manager::Cargo => Command::new(&["sh", "-c", "command -v cargo"]),
        Manager::Gem => Command::new(&["sh", "-c", "command -v gem"]),
        Manager::Go => Command::new(&["sh", "-c", "command -v go"]),
        Manager::Npm => Command::new(&["sh", "-c", "command -v npm"]),
        Manager::Pip => Command::new(&["python3", "-m", "pip", "--version"]),
    }
}

/// The Debian packages that bring a manager which is not there: the first of them that Debian has, by preference.
pub(super) fn bringing(manager: Manager) -> &'static [&'static str] {
    match manager {
        Manager::Apt => &[],
        // Debian's usual one may be too old for the index of crates.
        Manager::Cargo => &["cargo-web", "cargo"],
        Manager::Gem => &["ruby"],
        Manager::Go => &["golang-go"],
        Manager::Npm => &["npm"],
        Manager::Pip => &["python3-pip"],
    }
}

/// Whether Debian has a package.
pub(super) fn is_known(package: &str) -> Command {
    Command::new(&["apt-cache", "show", "--no-all-versions", "--", package])
}

/// What comes before the first package of Debian's. Services are not to start: a build has none.
pub(super) fn refresh() -> [Command; 2] {
    let policy = "test -e /usr/sbin/policy-rc.d || { printf '#!/bin/sh\\n# oma-build\\nexit 101\\n' \
                  >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d; }";
    [
        Command::new(&["sh", "-c", policy]),
        Command::new(&["apt-get", "-q", "-o", SANDBOX, "-o", RETRIES, "update"]),
    ]
}

/// What every build begins with: a place for what is needed for a moment. What is mounted there in sandboxes has its
/// rights from it.
pub(super) fn prepare() -> Command {
    Command::new(&["sh", "-c", "mkdir -p /tmp /var/tmp && chmod 1777 /tmp /var/tmp"])
}

/// What comes after the last one, so that the layer does not have what only the installation needed.
pub(super) fn tidy() -> Command {
    let script = "if grep -qs oma-build /usr/sbin/policy-rc.d; then rm -f /usr/sbin/policy-rc.d; fi; \
                  rm -rf /tmp/* /tmp/.[!.]* /var/tmp/* /var/tmp/.[!.]*; \
                  command -v apt-get >/dev/null || exit 0; apt-get clean; \
                  rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt/* /var/log/dpkg.log";
    Command::new(&["sh", "-c", script])
}

/// There is no other user to download as.
const SANDBOX: &str = "APT::Sandbox::User=root";
const RETRIES: &str = "Acquire::Retries=2";

/// There is nobody to ask about settings that a newer version of a package has others of: those that were changed stay,
/// and those that are not there come, for builds begin with few of the machine's own.
const KEEP_CHANGED: &str = "Dpkg::Options::=--force-confdef";
const KEEP_OLD: &str = "Dpkg::Options::=--force-confold";
const BRING_MISSING: &str = "Dpkg::Options::=--force-confmiss";

/// The installation of these packages.
pub(super) fn install(manager: Manager, packages: &[String]) -> Vec<Step> {
    let all = |words: &[&str]| {
        vec![Step {
            manager: Some(manager),
            packages: packages.to_vec(),
            command: Command::with(words, packages),
        }]
    };
    // One at a time, where they don't depend on each other: then it is clear which of them failed.
    let each = |words: &[&str]| {
        packages
            .iter()
            .map(|package| Step {
                manager: Some(manager),
                packages: vec![package.clone()],
                command: Command::with(words, std::slice::from_ref(package)),
            })
            .collect()
    };
    match manager {
        Manager::Apt => all(&[
            "apt-get",
            "-q",
            "-y",
            "-o",
            SANDBOX,
            "-o",
            RETRIES,
            "-o",
            "Dpkg::Use-Pty=0",
            "-o",
            KEEP_CHANGED,
            "-o",
            KEEP_OLD,
            "-o",
            BRING_MISSING,
            "install",
            "--no-install-recommends",
            "--",
        ]),
        Manager::Cargo => each(&["cargo", "install", "--locked", "--root", "/usr/local", "--"]),
        // What follows two minus signs would be for the gem's own build.
        Manager::Gem => each(&["gem", "install", "--no-document", "--bindir", "/usr/local/bin"]),
        Manager::Go => packages
            .iter()
            .map(|package| {
                let named = match package.contains('@') {
                    true => package.clone(),
                    false => format!("{package}@latest"),
                };
                Step {
                    manager: Some(manager),
                    packages: vec![package.clone()],
                    command: Command::with(&["go", "install", "--"], &[named]),
                }
            })
            .collect(),
        Manager::Npm => all(&[
            "npm",
            "install",
            "--global",
            "--prefix",
            "/usr/local",
            "--no-audit",
            "--no-fund",
            "--no-update-notifier",
            "--",
        ]),
        Manager::Pip => all(&["python3", "-m", "pip", "install", "--"]),
    }
}

/// The setup script, at home: by whom its first line says, or by `bash` or `sh`, which then end at the first failure.
pub(super) fn script(spec: &Spec) -> Option<Step> {
    const RUN: &str = "cd /workspace && printf '%s' \"$1\" >/tmp/setup && chmod 700 /tmp/setup && case \"$1\" in \
                       '#!'*) exec /tmp/setup;; esac; \
                       if command -v bash >/dev/null; then exec bash -e /tmp/setup; else exec sh -e /tmp/setup; fi";
    let script = spec.setup_script.as_deref()?;
    Some(Step {
        manager: None,
        packages: Vec::new(),
        command: Command::new(&["sh", "-c", RUN, "setup", script]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_arguments_after_all_options() {
        for manager in Manager::ALL {
            let packages = ["one".to_owned(), "two".to_owned()];
            let steps = install(manager, &packages);
            let named: Vec<String> = steps.iter().flat_map(|step| step.packages.clone()).collect();
            assert_eq!(named, packages);
            for Step {
                command, packages, ..
            } in steps
            {
                let rest = &command.0[command.0.len() - packages.len()..];
                let is_named = |(word, package): (&String, &String)| word.starts_with(package.as_str());
                assert!(rest.iter().zip(&packages).all(is_named), "{command}");
                let before = &command.0[command.0.len() - packages.len() - 1];
                assert!(before == "--" || manager == Manager::Gem, "{command}");
                assert!(
                    !command.0.iter().any(|word| word == "sh"),
                    "no shell reads names: {command}"
                );
            }
        }
        let go = install(
            Manager::Go,
            &["example.com/a".to_owned(), "example.com/b@v1".to_owned()],
        );
        let last: Vec<&str> = go
            .iter()
            .map(|step| step.command.0.last().unwrap().as_str())
            .collect();
        assert_eq!(last, ["example.com/a@latest", "example.com/b@v1"]);
    }
}
