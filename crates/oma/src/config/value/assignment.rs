//! What sandboxes and builds are given by name: variables and files.

use std::path::{Component, Path, PathBuf};

use serde_json::json;

use super::Value;

/// A variable and its value: `NAME=VALUE`. Values may be secrets, so they are shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl std::fmt::Debug for Variable {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{}=...", self.name)
    }
}

impl Value for Variable {
    const NOTATION: &'static str = "`NAME=VALUE`";
    const PLACEHOLDER: &'static str = "NAME=VALUE";

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text.split_once('=') {
            Some((name, value)) if oma_sandbox::fittings::is_legal(name) && !value.contains('\0') => {
                Ok(Self {
                    name: name.to_owned(),
                    value: value.to_owned(),
                })
            }
            _ => Err("a variable is written NAME=VALUE".to_owned()),
        }
    }

    fn to_json(&self) -> serde_json::Value {
        json!(format!("{}=...", self.name))
    }
}

/// A file of the host, and where builds see it: `PATH=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BuildFile {
    pub(crate) target: PathBuf,
    pub(crate) source: PathBuf,
}

impl Value for BuildFile {
    const NOTATION: &'static str = "`PATH=FILE`, with a path below `/etc` or `/workspace`";
    const PLACEHOLDER: &'static str = "PATH=FILE";

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a path below /etc or /workspace, `=` and the path of a file");
        let (target, source) = text.trim().split_once('=').ok_or_else(wrong)?;
        let (target, source) = (PathBuf::from(target), PathBuf::from(source));
        let mut parts = target.components();
        let is_rooted = parts.next() == Some(Component::RootDir);
        let is_plain = parts.clone().all(|part| matches!(part, Component::Normal(_)));
        let is_below = ["/etc", "/workspace"]
            .iter()
            .any(|place| target.starts_with(place) && target != Path::new(place));
        if is_rooted && is_plain && is_below && source.is_absolute() {
            Ok(Self { target, source })
        } else {
            Err(wrong())
        }
    }

    fn to_json(&self) -> serde_json::Value {
        json!(format!("{}={}", self.target.display(), self.source.display()))
    }
}
