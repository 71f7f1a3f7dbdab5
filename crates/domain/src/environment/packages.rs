//! Packages that environments ask for.
//!
//! Invariant: what a list contains names a package, perhaps with a version, to its manager and to nothing else: no
//! option, no path, no address, and nothing that a shell would read.

use serde::{Deserialize, Serialize};

/// The longest name of a package with its version, in bytes.
const MAX_NAME: usize = 256;

/// Who installs packages, in the order in which they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manager {
    /// Debian's.
    Apt,
    /// Rust's.
    Cargo,
    /// Ruby's.
    Gem,
    /// Go's own command.
    Go,
    /// Node's.
    Npm,
    /// Python's.
    Pip,
}

impl Manager {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Apt, Self::Cargo, Self::Gem, Self::Go, Self::Npm, Self::Pip];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apt => "apt",
            Self::Cargo => "cargo",
            Self::Gem => "gem",
            Self::Go => "go",
            Self::Npm => "npm",
            Self::Pip => "pip",
        }
    }

    /// The manager of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|manager| manager.as_str() == name)
    }

    /// What is wrong with this as the name of a package of its; `None` when it is one.
    #[must_use]
    pub fn refuses(self, package: &str) -> Option<&'static str> {
        let is_name = package.len() <= MAX_NAME
            && match self {
                Self::Apt => is_apt(package),
                Self::Cargo => is_cargo(package),
                Self::Gem => is_gem(package),
                Self::Go => is_go(package),
                Self::Npm => is_npm(package),
                Self::Pip => is_pip(package),
            };
        (!is_name).then_some(match self {
            Self::Apt => "Must be a Debian package: 'name', 'name=version' or 'name/suite'",
            Self::Cargo => "Must be a crate: 'name' or 'name@version'",
            Self::Gem => "Must be a gem: 'name' or 'name:version'",
            Self::Go => "Must be a Go package: 'host.example/path' or 'host.example/path@version'",
            Self::Npm => "Must be an npm package: 'name', '@scope/name', either perhaps with '@version'",
            Self::Pip => {
                "Must be a Python package: 'name' or 'name[extra]', perhaps with versions as in 'name==1.2'"
            }
        })
    }
}

/// How names of files end that managers would look for in the folder where they work.
const ARCHIVES: [&str; 12] = [
    ".bz2", ".conda", ".deb", ".egg", ".gem", ".gz", ".tar", ".tgz", ".txz", ".whl", ".xz", ".zip",
];

/// Whether a manager could take it for a file.
fn is_archive(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ARCHIVES.into_iter().any(|ending| text.ends_with(ending))
}

/// Packages to install, by manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// Debian packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apt: Option<Vec<String>>,
    /// Rust crates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cargo: Option<Vec<String>>,
    /// Ruby gems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gem: Option<Vec<String>>,
    /// Go modules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub go: Option<Vec<String>>,
    /// npm packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub npm: Option<Vec<String>>,
    /// Python packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pip: Option<Vec<String>>,
}

impl Packages {
    /// Those of one manager.
    #[must_use]
    pub fn of(&self, manager: Manager) -> &[String] {
        let list = match manager {
            Manager::Apt => &self.apt,
            Manager::Cargo => &self.cargo,
            Manager::Gem => &self.gem,
            Manager::Go => &self.go,
            Manager::Npm => &self.npm,
            Manager::Pip => &self.pip,
        };
        list.as_deref().unwrap_or_default()
    }

    /// Whether nothing is to be installed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        Manager::ALL
            .into_iter()
            .all(|manager| self.of(manager).is_empty())
    }
}

/// Whether it begins with a letter or a digit and goes on with those and the characters of `also`.
fn is_word(text: &str, also: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|each| each.is_ascii_alphanumeric() || also.contains(each))
}

/// Whether the text after the first of these characters, if there is one, is a version of letters, digits and `also`.
fn is_versioned(text: &str, at: char, also: &str) -> bool {
    text.split_once(at).is_none_or(|(_, version)| {
        !version.is_empty()
            && !version.starts_with('-')
            && version
                .chars()
                .all(|each| each.is_ascii_alphanumeric() || also.contains(each))
    })
}

fn before(text: &str, at: char) -> &str {
    text.split_once(at).map_or(text, |(before, _)| before)
}

fn is_apt(package: &str) -> bool {
    let (name, is_sound) = match (package.split_once('='), package.split_once('/')) {
        (Some((name, _)), _) => (name, is_versioned(package, '=', ".+~:-")),
        (None, Some((name, suite))) => (name, is_word(suite, "-")),
        (None, None) => (package, true),
    };
    let is_bare = name == package && !name.contains(':');
    let (name, machine) = name.split_once(':').unwrap_or((name, "any"));
    // A minus sign at the end, of whatever it is, would remove it; a plus sign belongs to names alone.
    let is_installed = !package.ends_with('-') && (is_bare || !package.ends_with('+'));
    is_sound
        && is_installed
        && is_word(name, "+.-")
        && !name.ends_with('-')
        && is_word(machine, "-")
        && !is_archive(package)
}

fn is_cargo(package: &str) -> bool {
    is_word(before(package, '@'), "_-") && is_versioned(package, '@', ".+-^~=")
}

fn is_gem(package: &str) -> bool {
    is_word(before(package, ':'), "._-") && is_versioned(package, ':', ".-") && !is_archive(package)
}

fn is_go(package: &str) -> bool {
    let path = before(package, '@');
    let is_path = is_word(path, "._~/-") && path.contains('.') && path.contains('/');
    // Nothing leads up or is empty.
    let is_plain = path
        .split('/')
        .all(|part| !part.is_empty() && !part.starts_with('.'));
    is_path && is_plain && is_versioned(package, '@', "._+-")
}

fn is_npm(package: &str) -> bool {
    let rest = match package.strip_prefix('@') {
        Some(scoped) => match scoped.split_once('/') {
            Some((scope, rest)) if is_word(scope, "._~-") => rest,
            _ => return false,
        },
        None => package,
    };
    is_word(before(rest, '@'), "._~-") && is_versioned(rest, '@', ".+-^~=<>|*") && !is_archive(rest)
}

fn is_pip(package: &str) -> bool {
    let end = package.find(|each: char| !(each.is_ascii_alphanumeric() || "._-".contains(each)));
    let (name, mut rest) = package.split_at(end.unwrap_or(package.len()));
    if is_archive(name) || is_archive(package) {
        return false;
    }
    if let Some(inner) = rest.strip_prefix('[') {
        let Some((extras, after)) = inner.split_once(']') else {
            return false;
        };
        if !extras.split(',').all(|extra| is_word(extra.trim(), "._-")) {
            return false;
        }
        rest = after;
    }
    is_word(name, "._-") && (rest.is_empty() || rest.split(',').all(|clause| is_clause(clause.trim())))
}

/// Whether it is like `>=1.2`.
fn is_clause(clause: &str) -> bool {
    let operators = ["===", "==", "!=", "~=", "<=", ">=", "<", ">"];
    let version = operators
        .into_iter()
        .find_map(|operator| clause.strip_prefix(operator));
    version.is_some_and(|version| is_word(version.trim(), ".+!*-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_names_and_nothing_else() {
        for (manager, good, bad) in [
            (
                Manager::Apt,
                vec![
                    "jq",
                    "g++",
                    "libc6:amd64",
                    "hello=2.10-3",
                    "a=1:2.0~rc1-1+b2",
                    "tree/bookworm-backports",
                ],
                vec![
                    "jq-",
                    "libc6:amd64-",
                    "jq=1.0-",
                    "jq=1.0+",
                    "jq/stable-",
                    "x.deb",
                    "./x.deb",
                    "/x.deb",
                    "a/b/c",
                    "a=",
                    "a=-1",
                    "a b",
                    "a;b",
                    "a*",
                    "a/../b",
                ],
            ),
            (
                Manager::Cargo,
                vec!["ripgrep", "ripgrep@14.1.0", "a_b", "a@^1"],
                vec!["a@", "a@-1", "https://x.example/a", "a/b", "a@1 2", "@1"],
            ),
            (
                Manager::Gem,
                vec!["rake", "rake:13.0", "ruby-lsp"],
                vec!["rake:", "rake:-1", "a/b", "a b", "x.gem", "x.GEM"],
            ),
            (
                Manager::Go,
                vec![
                    "golang.org/x/tools/cmd/goimports@latest",
                    "example.com/a/v2@v2.0.1",
                    "example.com/a",
                ],
                vec![
                    "fmt",
                    "example.com",
                    "example.com/../a",
                    "example.com//a",
                    "example.com/a@",
                    "./a/b.c",
                ],
            ),
            (
                Manager::Npm,
                vec![
                    "left-pad",
                    "@types/node",
                    "@types/node@20",
                    "a@^1.2",
                    "a@>=1",
                    "a@latest",
                ],
                vec![
                    "@types",
                    "./a",
                    "user/repo",
                    "git+https://x.example/a",
                    "a@",
                    "@/a",
                    "a@-1",
                    "file:a",
                    "a.tgz",
                    "a@1.tar.gz",
                ],
            ),
            (
                Manager::Pip,
                vec![
                    "six",
                    "six==1.17.0",
                    "a>=1,<2",
                    "a[b,c]~=1.0",
                    "a == 1.*",
                    "zope.interface",
                ],
                vec![
                    "./six",
                    "a @ https://x.example/a",
                    "a==",
                    "a[b",
                    "a[]",
                    "a; python_version<'3'",
                    "a==1,",
                    "a-1-py3-none-any.whl",
                    "a.zip[b]",
                    "a.tar.gz",
                ],
            ),
        ] {
            for package in good {
                assert_eq!(manager.refuses(package), None, "{manager:?} {package}");
            }
            let always = [
                "",
                "-r",
                "--pre",
                " a",
                "a\n",
                "a\0",
                "$(x)",
                "`x`",
                "é",
                "a\\b",
                "..",
                ".",
                &*"x".repeat(257),
            ];
            for package in bad.into_iter().chain(always) {
                assert!(manager.refuses(package).is_some(), "{manager:?} {package:?}");
            }
        }
    }

    #[test]
    fn managers_have_an_order_and_names() {
        let mut sorted = Manager::ALL;
        sorted.sort();
        assert_eq!(sorted, Manager::ALL);
        assert!(
            Manager::ALL
                .into_iter()
                .all(|manager| Manager::of(manager.as_str()) == Some(manager))
        );
        let packages = Packages {
            pip: Some(vec!["six".to_owned()]),
            ..Packages::default()
        };
        assert!(!packages.is_empty() && packages.of(Manager::Apt).is_empty());
        assert_eq!(packages.of(Manager::Pip), ["six"]);
    }
}
